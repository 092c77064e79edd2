// Sample and Score on the CPU: rows are shared among the workers; a row is a few vector passes over the vocabulary and
// some work on the few ids that a filter leaves. The vocabulary is never sorted: the maxima of its stretches bound
// which ids can be among the best, and since sums of weights are exact in any order, where top_p cuts is found by
// halving.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>

#include "absl/types/span.h"
#include "kernels/check.h"
#include "kernels/sampling/adjust.h"
#include "kernels/sampling/impl.h"
#include "kernels/sampling/philox.h"
#include "kernels/sampling/sampling.h"
#include "kernels/sampling/scan.h"
#include "kernels/sampling/weight.h"

namespace quire {
namespace {

using sampling::kStretch;
using sampling::kWeightOne;
using sampling::SamplingKernels;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A set of at most so many is cut by selection at once; of a larger one a range of weights is singled out before, in so
// many halvings of 44 bits, each a pass over the weights: what is left of a flat row of 2^17 ids is some hundreds.
constexpr int64_t kFew = 256;
constexpr int kHalvings = 12;

// Waking workers costs about a microsecond, what a pass over so many logits does.
constexpr int64_t kMinSharedLogits = 16384;

const SamplingKernels& KernelsOf(CpuIsa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case CpuIsa::kAvx512Bf16:
    case CpuIsa::kAvx512:
      return sampling::Avx512Sampling();
    case CpuIsa::kAvx2:
      return sampling::Avx2Sampling();
#endif
    default:
      return sampling::PortableSampling();
  }
}

int64_t NumStretches(int64_t vocab_size) { return (vocab_size + kStretch - 1) / kStretch; }

// A worker's part of the workspace, whole lines.
struct Scratch {
  Scratch(int64_t vocab_size, char* begin) {
    weights = reinterpret_cast<uint64_t*>(begin);
    sums = weights + vocab_size;
    ids = reinterpret_cast<uint32_t*>(sums + NumStretches(vocab_size));
    order = ids + vocab_size;
    adjusted = reinterpret_cast<float*>(order + vocab_size);
    maxima = adjusted + vocab_size;
    bounds = maxima + NumStretches(vocab_size);
  }
  static int64_t Bytes(int64_t vocab_size) { return (vocab_size * 20 + NumStretches(vocab_size) * 16 + 63) / 64 * 64; }

  uint64_t* weights;  // [vocab_size]: of the candidates
  uint64_t* sums;     // [stretches]
  uint32_t* ids;      // [vocab_size]: the candidates, rising
  uint32_t* order;    // [vocab_size]: indices of candidates
  float* adjusted;    // [vocab_size]: the logits that are drawn from, where they are not the model's
  float* maxima;      // [stretches]
  float* bounds;      // [stretches]: for selection among maxima
};

// One row of logits. The candidates are the ids that filters have left so far.
class Row {
 public:
  Row(const SamplingKernels& kernels, const Scratch& scratch, float* logits, int64_t vocab_size)
      : kernels_(kernels), scratch_(scratch), logits_(logits), raw_(logits), vocab_size_(vocab_size) {}

  // To be called first. False: a NaN, +inf, or nothing finite.
  bool Scan() {
    if (!kernels_.scan(logits_, vocab_size_, scratch_.maxima)) return false;
    max_ = *std::max_element(scratch_.maxima, scratch_.maxima + NumStretches(vocab_size_));
    return max_ > -kInfinity;
  }

  // Steps 1 to 4 of sampling.h. False: nothing finite is left. Only bans may write over the model's logits: what they
  // touch is never drawn, so that its log-probability is not asked for.
  bool Adjust(const SampleRow& row, const SampledToken* drawn) {
    if (row.allowed.empty() && row.bias.empty() && row.counts.empty() && !row.drawn.has_value())
      return row.banned.empty() || Ban(row.banned);
    if (row.allowed.empty()) {
      std::copy_n(raw_, vocab_size_, scratch_.adjusted);
    } else {
      std::fill_n(scratch_.adjusted, vocab_size_, -kInfinity);
      for (const uint32_t id : row.allowed) scratch_.adjusted[id] = raw_[id];
    }
    logits_ = scratch_.adjusted;
    for (const uint32_t id : row.banned) logits_[id] = -kInfinity;
    for (const TokenBias& token : row.bias) logits_[token.id] = Biased(logits_[token.id], token.bias);
    ForEachCount(row, drawn, [&](const TokenCount& token) {
      logits_[token.id] = Penalized(logits_[token.id], *row.params, token);
    });
    return Scan();
  }

