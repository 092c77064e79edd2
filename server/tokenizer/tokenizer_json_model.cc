#include "server/tokenizer/tokenizer_json_model.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/json_text.h"
#include "server/tokenizer/byte_alphabet.h"
#include "server/tokenizer/tokenizer_spec.h"
#include "server/tokenizer/unicode.h"

namespace quire {
namespace {

// What a character that no piece of a Unigram model is costs more than the worst piece (`tokenizers`,
// unigram/model.rs).
constexpr double kUnknownPenalty = 10;

absl::Status ReadVocab(const Json& vocab, Vocabulary& out) {
  if (!vocab.is_object()) {
    return Refused("model.vocab", vocab, "an object of token names and ids");
  }
  out.ids.reserve(vocab.size());
  std::vector<bool> taken;
  for (const auto& [name, value] : vocab.get_ref<const Json::object_t&>()) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() >= kMaxVocabSize) {
      return ReadTokenId(value, absl::StrCat("model.vocab[", Quoted(name), "]"), kMaxVocabSize).status();
    }
    const uint32_t id = value.get<uint32_t>();
    if (id >= out.names.size()) {
      out.names.resize(id + 1);
      taken.resize(id + 1);
    }
    if (taken[id]) {
      return absl::InvalidArgumentError(
          absl::StrCat("model.vocab[", Quoted(name), "] is ", id, ", which another token has; allowed: each id once"));
    }
    taken[id] = true;
    out.ids.emplace(name, id);
    out.names[id] = name;
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

absl::Status ReadMerges(const Json& merges, const Vocabulary& vocabulary, std::vector<BpeModel::Merge>& out) {
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
      const auto id = vocabulary.ids.find(names[k]);
      if (id == vocabulary.ids.end()) {
        return absl::InvalidArgumentError(
            absl::StrCat("model.merges[", i, "] has token ", Quoted(names[k]), "; allowed: those of model.vocab"));
      }
      found[k] = id->second;
    }
    out.push_back({found[0], found[1], found[2], static_cast<uint32_t>(i)});
  }
  return absl::OkStatus();
}

// model[key] as a boolean; null and nothing are false.
absl::StatusOr<bool> FlagAt(const Json& model, const char* key) {
  return ValueAt(model, key).is_null() ? false : BoolAt(model, "model", key);
}

// The tokens <0x00> to <0xFF>, by which byte_fallback spells a character that has none.
std::array<uint32_t, 256> FallbackIds(const Vocabulary& vocabulary) {
  std::array<uint32_t, 256> ids;
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = vocabulary.ids.find(absl::StrFormat("<0x%02X>", byte));
    ids[byte] = found == vocabulary.ids.end() ? kNoToken : found->second;
  }
  return ids;
}

absl::Status ReadBpeOptions(const Json& model, const Vocabulary& vocabulary, BpeModel& bpe) {
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (const Json& value = ValueAt(model, key); !value.is_null() && value != "") {
      return Refused(absl::StrCat("model.", key), value, "null");
    }
  }
  if (const Json& dropout = ValueAt(model, "dropout"); !dropout.is_null() && dropout != 0.0) {
    return Refused("model.dropout", dropout, "null, 0.0");
  }
  if (const Json& unk = ValueAt(model, "unk_token"); !unk.is_null() && unk != "") {
    const auto found = unk.is_string() ? vocabulary.ids.find(unk.get_ref<const std::string&>()) : vocabulary.ids.end();
    if (found == vocabulary.ids.end()) {
      return Refused("model.unk_token", unk, "null, a token of model.vocab");
    }
    bpe.unk_id = found->second;
  }
  const absl::StatusOr<bool> fuse_unk = FlagAt(model, "fuse_unk"), fallback = FlagAt(model, "byte_fallback"),
                             ignore_merges = FlagAt(model, "ignore_merges");
  for (const absl::StatusOr<bool>* flag : {&fuse_unk, &fallback, &ignore_merges}) {
    if (!flag->ok()) {
      return flag->status();
    }
  }
  if (*fallback && !bpe.by_characters) {
    return Refused("model.byte_fallback", true, "false where the pre_tokenizer is ByteLevel");
  }
  if (*fallback) {
    bpe.byte_ids = FallbackIds(vocabulary);
  }
  bpe.fuse_unk = *fuse_unk;
  bpe.ignore_merges = *ignore_merges;
  return absl::OkStatus();
}

