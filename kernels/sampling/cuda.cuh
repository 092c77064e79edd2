// The kernels of kernels/sampling/cuda.h: one CTA for each row of logits, which passes over the vocabulary a fixed
// number of times. What the definition finds by sorting is found here by the bits of an ordered key, from the highest
// down: which key is the last that stays, and, among equal ones, which id.
//
// Compiled without contraction (-fmad=false): every product and sum is rounded as in sampling/weight.h.

#ifndef QUIRE_KERNELS_SAMPLING_CUDA_CUH_
#define QUIRE_KERNELS_SAMPLING_CUDA_CUH_

#include <bit>

#include "kernels/cuda/numbers.h"
#include "kernels/cuda/reduce.h"
#include "kernels/sampling/adjust.h"
#include "kernels/sampling/cuda.h"
#include "kernels/sampling/philox.h"
#include "kernels/sampling/weight.h"

namespace quire::cuda {

// Larger for larger logits; the same for 0 and -0.
QUIRE_DEVICE uint32_t OrderedKey(float logit) {
  const auto bits = std::bit_cast<uint32_t>(logit == 0 ? 0.0f : logit);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}

// A logit's key and its id in one number; the better one is larger: the larger logit, then the smaller id.
QUIRE_DEVICE uint64_t PackBest(uint32_t key, uint32_t id) { return uint64_t{key} << 32 | (0xffffffffu - id); }
QUIRE_DEVICE uint32_t IdOf(uint64_t best) { return 0xffffffffu - static_cast<uint32_t>(best); }

constexpr int kSampleThreads = 1024;
constexpr int kSampleWarps = kSampleThreads / kWarpSize;
constexpr int kBins = 256;  // of a byte of the key
constexpr int kBinCopies = 16;

struct SampleShared {
  uint64_t wide[kSampleWarps];
  int32_t narrow[kSampleWarps];
  // Of the four-byte keys' bytes: most logits share a bin, so that the lanes of a warp add to copies of it.
  uint64_t bin_copies[kBins][kBinCopies];
  uint64_t bin_weight[kBins];
  uint64_t found;
  uint32_t found_id;
};

// One row of logits, by all threads of a CTA.
template <typename Thread>
class LogitRow {
 public:
  QUIRE_DEVICE LogitRow(const Thread& thread, float* logits, int32_t vocab, SampleShared* shared)
      : thread_(thread), logits_(logits), vocab_(vocab), shared_(shared) {}

  // Calls f(id, logit) for the ids of [first, end), `step` apart. Several are loaded before the first is looked at:
  // what one row asks of the memory at a time decides how long a pass takes.
  template <typename Function>
  QUIRE_DEVICE void ForEach(int32_t first, int32_t end, int32_t step, const Function& f) const {
    constexpr int kAtOnce = 8;
    for (; first < end; first += kAtOnce * step) {
      float logits[kAtOnce];
      QUIRE_UNROLL
      for (int i = 0; i < kAtOnce; ++i) logits[i] = first + i * step < end ? logits_[first + i * step] : 0;
      QUIRE_UNROLL
      for (int i = 0; i < kAtOnce; ++i) {
        if (first + i * step < end) f(static_cast<uint32_t>(first + i * step), logits[i]);
      }
    }
  }
  // Of all ids, each in one thread.
  template <typename Function>
  QUIRE_DEVICE void ForEach(const Function& f) const {
    ForEach(thread_.thread(), vocab_, kSampleThreads, f);
  }

  struct Best {
    bool is_finite;  // neither NaN nor +inf among the logits, and one that is finite
    uint64_t id;     // PackBest
  };
  QUIRE_DEVICE Best FindBest() const {
    bool bad = false, good = false;
    uint64_t best = 0;
    ForEach([&](uint32_t id, float logit) {
      bad |= !(logit < -kNegativeInfinity);
      good |= logit > kNegativeInfinity;
      best = Max(best, PackBest(OrderedKey(logit), id));
    });
    const int32_t flags = ReduceCta<Maximum>(thread_, bad ? 2 : 0, shared_->narrow) +
                          ReduceCta<Maximum>(thread_, good ? 1 : 0, shared_->narrow);
    return {flags == 1, ReduceCta<Maximum>(thread_, best, shared_->wide)};
  }