  // Sets what Logprob subtracts. The logits are those of the model, nothing adjusted.
  void Normalize() {
    logprob_max_ = max_;
    log_sum_ = std::log(static_cast<double>(kernels_.sum(logits_, vocab_size_, max_, 1.0f, nullptr)) / kWeightOne);
  }
  float Logprob(uint32_t id) const { return static_cast<float>((double{raw_[id]} - logprob_max_) - log_sum_); }

  void Top(int32_t count, TokenLogprob* top) {
    if (count == 0) return;
    Gather(BoundOfBest(count));
    const int64_t n = std::min<int64_t>(count, num_candidates_);
    ResetOrder();
    std::nth_element(scratch_.order, scratch_.order + n - 1, scratch_.order + num_candidates_, Before());
    std::sort(scratch_.order, scratch_.order + n, Before());
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t id = scratch_.ids[scratch_.order[i]];
      top[i] = {id, Logprob(id)};
    }
  }

  uint32_t Draw(const SamplingParams& params, uint64_t position) {
    if (params.temperature == 0) return Best();
    inverse_ = std::min(1.0f / params.temperature, std::numeric_limits<float>::max());
    const uint64_t bits = RandomBits(params.seed, position);
    const bool top_k = params.top_k > 0 && params.top_k < vocab_size_;
    if (!top_k && params.top_p >= 1.0f && params.min_p <= 0.0f) return DrawFromAll(bits);
    if (top_k) {
      KeepBest(params.top_k);
      if (params.top_p < 1.0f) KeepUpTo(Target(params.top_p, SumOfCandidates()));
    } else if (params.top_p < 1.0f) {
      KeepMass(params.top_p);
    } else {
      // A little more than min_p asks for: x is rounded, and what is too much goes below.
      Gather(LogitAt(std::log(double{params.min_p}) - 0.01));
      Weigh();
    }
    if (params.min_p > 0) KeepAtLeast(double{params.min_p} * kWeightOne);
    return DrawFromCandidates(bits);
  }

 private:
  // False: nothing finite is left.
  bool Ban(absl::Span<const uint32_t> ids) {
    for (uint32_t id : ids) {
      logits_[id] = -kInfinity;
      const int64_t begin = id / kStretch * kStretch;
      kernels_.scan(logits_ + begin, std::min(kStretch, vocab_size_ - begin), scratch_.maxima + id / kStretch);
    }
    max_ = *std::max_element(scratch_.maxima, scratch_.maxima + NumStretches(vocab_size_));
    return max_ > -kInfinity;
  }

  // Compares candidates by index: falling logit, then rising id (indices rise with ids).
  struct BeforeInOrder {
    const float* logits;
    const uint32_t* ids;
    bool operator()(uint32_t a, uint32_t b) const {
      const float x = logits[ids[a]], y = logits[ids[b]];
      return x != y ? x > y : a < b;
    }
  };
  BeforeInOrder Before() const { return {logits_, scratch_.ids}; }

  void ResetOrder() {
    for (int64_t i = 0; i < num_candidates_; ++i) scratch_.order[i] = static_cast<uint32_t>(i);
  }

  uint32_t Best() const {
    const int64_t stretch =
        std::find(scratch_.maxima, scratch_.maxima + NumStretches(vocab_size_), max_) - scratch_.maxima;
    return static_cast<uint32_t>(std::find(logits_ + stretch * kStretch, logits_ + vocab_size_, max_) - logits_);
  }

  // A bound that at least `count` logits reach (all, if there are fewer): the count-th largest of the stretches'
  // maxima.
  float BoundOfBest(int64_t count) {
    const int64_t n = NumStretches(vocab_size_);
    if (count > n) return -kInfinity;
    std::copy(scratch_.maxima, scratch_.maxima + n, scratch_.bounds);
    std::nth_element(scratch_.bounds, scratch_.bounds + count - 1, scratch_.bounds + n, std::greater<float>());
    return scratch_.bounds[count - 1];
  }

  // The logit whose weight is 2^44 e^x.
  float LogitAt(double x) const { return static_cast<float>(max_ + x / inverse_); }

  // The candidates become all ids of at least this logit.
  void Gather(float logit) {
    num_candidates_ = 0;
    for (int64_t begin = 0; begin < vocab_size_; begin += kStretch) {
      if (scratch_.maxima[begin / kStretch] < logit) continue;
      const int64_t end = std::min(begin + kStretch, vocab_size_);
      for (int64_t id = begin; id < end; ++id) {
        scratch_.ids[num_candidates_] = static_cast<uint32_t>(id);
        num_candidates_ += logits_[id] >= logit;
      }
    }
  }

