#include "server/tokenizer/tokenizer_json.h"

#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "engine/json_text.h"
#include "server/tokenizer/byte_alphabet.h"
#include "server/tokenizer/json_value.h"

namespace quire {
namespace {

// Above the largest vocabularies in use (262,144): an id may not make us allocate without bound.
constexpr uint32_t kMaxVocabSize = 1 << 20;

using IdOfName = absl::flat_hash_map<absl::string_view, uint32_t>;

absl::StatusOr<uint32_t> ReadId(const Json& value, absl::string_view path, uint32_t limit) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() >= limit) {
    return Refused(path, value, absl::StrCat("a token id below ", limit));
  }
  return value.get<uint32_t>();
}

// ---- model ----

absl::Status ReadVocab(const Json& vocab, TokenizerSpec& spec, IdOfName& ids) {
  if (!vocab.is_object()) {
    return Refused("model.vocab", vocab, "an object of token names and ids");
  }
  ids.reserve(vocab.size());
  std::vector<bool> taken;
  for (const auto& item : vocab.items()) {
    const absl::StatusOr<uint32_t> id =
        ReadId(item.value(), absl::StrCat("model.vocab[", Quoted(item.key()), "]"), kMaxVocabSize);
    if (!id.ok()) {
      return id.status();
    }
    if (*id >= spec.tokens.size()) {
      spec.tokens.resize(*id + 1);
      taken.resize(*id + 1);
    }
    if (taken[*id]) {
      return absl::InvalidArgumentError(absl::StrCat("model.vocab[", Quoted(item.key()), "] is ", *id,
                                                     ", which another token has; allowed: each id once"));
    }
    taken[*id] = true;
    ids.emplace(item.key(), *id);
    std::optional<std::string> bytes = BytesOfName(item.key());
    if (bytes && !bytes->empty()) {
      spec.bpe.word_ids.push_back(*id);
    }
    spec.tokens[*id] = bytes ? *std::move(bytes) : item.key();
  }
  for (int byte = 0; byte < 256; ++byte) {
    const std::string name = NameOfByte(static_cast<uint8_t>(byte));
    const auto found = ids.find(name);
    if (found == ids.end()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("model.vocab has no token %s for byte 0x%02X; allowed: a byte-level vocabulary, with all 256",
                          Quoted(name), byte));
    }
    spec.bpe.byte_ids[byte] = found->second;
  }
  return absl::OkStatus();
}

// The names that entry `entry` of model.merges joins: "a b", or ["a", "b"].
absl::StatusOr<std::pair<absl::string_view, absl::string_view>> ReadPair(const Json& entry, size_t index) {
  if (entry.is_string()) {
    const absl::string_view text = entry.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != text.npos && text.find(' ', space + 1) == text.npos) {
      return std::pair(text.substr(0, space), text.substr(space + 1));
    }
  } else if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string()) {
    return std::pair<absl::string_view, absl::string_view>(entry[0].get_ref<const std::string&>(),
                                                           entry[1].get_ref<const std::string&>());
  }
  return Refused(absl::StrCat("model.merges[", index, "]"), entry, R"("a b" or ["a", "b"])");
}

absl::Status ReadMerges(const Json& merges, const IdOfName& ids, std::vector<BpeModel::Merge>& out) {
  if (!merges.is_array()) {
    return Refused("model.merges", merges, "an array of pairs");
  }
  out.reserve(merges.size());
  std::string joined;
  for (size_t i = 0; i < merges.size(); ++i) {
    if (merges[i].is_string() && absl::StartsWith(merges[i].get_ref<const std::string&>(), "#version")) {
      continue;  // the first line of a merges.txt
    }
    const auto pair = ReadPair(merges[i], i);
    if (!pair.ok()) {
      return pair.status();
    }
    joined.assign(pair->first.data(), pair->first.size());
    joined.append(pair->second.data(), pair->second.size());
    uint32_t found[3];
    const absl::string_view names[3] = {pair->first, pair->second, joined};
    for (int k = 0; k < 3; ++k) {
      const auto id = ids.find(names[k]);
      if (id == ids.end()) {
        return absl::InvalidArgumentError(
            absl::StrCat("model.merges[", i, "] has token ", Quoted(names[k]), "; allowed: those of model.vocab"));
      }
      found[k] = id->second;
    }
    out.push_back({found[0], found[1], found[2]});
  }
  return absl::OkStatus();
}

