// What a server of OpenAI's completion protocols says in one chunk, or in an error's body.

#ifndef QUIRE_CLIENT_LOAD_OPENAI_CHUNK_H_
#define QUIRE_CLIENT_LOAD_OPENAI_CHUNK_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/load/backend.h"

namespace quire::client {

struct OpenAiChunk {
  std::string text;           // content and reasoning alike
  bool has_output = false;    // text, or a choice that is neither the ending nor the role's announcement: a token that
                              // shows no text yet
  std::string finish_reason;  // empty: not the end
  std::optional<Usage> usage;
  std::string error;  // of an error object, one line
};

// A chunk of /v1/completions or /v1/chat/completions. Errors: it is no JSON object.
absl::StatusOr<OpenAiChunk> ParseOpenAiChunk(absl::string_view json);

// The message of an error's body, in any of the usual shapes; else the body's begin. One line.
std::string OpenAiErrorMessage(absl::string_view body);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_OPENAI_CHUNK_H_