  // The best of those that come after `last` in the order by falling logit, then rising id.
  QUIRE_DEVICE uint64_t NextBest(uint64_t last) const {
    uint64_t best = 0;
    ForEach([&](uint32_t id, float logit) {
      const uint64_t candidate = PackBest(OrderedKey(logit), id);
      if (candidate < last && candidate > best) best = candidate;
    });
    return ReduceCta<Maximum>(thread_, best, shared_->wide);
  }

  template <typename WeightFunction>
  QUIRE_DEVICE uint64_t SumOf(const WeightFunction& weight) const {
    uint64_t sum = 0;
    ForEach([&](uint32_t id, float logit) { sum += weight(id, logit); });
    return ReduceCta<Sum>(thread_, sum, shared_->wide);
  }

  // What stays of the order by falling logit, then rising id: its beginning, up to and with `last`.
  struct Cut {
    uint32_t key = 0;           // larger ones stay
    uint32_t id = 0xffffffffu;  // of equal ones, those up to this
    QUIRE_DEVICE bool Keeps(uint32_t k, uint32_t i) const { return k > key || (k == key && i <= id); }
  };

  // The shortest beginning of the order whose amounts reach `target`; amount(id, logit) depends on the logit alone,
  // where it is not 0. REQUIRES: all amounts reach it; target > 0.
  template <typename Amount>
  QUIRE_DEVICE Cut Shortest(uint64_t target, const Amount& amount) const {
    uint32_t prefix = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
      uint64_t* copies = shared_->bin_copies[0];
      for (int b = thread_.thread(); b < kBins * kBinCopies; b += kSampleThreads) copies[b] = 0;
      thread_.Sync();
      ForEach([&](uint32_t id, float logit) {
        const uint32_t key = OrderedKey(logit);
        if (shift < 24 && (key >> (shift + 8)) != (prefix >> (shift + 8))) return;
        const uint64_t value = amount(id, logit);
        if (value > 0)
          thread_.AtomicAddShared(&shared_->bin_copies[(key >> shift) % kBins][thread_.lane() % kBinCopies], value);
      });
      thread_.Sync();
      for (int b = thread_.thread(); b < kBins; b += kSampleThreads) {
        uint64_t sum = 0;
        for (int c = 0; c < kBinCopies; ++c) sum += shared_->bin_copies[b][c];
        shared_->bin_weight[b] = sum;
      }
      thread_.Sync();
      if (thread_.thread() == 0) {
        int bin = kBins - 1;
        uint64_t left = target;
        for (; bin > 0 && shared_->bin_weight[bin] < left; --bin) left -= shared_->bin_weight[bin];
        shared_->found = left;
        shared_->found_id = static_cast<uint32_t>(bin);
      }
      thread_.Sync();
      target = shared_->found;
      prefix |= shared_->found_id << shift;
      thread_.Sync();
    }
    return {prefix, FirstIdReaching(target, [&](uint32_t id, float logit) {
              return OrderedKey(logit) == prefix ? amount(id, logit) : 0;
            })};
  }

