#include "server/tokenizer/sentencepiece_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/json_text.h"
#include "server/tokenizer/byte_alphabet.h"
#include "server/tokenizer/unicode.h"

namespace quire {
namespace {

using Type = SentencePieceModel::Type;

constexpr absl::string_view kSpaceSymbol = "\u2581";
// What an unknown character costs more than the worst piece, and what a user-defined one pays (unigram_model.cc).
constexpr float kUnknownPenalty = 10;
constexpr double kUserDefinedCost = 0.1;

// ---- the file: protocol buffers' wire format ----

// One field of a message: a number, or the bytes of a text or message.
struct Field {
  uint32_t number = 0;
  uint64_t value = 0;  // of a varint or of the bits of a fixed one
  absl::string_view bytes;
};

class WireReader {
 public:
  explicit WireReader(absl::string_view bytes) : bytes_(bytes) {}

  // The next field; nothing at the end, or where the bytes are no message (ok() then says so).
  std::optional<Field> Next() {
    uint64_t tag = 0, size = 0;
    Field field;
    if (bytes_.empty() || !Varint(tag)) {
      return std::nullopt;
    }
    field.number = static_cast<uint32_t>(tag >> 3);
    switch (tag & 7) {
      case 0:
        return Varint(field.value) ? std::optional(field) : std::nullopt;
      case 1:
        return Fixed(8, field.value) ? std::optional(field) : std::nullopt;
      case 5:
        return Fixed(4, field.value) ? std::optional(field) : std::nullopt;
      case 2:
        if (!Varint(size) || size > bytes_.size()) {
          break;
        }
        field.bytes = bytes_.substr(0, size);
        bytes_.remove_prefix(size);
        return field;
      default:
        break;
    }
    ok_ = false;
    return std::nullopt;
  }

  bool ok() const { return ok_; }

 private:
  bool Varint(uint64_t& value) {
    value = 0;
    for (int shift = 0; shift < 64 && !bytes_.empty(); shift += 7) {
      const uint8_t byte = static_cast<uint8_t>(bytes_[0]);
      bytes_.remove_prefix(1);
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) {
        return true;
      }
    }
    return ok_ = false;
  }

  bool Fixed(size_t num_bytes, uint64_t& value) {
    if (bytes_.size() < num_bytes) {
      return ok_ = false;
    }
    value = 0;
    for (size_t i = num_bytes; i-- > 0;) {
      value = value << 8 | static_cast<uint8_t>(bytes_[i]);
    }
    bytes_.remove_prefix(num_bytes);
    return true;
  }

  absl::string_view bytes_;
  bool ok_ = true;
};

absl::Status NoMessage(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("found no ", what, "; allowed: a sentencepiece model"));
}

absl::Status ReadPiece(absl::string_view bytes, SentencePieceModel& model) {
  SentencePieceModel::Piece piece;
  uint64_t type = static_cast<uint64_t>(Type::kNormal);
  WireReader reader(bytes);
  while (const std::optional<Field> field = reader.Next()) {
    if (field->number == 1) {
      piece.text = std::string(field->bytes);
    } else if (field->number == 2) {
      const uint32_t bits = static_cast<uint32_t>(field->value);
      std::memcpy(&piece.score, &bits, sizeof(bits));
    } else if (field->number == 3) {
      type = field->value;
    }
  }
  if (!reader.ok() || type < static_cast<uint64_t>(Type::kNormal) || type > static_cast<uint64_t>(Type::kByte)) {
    return NoMessage(absl::StrCat("piece ", model.pieces.size()));
  }
  piece.type = static_cast<Type>(type);
  model.pieces.push_back(std::move(piece));
  return absl::OkStatus();
}

absl::Status ReadTrainerSpec(absl::string_view bytes, SentencePieceModel& model) {
  WireReader reader(bytes);
  while (const std::optional<Field> field = reader.Next()) {
    switch (field->number) {
      case 3:
        if (field->value != 1 && field->value != 2) {
          return absl::InvalidArgumentError(
              absl::StrCat("trainer_spec.model_type is ", field->value, "; allowed: 1 (unigram), 2 (BPE)"));
        }
        model.algorithm =
            field->value == 2 ? SentencePieceModel::Algorithm::kBpe : SentencePieceModel::Algorithm::kUnigram;
        break;
      case 24:
        if (field->value != 0) {
          return absl::InvalidArgumentError("trainer_spec.treat_whitespace_as_suffix is true; allowed: false");
        }
        break;
      case 44:
        model.unk_surface = std::string(field->bytes);
        break;
      case 46:
        model.bos_piece = std::string(field->bytes);
        break;
      case 47:
        model.eos_piece = std::string(field->bytes);
        break;
      default:
        break;  // how it was trained
    }
  }
  return reader.ok() ? absl::OkStatus() : NoMessage("trainer_spec");
}

