// `quire generate`: one prompt to one stream of text.

#ifndef QUIRE_CLIENT_GENERATE_H_
#define QUIRE_CLIENT_GENERATE_H_

#include <grpcpp/support/status.h>

#include <functional>
#include <optional>
#include <string>

#include "client/channel.h"
#include "client/io.h"
#include "quire/v1/generation.pb.h"

namespace quire::client {

struct GenerateOptions {
  ConnectionOptions connection;
  // All but the prompt, which is one of the three below; none of them: standard input, byte for byte.
  v1::GenerateRequest request;
  std::optional<std::string> prompt;
  std::optional<std::string> prompt_file;
  std::optional<std::string> prompt_ids;  // "1,2,3"
  // Each response as one line of protobuf JSON instead of the text.
  bool json = false;
};

int RunGenerate(const GenerateOptions& options, Io& io);

// Runs Generate to its end, calling `on_response` for each response as it comes, on this thread. `context` is new;
// another thread may cancel it.
grpc::Status StreamGenerate(const Connection& connection, const v1::GenerateRequest& request,
                            grpc::ClientContext& context,
                            const std::function<void(const v1::GenerateResponse&)>& on_response);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_GENERATE_H_