  // The first id, in rising order, at which the sum of the amounts reaches `target` (> 0). REQUIRES: all reach it.
  template <typename Amount>
  QUIRE_DEVICE uint32_t FirstIdReaching(uint64_t target, const Amount& amount) const {
    // In the segment of which warp?
    const int32_t segment = RoundUp(CeilDiv(vocab_, kSampleWarps), kWarpSize);
    uint64_t in_segment = 0;
    ForEach(thread_.warp() * segment + thread_.lane(), Min((thread_.warp() + 1) * segment, vocab_), kWarpSize,
            [&](uint32_t id, float logit) { in_segment += amount(id, logit); });
    in_segment = ReduceWarp<Sum>(thread_, in_segment);
    if (thread_.lane() == 0) shared_->wide[thread_.warp()] = in_segment;
    thread_.Sync();
    int32_t found_warp = 0;
    for (; found_warp < kSampleWarps - 1 && shared_->wide[found_warp] < target; ++found_warp)
      target -= shared_->wide[found_warp];
    thread_.Sync();

    const int32_t length = CeilDiv(segment, kSampleThreads), segment_end = Min((found_warp + 1) * segment, vocab_);
    const int32_t begin = Min(found_warp * segment + thread_.thread() * length, segment_end);
    const int32_t end = Min(begin + length, segment_end);
    uint64_t mine = 0;
    for (int32_t id = begin; id < end; ++id) mine += amount(static_cast<uint32_t>(id), logits_[id]);
    uint64_t inclusive = mine;
    for (int delta = 1; delta < kWarpSize; delta *= 2) {
      const uint64_t other = thread_.ShuffleUp(inclusive, delta);
      if (thread_.lane() >= delta) inclusive += other;
    }
    if (thread_.lane() == kWarpSize - 1) shared_->wide[thread_.warp()] = inclusive;
    thread_.Sync();
    uint64_t before = inclusive - mine;
    for (int w = 0; w < thread_.warp(); ++w) before += shared_->wide[w];
    if (before < target && target <= before + mine) {
      uint64_t sum = before;
      int32_t id = begin;
      while (true) {
        sum += amount(static_cast<uint32_t>(id), logits_[id]);
        if (sum >= target) break;
        ++id;
      }
      shared_->found_id = static_cast<uint32_t>(id);
    }
    thread_.Sync();
    const uint32_t found = shared_->found_id;
    thread_.Sync();
    return found;
  }

  QUIRE_DEVICE float logit(uint32_t id) const { return logits_[id]; }

 private:
  const Thread& thread_;
  float* logits_;
  int32_t vocab_;
  SampleShared* shared_;
};

// The log-probabilities of a finite row, best first.
template <typename Thread>
struct RowLogprobs {
  uint64_t best;
  double max, log_sum;

  QUIRE_DEVICE RowLogprobs(const LogitRow<Thread>& row, uint64_t best_id) : best(best_id) {
    const float largest = row.logit(IdOf(best));
    max = largest;
    const uint64_t sum = row.SumOf([&](uint32_t, float logit) { return sampling::WeightOf(logit - largest); });
    log_sum = Log(static_cast<double>(sum) / sampling::kWeightOne);
  }
  QUIRE_DEVICE float Of(float logit) const { return static_cast<float>((static_cast<double>(logit) - max) - log_sum); }

  QUIRE_DEVICE void WriteTop(const Thread& thread, const LogitRow<Thread>& row, int32_t vocab, int32_t count,
                             TokenLogprob* top) const {
    uint64_t next = best;
    for (int32_t i = 0; i < Min(count, vocab); ++i) {
      if (thread.thread() == 0) top[i] = {IdOf(next), Of(row.logit(IdOf(next)))};
      if (i + 1 < count) next = row.NextBest(next);
    }
  }
};

template <typename Thread>
QUIRE_DEVICE void WriteNoTop(const Thread& thread, int32_t count, TokenLogprob* top) {
  for (int32_t i = thread.thread(); i < count; i += kSampleThreads) top[i] = {0, 0};
}

struct SampleKernel {
  struct Params {
    float* logits;  // [num_ctas, vocab], rows logits_stride apart; overwritten
    int64_t logits_stride;
    int32_t vocab;
    const SampleRow* rows;  // [num_ctas]
    SampledToken* tokens;   // [num_ctas]
    TokenLogprob* top;      // [num_ctas, top_stride]
    int32_t top_stride;
  };
  static constexpr int kThreads = kSampleThreads;
  static constexpr int kMinCtas = 1;
  static constexpr int kSharedBytes = static_cast<int>(sizeof(SampleShared));

