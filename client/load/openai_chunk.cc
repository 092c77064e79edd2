#include "client/load/openai_chunk.h"

#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace quire::client {
namespace {

using Json = nlohmann::json;

constexpr size_t kShownBytes = 300;  // of a body that is no error object

std::string OneLine(absl::string_view text) {
  std::string line(text.substr(0, kShownBytes));
  for (char& c : line) {
    c = absl::ascii_iscntrl(static_cast<unsigned char>(c)) ? ' ' : c;
  }
  return line;
}

// The member if it is there and a string; else null.
const std::string* StringAt(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? nullptr : found->get_ptr<const std::string*>();
}

uint32_t CountAt(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number_unsigned() ? found->get<uint32_t>() : 0;
}

// {"error": {"message": ...}} (OpenAI), {"error": "..."}, {"object": "error", "message": ...} (older vLLM),
// {"detail": ...} (FastAPI).
std::optional<std::string> ErrorOf(const Json& json) {
  if (!json.is_object()) {
    return std::nullopt;
  }
  if (const auto error = json.find("error"); error != json.end() && !error->is_null()) {
    if (const std::string* message = error->is_object() ? StringAt(*error, "message") : nullptr; message != nullptr) {
      return OneLine(*message);
    }
    const std::string* text = error->get_ptr<const std::string*>();
    return OneLine(text != nullptr ? *text : error->dump(-1, ' ', false, Json::error_handler_t::replace));
  }
  const std::string* object = StringAt(json, "object");
  const std::string* message = StringAt(json, "message");
  if (object != nullptr && *object == "error" && message != nullptr) {
    return OneLine(*message);
  }
  if (const auto detail = json.find("detail"); detail != json.end() && !json.contains("choices")) {
    const std::string* text = detail->get_ptr<const std::string*>();
    return OneLine(text != nullptr ? *text : detail->dump(-1, ' ', false, Json::error_handler_t::replace));
  }
  return std::nullopt;
}

std::optional<Usage> UsageOf(const Json& json) {
  const auto found = json.find("usage");
  if (found == json.end() || !found->is_object()) {
    return std::nullopt;
  }
  Usage usage;
  usage.prompt_tokens = CountAt(*found, "prompt_tokens");
  usage.completion_tokens = CountAt(*found, "completion_tokens");
  if (const auto details = found->find("prompt_tokens_details"); details != found->end() && details->is_object()) {
    usage.cached_tokens = CountAt(*details, "cached_tokens");
  }
  return usage;
}

void TakeChoice(const Json& choice, OpenAiChunk& chunk) {
  if (const std::string* reason = StringAt(choice, "finish_reason"); reason != nullptr) {
    chunk.finish_reason = absl::AsciiStrToUpper(*reason);
  }
  bool announces_role = false;
  const std::string* text = StringAt(choice, "text");
  const auto delta = choice.find("delta");
  if (text != nullptr) {
    chunk.text = *text;
  } else if (delta != choice.end() && delta->is_object()) {
    announces_role = delta->contains("role");
    // Reasoning has two names among servers; tool calls are output too.
    for (const char* key : {"reasoning_content", "reasoning", "content"}) {
      if (const std::string* part = StringAt(*delta, key); part != nullptr && chunk.text.empty()) {
        chunk.text = *part;
      }
    }
    chunk.has_output = delta->contains("tool_calls") && !(*delta)["tool_calls"].empty();
  }
  chunk.has_output = chunk.has_output || !chunk.text.empty() || (chunk.finish_reason.empty() && !announces_role);
}

}  // namespace

absl::StatusOr<OpenAiChunk> ParseOpenAiChunk(absl::string_view text) {
  const Json json = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat("a chunk is no JSON object: ", OneLine(text)));
  }
  OpenAiChunk chunk;
  if (std::optional<std::string> error = ErrorOf(json); error.has_value()) {
    chunk.error = *std::move(error);
    return chunk;
  }
  chunk.usage = UsageOf(json);
  // One choice is asked for; servers that report usage apart send none with it.
  if (const auto choices = json.find("choices");
      choices != json.end() && choices->is_array() && !choices->empty() && choices->front().is_object()) {
    TakeChoice(choices->front(), chunk);
  }
  return chunk;
}

std::string OpenAiErrorMessage(absl::string_view body) {
  const Json json = Json::parse(body.begin(), body.end(), nullptr, /*allow_exceptions=*/false);
  const std::optional<std::string> error = ErrorOf(json);
  return error.has_value() ? *error : OneLine(body);
}

}  // namespace quire::client