absl::Status ReadNormalizerSpec(absl::string_view bytes, SentencePieceNormalizerSpec& spec) {
  WireReader reader(bytes);
  while (const std::optional<Field> field = reader.Next()) {
    switch (field->number) {
      case 2:
        spec.precompiled_charsmap = std::string(field->bytes);
        break;
      case 3:
        spec.add_dummy_prefix = field->value != 0;
        break;
      case 4:
        spec.remove_extra_whitespaces = field->value != 0;
        break;
      case 5:
        spec.escape_whitespaces = field->value != 0;
        break;
      default:
        break;  // names and sources of the map
    }
  }
  return reader.ok() ? absl::OkStatus() : NoMessage("normalizer_spec");
}

// ---- the vocabulary ----

// A token for each piece, and those that are looked for in text before all others.
absl::Status ReadTokens(const SentencePieceModel& model, TokenizerSpec& spec) {
  const bool is_bpe = model.algorithm == SentencePieceModel::Algorithm::kBpe;
  for (uint32_t id = 0; id < model.pieces.size(); ++id) {
    const auto& [text, score, type] = model.pieces[id];
    if (!std::isfinite(score)) {
      return absl::InvalidArgumentError(absl::StrCat("piece ", id, " has a score that is no number"));
    }
    std::string shown = absl::StrReplaceAll(text, {{kSpaceSymbol, " "}});
    if (type == Type::kUnknown) {
      shown = model.unk_surface;
    } else if (type == Type::kByte) {
      const std::optional<uint8_t> byte = ByteOfHexName(text);
      if (!byte) {
        return absl::InvalidArgumentError(
            absl::StrCat("piece ", id, " is ", Quoted(text), " of type byte; allowed: <0x00> to <0xFF>"));
      }
      shown = std::string(1, static_cast<char>(*byte));
    } else if (text.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("piece ", id, " is empty"));
    } else if (type == Type::kControl) {
      shown = text;
      spec.added_tokens.push_back({.id = id, .content = text, .special = true});
    } else if (type == Type::kUserDefined && is_bpe) {  // unigram finds them on its way
      spec.added_tokens.push_back({.id = id, .content = text, .normalized = true});
    }
    spec.tokens.push_back(std::move(shown));
    spec.is_byte.push_back(type == Type::kByte);
    spec.keeps_spaces.push_back(type == Type::kByte || type == Type::kUnknown);
  }
  return absl::OkStatus();
}

// Any two pieces that together are a piece have a merge. Its rank is that of the piece's score, the highest first.
std::vector<BpeModel::Merge> MergesOf(const SentencePieceModel& model) {
  absl::flat_hash_map<absl::string_view, uint32_t> ids;
  std::map<float, uint32_t, std::greater<>> rank_of_score;
  for (uint32_t id = 0; id < model.pieces.size(); ++id) {
    if (model.pieces[id].type == Type::kNormal) {
      ids.try_emplace(model.pieces[id].text, id);
      rank_of_score[model.pieces[id].score] = 0;
    }
  }
  uint32_t rank = 0;
  for (auto& [score, its_rank] : rank_of_score) {
    its_rank = rank++;
  }
  std::vector<BpeModel::Merge> merges;
  for (const auto& [text, id] : ids) {
    for (size_t cut = 1; cut < text.size(); ++cut) {
      const auto left = ids.find(text.substr(0, cut)), right = ids.find(text.substr(cut));
      if (left != ids.end() && right != ids.end()) {
        merges.push_back({left->second, right->second, id, rank_of_score[model.pieces[id].score]});
      }
    }
  }
  return merges;
}