  template <typename Thread>
  static QUIRE_DEVICE void Run(const Thread& thread, const Params& p) {
    auto* shared = reinterpret_cast<SampleShared*>(thread.shared());
    const SampleRow& row = p.rows[thread.cta()];
    float* logits = p.logits + thread.cta() * p.logits_stride;
    TokenLogprob* top = p.top + int64_t{thread.cta()} * p.top_stride;
    const LogitRow<Thread> values(thread, logits, p.vocab, shared);

    auto best = values.FindBest();
    SampledToken token{0, best.is_finite, 0};
    double max = 0, log_sum = 0;
    if (token.finite && row.wants_logprob) {
      const RowLogprobs<Thread> logprobs(values, best.id);
      logprobs.WriteTop(thread, values, p.vocab, row.num_top, top);
      max = logprobs.max;
      log_sum = logprobs.log_sum;
    }
    int32_t num_counts = 0;
    if (token.finite && (row.mask != nullptr || row.num_banned + row.num_bias + row.num_counts > 0)) {
      num_counts = CountDrawn(thread, row, shared);
      Adjust(thread, row, num_counts, logits, p.vocab);
      best = values.FindBest();
      token.finite = best.is_finite;
    }
    if (token.finite) {
      token.id = Draw(values, row, IdOf(best.id));
      if (row.wants_logprob) {
        const float raw = RawLogit(thread, row, num_counts, logits, token.id, shared);
        token.logprob = static_cast<float>((static_cast<double>(raw) - max) - log_sum);
      }
    } else if (row.wants_logprob) {
      WriteNoTop(thread, row.num_top, top);
    }
    if (thread.thread() == 0) p.tokens[thread.cta()] = token;
  }

  // Puts the token that the host has not seen among the counts. How many there are.
  template <typename Thread>
  static QUIRE_DEVICE int32_t CountDrawn(const Thread& thread, const SampleRow& row, SampleShared* shared) {
    if (row.drawn == nullptr) return row.num_counts;
    const uint32_t id = row.drawn->id;
    const int32_t num_seen = row.num_counts - 1;
    if (thread.thread() == 0) shared->found = 0;
    thread.Sync();
    for (int32_t i = thread.thread(); i < num_seen; i += kThreads) {
      if (row.counts[i].id != id) continue;
      ++row.counts[i].in_output;
      shared->found = 1;
    }
    thread.Sync();
    if (shared->found != 0) return num_seen;
    if (thread.thread() == 0) row.counts[num_seen] = {id, 1};
    return row.num_counts;  // Adjust begins with a Sync
  }

  // Steps 1 to 4. A token without weight is not drawn, so only what bias and penalties change is kept, for RawLogit.
  template <typename Thread>
  static QUIRE_DEVICE void Adjust(const Thread& thread, const SampleRow& row, int32_t num_counts, float* logits,
                                  int32_t vocab) {
    thread.Sync();  // log-probabilities have been read
    if (row.mask != nullptr) {
      for (int32_t id = thread.thread(); id < vocab; id += kThreads) {
        if ((row.mask[id / 32] >> id % 32 & 1) == 0) logits[id] = kNegativeInfinity;
      }
      thread.Sync();
    }
    for (int32_t i = thread.thread(); i < row.num_banned; i += kThreads) logits[row.banned[i]] = kNegativeInfinity;
    thread.Sync();
    for (int32_t i = thread.thread(); i < row.num_bias; i += kThreads) {
      float& logit = logits[row.bias[i].id];
      const float raw = logit;
      logit = Biased(raw, row.bias[i].bias);
      row.bias[i].bias = raw;
    }
    thread.Sync();
    for (int32_t i = thread.thread(); i < num_counts; i += kThreads) {
      float& logit = logits[row.counts[i].id];
      const float raw = logit;
      logit = Penalized(raw, row.params, row.counts[i]);
      row.counts[i].in_output = std::bit_cast<uint32_t>(raw);
    }
    thread.Sync();
  }

  // The logit that `id` had before Adjust.
  template <typename Thread>
  static QUIRE_DEVICE float RawLogit(const Thread& thread, const SampleRow& row, int32_t num_counts,
                                     const float* logits, uint32_t id, SampleShared* shared) {
    auto* raw = reinterpret_cast<float*>(&shared->found);
    if (thread.thread() == 0) *raw = logits[id];
    thread.Sync();
    for (int32_t i = thread.thread(); i < num_counts; i += kThreads) {
      if (row.counts[i].id == id) *raw = std::bit_cast<float>(row.counts[i].in_output);
    }
    thread.Sync();
    for (int32_t i = thread.thread(); i < row.num_bias; i += kThreads) {
      if (row.bias[i].id == id) *raw = row.bias[i].bias;
    }
    thread.Sync();
    return *raw;
  }

