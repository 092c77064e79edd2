#include "server/tokenizer/tokenizer_json.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "engine/json_text.h"
#include "server/tokenizer/json_value.h"
#include "server/tokenizer/tokenizer_json_model.h"
#include "server/tokenizer/tokenizer_json_steps.h"

namespace quire {
namespace {

// Token `id` as decoded text has it.
void SetToken(const Decoder& decoder, absl::string_view name, uint32_t id, TokenizerSpec& spec) {
  std::string& bytes = spec.tokens[id];
  bytes = decoder.Bytes(name);
  spec.first_tokens.erase(id);
  if (decoder.leading_spaces.of != LeadingSpaces::Of::kFirstToken) {
    return;
  }
  std::string first = decoder.BytesAtBeginning(name);
  if (first != absl::string_view(bytes).substr(std::min(bytes.find_first_not_of(' '), bytes.size()))) {
    spec.first_tokens.emplace(id, std::move(first));
  }
}

// The tokens of the vocabulary as decoded text has them.
void ReadTokens(const Vocabulary& vocabulary, const Decoder& decoder, TokenizerSpec& spec) {
  spec.tokens.resize(vocabulary.names.size());
  spec.is_byte.resize(vocabulary.names.size());
  for (uint32_t id = 0; id < vocabulary.names.size(); ++id) {
    SetToken(decoder, vocabulary.names[id], id, spec);
    spec.is_byte[id] = decoder.Byte(vocabulary.names[id]).has_value();
  }
  spec.leading_spaces = decoder.leading_spaces;
  spec.invalid_utf8 = decoder.byte_fallback ? InvalidUtf8::kByteTokenRuns : InvalidUtf8::kMaximalSubparts;
}

// ---- added tokens ----

absl::StatusOr<AddedToken> ReadAddedToken(const Json& value, absl::string_view path) {
  if (absl::Status status =
          CheckKeys(value, path, {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
      !status.ok()) {
    return status;
  }
  AddedToken token;
  const absl::StatusOr<uint32_t> id = ReadTokenId(ValueAt(value, "id"), absl::StrCat(path, ".id"), kMaxVocabSize);
  if (!id.ok()) {
    return id.status();
  }
  token.id = *id;
  const absl::StatusOr<absl::string_view> content = StringAt(value, path, "content");
  if (!content.ok()) {
    return content.status();
  }
  token.content = std::string(*content);
  if (token.content.empty()) {
    return Refused(absl::StrCat(path, ".content"), "", "a text that is not empty");
  }
  const std::pair<const char*, bool*> flags[] = {{"special", &token.special},
                                                 {"single_word", &token.single_word},
                                                 {"lstrip", &token.lstrip},
                                                 {"rstrip", &token.rstrip},
                                                 {"normalized", &token.normalized}};
  for (const auto& [key, flag] : flags) {
    const absl::StatusOr<bool> set = BoolAt(value, path, key);
    if (!set.ok()) {
      return set.status();
    }
    *flag = *set;
  }
  return token;
}

// A token that the vocabulary has keeps its id; the others are numbered from the vocabulary's size on. The library does
// not read their ids but counts; a file that counts otherwise would mean two things.
absl::Status ReadAddedTokens(const Json& list, const Vocabulary& vocabulary, const Decoder& decoder,
                             TokenizerSpec& spec) {
  if (list.is_null()) {
    return absl::OkStatus();
  }
  if (!list.is_array()) {
    return Refused("added_tokens", list, "an array");
  }
  uint32_t next_id = static_cast<uint32_t>(vocabulary.ids.size());
  absl::flat_hash_set<std::string> contents;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string path = absl::StrCat("added_tokens[", i, "]");
    absl::StatusOr<AddedToken> token = ReadAddedToken(list[i], path);
    if (!token.ok()) {
      return token.status();
    }
    if (!contents.insert(token->content).second) {
      return Refused(absl::StrCat(path, ".content"), token->content, "each text once");
    }
    const auto known = vocabulary.ids.find(token->content);
    const bool is_known = known != vocabulary.ids.end();
    const uint32_t expected = is_known ? known->second : next_id;
    if (token->id != expected) {
      return Refused(absl::StrCat(path, ".id"), token->id,
                     absl::StrCat(expected, is_known ? ", as in model.vocab" : ", the next after model.vocab"));
    }
    next_id = std::max(next_id, token->id + 1);
    if (token->id >= spec.tokens.size()) {
      spec.tokens.resize(token->id + 1);
    } else if (!is_known && !spec.tokens[token->id].empty()) {
      return Refused(absl::StrCat(path, ".id"), token->id, "an id that no token of model.vocab has");
    }
    if (token->normalized) {
      std::string storage;
      token->content = std::string(spec.normalizer.Apply(token->content, storage));
      if (token->content.empty()) {
        return Refused(absl::StrCat(path, ".content"), list[i]["content"], "a text that the normalizer leaves some of");
      }
    }
    SetToken(decoder, token->content, token->id, spec);
    spec.added_tokens.push_back(*std::move(token));
  }
  return absl::OkStatus();
}

// ---- post-processor ----

bool IsSequenceA(const Json& item) {
  const Json& sequence = ValueAt(item, "Sequence");
  return item.size() == 1 && sequence.is_object() && ValueAt(sequence, "id") == "A";
}

// Appends the ids of a template's item {"SpecialToken": {"id": NAME}}, as special_tokens[NAME] lists them.
absl::Status ReadSpecialToken(const Json& item, const Json& special_tokens, const std::string& path, uint32_t limit,
                              std::vector<uint32_t>& ids) {
  const Json& token = ValueAt(item, "SpecialToken");
  const Json& name = token.is_object() ? ValueAt(token, "id") : token;
  const Json& known = name.is_string() ? ValueAt(special_tokens, name.get_ref<const std::string&>()) : name;
  const Json& list = known.is_object() ? ValueAt(known, "ids") : known;
  if (item.size() != 1 || !list.is_array()) {
    return Refused(path, item, "Sequence A once, a SpecialToken that is in special_tokens");
  }
  for (const Json& value : list) {
    const absl::StatusOr<uint32_t> id = ReadTokenId(value, path + ".ids", limit);
    if (!id.ok()) {
      return id.status();
    }
    ids.push_back(*id);
  }
  return absl::OkStatus();
}

// Only `single` is read: we encode one text at a time.
absl::Status ReadTemplate(const Json& value, const std::string& path, TokenizerSpec& spec) {
  if (absl::Status status = CheckKeys(value, path, {"type", "single", "pair", "special_tokens"}); !status.ok()) {
    return status;
  }
  const Json& single = ValueAt(value, "single");
  const Json& special_tokens = ValueAt(value, "special_tokens");
  if (!single.is_array()) {
    return Refused(path + ".single", single, "an array");
  }
  if (!special_tokens.is_object()) {
    return Refused(path + ".special_tokens", special_tokens, "an object");
  }
  const uint32_t vocab_size = static_cast<uint32_t>(spec.tokens.size());
  bool seen_text = false;
  for (size_t i = 0; i < single.size(); ++i) {
    const std::string at = absl::StrCat(path, ".single[", i, "]");
    if (absl::Status status = CheckKeys(single[i], at, {"SpecialToken", "Sequence"}); !status.ok()) {
      return status;
    }
    if (!seen_text && IsSequenceA(single[i])) {
      seen_text = true;
    } else if (absl::Status status = ReadSpecialToken(single[i], special_tokens, at, vocab_size,
                                                      seen_text ? spec.suffix_ids : spec.prefix_ids);
               !status.ok()) {
      return status;
    }
  }
  return seen_text ? absl::OkStatus() : Refused(path + ".single", single, "Sequence A once among its items");
}

absl::Status ReadPostProcessor(const Json& value, const std::string& path, bool& seen_template, TokenizerSpec& spec) {
  const Json& type = value.is_object() ? ValueAt(value, "type") : value;
  if (value.is_null() || type == "ByteLevel") {  // ByteLevel only trims offsets
    return absl::OkStatus();
  }
  if (type == "Sequence" && ValueAt(value, "processors").is_array()) {
    for (size_t i = 0; i < value["processors"].size(); ++i) {
      if (absl::Status status = ReadPostProcessor(value["processors"][i], absl::StrCat(path, ".processors[", i, "]"),
                                                  seen_template, spec);
          !status.ok()) {
        return status;
      }
    }
    return absl::OkStatus();
  }
  if (type != "TemplateProcessing" || seen_template) {
    return Refused(path + ".type", type, "null, ByteLevel, TemplateProcessing once, Sequence of these");
  }
  seen_template = true;
  return ReadTemplate(value, path, spec);
}

// A number as `tokenizers` reads it: serde_json without its feature float_roundtrip rounds the digits and the power of
// ten (f64_from_parts of its de.rs), so that the result may be a neighbour of the nearest double. Scores of Unigram
// pieces decide between paths that differ by no more.
double FloatOfSerde(absl::string_view text) {
  constexpr int kMaxPower = 308;
  const bool is_negative = absl::ConsumePrefix(&text, "-");
  uint64_t digits = 0;
  int64_t exponent = 0;
  bool in_fraction = false, is_full = false;
  for (; !text.empty() && text.front() != 'e' && text.front() != 'E'; text.remove_prefix(1)) {
    if (text.front() == '.') {
      in_fraction = true;
      continue;
    }
    const uint64_t digit = static_cast<uint64_t>(text.front() - '0');
    is_full = is_full || digits > (UINT64_MAX - digit) / 10;
    if (is_full) {
      exponent += in_fraction ? 0 : 1;
    } else {
      digits = digits * 10 + digit;
      exponent -= in_fraction ? 1 : 0;
    }
  }
  int32_t written = 0;
  if (!text.empty() && absl::SimpleAtoi(text.substr(1), &written)) {
    exponent += written;
  }
  double value = static_cast<double>(digits);
  for (; exponent < -kMaxPower && value != 0; exponent += kMaxPower) {
    value /= 1e308;
  }
  const int64_t power = std::min<int64_t>(std::abs(exponent), kMaxPower);
  const double scale = std::strtod(absl::StrCat("1e", power).c_str(), nullptr);
  value = exponent < 0 ? value / scale : value * scale;
  return is_negative ? -value : value;
}

absl::Status ReadAll(const Json& root, TokenizerSpec& spec) {
  if (absl::Status status = CheckKeys(root, "the document",
                                      {"version", "truncation", "padding", "added_tokens", "normalizer",
                                       "pre_tokenizer", "post_processor", "decoder", "model"});
      !status.ok()) {
    return status;
  }
  if (const Json& version = ValueAt(root, "version"); !version.is_null() && version != "1.0") {
    return Refused("version", version, "1.0");
  }
  for (const char* key : {"truncation", "padding"}) {
    if (const Json& value = ValueAt(root, key); !value.is_null()) {
      return Refused(key, value, "null");
    }
  }
  absl::StatusOr<Normalizer> normalizer = ReadNormalizer(ValueAt(root, "normalizer"));
  if (!normalizer.ok()) {
    return normalizer.status();
  }
  spec.normalizer = *std::move(normalizer);
  absl::StatusOr<PreTokenizerSteps> pre_tokenizer = ReadPreTokenizer(ValueAt(root, "pre_tokenizer"));
  if (!pre_tokenizer.ok()) {
    return pre_tokenizer.status();
  }
  spec.pre_tokenizer = PreTokenizer(std::move(pre_tokenizer->steps));
  const absl::StatusOr<Decoder> decoder = ReadDecoder(ValueAt(root, "decoder"));
  if (!decoder.ok()) {
    return decoder.status();
  }
  absl::StatusOr<Vocabulary> vocabulary = ReadModel(ValueAt(root, "model"), pre_tokenizer->byte_level);
  if (!vocabulary.ok()) {
    return vocabulary.status();
  }
  ReadTokens(*vocabulary, *decoder, spec);
  if (absl::Status status = ReadAddedTokens(ValueAt(root, "added_tokens"), *vocabulary, *decoder, spec); !status.ok()) {
    return status;
  }
  spec.model = std::move(vocabulary->model);
  bool seen_template = false;
  return ReadPostProcessor(ValueAt(root, "post_processor"), "post_processor", seen_template, spec);
}

}  // namespace

absl::StatusOr<TokenizerSpec> ParseTokenizerJson(absl::string_view json, absl::string_view name) {
  const absl::StatusOr<Json> root = ParseJsonObject(json, name, &FloatOfSerde);
  if (!root.ok()) {
    return root.status();
  }
  TokenizerSpec spec;
  if (const absl::Status status = ReadAll(*root, spec); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": ", status.message()));
  }
  return spec;
}

}  // namespace quire
