#include "server/tls.h"

#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace quire {
namespace {

constexpr unsigned kRefreshSeconds = 5;

struct Free {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};

absl::Status FileError(absl::string_view flag, const std::string& path, absl::string_view what) {
  ERR_clear_error();
  return absl::InvalidArgumentError(absl::StrCat(flag, " ", path, ": ", what));
}

// The first PEM object that `read` finds in a file.
template <typename Object>
absl::StatusOr<std::unique_ptr<Object, Free>> ReadPem(absl::string_view flag, const std::string& path,
                                                      Object* (*read)(BIO*, Object**, pem_password_cb*, void*),
                                                      absl::string_view wanted) {
  errno = 0;
  const std::unique_ptr<BIO, Free> bio(BIO_new_file(path.c_str(), "r"));
  if (bio == nullptr) return FileError(flag, path, std::strerror(errno));
  // A key with a password must not make the daemon ask the terminal for it.
  std::unique_ptr<Object, Free> object(read(bio.get(), nullptr, nullptr, const_cast<char*>("")));
  if (object == nullptr) return FileError(flag, path, absl::StrCat("holds no ", wanted, " in PEM"));
  return object;
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> TlsCredentials(const TlsFiles& files) {
  // gRPC would start with files that it cannot use, and refuse every client without a word.
  const auto certificate = ReadPem<X509>("--tls-cert", files.cert, PEM_read_bio_X509, "certificate");
  if (!certificate.ok()) return certificate.status();
  const auto key = ReadPem<EVP_PKEY>("--tls-key", files.key, PEM_read_bio_PrivateKey, "private key without a password");
  if (!key.ok()) return key.status();
  if (X509_check_private_key(certificate->get(), key->get()) != 1) {
    return FileError("--tls-key", files.key, absl::StrCat("is not the key of --tls-cert ", files.cert));
  }
  if (!files.client_ca.empty()) {
    const auto authority = ReadPem<X509>("--tls-client-ca", files.client_ca, PEM_read_bio_X509, "certificate");
    if (!authority.ok()) return authority.status();
  }

  namespace tls = grpc::experimental;
  tls::TlsServerCredentialsOptions options(
      std::make_shared<tls::FileWatcherCertificateProvider>(files.key, files.cert, files.client_ca, kRefreshSeconds));
  options.watch_identity_key_cert_pairs();
  if (files.client_ca.empty()) {
    options.set_cert_request_type(GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  } else {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return tls::TlsServerCredentials(options);
}

}  // namespace quire