  // Steps 5 to 8. REQUIRES: the row is finite; `best` is the id of step 5.
  template <typename Thread>
  static QUIRE_DEVICE uint32_t Draw(const LogitRow<Thread>& values, const SampleRow& row, uint32_t best) {
    const SamplingParams& params = row.params;
    if (params.temperature == 0) return best;
    const float max = values.logit(best);
    const float inverse = Min(1.0f / params.temperature, 0x1.fffffep+127f);
    const auto weight = [&](float logit) { return sampling::WeightOf((logit - max) * inverse); };

    typename LogitRow<Thread>::Cut cut;
    if (params.top_k > 0) cut = values.Shortest(params.top_k, [](uint32_t, float) { return uint64_t{1}; });
    const auto kept = [&](uint32_t id, float logit) {
      return cut.Keeps(OrderedKey(logit), id) ? weight(logit) : uint64_t{0};
    };
    if (params.top_p < 1.0f) {
      const auto sum = static_cast<double>(values.SumOf(kept));
      const auto target = static_cast<uint64_t>(Ceil(static_cast<double>(params.top_p) * sum));
      cut = values.Shortest(target, kept);
    }
    const double least = static_cast<double>(params.min_p) * sampling::kWeightOne;
    const auto stays = [&](uint32_t id, float logit) {
      const uint64_t w = kept(id, logit);
      return static_cast<double>(w) < least ? uint64_t{0} : w;
    };
    const uint64_t left = RandomBelow(RandomBits(params.seed, row.position), values.SumOf(stays));
    return values.FirstIdReaching(left + 1, stays);
  }
};

struct ScoreKernel {
  struct Params {
    float* logits;  // [num_ctas, vocab], rows logits_stride apart; unchanged
    int64_t logits_stride;
    int32_t vocab;
    const uint32_t* targets;  // [num_ctas]
    int32_t num_top;
    float* logprobs;    // [num_ctas]
    TokenLogprob* top;  // [num_ctas, num_top]
  };
  static constexpr int kThreads = kSampleThreads;
  static constexpr int kMinCtas = 1;
  static constexpr int kSharedBytes = static_cast<int>(sizeof(SampleShared));

  template <typename Thread>
  static QUIRE_DEVICE void Run(const Thread& thread, const Params& p) {
    const LogitRow<Thread> values(thread, p.logits + thread.cta() * p.logits_stride, p.vocab,
                                  reinterpret_cast<SampleShared*>(thread.shared()));
    TokenLogprob* top = p.top + int64_t{thread.cta()} * p.num_top;
    float logprob = 0;
    const auto best = values.FindBest();
    if (best.is_finite) {
      const RowLogprobs<Thread> logprobs(values, best.id);
      logprobs.WriteTop(thread, values, p.vocab, p.num_top, top);
      logprob = logprobs.Of(values.logit(p.targets[thread.cta()]));
    } else {
      WriteNoTop(thread, p.num_top, top);
    }
    if (thread.thread() == 0) p.logprobs[thread.cta()] = logprob;
  }
};

template <typename Device>
void Sample(const SampleArgs& args, Device& device) {
  device.template Run<SampleKernel>(
      args.logits.rows, {args.logits.template Row<float>(0), args.logits.row_stride,
                         static_cast<int32_t>(args.logits.cols), args.rows, args.tokens, args.top, args.top_stride});
}

template <typename Device>
void Score(const ScoreArgs& args, Device& device) {
  device.template Run<ScoreKernel>(
      args.logits.rows, {args.logits.template Row<float>(0), args.logits.row_stride,
                         static_cast<int32_t>(args.logits.cols), args.targets, args.num_top, args.logprobs, args.top});
}

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_SAMPLING_CUDA_CUH_
