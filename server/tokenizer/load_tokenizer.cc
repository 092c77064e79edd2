// Tokenizer::Load and Parse: which file of a model says how it tokenizes.

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/gguf.h"
#include "engine/json_text.h"
#include "engine/mapped_file.h"
#include "server/tokenizer/added_tokens_files.h"
#include "server/tokenizer/gguf_vocabulary.h"
#include "server/tokenizer/json_value.h"
#include "server/tokenizer/sentencepiece_model.h"
#include "server/tokenizer/tokenizer.h"
#include "server/tokenizer/tokenizer_json.h"

namespace quire {
namespace {

// The largest tokenizer.json in use has 35 MB.
constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;

absl::StatusOr<TokenizerSpec> ReadGguf(const std::string& path) {
  const absl::StatusOr<MappedFile> file = MappedFile::Open(path);
  if (!file.ok()) {
    return file.status();
  }
  const absl::StatusOr<Gguf> gguf = ParseGguf(file->bytes(), path);
  return gguf.ok() ? ReadGgufVocabulary(gguf->metadata) : gguf.status();
}

// tokenizer_config.json's key, which may be missing, as may be the file.
absl::StatusOr<bool> ConfigFlag(const Json& config, const char* key, bool missing) {
  return ValueAt(config, key).is_null() ? missing : BoolAt(config, "tokenizer_config.json", key);
}

// The id of the control piece `text`, if there is one.
std::optional<uint32_t> ControlId(const SentencePieceModel& model, const std::string& text) {
  const auto found = std::find_if(model.pieces.begin(), model.pieces.end(), [&](const auto& piece) {
    return piece.type == SentencePieceModel::Type::kControl && piece.text == text;
  });
  return found == model.pieces.end() ? std::nullopt : std::optional(uint32_t(found - model.pieces.begin()));
}

// tokenizer.model, the tokens that files beside it add, and what tokenizer_config.json says is put around texts: BOS
// unless it says otherwise, as Llama's tokenizer does.
absl::StatusOr<TokenizerSpec> ReadTokenizerModel(const std::string& model_dir, const std::string& path) {
  const absl::StatusOr<std::string> bytes = ReadTextFile(path, kMaxFileBytes);
  if (!bytes.ok()) {
    return bytes.status();
  }
  const absl::StatusOr<Json> config = ReadJsonFileIfThere(absl::StrCat(model_dir, "/tokenizer_config.json"));
  if (!config.ok()) {
    return config.status();
  }
  const absl::StatusOr<bool> add_bos = ConfigFlag(*config, "add_bos_token", true);
  const absl::StatusOr<bool> add_eos = ConfigFlag(*config, "add_eos_token", false);
  if (!add_bos.ok() || !add_eos.ok()) {
    return add_bos.ok() ? add_eos.status() : add_bos.status();
  }
  absl::StatusOr<SentencePieceModel> model = ParseSentencePieceModel(*bytes);
  if (!model.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", model.status().message()));
  }
  const std::optional<uint32_t> bos = ControlId(*model, model->bos_piece), eos = ControlId(*model, model->eos_piece);
  absl::StatusOr<TokenizerSpec> spec = MakeTokenizerSpec(*std::move(model));
  if (!spec.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", spec.status().message()));
  }
  if (const absl::Status status = AddTokensOfFiles(model_dir, *config, *spec); !status.ok()) {
    return status;
  }
  if (*add_bos && bos) {
    spec->prefix_ids.push_back(*bos);
  }
  if (*add_eos && eos) {
    spec->suffix_ids.push_back(*eos);
  }
  return spec;
}

absl::StatusOr<TokenizerSpec> ReadTokenizer(const std::string& model) {
  if (absl::EndsWith(model, ".gguf")) {
    return ReadGguf(model);
  }
  const std::string path = absl::StrCat(model, "/tokenizer.json");
  const absl::StatusOr<std::string> json = ReadTextFile(path, kMaxFileBytes);
  if (json.ok()) {
    return ParseTokenizerJson(*json, path);
  }
  const std::string model_path = absl::StrCat(model, "/tokenizer.model");
  absl::StatusOr<TokenizerSpec> spec = json.status();
  if (absl::IsNotFound(json.status())) {
    spec = ReadTokenizerModel(model, model_path);
  }
  return absl::IsNotFound(spec.status()) ? json.status() : std::move(spec);  // neither: name the usual one
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& model) {
  absl::StatusOr<TokenizerSpec> spec = ReadTokenizer(model);
  if (!spec.ok()) {
    return spec.status();
  }
  return std::make_unique<Tokenizer>(*std::move(spec));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Parse(absl::string_view json, absl::string_view name) {
  absl::StatusOr<TokenizerSpec> spec = ParseTokenizerJson(json, name);
  if (!spec.ok()) {
    return spec.status();
  }
  return std::make_unique<Tokenizer>(*std::move(spec));
}

}  // namespace quire
