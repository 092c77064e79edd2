#include "server/tokenizer/gguf_vocabulary.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/json_text.h"
#include "server/tokenizer/byte_alphabet.h"
#include "server/tokenizer/sentencepiece_model.h"
#include "server/tokenizer/tokenizer_json_steps.h"

namespace quire {
namespace {

using Type = SentencePieceModel::Type;

#define QUIRE_LINE_ENDS R"(\s*[\r\n]+|\s+(?!\S)|\s+)"
#define QUIRE_CONTRACTIONS R"((?i:'s|'t|'re|'ve|'m|'ll|'d))"
#define QUIRE_UPPER R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])"
#define QUIRE_LOWER R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])"

constexpr char kLlama3[] =
    QUIRE_CONTRACTIONS R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)" QUIRE_LINE_ENDS;
constexpr char kQwen2[] =
    QUIRE_CONTRACTIONS R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)" QUIRE_LINE_ENDS;
constexpr char kQwen35[] =
    QUIRE_CONTRACTIONS R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|)" QUIRE_LINE_ENDS;
constexpr char kGpt4o[] =
    R"([^\r\n\p{L}\p{N}]?)" QUIRE_UPPER "*" QUIRE_LOWER "+" QUIRE_CONTRACTIONS R"(?|[^\r\n\p{L}\p{N}]?)" QUIRE_UPPER
    "+" QUIRE_LOWER "*" QUIRE_CONTRACTIONS R"(?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|)" QUIRE_LINE_ENDS;
constexpr char kTekken[] = R"([^\r\n\p{L}\p{N}]?)" QUIRE_UPPER "*" QUIRE_LOWER R"(+|[^\r\n\p{L}\p{N}]?)" QUIRE_UPPER
                           "+" QUIRE_LOWER R"(*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|)" QUIRE_LINE_ENDS;
constexpr char kDeepSeekV3[] =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|)" QUIRE_LINE_ENDS;
constexpr char kChineseAndHangul[] = R"([\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+)";
constexpr char kChineseAndKana[] = R"([\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+)";
// Letters with case, as of some version of Unicode.
// clang-format off
constexpr char kCasedLetters[] =
    R"(\s?[)"
    R"(\u0041-\u005A\u0061-\u007A\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293)"
    R"(\u0295-\u02AF\u0370-\u0373\u0376\u0377\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C\u038E-\u03A1)"
    R"(\u03A3-\u03F5\u03F7-\u0481\u048A-\u052F\u0531-\u0556\u10A0-\u10C5\u13A0-\u13F5\u13F8-\u13FD\u1C90-\u1CBA)"
    R"(\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77\u1D79-\u1D9A\u1E00-\u1F15\u1F18-\u1F1D\u1F20-\u1F45\u1F48-\u1F4D)"
    R"(\u1F50-\u1F57\u1F59\u1F5B\u1F5D\u1F5F-\u1F7D\u1F80-\u1FB4\u1FB6-\u1FBC\u1FBE\u1FC2-\u1FC4\u1FC6-\u1FCC)"
    R"(\u1FD0-\u1FD3\u1FD6-\u1FDB\u1FE0-\u1FEC\u1FF2-\u1FF4\u1FF6-\u1FFC\u2102\u2107\u210A-\u2113\u2115)"
    R"(\u2119-\u211D\u2124\u2126\u2128\u212A-\u212D\u212F-\u2134\u2139\u213C-\u213F\u2145-\u2149\u214E\u2183)"
    R"(\u2184\u2C00-\u2C7B\u2C7E-\u2CE4\u2CEB-\u2CEE\u2CF2\u2CF3\uA640-\uA66D\uA680-\uA69B\uA722-\uA76F)"
    R"(\uA771-\uA787\uA78B-\uA78E\uAB70-\uABBF\uFB00-\uFB06\uFB13-\uFB17\uFF21-\uFF3A\uFF41-\uFF5A)"
    R"(\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2})"
    R"(\x{118A0}-\x{118DF}\x{1E900}-\x{1E943})"
    R"(]+)";
// clang-format on
constexpr char kPunctuationOfDeepSeek[] = "\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+";

#undef QUIRE_LINE_ENDS
#undef QUIRE_CONTRACTIONS
#undef QUIRE_UPPER
#undef QUIRE_LOWER