  void Weigh() {
    float logits[kStretch];
    for (int64_t begin = 0; begin < num_candidates_; begin += kStretch) {
      const int64_t n = std::min(kStretch, num_candidates_ - begin);
      for (int64_t i = 0; i < n; ++i) logits[i] = logits_[scratch_.ids[begin + i]];
      kernels_.weigh(logits, n, max_, inverse_, scratch_.weights + begin);
    }
  }

  uint64_t SumOfCandidates() const {
    uint64_t sum = 0;
    for (int64_t i = 0; i < num_candidates_; ++i) sum += scratch_.weights[i];
    return sum;
  }

  // Keeps the candidates for which keep(index) holds.
  template <typename Keep>
  void Filter(const Keep& keep) {
    int64_t kept = 0;
    for (int64_t i = 0; i < num_candidates_; ++i) {
      if (!keep(static_cast<uint32_t>(i))) continue;
      scratch_.ids[kept] = scratch_.ids[i];
      scratch_.weights[kept++] = scratch_.weights[i];
    }
    num_candidates_ = kept;
  }

  // Keeps `last` and what stands before it in order. Filter moves ids, so compares with copies.
  void KeepThrough(uint32_t last) {
    const uint32_t last_id = scratch_.ids[last];
    const float bound = logits_[last_id];
    Filter([&](uint32_t i) {
      const uint32_t id = scratch_.ids[i];
      return logits_[id] > bound || (logits_[id] == bound && id <= last_id);
    });
  }

  // The candidates become the k largest logits, with their weights. REQUIRES: k < vocab_size.
  void KeepBest(int64_t k) {
    Gather(BoundOfBest(k));
    Weigh();
    if (num_candidates_ == k) return;
    ResetOrder();
    std::nth_element(scratch_.order, scratch_.order + k - 1, scratch_.order + num_candidates_, Before());
    KeepThrough(scratch_.order[k - 1]);
  }

  static uint64_t Target(float top_p, uint64_t sum) {
    return static_cast<uint64_t>(std::ceil(double{top_p} * static_cast<double>(sum)));
  }

  // The candidates become the smallest set of largest weights of the whole row whose sum reaches its share top_p.
  void KeepMass(float top_p) {
    const uint64_t target = Target(top_p, kernels_.sum(logits_, vocab_size_, max_, inverse_, nullptr));
    // Few ids hold the mass of most rows: widen until they do. The last bound holds all that has a weight.
    for (double x : {-2.0, -5.0, -10.0, -std::numeric_limits<double>::infinity()}) {
      Gather(LogitAt(x));
      Weigh();
      if (SumOfCandidates() >= target) break;
    }
    KeepUpTo(target);
  }

  // Keeps the shortest beginning of the candidates' order whose weights reach `target`. REQUIRES: all of them do.
  void KeepUpTo(uint64_t target) {
    // The last one to keep has a weight in [low, high): the sum of those >= low reaches target, that of those >= high
    // does not.
    uint64_t low = 0, high = static_cast<uint64_t>(kWeightOne) + 1;
    for (int i = 0; i < kHalvings && num_candidates_ > kFew; ++i) {
      const uint64_t middle = low + (high - low) / 2;
      (kernels_.sum_at_least(scratch_.weights, num_candidates_, middle) >= target ? low : high) = middle;
    }
    target -= kernels_.sum_at_least(scratch_.weights, num_candidates_, high);
    int64_t begin = 0, end = 0;  // in `order`, where the last one to keep is; what stands before is taken from target
    for (int64_t i = 0; i < num_candidates_; ++i) {
      scratch_.order[end] = static_cast<uint32_t>(i);
      end += scratch_.weights[i] >= low && scratch_.weights[i] < high;
    }
    while (end - begin > 1) {
      const int64_t middle = begin + (end - begin) / 2;
      std::nth_element(scratch_.order + begin, scratch_.order + middle, scratch_.order + end, Before());
      uint64_t sum = 0;
      for (int64_t i = begin; i < middle; ++i) sum += scratch_.weights[scratch_.order[i]];
      if (sum >= target) {
        end = middle;
      } else {
        target -= sum;
        begin = middle;
      }
    }
    KeepThrough(scratch_.order[begin]);
  }

  void KeepAtLeast(double weight) {
    Filter([&](uint32_t i) { return static_cast<double>(scratch_.weights[i]) >= weight; });
  }

