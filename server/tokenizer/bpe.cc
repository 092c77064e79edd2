#include "server/tokenizer/bpe.h"

#include <algorithm>
#include <functional>
#include <queue>

namespace quire {
namespace {

// Up to here scanning for the lowest rank beats a heap; it bounds the quadratic part.
constexpr size_t kMaxShortBytes = 48;

uint64_t PairKey(uint32_t left, uint32_t right) { return uint64_t{left} << 32 | right; }

}  // namespace

Bpe::Bpe(const BpeModel& model, absl::Span<const std::string> tokens) : byte_ids_(model.byte_ids) {
  merges_.reserve(model.merges.size());
  for (size_t rank = 0; rank < model.merges.size(); ++rank) {
    const BpeModel::Merge& merge = model.merges[rank];
    merges_[PairKey(merge.left, merge.right)] = {static_cast<uint32_t>(rank), merge.merged};
  }
  one_token_.reserve(model.word_ids.size());
  std::vector<uint32_t> ids;
  for (const uint32_t id : model.word_ids) {
    const absl::string_view word = tokens[id];
    ids.clear();
    if (!model.ignore_merges) {
      word.size() <= kMaxShortBytes ? EncodeShort(word, ids) : EncodeLong(word, ids);
    }
    if (model.ignore_merges || (ids.size() == 1 && ids[0] == id)) {
      one_token_.emplace(word, id);
    }
  }
}

Bpe::Merged Bpe::Find(uint32_t left, uint32_t right) const {
  const auto found = merges_.find(PairKey(left, right));
  return found == merges_.end() ? kNoMerge : found->second;
}

void Bpe::Encode(absl::string_view word, std::vector<uint32_t>& ids) const {
  if (const auto found = one_token_.find(word); found != one_token_.end()) {
    ids.push_back(found->second);
  } else if (word.size() <= kMaxShortBytes) {
    EncodeShort(word, ids);
  } else {
    EncodeLong(word, ids);
  }
}

void Bpe::EncodeShort(absl::string_view word, std::vector<uint32_t>& ids) const {
  std::array<uint32_t, kMaxShortBytes> symbols;  // [count] tokens of the word so far
  std::array<Merged, kMaxShortBytes> merges;     // [count] merge of symbols i and i + 1; the last has none
  size_t count = word.size();
  for (size_t i = 0; i < count; ++i) {
    symbols[i] = byte_ids_[static_cast<uint8_t>(word[i])];
  }
  for (size_t i = 0; i < count; ++i) {
    merges[i] = i + 1 < count ? Find(symbols[i], symbols[i + 1]) : kNoMerge;
  }
  while (count > 1) {
    const auto lowest = std::min_element(merges.begin(), merges.begin() + count,
                                         [](const Merged& a, const Merged& b) { return a.rank < b.rank; });
    if (lowest->rank == kNoMerge.rank) {
      break;
    }
    const size_t at = lowest - merges.begin();
    symbols[at] = lowest->id;
    std::copy(symbols.begin() + at + 2, symbols.begin() + count, symbols.begin() + at + 1);
    std::copy(merges.begin() + at + 2, merges.begin() + count, merges.begin() + at + 1);
    --count;
    merges[at] = at + 1 < count ? Find(symbols[at], symbols[at + 1]) : kNoMerge;
    if (at > 0) {
      merges[at - 1] = Find(symbols[at - 1], symbols[at]);
    }
  }
  ids.insert(ids.end(), symbols.begin(), symbols.begin() + count);
}

void Bpe::EncodeLong(absl::string_view word, std::vector<uint32_t>& ids) const {
  constexpr uint32_t kNone = UINT32_MAX;
  struct Symbol {
    uint32_t id;  // kNone: merged into one before it
    uint32_t previous;
    uint32_t next;
  };
  const uint32_t count = static_cast<uint32_t>(word.size());
  std::vector<Symbol> symbols(count);
  for (uint32_t i = 0; i < count; ++i) {
    symbols[i] = {byte_ids_[static_cast<uint8_t>(word[i])], i == 0 ? kNone : i - 1, i + 1 == count ? kNone : i + 1};
  }

  // rank << 32 | position of the left symbol: the smallest is the pair to merge next. An entry whose pair is gone by
  // then is passed over: its symbol is merged away, or has another right neighbour, with another rank.
  std::vector<uint64_t> entries;
  entries.reserve(count);
  for (uint32_t i = 0; i + 1 < count; ++i) {
    if (const Merged merged = Find(symbols[i].id, symbols[i + 1].id); merged.rank != kNoMerge.rank) {
      entries.push_back(uint64_t{merged.rank} << 32 | i);
    }
  }
  std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<>> pairs(std::greater<>(), std::move(entries));

  const auto merge_at = [&](uint32_t at) {
    const uint32_t next = at == kNone ? kNone : symbols[at].next;
    return next == kNone || symbols[at].id == kNone ? kNoMerge : Find(symbols[at].id, symbols[next].id);
  };
  const auto push = [&](uint32_t at) {
    if (const Merged merged = merge_at(at); merged.rank != kNoMerge.rank) {
      pairs.push(uint64_t{merged.rank} << 32 | at);
    }
  };
  while (!pairs.empty()) {
    const uint32_t rank = static_cast<uint32_t>(pairs.top() >> 32), at = static_cast<uint32_t>(pairs.top());
    pairs.pop();
    const Merged merged = merge_at(at);
    if (merged.rank != rank) {
      continue;
    }
    Symbol& left = symbols[at];
    Symbol& right = symbols[left.next];
    left.id = merged.id;
    left.next = right.next;
    right.id = kNone;
    if (left.next != kNone) {
      symbols[left.next].previous = at;
    }
    push(left.previous);
    push(at);
  }
  for (uint32_t at = 0; at != kNone; at = symbols[at].next) {
    ids.push_back(symbols[at].id);
  }
}

}  // namespace quire