// The tokens as they are in text, those of single symbols apart.
void ReadWords(const Vocabulary& vocabulary, BpeModel& bpe) {
  bpe.words.reserve(vocabulary.ids.size());
  for (const auto& [name, id] : vocabulary.ids) {
    if (name.empty()) {
      continue;
    }
    std::optional<std::string> text = bpe.by_characters ? name : BytesOfName(name);
    if (!text) {
      continue;  // a name that no text is spelled by
    }
    if (!bpe.by_characters && text->size() == 1) {
      bpe.byte_ids[static_cast<uint8_t>((*text)[0])] = id;
    }
    if (const Utf8Sequence first = NextUtf8(*text); bpe.by_characters && first.num_bytes == text->size()) {
      bpe.character_ids[first.code_point] = id;
    }
    bpe.words.emplace_back(*std::move(text), id);
  }
}

absl::StatusOr<Vocabulary> ReadBpe(const Json& model, bool byte_level) {
  Vocabulary vocabulary;
  absl::Status status = CheckKeys(model, "model",
                                  {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
                                   "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"});
  if (status.ok()) {
    status = ReadVocab(ValueAt(model, "vocab"), vocabulary);
  }
  BpeModel bpe;
  bpe.by_characters = !byte_level;
  if (status.ok()) {
    status = ReadBpeOptions(model, vocabulary, bpe);
  }
  if (status.ok()) {
    status = ReadMerges(ValueAt(model, "merges"), vocabulary, bpe.merges);
  }
  if (!status.ok()) {
    return status;
  }
  ReadWords(vocabulary, bpe);
  vocabulary.model = std::move(bpe);
  return vocabulary;
}

absl::Status ReadPieces(const Json& vocab, Vocabulary& vocabulary, UnigramModel& unigram) {
  if (!vocab.is_array() || vocab.size() > kMaxVocabSize) {
    return Refused("model.vocab", vocab, absl::StrCat("an array of at most ", kMaxVocabSize, " texts and scores"));
  }
  double worst = 0;
  for (uint32_t id = 0; id < vocab.size(); ++id) {
    const Json& entry = vocab[id];
    const std::string path = absl::StrCat("model.vocab[", id, "]");
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number()) {
      return Refused(path, entry, "a text and its score");
    }
    const std::string& text = entry[0].get_ref<const std::string&>();
    if (!vocabulary.ids.emplace(text, id).second) {
      return Refused(path, entry[0], "each text once");
    }
    vocabulary.names.push_back(text);
    const double score = entry[1].get<double>();
    worst = id == 0 ? score : std::min(worst, score);
    unigram.pieces.push_back({text, id, score});
  }
  unigram.unk_score = worst - kUnknownPenalty;
  return absl::OkStatus();
}

absl::StatusOr<Vocabulary> ReadUnigram(const Json& model, bool byte_level) {
  if (byte_level) {
    return Refused("pre_tokenizer", "ByteLevel", "ByteLevel with a BPE model");
  }
  Vocabulary vocabulary;
  UnigramModel unigram;
  absl::Status status = CheckKeys(model, "model", {"type", "unk_id", "vocab", "byte_fallback"});
  if (status.ok()) {
    status = ReadPieces(ValueAt(model, "vocab"), vocabulary, unigram);
  }
  if (!status.ok()) {
    return status;
  }
  if (const Json& unk = ValueAt(model, "unk_id"); !unk.is_null()) {
    const absl::StatusOr<uint32_t> id =
        ReadTokenId(unk, "model.unk_id", static_cast<uint32_t>(vocabulary.names.size()));
    if (!id.ok()) {
      return id.status();
    }
    unigram.unk_id = *id;
  }
  const absl::StatusOr<bool> fallback = FlagAt(model, "byte_fallback");
  if (!fallback.ok()) {
    return fallback.status();
  }
  if (*fallback) {
    unigram.byte_ids = FallbackIds(vocabulary);
  }
  vocabulary.model = std::move(unigram);
  return vocabulary;
}

}  // namespace

absl::StatusOr<uint32_t> ReadTokenId(const Json& value, absl::string_view path, uint32_t limit) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() >= limit) {
    return Refused(path, value, absl::StrCat("a token id below ", limit));
  }
  return value.get<uint32_t>();
}

absl::StatusOr<Vocabulary> ReadModel(const Json& model, bool byte_level) {
  if (!model.is_object()) {
    return Refused("model", model, "an object of type BPE or Unigram");
  }
  const Json& type = ValueAt(model, "type");
  if (type == "Unigram") {
    return ReadUnigram(model, byte_level);
  }
  if (type == "BPE" || (type.is_null() && model.contains("merges"))) {  // old files do not say it
    return ReadBpe(model, byte_level);
  }
  return Refused("model.type", type, "BPE, Unigram");
}

}  // namespace quire