  uint32_t DrawFromCandidates(uint64_t bits) const {
    uint64_t left = RandomBelow(bits, SumOfCandidates());
    int64_t i = 0;
    while (left >= scratch_.weights[i]) left -= scratch_.weights[i++];
    return scratch_.ids[i];
  }

  uint32_t DrawFromAll(uint64_t bits) {
    uint64_t left = RandomBelow(bits, kernels_.sum(logits_, vocab_size_, max_, inverse_, scratch_.sums));
    int64_t stretch = 0;
    while (left >= scratch_.sums[stretch]) left -= scratch_.sums[stretch++];
    const int64_t begin = stretch * kStretch;
    uint64_t weights[kStretch];
    kernels_.weigh(logits_ + begin, std::min(kStretch, vocab_size_ - begin), max_, inverse_, weights);
    int64_t i = 0;
    while (left >= weights[i]) left -= weights[i++];
    return static_cast<uint32_t>(begin + i);
  }

  const SamplingKernels& kernels_;
  const Scratch& scratch_;
  float* logits_;     // that are drawn from
  const float* raw_;  // the model's, but for bans
  int64_t vocab_size_;
  int64_t num_candidates_ = 0;
  float max_ = 0;
  float inverse_ = 1;  // of the temperature
  double logprob_max_ = 0;
  double log_sum_ = 0;
};

void SampleOne(const SampleArgs& args, const SamplingKernels& kernels, const Scratch& scratch, int64_t r) {
  const SampleRow& params = args.rows[r];
  TokenLogprob* top = args.top + r * args.top_stride;
  SampledToken& token = args.tokens[r];
  token = {};
  Row row(kernels, scratch, args.logits.Row<float>(r), args.logits.cols);
  token.finite = row.Scan();
  if (token.finite && params.wants_logprob) {
    row.Normalize();
    row.Top(params.num_top, top);
  }
  if (token.finite) token.finite = row.Adjust(params, args.drawn);
  if (!token.finite) {
    if (params.wants_logprob) std::fill_n(top, params.num_top, TokenLogprob{0, 0});
    return;
  }
  token.id = row.Draw(*params.params, params.position);
  if (params.wants_logprob) token.logprob = row.Logprob(token.id);
}

void ScoreOne(const ScoreArgs& args, const SamplingKernels& kernels, const Scratch& scratch, int64_t r) {
  TokenLogprob* top = args.top + r * args.num_top;
  Row row(kernels, scratch, args.logits.Row<float>(r), args.logits.cols);
  if (!row.Scan()) {
    args.logprobs[r] = 0;
    std::fill_n(top, args.num_top, TokenLogprob{0, 0});
    return;
  }
  row.Normalize();
  args.logprobs[r] = row.Logprob(args.targets[r]);
  row.Top(args.num_top, top);
}

// Calls one(args, kernels, scratch, row) for every row.
template <typename Args>
void ForRows(const Args& args, CpuIsa isa, ThreadPool& pool, absl::Span<char> workspace,
             void (*one)(const Args&, const SamplingKernels&, const Scratch&, int64_t)) {
  const int64_t rows = args.logits.rows, vocab_size = args.logits.cols;
  const int num_threads = rows == 1 || rows * vocab_size < kMinSharedLogits ? 1 : pool.num_threads();
  Check(vocab_size <= sampling::kMaxVocabSize, "vocabulary above 2^20");
  Check(num_threads * Scratch::Bytes(vocab_size) <= static_cast<int64_t>(workspace.size()),
        "sampling beyond its workspace");
  const SamplingKernels& kernels = KernelsOf(isa);
  const auto work = [&](int worker) {
    const Scratch scratch(vocab_size, workspace.data() + worker * Scratch::Bytes(vocab_size));
    for (int64_t r = worker; r < rows; r += num_threads) one(args, kernels, scratch, r);
  };
  if (num_threads == 1) {
    work(0);
  } else {
    pool.Run(work);
  }
}

}  // namespace

size_t CpuSampleWorkspaceBytes(const WorkspaceShape& shape, int num_threads) {
  return static_cast<size_t>(num_threads * Scratch::Bytes(shape.vocab_size));
}

void CpuSample(const SampleArgs& args, CpuIsa isa, ThreadPool& pool, absl::Span<char> workspace) {
  ForRows(args, isa, pool, workspace, &SampleOne);
}

void CpuScore(const ScoreArgs& args, CpuIsa isa, ThreadPool& pool, absl::Span<char> workspace) {
  ForRows(args, isa, pool, workspace, &ScoreOne);
}

}  // namespace quire