// How a text is cut: by each expression what the one before it left, first as characters, then as the characters that
// spell its bytes.
struct Cuts {
  std::vector<absl::string_view> characters;
  std::vector<absl::string_view> spelled_bytes = {};
  bool ignore_merges = false;
  bool add_bos = false;
};

struct NamedCuts {
  std::vector<absl::string_view> names;  // of tokenizer.ggml.pre
  Cuts cuts;
};

const std::vector<NamedCuts>& KnownCuts() {
  static const std::vector<NamedCuts>& known = *new std::vector<NamedCuts>{
      {{"gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais", "roberta-bpe"}, {{kGpt2Pattern}}},
      {{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral"}, {{kLlama3}, {}, true, true}},
      {{"dbrx", "smaug-bpe", "chatglm-bpe", "glm4"}, {{kLlama3}}},
      {{"qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez"}, {{kQwen2}}},
      {{"qwen35"}, {{kQwen35}}},
      {{"gpt-4o", "llama4"}, {{kGpt4o}}},
      {{"tekken"}, {{kTekken}, {}, true, true}},
      {{"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone"}, {{R"(\p{N})", kGpt2Pattern}}},
      {{"falcon"}, {{R"([\p{P}$+<=>^~|`]+)", kGpt2Pattern}, {R"(\p{N}+)", "[0-9][0-9][0-9]"}}},
      {{"deepseek-llm"},
       {{R"([\r\n])", kCasedLetters, kPunctuationOfDeepSeek, R"(\s+$)", kChineseAndHangul, R"(\p{N})"}}},
      {{"deepseek-coder"}, {{R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", kChineseAndHangul, R"(\p{N})"}}},
      {{"deepseek-v3"}, {{R"(\p{N}{1,3})", kChineseAndKana, kDeepSeekV3}}}};
  return known;
}

absl::StatusOr<Cuts> FindCuts(const GgufMetadata& metadata) {
  constexpr char kKey[] = "tokenizer.ggml.pre";
  const absl::StatusOr<absl::string_view> name = metadata.Text(kKey);
  if (!name.ok()) {
    return name.status();
  }
  std::string all;
  for (const auto& [names, cuts] : KnownCuts()) {
    if (std::find(names.begin(), names.end(), *name) != names.end()) {
      return cuts;
    }
    for (const absl::string_view known : names) {
      absl::StrAppend(&all, all.empty() ? "" : ", ", known);
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat(metadata.file(), ": ", kKey, " is ", Quoted(*name), "; allowed: ", all));
}

PreTokenizer MakePreTokenizer(const Cuts& cuts) {
  std::vector<PreTokenizerStep> steps;
  for (const absl::string_view pattern : cuts.characters) {
    steps.push_back({.splitter = *Regex::Compile(pattern)});
  }
  for (const absl::string_view pattern : cuts.spelled_bytes) {
    steps.push_back({.splitter = *Regex::Compile(pattern), .alphabet = Regex::Alphabet::kSpelledBytes});
  }
  return PreTokenizer(std::move(steps));
}

// A value that may be missing; another kind of value is an error.
template <typename T>
absl::StatusOr<T> Or(absl::StatusOr<T> value, T missing) {
  return absl::IsNotFound(value.status()) ? absl::StatusOr<T>(missing) : value;
}

absl::StatusOr<std::vector<Type>> ReadTypes(const GgufMetadata& metadata, size_t num_tokens) {
  constexpr char kKey[] = "tokenizer.ggml.token_type";
  if (!metadata.Has(kKey)) {
    return std::vector<Type>(num_tokens, Type::kNormal);
  }
  const absl::StatusOr<std::vector<int64_t>> numbers =
      metadata.Integers(kKey, static_cast<int64_t>(Type::kNormal), static_cast<int64_t>(Type::kByte));
  if (!numbers.ok()) {
    return numbers.status();
  }
  if (numbers->size() != num_tokens) {
    return absl::InvalidArgumentError(absl::StrCat(metadata.file(), ": ", kKey, " has ", numbers->size(),
                                                   " entries; allowed: ", num_tokens, ", one for each token"));
  }
  std::vector<Type> types;
  for (const int64_t number : *numbers) {
    types.push_back(static_cast<Type>(number));
  }
  return types;
}

// ---- gpt2 ----

// "a b": the first space behind the first character parts them.
absl::Status ReadMerges(const GgufMetadata& metadata, const absl::flat_hash_map<absl::string_view, uint32_t>& ids,
                        BpeModel& bpe) {
  constexpr char kKey[] = "tokenizer.ggml.merges";
  const absl::StatusOr<absl::Span<const absl::string_view>> merges = metadata.Texts(kKey);
  if (!merges.ok()) {
    return merges.status();
  }
  for (uint32_t rank = 0; rank < merges->size(); ++rank) {
    const absl::string_view merge = (*merges)[rank];
    const size_t space = merge.find(' ', 1);
    const absl::string_view left = merge.substr(0, space);
    const absl::string_view right = space == merge.npos ? "" : merge.substr(space + 1);
    const auto left_id = ids.find(left), right_id = ids.find(right), merged = ids.find(absl::StrCat(left, right));
    if (left_id == ids.end() || right_id == ids.end() || merged == ids.end()) {
      return absl::InvalidArgumentError(absl::StrCat(metadata.file(), ": ", kKey, "[", rank, "] is ", Quoted(merge),
                                                     "; allowed: two tokens that together are one"));
    }
    bpe.merges.push_back({left_id->second, right_id->second, merged->second, rank});
  }
  return absl::OkStatus();
}

absl::StatusOr<TokenizerSpec> ReadByteLevel(const GgufMetadata& metadata, absl::Span<const absl::string_view> names,
                                            const std::vector<Type>& types, const Cuts& cuts) {
  TokenizerSpec spec;
  BpeModel bpe;
  absl::flat_hash_map<absl::string_view, uint32_t> ids;
  for (uint32_t id = 0; id < names.size(); ++id) {
    ids.try_emplace(names[id], id);
    const bool is_text = types[id] == Type::kNormal || types[id] == Type::kUnused;
    std::optional<std::string> bytes = is_text ? BytesOfName(names[id]) : std::nullopt;
    if (bytes && !bytes->empty()) {
      bpe.words.emplace_back(*bytes, id);
      if (bytes->size() == 1) {
        bpe.byte_ids[static_cast<uint8_t>((*bytes)[0])] = id;
      }
    }
    const bool is_special = types[id] == Type::kControl || types[id] == Type::kUnknown;
    if (!names[id].empty() && (is_special || types[id] == Type::kUserDefined)) {
      spec.added_tokens.push_back({.id = id, .content = std::string(names[id]), .special = is_special});
    }
    spec.tokens.push_back(std::move(bytes).value_or(std::string(names[id])));
  }
  if (const absl::Status status = ReadMerges(metadata, ids, bpe); !status.ok()) {
    return status;
  }
  bpe.ignore_merges = cuts.ignore_merges;
  spec.model = std::move(bpe);
  spec.pre_tokenizer = MakePreTokenizer(cuts);
  return spec;
}

// ---- llama, t5 ----

absl::StatusOr<TokenizerSpec> ReadSentencePiece(const GgufMetadata& metadata, absl::Span<const absl::string_view> names,
                                                const std::vector<Type>& types, bool unigram) {
  const absl::StatusOr<std::vector<float>> scores = metadata.Numbers("tokenizer.ggml.scores");
  const absl::StatusOr<bool> prefix = Or(metadata.Bool("tokenizer.ggml.add_space_prefix"), true);
  const absl::StatusOr<bool> blanks = Or(metadata.Bool("tokenizer.ggml.remove_extra_whitespaces"), false);
  if (!scores.ok() || !prefix.ok() || !blanks.ok()) {
    return !scores.ok() ? scores.status() : prefix.ok() ? blanks.status() : prefix.status();
  }
  if (scores->size() != names.size()) {
    return absl::InvalidArgumentError(absl::StrCat(metadata.file(), ": tokenizer.ggml.scores has ", scores->size(),
                                                   " entries; allowed: ", names.size(), ", one for each token"));
  }
  SentencePieceModel model;
  model.algorithm = unigram ? SentencePieceModel::Algorithm::kUnigram : SentencePieceModel::Algorithm::kBpe;
  model.normalizer.add_dummy_prefix = *prefix;
  model.normalizer.remove_extra_whitespaces = *blanks;
  const auto map = metadata.pairs().find("tokenizer.ggml.precompiled_charsmap");
  if (map != metadata.pairs().end()) {
    const GgufArray* const array = std::get_if<GgufArray>(&map->second);
    if (array == nullptr || (array->type != GgufValueType::kUint8 && array->type != GgufValueType::kInt8)) {
      return absl::InvalidArgumentError(
          absl::StrCat(metadata.file(), ": ", map->first, " is of another kind; allowed: an array of bytes"));
    }
    model.normalizer.precompiled_charsmap.assign(reinterpret_cast<const char*>(array->numbers), array->count);
  }
  for (size_t id = 0; id < names.size(); ++id) {
    model.pieces.push_back({std::string(names[id]), (*scores)[id], types[id]});
  }
  absl::StatusOr<TokenizerSpec> spec = MakeTokenizerSpec(std::move(model));
  if (!spec.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(metadata.file(), ": ", spec.status().message()));
  }
  return spec;
}

// The token that `id_key` names, if `add_key` says, or by default, that it is put around texts.
absl::Status ReadAdded(const GgufMetadata& metadata, const char* add_key, bool add_by_default, const char* id_key,
                       std::optional<uint32_t> id_by_default, uint32_t num_tokens, std::vector<uint32_t>& ids) {
  const absl::StatusOr<bool> add = Or(metadata.Bool(add_key), add_by_default);
  if (!add.ok() || !*add) {
    return add.status();
  }
  if (!metadata.Has(id_key) && (!id_by_default || *id_by_default >= num_tokens)) {
    return metadata.Has(add_key) ? metadata.Integer(id_key, 0, num_tokens - 1).status() : absl::OkStatus();
  }
  const absl::StatusOr<int64_t> id = metadata.Has(id_key) ? metadata.Integer(id_key, 0, int64_t{num_tokens} - 1)
                                                          : absl::StatusOr<int64_t>(*id_by_default);
  if (id.ok()) {
    ids.push_back(static_cast<uint32_t>(*id));
  }
  return id.status();
}

}  // namespace

absl::StatusOr<TokenizerSpec> ReadGgufVocabulary(const GgufMetadata& metadata) {
  const absl::StatusOr<absl::string_view> kind = metadata.Text("tokenizer.ggml.model");
  const absl::StatusOr<absl::Span<const absl::string_view>> names = metadata.Texts("tokenizer.ggml.tokens");
  if (!kind.ok() || !names.ok()) {
    return kind.ok() ? names.status() : kind.status();
  }
  if (names->empty() || names->size() > kMaxVocabSize) {
    return absl::InvalidArgumentError(absl::StrCat(metadata.file(), ": tokenizer.ggml.tokens has ", names->size(),
                                                   " entries; allowed: 1 to ", kMaxVocabSize));
  }
  const absl::StatusOr<std::vector<Type>> types = ReadTypes(metadata, names->size());
  if (!types.ok()) {
    return types.status();
  }
  const bool is_llama = *kind == "llama", is_t5 = *kind == "t5";
  absl::StatusOr<TokenizerSpec> spec = TokenizerSpec();
  bool add_bos = is_llama;
  if (*kind == "gpt2") {
    const absl::StatusOr<Cuts> cuts = FindCuts(metadata);
    if (!cuts.ok()) {
      return cuts.status();
    }
    add_bos = cuts->add_bos;
    spec = ReadByteLevel(metadata, *names, *types, *cuts);
  } else if (is_llama || is_t5) {
    spec = ReadSentencePiece(metadata, *names, *types, is_t5);
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat(metadata.file(), ": tokenizer.ggml.model is ", Quoted(*kind), "; allowed: gpt2, llama, t5"));
  }
  if (!spec.ok()) {
    return spec.status();
  }
  const uint32_t num_tokens = static_cast<uint32_t>(names->size());
  const std::optional<uint32_t> bos = is_llama ? std::optional<uint32_t>(1) : std::nullopt;
  absl::Status status = ReadAdded(metadata, "tokenizer.ggml.add_bos_token", add_bos, "tokenizer.ggml.bos_token_id", bos,
                                  num_tokens, spec->prefix_ids);
  if (status.ok()) {
    status = ReadAdded(metadata, "tokenizer.ggml.add_eos_token", is_t5, "tokenizer.ggml.eos_token_id", std::nullopt,
                       num_tokens, spec->suffix_ids);
  }
  if (!status.ok()) {
    return status;
  }
  return spec;
}

}  // namespace quire
