#include "server/tokenizer/unigram.h"

#include <algorithm>
#include <utility>

#include "server/tokenizer/unicode.h"

namespace quire {
namespace {

std::vector<std::pair<absl::string_view, uint32_t>> IndexOf(const std::vector<UnigramModel::Piece>& pieces) {
  std::vector<std::pair<absl::string_view, uint32_t>> strings;
  strings.reserve(pieces.size());
  for (uint32_t i = 0; i < pieces.size(); ++i) {
    strings.emplace_back(pieces[i].text, i);
  }
  return strings;
}

// The best path that ends at a byte of the text.
struct End {
  static constexpr uint32_t kUnreached = UINT32_MAX, kUnknown = UINT32_MAX - 1;
  double score = 0;
  size_t begin = 0;             // of its last piece
  uint32_t piece = kUnreached;  // index of it; kUnknown: a character that is none
};

}  // namespace

Unigram::Unigram(UnigramModel model) : model_(std::move(model)), trie_(IndexOf(model_.pieces)) {}

void Unigram::Encode(absl::string_view text, std::vector<uint32_t>& ids) const {
  std::vector<End> ends(text.size() + 1);
  const auto offer = [&](size_t end, double exact, size_t begin, uint32_t piece) {
    const double score = model_.single_precision ? static_cast<float>(exact) : exact;
    if (ends[end].piece == End::kUnreached || score > ends[end].score) {
      ends[end] = {score, begin, piece};
    }
  };
  for (size_t at = 0; at < text.size();) {
    const Utf8Sequence next = NextUtf8(text.substr(at));
    const size_t after = at + (next.kind == Utf8Sequence::kCharacter ? next.num_bytes : 1);
    bool has_character = false;  // some piece is this character alone
    trie_.ForEachAt(text, at, [&](const ByteTrie::Found& found) {
      offer(found.end, model_.pieces[found.value].score + ends[at].score, at, found.value);
      has_character |= found.end == after;
    });
    if (!has_character) {
      offer(after, model_.unk_score + ends[at].score, at, End::kUnknown);
    }
    at = after;
  }
  // From the end back to the beginning. A piece that is the unknown token's is as good as unknown.
  const auto is_unknown = [&](size_t end) {
    const uint32_t piece = ends[end].piece;
    return piece == End::kUnknown || model_.pieces[piece].id == model_.unk_id;
  };
  std::vector<std::pair<size_t, size_t>> path;  // [begin, end) of the pieces, the last first
  for (size_t end = text.size(); end > 0; end = ends[end].begin) {
    const bool joins = model_.fuse_unk && is_unknown(end) && !path.empty() && is_unknown(path.back().second);
    if (joins) {
      path.back().first = ends[end].begin;
    } else {
      path.emplace_back(ends[end].begin, end);
    }
  }
  for (auto part = path.rbegin(); part != path.rend(); ++part) {
    const End& end = ends[part->second];
    if (end.piece == End::kUnknown || end.begin != part->first) {
      AppendUnknown(text.substr(part->first, part->second - part->first), ids);
    } else {
      ids.push_back(model_.pieces[end.piece].id);
    }
  }
}

void Unigram::AppendUnknown(absl::string_view text, std::vector<uint32_t>& ids) const {
  const bool has_bytes = std::all_of(text.begin(), text.end(),
                                     [&](char c) { return model_.byte_ids[static_cast<uint8_t>(c)] != kNoToken; });
  if (has_bytes) {
    for (const char c : text) {
      ids.push_back(model_.byte_ids[static_cast<uint8_t>(c)]);
    }
  } else if (model_.unk_id != kNoToken) {
    ids.push_back(model_.unk_id);
  }
}

}  // namespace quire
