// The backends over HTTP: OpenAI's /v1/completions and /v1/chat/completions with server-sent events, as vLLM, SGLang,
// llama.cpp and gateways speak them.

#ifndef QUIRE_CLIENT_LOAD_OPENAI_BACKEND_H_
#define QUIRE_CLIENT_LOAD_OPENAI_BACKEND_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/channel.h"
#include "client/load/backend.h"

namespace quire::client {

struct OpenAiOptions {
  bool chat = false;
  std::string base_url = "http://127.0.0.1:8000";
  std::string endpoint;              // empty: the usual one
  std::string api_key;               // empty: none
  std::vector<std::string> headers;  // "Name: value"
  std::string extra_body;            // a JSON object that is merged into each request's (RFC 7396); empty: none
  // Of it: the model's name, TLS files, token file and timeout.
  ConnectionOptions connection;
};

absl::StatusOr<std::unique_ptr<Backend>> MakeOpenAiBackend(const OpenAiOptions& options);

// The body of one request. `extra` is an object.
std::string OpenAiBody(const v1::GenerateRequest& request, bool chat, const std::string& model,
                       const std::string& extra_body);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_OPENAI_BACKEND_H_
