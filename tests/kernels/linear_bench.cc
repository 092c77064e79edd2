// quire_linear_bench [threads [isa]]: Linear over bfloat16 weights beside what the machine can do in the same run. Not
// known to ctest.
//
// Few rows are bound by reading the weights: GB/s, of a set of matrices too large for any cache, beside the rate of
// plain reads. Many rows are bound by arithmetic: GFLOP/s beside the rate of a register tile that never leaves L1.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/check.h"
#include "kernels/cpu/host_memory.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/parallel.h"
#include "kernels/linear/impl.h"

namespace quire {
namespace {

// CPU time of this thread where it works alone, which others on the machine disturb less; else wall time.
double Now(int threads) {
  timespec t;
  clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// The best times of works that take turns for a while: what the machine does when others let it, all under the same
// conditions.
std::vector<double> BestSeconds(int threads, const std::vector<std::function<void()>>& works) {
  std::vector<double> best(works.size(), 1e9);
  double spent = 0;
  for (int round = 0; round < 5 || (spent < 0.4 && round < 4000); ++round) {
    for (size_t i = 0; i < works.size(); ++i) {
      const double start = Now(threads);
      works[i]();
      const double s = Now(threads) - start;
      best[i] = std::min(best[i], s);
      spent += s;
    }
  }
  return best;
}

class Bench {
 public:
  Bench(int threads, CpuIsa isa) : isa_(isa), pool_(*ThreadPool::Create({threads, {}})) {
    std::minstd_rand random(1);
    for (uint16_t& bits : x_) bits = ToBFloat16(static_cast<float>(random() % 2001) / 1000.0f - 1.0f).bits;
  }

  void Print() {
    std::printf("%s, %d threads\n", std::string(CpuIsaName(isa_)).c_str(), pool_->num_threads());
    PrintRun();
    for (const auto& [n, k] :
         {std::pair<int64_t, int64_t>{2048, 2048}, {5632, 2048}, {2048, 5632}, {11264, 2048}, {256, 256}}) {
      PrintShape(n, k);
    }
  }

 private:
  LinearWeight Weight(int64_t n, int64_t k) {
    LinearWeight w;
    w.n = n;
    w.k = k;
    w.dtype = DType::kBFloat16;
    w.data = *AllocateHostMemory(static_cast<size_t>(NumPanels(n) * PanelElements(k, w.dtype)) * 2);
    uint16_t* data = static_cast<uint16_t*>(w.data.data());
    for (size_t i = 0; i < w.data.bytes() / 2; ++i) data[i] = x_[i % x_.size()];
    return w;
  }

  void Multiply(const LinearWeight& w, int64_t rows) {
    CpuLinear({.x = Tensor::Contiguous(x_.data(), DType::kBFloat16, rows, w.k),
               .weight = &w,
               .bias = nullptr,
               .accumulate = false,
               .y = Tensor::Contiguous(y_.data(), DType::kFloat32, rows, w.n)},
              KernelsFor(isa_), *pool_);
  }

  std::vector<double> Best(const std::vector<std::function<void()>>& works) {
    return BestSeconds(pool_->num_threads(), works);
  }

  // Plain reads of all bytes of a weight.
  void Read(const LinearWeight& w) {
    pool_->Run([&](int worker) {
      typedef uint64_t V __attribute__((vector_size(64)));
      V sum[4] = {};
      const Share share = ShareOf(static_cast<int64_t>(w.data.bytes() / 256), worker, pool_->num_threads());
      const V* p = static_cast<const V*>(w.data.data());
      for (int64_t i = share.begin * 4; i < share.end * 4; i += 4) {
        for (int v = 0; v < 4; ++v) sum[v] ^= p[i + v];
      }
      sums_[worker * 8] = (sum[0] ^ sum[1] ^ sum[2] ^ sum[3])[0];
    });
  }

  void PrintRun() {
    constexpr int kRuns = 100;
    const double s = Best({[&] {
      for (int i = 0; i < kRuns; ++i) pool_->Run([](int) {});
    }})[0];
    std::printf("empty Run %.2f us\n", s / kRuns * 1e6);
  }

  void PrintShape(int64_t n, int64_t k) {
    const int64_t copies = std::max<int64_t>(1, (int64_t{256} << 20) / (n * k * 2));
    std::vector<LinearWeight> weights;
    for (int64_t i = 0; i < copies; ++i) weights.push_back(Weight(n, k));
    size_t next = 0;  // the one that was used longest ago: no cache holds it
    auto cold = [&]() -> const LinearWeight& { return weights[next++ % weights.size()]; };
    y_.resize(static_cast<size_t>(512 * n));
    const double gb = static_cast<double>(n * k * 2) * 1e-9;
    std::printf("n %5d k %5d:", static_cast<int>(n), static_cast<int>(k));
    for (int64_t rows : {1, 2, 4, 8, 16, 32}) {
      const std::vector<double> s = Best({[&] { Read(cold()); }, [&] { Multiply(cold(), rows); }});
      std::printf("  %d: %.1f GB/s (%.0f %% of %.1f)", static_cast<int>(rows), gb / s[1], 100 * s[0] / s[1], gb / s[0]);
    }
    std::printf("  1 hot: %.2f us", Best({[&] { Multiply(weights[0], 1); }})[0] * 1e6);
    for (int64_t rows : {16, 64, 512}) {
      int64_t operations = 0;
      const std::vector<double> s = Best({[&] { Multiply(weights[0], rows); },
                                          [&] {
                                            pool_->Run([&](int worker) {
                                              const int64_t each = KernelsFor(isa_).multiply_adds(1000);
                                              if (worker == 0) operations = each * pool_->num_threads();
                                            });
                                          }});
      const double gflops = 2.0 * static_cast<double>(n * k * rows) / s[0] * 1e-9,
                   peak = static_cast<double>(operations) / s[1] * 1e-9;
      std::printf("  %d: %.0f GFLOP/s (%.0f %% of %.0f)", static_cast<int>(rows), gflops, gflops / peak * 100, peak);
    }
    std::printf("\n");
    std::fflush(stdout);
  }

  const CpuIsa isa_;
  const std::unique_ptr<ThreadPool> pool_;
  std::vector<uint16_t> x_ = std::vector<uint16_t>(512 * 5632);
  std::vector<float> y_;
  std::vector<uint64_t> sums_ = std::vector<uint64_t>(8 * 1024);
};

}  // namespace
}  // namespace quire

int main(int argc, char** argv) {
  const std::string isa = argc > 2 ? argv[2] : "auto";
  quire::Bench(argc > 1 ? std::atoi(argv[1]) : 0,
               isa == "auto" ? quire::ChooseCpuIsa() : quire::ParseCpuIsa(isa).value())
      .Print();
}
