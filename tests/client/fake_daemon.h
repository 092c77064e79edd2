// A daemon of the wire API whose answers a test writes: an in-process gRPC server on a free loopback port.

#ifndef QUIRE_TESTS_CLIENT_FAKE_DAEMON_H_
#define QUIRE_TESTS_CLIENT_FAKE_DAEMON_H_

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "quire/v1/generation.grpc.pb.h"
#include "quire/v1/model.grpc.pb.h"

namespace quire::client {

// What `quire` wrote and returned.
struct Outcome {
  int code = 0;
  std::string out;
  std::string err;
};

// Runs `quire` with the words of `flags`, split at blanks, then `more` as they are.
Outcome RunQuire(const std::string& flags, const std::vector<std::string>& more = {},
                 const std::string& stdin_text = "");

class FakeDaemon {
 public:
  using Writer = grpc::ServerWriter<v1::GenerateResponse>;
  using Generate = std::function<grpc::Status(grpc::ServerContext*, const v1::GenerateRequest&, Writer*)>;

  FakeDaemon();
  ~FakeDaemon();

  // Replaces the answer; the first is Count.
  void SetGenerate(Generate generate);

  const std::string& target() const { return target_; }
  // The requests so far, and the last call's "authorization".
  std::vector<v1::GenerateRequest> requests();
  std::string authorization();

  // Accepts, then writes max_tokens (default 3) tokens " 0", " 1", ... of ids 0, 1, ..., one Delta each, in turn for
  // each of n outputs.
  static grpc::Status Count(grpc::ServerContext*, const v1::GenerateRequest& request, Writer* writer);
  // The same, but usage counts `excess` tokens more than came.
  static grpc::Status Miscount(const v1::GenerateRequest& request, Writer* writer, uint32_t excess);
  static grpc::Status BadField(const std::string& field, const std::string& description);

 private:
  class Generation;
  class Model;

  std::unique_ptr<Generation> generation_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<grpc::Server> server_;
  std::string target_;
};

}  // namespace quire::client

#endif  // QUIRE_TESTS_CLIENT_FAKE_DAEMON_H_