// The options of a BPE model that would change ids; ignore_merges is the one that we have.
absl::Status ReadModelOptions(const Json& model, bool& ignore_merges) {
  // fuse_unk is left unread: with a token for every byte nothing is unknown.
  for (const char* key : {"unk_token", "continuing_subword_prefix", "end_of_word_suffix"}) {
    if (const Json& value = ValueAt(model, key); !value.is_null() && value != "") {
      return Refused(absl::StrCat("model.", key), value, "null");
    }
  }
  if (const Json& dropout = ValueAt(model, "dropout"); !dropout.is_null() && dropout != 0.0) {
    return Refused("model.dropout", dropout, "null, 0.0");
  }
  if (const Json& fallback = ValueAt(model, "byte_fallback"); !fallback.is_null() && fallback != false) {
    return Refused("model.byte_fallback", fallback, "false");
  }
  if (const Json& ignore = ValueAt(model, "ignore_merges"); !ignore.is_null()) {
    const absl::StatusOr<bool> value = BoolAt(model, "model", "ignore_merges");
    if (!value.ok()) {
      return value.status();
    }
    ignore_merges = *value;
  }
  return absl::OkStatus();
}

absl::Status ReadModel(const Json& model, TokenizerSpec& spec, IdOfName& ids) {
  if (!model.is_object()) {
    return Refused("model", model, "an object of type BPE");
  }
  if (const Json& type = ValueAt(model, "type"); type != "BPE" && !type.is_null()) {
    return Refused("model.type", type, "BPE");
  }
  absl::Status status = CheckKeys(model, "model",
                                  {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
                                   "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"});
  if (status.ok()) {
    status = ReadModelOptions(model, spec.bpe.ignore_merges);
  }
  if (status.ok()) {
    status = ReadVocab(ValueAt(model, "vocab"), spec, ids);
  }
  if (status.ok()) {
    status = ReadMerges(ValueAt(model, "merges"), ids, spec.bpe.merges);
  }
  return status;
}

// ---- added tokens ----

absl::StatusOr<AddedToken> ReadAddedToken(const Json& value, absl::string_view path) {
  if (absl::Status status =
          CheckKeys(value, path, {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
      !status.ok()) {
    return status;
  }
  AddedToken token;
  const absl::StatusOr<uint32_t> id = ReadId(ValueAt(value, "id"), absl::StrCat(path, ".id"), kMaxVocabSize);
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
absl::Status ReadAddedTokens(const Json& list, const IdOfName& ids, TokenizerSpec& spec) {
  if (list.is_null()) {
    return absl::OkStatus();
  }
  if (!list.is_array()) {
    return Refused("added_tokens", list, "an array");
  }
  uint32_t next_id = static_cast<uint32_t>(ids.size());
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
    const auto known = ids.find(token->content);
    const uint32_t expected = known != ids.end() ? known->second : next_id++;
    if (token->id != expected) {
      return Refused(
          absl::StrCat(path, ".id"), token->id,
          absl::StrCat(expected, known != ids.end() ? ", as in model.vocab" : ", the next after model.vocab"));
    }
    if (token->id >= spec.tokens.size()) {
      spec.tokens.resize(token->id + 1);
    } else if (known == ids.end() && !spec.tokens[token->id].empty()) {
      return Refused(absl::StrCat(path, ".id"), token->id, "an id that no token of model.vocab has");
    }
    spec.tokens[token->id] = BytesOfName(token->content).value_or(token->content);
    spec.added_tokens.push_back(*std::move(token));
  }
  return absl::OkStatus();
}

// ---- pre-tokenizer ----

absl::Status ReadSplit(const Json& split, const std::string& path, std::vector<Splitter>& splitters) {
  if (absl::Status status = CheckKeys(split, path, {"type", "pattern", "behavior", "invert"}); !status.ok()) {
    return status;
  }
  const Json& pattern = ValueAt(split, "pattern");
  if (absl::Status status = CheckKeys(pattern, path + ".pattern", {"Regex"}); !status.ok()) {
    return status;
  }
  const absl::StatusOr<absl::string_view> regex = StringAt(pattern, path + ".pattern", "Regex");
  if (!regex.ok()) {
    return regex.status();
  }
  const std::optional<Splitter> splitter = SplitterOf(*regex);
  if (!splitter) {
    return Refused(path + ".pattern.Regex", pattern["Regex"], absl::StrCat("those of ", KnownSplitters()));
  }
  // A known expression matches all of a text, so keeping its matches and removing what is not one are the same.
  const Json& behavior = ValueAt(split, "behavior");
  const Json& invert = ValueAt(split, "invert");
  if (!(behavior == "Isolated" && invert == false) && !(behavior == "Removed" && invert == true)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " has behavior ", Shown(behavior), " and invert ",
                                                   Shown(invert), "; allowed: Isolated and false, Removed and true"));
  }
  splitters.push_back(*splitter);
  return absl::OkStatus();
}

