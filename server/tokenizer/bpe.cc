#include "server/tokenizer/bpe.h"

#include <algorithm>
#include <functional>
#include <queue>

#include "server/tokenizer/unicode.h"

namespace quire {
namespace {

// Up to here scanning for the lowest rank beats a heap; it bounds the quadratic part.
constexpr size_t kMaxShortSymbols = 48;

// How sentencepiece writes a space.
constexpr absl::string_view kSpaceSymbol = "\u2581";

uint64_t PairKey(uint32_t left, uint32_t right) { return uint64_t{left} << 32 | right; }

// Where in `text` the next space symbol begins that stands behind another character, from `from` on.
size_t FindWordBegin(absl::string_view text, size_t from) {
  for (size_t at = text.find(kSpaceSymbol, from); at != text.npos; at = text.find(kSpaceSymbol, at + 1)) {
    if (at >= kSpaceSymbol.size() ? text.substr(at - kSpaceSymbol.size(), kSpaceSymbol.size()) != kSpaceSymbol
                                  : at > 0) {
      return at;
    }
  }
  return text.npos;
}

// Merges symbols in place, the lowest rank first, and returns how many are left; quadratic.
template <typename Merged, typename Find>
size_t MergeFew(uint32_t* symbols, size_t count, const Merged& none, const Find& find) {
  std::array<Merged, kMaxShortSymbols> merges;  // [count] merge of symbols i and i + 1; the last has none
  for (size_t i = 0; i < count; ++i) {
    merges[i] = i + 1 < count ? find(symbols[i], symbols[i + 1]) : none;
  }
  while (count > 1) {
    const auto lowest = std::min_element(merges.begin(), merges.begin() + count,
                                         [](const Merged& a, const Merged& b) { return a.rank < b.rank; });
    if (lowest->rank == none.rank) {
      break;
    }
    const size_t at = lowest - merges.begin();
    symbols[at] = lowest->id;
    std::copy(symbols + at + 2, symbols + count, symbols + at + 1);
    std::copy(merges.begin() + at + 2, merges.begin() + count, merges.begin() + at + 1);
    --count;
    merges[at] = at + 1 < count ? find(symbols[at], symbols[at + 1]) : none;
    if (at > 0) {
      merges[at - 1] = find(symbols[at - 1], symbols[at]);
    }
  }
  return count;
}

// Pairs that may be merged, the lowest rank first and of one rank the leftmost first. Positions of one rank come mostly
// in ascending order, so each rank keeps them in a list, and in a heap only those that come late: runs of one letter
// then cost next to nothing.
class PairQueue {
 public:
  void Push(uint32_t rank, uint32_t position) {
    const auto [entry, is_new] = index_of_.try_emplace(rank, static_cast<uint32_t>(positions_.size()));
    if (is_new) {
      positions_.emplace_back();
    }
    Positions& positions = positions_[entry->second];
    if (positions.ascending.empty() || position >= positions.ascending.back()) {
      positions.ascending.push_back(position);
    } else {
      positions.late.push(position);
    }
    if (!positions.is_queued) {
      positions.is_queued = true;
      ranks_.push(uint64_t{rank} << 32 | entry->second);
    }
  }

  // The next pair: its rank and the position of its left symbol.
  std::optional<std::pair<uint32_t, uint32_t>> Pop() {
    while (!ranks_.empty()) {
      Positions& positions = positions_[static_cast<uint32_t>(ranks_.top())];
      const uint32_t rank = static_cast<uint32_t>(ranks_.top() >> 32);
      const bool has_next = positions.num_taken < positions.ascending.size();
      if (!positions.late.empty() && (!has_next || positions.late.top() < positions.ascending[positions.num_taken])) {
        const uint32_t position = positions.late.top();
        positions.late.pop();
        return std::pair(rank, position);
      }
      if (has_next) {
        return std::pair(rank, positions.ascending[positions.num_taken++]);
      }
      positions.is_queued = false;
      positions.ascending.clear();
      positions.num_taken = 0;
      ranks_.pop();
    }
    return std::nullopt;
  }

 private:
  template <typename T>
  using MinHeap = std::priority_queue<T, std::vector<T>, std::greater<>>;

  struct Positions {
    std::vector<uint32_t> ascending;
    size_t num_taken = 0;  // of ascending
    MinHeap<uint32_t> late;
    bool is_queued = false;  // in ranks_
  };