BpeModel MakeBpe(const SentencePieceModel& model) {
  BpeModel bpe;
  bpe.by_characters = true;
  bpe.fuse_unk = true;
  bpe.merges = MergesOf(model);
  for (uint32_t id = 0; id < model.pieces.size(); ++id) {
    const auto& [text, score, type] = model.pieces[id];
    if (type == Type::kByte) {
      bpe.byte_ids[*ByteOfHexName(text)] = id;
    } else if (type == Type::kUnknown) {
      bpe.unk_id = id;
    } else if (type == Type::kNormal) {
      if (const Utf8Sequence first = NextUtf8(text); first.num_bytes == text.size()) {
        bpe.character_ids.try_emplace(first.code_point, id);
      }
      bpe.words.emplace_back(text, id);
    }
  }
  return bpe;
}

UnigramModel MakeUnigram(const SentencePieceModel& model) {
  UnigramModel unigram;
  unigram.single_precision = true;
  float worst = std::numeric_limits<float>::max();
  float best = std::numeric_limits<float>::min();  // not lowest(): so it is in the library
  for (const SentencePieceModel::Piece& piece : model.pieces) {
    if (piece.type == Type::kNormal) {
      worst = std::min(worst, piece.score);
      best = std::max(best, piece.score);
    }
  }
  unigram.unk_score = worst - kUnknownPenalty;
  for (uint32_t id = 0; id < model.pieces.size(); ++id) {
    const auto& [text, score, type] = model.pieces[id];
    if (type == Type::kByte) {
      unigram.byte_ids[*ByteOfHexName(text)] = id;
    } else if (type == Type::kUnknown) {
      unigram.unk_id = id;
    } else if (type == Type::kNormal) {
      unigram.pieces.push_back({text, id, score});
    } else if (type == Type::kUserDefined) {
      unigram.pieces.push_back({text, id, static_cast<float>(text.size()) * best - kUserDefinedCost});
    }
  }
  return unigram;
}

}  // namespace

absl::StatusOr<SentencePieceModel> ParseSentencePieceModel(absl::string_view bytes) {
  SentencePieceModel model;
  SentencePieceNormalizerSpec denormalizer;
  WireReader reader(bytes);
  absl::Status status;
  for (std::optional<Field> field; status.ok() && (field = reader.Next());) {
    switch (field->number) {
      case 1:
        status = ReadPiece(field->bytes, model);
        break;
      case 2:
        status = ReadTrainerSpec(field->bytes, model);
        break;
      case 3:
        status = ReadNormalizerSpec(field->bytes, model.normalizer);
        break;
      case 5:
        status = ReadNormalizerSpec(field->bytes, denormalizer);
        break;
      default:
        break;
    }
  }
  if (!status.ok()) {
    return status;
  }
  if (!reader.ok() || model.pieces.empty()) {
    return NoMessage("ModelProto with pieces");
  }
  if (!denormalizer.precompiled_charsmap.empty()) {
    return absl::InvalidArgumentError("has a denormalizer_spec with a map; allowed: none");
  }
  return model;
}

absl::StatusOr<TokenizerSpec> MakeTokenizerSpec(SentencePieceModel model) {
  if (model.pieces.size() > kMaxVocabSize) {
    return absl::InvalidArgumentError(
        absl::StrCat("has ", model.pieces.size(), " pieces; allowed: at most ", kMaxVocabSize));
  }
  TokenizerSpec spec;
  if (const absl::Status status = ReadTokens(model, spec); !status.ok()) {
    return status;
  }
  std::vector<std::string> user_defined;
  for (const SentencePieceModel::Piece& piece : model.pieces) {
    if (piece.type == Type::kUserDefined) {
      user_defined.push_back(piece.text);
    }
  }
  absl::StatusOr<SentencePieceNormalizer> normalizer = SentencePieceNormalizer::Create(model.normalizer, user_defined);
  if (!normalizer.ok()) {
    return normalizer.status();
  }
  spec.normalizer = Normalizer({std::make_shared<const SentencePieceNormalizer>(*std::move(normalizer))});
  if (model.algorithm == SentencePieceModel::Algorithm::kBpe) {
    spec.model = MakeBpe(model);
  } else {
    spec.model = MakeUnigram(model);
  }
  spec.invalid_utf8 = InvalidUtf8::kSingleBytes;
  if (model.normalizer.add_dummy_prefix || model.normalizer.remove_extra_whitespaces) {
    spec.leading_spaces = {
        .max = 1,
        .of = model.normalizer.remove_extra_whitespaces ? LeadingSpaces::Of::kEachToken : LeadingSpaces::Of::kText};
  }
  return spec;
}

}  // namespace quire