absl::Status ReadByteLevel(const Json& value, const std::string& path, std::vector<Splitter>& splitters) {
  if (absl::Status status = CheckKeys(value, path, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
      !status.ok()) {
    return status;
  }
  if (const Json& prefix = ValueAt(value, "add_prefix_space"); prefix != false) {
    return Refused(path + ".add_prefix_space", prefix, "false");
  }
  const Json& use_regex = ValueAt(value, "use_regex");
  if (!use_regex.is_null() && !use_regex.is_boolean()) {
    return Refused(path + ".use_regex", use_regex, "true, false");
  }
  if (use_regex != false) {
    splitters.push_back(Splitter::kGpt2);
  }
  return absl::OkStatus();
}

// The pre-tokenizers in the order in which they run, Sequences unfolded.
absl::Status ReadPreTokenizer(const Json& value, const std::string& path, bool is_last,
                              std::vector<Splitter>& splitters) {
  const Json& type = value.is_object() ? ValueAt(value, "type") : value;
  if (type == "Sequence") {
    if (absl::Status status = CheckKeys(value, path, {"type", "pretokenizers"}); !status.ok()) {
      return status;
    }
    const Json& steps = ValueAt(value, "pretokenizers");
    if (!steps.is_array() || steps.empty()) {
      return Refused(path + ".pretokenizers", steps, "an array of Splits that ends with ByteLevel");
    }
    for (size_t i = 0; i < steps.size(); ++i) {
      if (absl::Status status = ReadPreTokenizer(steps[i], absl::StrCat(path, ".pretokenizers[", i, "]"),
                                                 is_last && i + 1 == steps.size(), splitters);
          !status.ok()) {
        return status;
      }
    }
    return absl::OkStatus();
  }
  if (is_last) {
    return type == "ByteLevel" ? ReadByteLevel(value, path, splitters)
                               : Refused(path + ".type", type, "ByteLevel, Sequence that ends with ByteLevel");
  }
  return type == "Split" ? ReadSplit(value, path, splitters)
                         : Refused(path + ".type", type, "Split before the last, which is ByteLevel");
}

// ---- post-processor, decoder ----

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
    const absl::StatusOr<uint32_t> id = ReadId(value, path + ".ids", limit);
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
  for (const char* key : {"truncation", "padding", "normalizer"}) {
    if (const Json& value = ValueAt(root, key); !value.is_null()) {
      const bool has_type = value.is_object() && !ValueAt(value, "type").is_null();
      return Refused(has_type ? absl::StrCat(key, ".type") : key, has_type ? value["type"] : value, "null");
    }
  }
  IdOfName ids;
  if (absl::Status status = ReadModel(ValueAt(root, "model"), spec, ids); !status.ok()) {
    return status;
  }
  if (absl::Status status = ReadAddedTokens(ValueAt(root, "added_tokens"), ids, spec); !status.ok()) {
    return status;
  }
  if (absl::Status status = ReadPreTokenizer(ValueAt(root, "pre_tokenizer"), "pre_tokenizer", true, spec.splitters);
      !status.ok()) {
    return status;
  }
  bool seen_template = false;
  if (absl::Status status = ReadPostProcessor(ValueAt(root, "post_processor"), "post_processor", seen_template, spec);
      !status.ok()) {
    return status;
  }
  const Json& decoder = ValueAt(root, "decoder");
  const Json& type = decoder.is_object() ? ValueAt(decoder, "type") : decoder;
  return type == "ByteLevel" ? absl::OkStatus() : Refused("decoder.type", type, "ByteLevel");
}

}  // namespace

absl::StatusOr<TokenizerSpec> ParseTokenizerJson(absl::string_view json, absl::string_view name) {
  const absl::StatusOr<Json> root = ParseJsonObject(json, name);
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