  std::vector<Positions> positions_;
  absl::flat_hash_map<uint32_t, uint32_t> index_of_;  // rank: index in positions_
  MinHeap<uint64_t> ranks_;                           // rank << 32 | index in positions_
};

// The same for many symbols, n log n. REQUIRES: ids.size() < 2^31.
template <typename Merged, typename Find>
void MergeMany(std::vector<uint32_t>& ids, const Merged& none, const Find& find) {
  constexpr uint32_t kNone = UINT32_MAX;
  struct Symbol {
    uint32_t id;  // kNone: merged into one before it
    uint32_t previous;
    uint32_t next;
  };
  const uint32_t count = static_cast<uint32_t>(ids.size());
  std::vector<Symbol> symbols(count);
  for (uint32_t i = 0; i < count; ++i) {
    symbols[i] = {ids[i], i == 0 ? kNone : i - 1, i + 1 == count ? kNone : i + 1};
  }
  PairQueue pairs;
  const auto merge_at = [&](uint32_t at) {
    const uint32_t next = at == kNone ? kNone : symbols[at].next;
    return next == kNone || symbols[at].id == kNone ? none : find(symbols[at].id, symbols[next].id);
  };
  const auto push = [&](uint32_t at) {
    if (const Merged merged = merge_at(at); merged.rank != none.rank) {
      pairs.Push(merged.rank, at);
    }
  };
  for (uint32_t i = 0; i < count; ++i) {
    push(i);
  }
  while (const std::optional<std::pair<uint32_t, uint32_t>> pair = pairs.Pop()) {
    // A pair that is gone by now is passed over: its left symbol is merged away, or has another right neighbour, with
    // another rank. (Where ranks repeat, it may have the same: then this entry stands for that pair.)
    const auto [rank, at] = *pair;
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
  ids.clear();
  for (uint32_t at = 0; at != kNone; at = symbols[at].next) {
    ids.push_back(symbols[at].id);
  }
}

}  // namespace

Bpe::Bpe(BpeModel model) : model_(std::move(model)) {
  merges_.reserve(model_.merges.size());
  for (const BpeModel::Merge& merge : model_.merges) {
    merges_[PairKey(merge.left, merge.right)] = {merge.rank, merge.merged};
  }
  one_token_.reserve(model_.words.size());
  std::vector<uint32_t> ids;
  for (auto& [word, id] : model_.words) {
    ids.clear();
    if (!model_.ignore_merges) {
      EncodeByMerges(word, ids);
    }
    if (model_.ignore_merges || (ids.size() == 1 && ids[0] == id)) {
      one_token_.emplace(word, id);
    }
  }
  cuts_at_spaces_ = MayCutAtSpaces();
  model_.merges = {};
  model_.words = {};
}

// Whether no merge reaches over the border before a space symbol that stands behind another character. Whole documents
// are one piece to Llama 2; cutting them there makes their words short.
bool Bpe::MayCutAtSpaces() const {
  if (!model_.by_characters || model_.ignore_merges ||
      !model_.character_ids.contains(NextUtf8(kSpaceSymbol).code_point)) {
    return false;
  }
  absl::flat_hash_map<uint32_t, bool> is_merged;
  for (const BpeModel::Merge& merge : model_.merges) {
    is_merged[merge.merged] = true;
  }
  return std::none_of(model_.words.begin(), model_.words.end(), [&](const std::pair<std::string, uint32_t>& word) {
    return is_merged.contains(word.second) && FindWordBegin(word.first, 0) != absl::string_view::npos;
  });
}

Bpe::Merged Bpe::Find(uint32_t left, uint32_t right) const {
  const auto found = merges_.find(PairKey(left, right));
  return found == merges_.end() ? kNoMerge : found->second;
}

void Bpe::Encode(absl::string_view piece, std::vector<uint32_t>& ids) const {
  if (!cuts_at_spaces_) {
    EncodeWord(piece, ids);
    return;
  }
  for (size_t begin = 0; begin < piece.size();) {
    const size_t end = std::min(FindWordBegin(piece, begin + 1), piece.size());
    EncodeWord(piece.substr(begin, end - begin), ids);
    begin = end;
  }
}

void Bpe::EncodeWord(absl::string_view word, std::vector<uint32_t>& ids) const {
  if (const auto found = one_token_.find(word); found != one_token_.end()) {
    ids.push_back(found->second);
  } else {
    EncodeByMerges(word, ids);
  }
}

void Bpe::EncodeByMerges(absl::string_view word, std::vector<uint32_t>& ids) const {
  const auto find = [this](uint32_t left, uint32_t right) { return Find(left, right); };
  if (word.size() <= kMaxShortSymbols) {
    std::array<uint32_t, kMaxShortSymbols> symbols;
    const size_t count = MergeFew(symbols.data(), WriteSymbols(word, symbols.data()), kNoMerge, find);
    ids.insert(ids.end(), symbols.begin(), symbols.begin() + count);
    return;
  }
  std::vector<uint32_t> symbols(word.size());
  symbols.resize(WriteSymbols(word, symbols.data()));
  if (!symbols.empty()) {
    MergeMany(symbols, kNoMerge, find);
    ids.insert(ids.end(), symbols.begin(), symbols.end());
  }
}

size_t Bpe::WriteSymbols(absl::string_view word, uint32_t* symbols) const {
  // As in `tokenizers` (bpe/model.rs, merge_word) an unknown character waits for the next one that has a token or is
  // unknown itself: characters that are spelled by bytes come before it.
  size_t count = 0;
  bool waits = false;
  const auto add_waiting = [&] {
    if (waits && model_.unk_id != kNoToken) {
      symbols[count++] = model_.unk_id;
    }
    waits = false;
  };
  const auto add_unknown = [&] {
    if (!model_.fuse_unk) {
      add_waiting();
    }
    waits = true;
  };
  for (size_t at = 0; at < word.size();) {
    if (!model_.by_characters) {
      const uint32_t id = model_.byte_ids[static_cast<uint8_t>(word[at++])];
      if (id == kNoToken) {
        add_unknown();
      } else {
        add_waiting();
        symbols[count++] = id;
      }
      continue;
    }
    const Utf8Sequence next = NextUtf8(word.substr(at));
    const size_t num_bytes = next.kind == Utf8Sequence::kCharacter ? next.num_bytes : 1;
    const auto found =
        next.kind == Utf8Sequence::kCharacter ? model_.character_ids.find(next.code_point) : model_.character_ids.end();
    const absl::string_view bytes = word.substr(at, num_bytes);
    at += num_bytes;
    if (found != model_.character_ids.end()) {
      add_waiting();
      symbols[count++] = found->second;
    } else if (std::all_of(bytes.begin(), bytes.end(),
                           [&](char c) { return model_.byte_ids[static_cast<uint8_t>(c)] != kNoToken; })) {
      for (const char c : bytes) {
        symbols[count++] = model_.byte_ids[static_cast<uint8_t>(c)];
      }
    } else {
      add_unknown();
    }
  }
  add_waiting();
  return count;
}

}  // namespace quire
