// Moe on the CPU. The (row, expert) pairs of a call are brought in the order of the experts and worked off in waves of
// at most kWavePairs: gather x, gate_up, gate, down, add to y; rows that meet quantised weights are quantised before. A
// run of pairs of one expert shares the reading of its weights; a wave of several experts is one piece of work for all
// workers, so that a decode of one row, which is bandwidth bound, wakes them as seldom as a dense model does.
//
// Every product is a chain of its own (kernels/linear/impl.h) and y takes its experts by rising id: neither the waves
// nor the company have an influence on a row's bits.

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/check.h"
#include "kernels/cpu/parallel.h"
#include "kernels/linear/impl.h"
#include "kernels/moe/impl.h"

namespace quire {
namespace {

// Pairs of a wave: enough that a prompt's chunk reads the weights of an expert about once, few enough that what is kept
// of them between the phases is small beside the weights.
constexpr int64_t kWavePairs = 256;

// Multiply-adds from which it pays to wake the workers (see kernels/linear/cpu.cc).
constexpr int64_t kParallelMultiplyAdds = int64_t{192} << 10;

// Reading a panel of weights costs as much as multiplying it with so many rows.
constexpr int64_t kPanelCost = 4;

int64_t RoundUp64(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// A run of pairs of one expert within a wave, at most kMaxLinearRows.
struct Run {
  int32_t expert;
  int32_t begin;  // in the wave
  int32_t count;
};

// Where things lie in the workspace.
struct Layout {
  int64_t order, starts, runs, x, both, gated, result, quantized, bytes;

  Layout(int64_t pairs, int64_t num_experts, int64_t hidden, int64_t intermediate) {
    const int64_t wave = std::min(pairs, kWavePairs);
    order = 0;
    starts = order + RoundUp64(pairs * 4);
    runs = starts + RoundUp64((num_experts + 1) * 4);
    x = runs + RoundUp64(wave * static_cast<int64_t>(sizeof(Run)));
    both = x + RoundUp64(wave * hidden * 4);
    gated = both + RoundUp64(wave * 2 * intermediate * 4);
    result = gated + RoundUp64(wave * intermediate * 4);
    quantized = result + RoundUp64(wave * hidden * 4);
    bytes = quantized + RoundUp64(static_cast<int64_t>(QuantizedRowsBytes(wave, std::max(hidden, intermediate))));
  }
};

class Mixture {
 public:
  Mixture(const MoeArgs& args, const CpuKernels& kernels, const BlockKernels& block_kernels, ThreadPool& pool,
          char* workspace, const Layout& layout)
      : args_(args),
        kernels_(kernels),
        block_kernels_(block_kernels),
        pool_(pool),
        hidden_(args.x.cols),
        intermediate_(args.down[0].k),
        order_(reinterpret_cast<int32_t*>(workspace + layout.order)),
        starts_(reinterpret_cast<int32_t*>(workspace + layout.starts)),
        runs_(reinterpret_cast<Run*>(workspace + layout.runs)),
        x_(workspace + layout.x),
        both_(reinterpret_cast<float*>(workspace + layout.both)),
        gated_(workspace + layout.gated),
        result_(reinterpret_cast<float*>(workspace + layout.result)),
        quantized_(workspace + layout.quantized) {}

  void Compute() {
    SortPairs();
    const int64_t pairs = args_.x.rows * args_.top_k;
    for (int64_t begin = 0; begin < pairs; begin += kWavePairs) Wave(begin, std::min(kWavePairs, pairs - begin));
  }

 private:
  int32_t Expert(int64_t pair) const { return args_.experts[order_[pair]]; }

  // order_: the pairs, row * top_k + rank, by expert and within it by row.
  void SortPairs() {
    const int64_t pairs = args_.x.rows * args_.top_k;
    std::fill(starts_, starts_ + args_.num_experts + 1, 0);
    for (int64_t i = 0; i < pairs; ++i) ++starts_[args_.experts[i] + 1];
    for (int32_t e = 0; e < args_.num_experts; ++e) starts_[e + 1] += starts_[e];
    for (int64_t i = 0; i < pairs; ++i) order_[starts_[args_.experts[i]]++] = static_cast<int32_t>(i);
  }

  void Wave(int64_t begin, int64_t count) {
    const LinearWeight &gate_up = args_.gate_up[0], &down = args_.down[0];
    FindRuns(begin, count);
    const int64_t x_bytes = hidden_ * static_cast<int64_t>(DTypeBytes(gate_up.dtype));
    ParallelRows(pool_, count, hidden_, [&](int64_t i) {
      std::memcpy(x_ + i * x_bytes, args_.x.Rows(order_[begin + i] / args_.top_k, 1).data,
                  static_cast<size_t>(x_bytes));
    });
    Products(args_.gate_up, args_.gate_up_bias, x_, both_, count);
    const int64_t gated_bytes = intermediate_ * static_cast<int64_t>(DTypeBytes(down.dtype));
    ParallelRows(pool_, count, 2 * intermediate_, [&](int64_t i) {
      const float* g = both_ + i * 2 * intermediate_;
      kernels_.gated_activation[static_cast<int>(down.dtype)](args_.gate, g, g + intermediate_, intermediate_,
                                                              gated_ + i * gated_bytes);
    });
    Products(args_.down, args_.down_bias, gated_, result_, count);
    AddToY(begin, count);
  }

  void FindRuns(int64_t begin, int64_t count) {
    num_runs_ = 0;
    for (int64_t i = 0; i < count;) {
      const int32_t expert = Expert(begin + i);
      int64_t end = i + 1;
      while (end < count && end - i < kMaxLinearRows && Expert(begin + end) == expert) ++end;
      runs_[num_runs_++] = {expert, static_cast<int32_t>(i), static_cast<int32_t>(end - i)};
      i = end;
    }
  }

  // y = W[expert] x + bias[expert] for all pairs of the wave. Panels are shared out by their cost.
  void Products(const LinearWeight* weights, const float* bias, const char* x, float* y, int64_t count) {
    const int64_t n = weights[0].n, k = weights[0].k;
    const DType dtype = weights[0].dtype;
    const int64_t x_bytes = k * static_cast<int64_t>(DTypeBytes(dtype));
    const QuantizedRows quantized = QuantizedRowsAt(quantized_, count, k);
    ParallelRows(pool_, HasBlocks(weights) ? count : 0, k, [&](int64_t i) {
      block_kernels_.quantize[static_cast<int>(dtype)](x + i * x_bytes, k, quantized, i);
    });
    int64_t cost = 0;
    for (int64_t i = 0; i < num_runs_; ++i) cost += PanelsOf::Count(weights[runs_[i].expert]) * CostOf(runs_[i]);
    const int workers = count * n * k >= kParallelMultiplyAdds ? pool_.num_threads() : 1;
    const auto work = [&](int worker) {
      const Share share = ShareOf(cost, worker, workers);
      int64_t offset = 0;  // of the next panel in the line of all work
      for (int64_t i = 0; i < num_runs_ && offset < share.end; ++i) {
        const Run& run = runs_[i];
        const LinearWeight& weight = weights[run.expert];
        const LinearArgs args = {
            .x = Tensor::Contiguous(const_cast<char*>(x) + run.begin * x_bytes, dtype, run.count, k),
            .weight = &weight,
            .bias = bias != nullptr ? bias + run.expert * n : nullptr,
            .accumulate = false,
            .y = Tensor::Contiguous(y + run.begin * n, DType::kFloat32, run.count, n)};
        const PanelsOf panels(args, RowsFrom(quantized, run.begin), kernels_, block_kernels_);
        const int64_t num_panels = PanelsOf::Count(weight);
        for (int64_t panel = 0; panel < num_panels; ++panel, offset += CostOf(run)) {
          if (offset >= share.begin && offset < share.end) panels.Run(panel, 0, run.count);
        }
      }
    };
    if (workers > 1) {
      pool_.Run(work);
    } else {
      work(0);
    }
  }

  static int64_t CostOf(const Run& run) { return kPanelCost + run.count; }

  bool HasBlocks(const LinearWeight* weights) const {
    for (int64_t i = 0; i < num_runs_; ++i) {
      if (!weights[runs_[i].expert].slabs.empty()) return true;
    }
    return false;
  }

  static QuantizedRows RowsFrom(QuantizedRows rows, int64_t begin) {
    rows.q += begin * rows.stride;
    rows.scales += begin * (rows.stride / 32);
    rows.sums += begin * (rows.stride / 16);
    return rows;
  }

  // Shared out by columns: a row's pairs are added one after another.
  void AddToY(int64_t begin, int64_t count) {
    const int workers = count * hidden_ >= kParallelElements ? pool_.num_threads() : 1;
    const auto work = [&](int worker) {
      const Share share = ShareOf(hidden_, worker, workers);
      for (int64_t i = 0; i < count; ++i) {
        const int32_t pair = order_[begin + i];
        kernels_.add_scaled(result_ + i * hidden_ + share.begin, args_.weights[pair], share.end - share.begin,
                            args_.y.Row<float>(pair / args_.top_k) + share.begin);
      }
    };
    if (workers > 1) {
      pool_.Run(work);
    } else {
      work(0);
    }
  }

  const MoeArgs& args_;
  const CpuKernels& kernels_;
  const BlockKernels& block_kernels_;
  ThreadPool& pool_;
  const int64_t hidden_;
  const int64_t intermediate_;
  int32_t* const order_;   // [pairs]
  int32_t* const starts_;  // [num_experts + 1]
  Run* const runs_;        // [num_runs_]
  int64_t num_runs_ = 0;
  char* const x_;        // gate_up's dtype [wave, hidden]
  float* const both_;    // [wave, 2 * intermediate]
  char* const gated_;    // down's dtype [wave, intermediate]
  float* const result_;  // [wave, hidden]
  char* const quantized_;
};

}  // namespace

size_t CpuMoeWorkspaceBytes(const WorkspaceShape& shape) {
  if (shape.num_experts == 0) return 0;
  return static_cast<size_t>(
      Layout(shape.max_rows * shape.experts_per_token, shape.num_experts, shape.hidden, shape.expert_intermediate)
          .bytes);
}

void CpuMoe(const MoeArgs& args, const CpuKernels& kernels, const BlockKernels& block_kernels, ThreadPool& pool,
            absl::Span<char> workspace) {
  const Layout layout(args.x.rows * args.top_k, args.num_experts, args.x.cols, args.down[0].k);
  Check(layout.bytes <= static_cast<int64_t>(workspace.size()), "Moe beyond its workspace");
  Mixture(args, kernels, block_kernels, pool, workspace.data(), layout).Compute();
}

}  // namespace quire
