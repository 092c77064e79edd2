#include "server/tokenizer/added_tokens_files.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/json_text.h"
#include "server/tokenizer/tokenizer_json_model.h"

namespace quire {
namespace {

constexpr uint64_t kMaxConfigBytes = uint64_t{16} << 20;

// `value` at `path` of `file`: a text, or an object with the text and the flags of a token.
absl::StatusOr<AddedToken> ReadToken(const Json& value, absl::string_view path) {
  AddedToken token;
  if (!value.is_string() && !value.is_object()) {
    return Refused(path, value, "a text, or an object with \"content\"");
  }
  const Json& content = value.is_string() ? value : ValueAt(value, "content");
  if (!content.is_string() || content.get_ref<const std::string&>().empty()) {
    return Refused(path, value, "a token whose text is not empty");
  }
  token.content = content.get<std::string>();
  if (value.is_string()) {
    return token;
  }
  const std::pair<const char*, bool*> flags[] = {{"special", &token.special},
                                                 {"single_word", &token.single_word},
                                                 {"lstrip", &token.lstrip},
                                                 {"rstrip", &token.rstrip}};
  for (const auto& [key, flag] : flags) {
    if (ValueAt(value, key).is_null()) {
      continue;
    }
    const absl::StatusOr<bool> set = BoolAt(value, path, key);
    if (!set.ok()) {
      return set.status();
    }
    *flag = *set;
  }
  return token;
}

// Puts `token` among the tokens. One that is a piece already keeps its id.
absl::Status Add(AddedToken token, absl::string_view path, TokenizerSpec& spec) {
  if (token.id >= kMaxVocabSize) {
    return Refused(path, token.id, absl::StrCat("ids below ", kMaxVocabSize));
  }
  const auto same_id = [&](const AddedToken& other) { return other.id == token.id; };
  const auto other_id = [&](const AddedToken& other) { return other.content == token.content && other.id != token.id; };
  if (std::any_of(spec.added_tokens.begin(), spec.added_tokens.end(), other_id)) {
    return Refused(path, token.content, "each text with one id");
  }
  if (token.id >= spec.tokens.size()) {
    spec.tokens.resize(token.id + 1);
  }
  spec.tokens[token.id] = token.content;
  const auto known = std::find_if(spec.added_tokens.begin(), spec.added_tokens.end(), same_id);
  if (known == spec.added_tokens.end()) {
    spec.added_tokens.push_back(std::move(token));
  } else {
    *known = std::move(token);
  }
  return absl::OkStatus();
}

// tokenizer_config.json's added_tokens_decoder.
absl::Status AddDecoder(const Json& decoder, TokenizerSpec& spec) {
  constexpr absl::string_view kPath = "added_tokens_decoder";
  if (!decoder.is_object()) {
    return Refused(kPath, decoder, "an object");
  }
  for (const auto& [key, value] : decoder.items()) {
    const std::string path = absl::StrCat(kPath, "[", Quoted(key), "]");
    absl::StatusOr<AddedToken> token = ReadToken(value, path);
    if (!token.ok()) {
      return token.status();
    }
    if (!absl::SimpleAtoi(key, &token->id)) {
      return Refused(kPath, key, "ids as keys");
    }
    if (absl::Status status = Add(*std::move(token), path, spec); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

// The texts that special_tokens_map.json names.
absl::StatusOr<std::set<std::string>> SpecialTexts(const Json& map) {
  std::set<std::string> texts;
  for (const auto& [key, value] : map.items()) {
    const Json list = value.is_array() ? value : Json::array({value});
    for (const Json& item : list) {
      absl::StatusOr<AddedToken> token = ReadToken(item, key);
      if (!token.ok()) {
        return token.status();
      }
      texts.insert(std::move(token->content));
    }
  }
  return texts;
}

// added_tokens.json.
absl::Status AddListed(const Json& listed, const std::set<std::string>& special, TokenizerSpec& spec) {
  for (const auto& [content, value] : listed.items()) {
    const std::string path = absl::StrCat("[", Quoted(content), "]");
    const absl::StatusOr<uint32_t> id = ReadTokenId(value, path, kMaxVocabSize);
    if (!id.ok()) {
      return id.status();
    }
    if (content.empty()) {
      return Refused(path, content, "a text that is not empty");
    }
    if (absl::Status status = Add({.id = *id, .content = content, .special = special.contains(content)}, path, spec);
        !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status InFile(const std::string& path, const absl::Status& status) {
  return status.ok() ? status : absl::InvalidArgumentError(absl::StrCat(path, ": ", status.message()));
}

}  // namespace

absl::StatusOr<Json> ReadJsonFileIfThere(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadTextFile(path, kMaxConfigBytes);
  if (text.ok()) {
    return ParseJsonObject(*text, path);
  }
  if (absl::IsNotFound(text.status())) {
    return Json::object();
  }
  return text.status();
}

absl::Status AddTokensOfFiles(const std::string& model_dir, const Json& config, TokenizerSpec& spec) {
  if (const Json& decoder = ValueAt(config, "added_tokens_decoder"); !decoder.is_null()) {
    return InFile(model_dir + "/tokenizer_config.json", AddDecoder(decoder, spec));
  }
  const std::string listed_path = model_dir + "/added_tokens.json", map_path = model_dir + "/special_tokens_map.json";
  const absl::StatusOr<Json> listed = ReadJsonFileIfThere(listed_path), map = ReadJsonFileIfThere(map_path);
  if (!listed.ok() || !map.ok()) {
    return listed.ok() ? map.status() : listed.status();
  }
  const absl::StatusOr<std::set<std::string>> special = SpecialTexts(*map);
  if (!special.ok()) {
    return InFile(map_path, special.status());
  }
  return InFile(listed_path, AddListed(*listed, *special, spec));
}

}  // namespace quire
