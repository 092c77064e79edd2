// The listener's TLS: certificate and key from files that are read again when they change, and client certificates
// where an authority for them is given (mutual TLS).

#ifndef QUIRE_SERVER_TLS_H_
#define QUIRE_SERVER_TLS_H_

#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace quire {

struct TlsFiles {
  std::string cert;       // PEM: the server's certificate, then its chain
  std::string key;        // PEM
  std::string client_ca;  // PEM: authorities of clients; empty: clients show no certificate
};

// Errors name the flag and the file: one that cannot be read, holds no PEM, or a key that is not the certificate's.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> TlsCredentials(const TlsFiles& files);

}  // namespace quire

#endif  // QUIRE_SERVER_TLS_H_
