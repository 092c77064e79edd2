// quire_attention_bench [threads [isa]]: paged attention over a bfloat16 cache beside what the machine can do in the
// same run. Not known to ctest.
//
// Decode (one row for each sequence) is bound by reading K and V: GB/s, of caches too large for any cache, beside the
// rate of plain reads; and of one small cache, the rate that arithmetic allows. Prefill is bound by arithmetic: GFLOP/s
// of a chunk after a context.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "kernels/check.h"
#include "kernels/cpu/host_memory.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/paged_attention/impl.h"

namespace quire {
namespace {

constexpr int32_t kBlockSize = 16;
constexpr int64_t kDramBytes = int64_t{1} << 30;

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
  for (int round = 0; round < 5 || (spent < 0.5 && round < 4000); ++round) {
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

struct Heads {
  int32_t q_heads;
  int32_t kv_heads;
  int32_t head_dim;
};

class Bench {
 public:
  Bench(int threads, CpuIsa isa) : threads_(threads), isa_(isa), pool_(*ThreadPool::Create({threads, {}})) {
    k_ = *AllocateHostMemory(kDramBytes / 2);
    v_ = *AllocateHostMemory(kDramBytes / 2);
    std::minstd_rand random(1);
    for (Buffer* buffer : {&k_, &v_}) {
      uint16_t* data = static_cast<uint16_t*>(buffer->data());
      uint16_t noise[4096];
      for (uint16_t& bits : noise) bits = ToBFloat16(static_cast<float>(random() % 2001) / 1000.0f - 1.0f).bits;
      for (size_t i = 0; i < buffer->bytes() / 2; i += 4096) std::copy_n(noise, 4096, data + i);
    }
  }

  void Print() {
    std::printf("%s, %d threads\n", std::string(CpuIsaName(isa_)).c_str(), threads_);
    for (const Heads& heads : {Heads{32, 4, 64}, Heads{32, 8, 128}, Heads{16, 16, 64}}) {
      std::printf("q_heads %d, kv_heads %d, head_dim %d\n", heads.q_heads, heads.kv_heads, heads.head_dim);
      for (int32_t sequences : {1, 4, 16}) {
        for (int32_t context : {512, 2048, 8192, 32768}) PrintDecode(heads, sequences, context);
      }
      for (int32_t context : {512, 4096}) PrintPrefill(heads, context);
    }
  }

 private:
  // One call; its blocks are `tables`' own, which move through the cache from call to call unless `small`.
  class Call {
   public:
    Call(Bench& bench, const Heads& heads, int32_t sequences, int32_t rows, int32_t context, bool small)
        : bench_(bench), small_(small) {
      const int64_t block_elements = int64_t{heads.kv_heads} * kBlockSize * heads.head_dim;
      const int32_t num_blocks = static_cast<int32_t>(kDramBytes / 4 / block_elements);
      blocks_per_sequence_ = (context + kBlockSize - 1) / kBlockSize;
      const int32_t used = small ? sequences * blocks_per_sequence_ : num_blocks;
      blocks_.resize(std::min(used, num_blocks));
      std::iota(blocks_.begin(), blocks_.end(), 0);
      std::shuffle(blocks_.begin(), blocks_.end(), std::minstd_rand(2));
      const int64_t cols = int64_t{heads.q_heads} * heads.head_dim;
      q_.assign(sequences * rows * cols, 0.5f);
      for (size_t i = 0; i < q_.size(); ++i) q_[i] = static_cast<float>(i % 7) * 0.25f - 0.7f;
      out_.resize(q_.size());
      for (int32_t s = 0; s < sequences; ++s) chunks_.push_back({nullptr, s * rows, rows, context - rows});
      args_ = {
          Tensor::Contiguous(q_.data(), DType::kFloat32, sequences * rows, cols),
          chunks_.data(),
          sequences,
          heads.q_heads,
          0.125f,
          {bench.k_.data(), bench.v_.data(), DType::kBFloat16, num_blocks, kBlockSize, heads.kv_heads, heads.head_dim},
          Tensor::Contiguous(out_.data(), DType::kFloat32, sequences * rows, cols)};
      WorkspaceShape shape;
      shape.q_heads = heads.q_heads;
      shape.kv_heads = heads.kv_heads;
      shape.head_dim = heads.head_dim;
      shape.max_context = context;
      workspace_ = *AllocateHostMemory(CpuPagedAttentionWorkspaceBytes(shape, bench.threads_));
    }

    void operator()() {
      for (AttentionChunk& chunk : chunks_) {
        if (at_ + blocks_per_sequence_ > static_cast<int64_t>(blocks_.size())) at_ = 0;
        chunk.block_table = blocks_.data() + at_;
        at_ += blocks_per_sequence_;
      }
      if (small_) at_ = 0;
      CpuPagedAttention(args_, bench_.isa_, *bench_.pool_,
                        absl::MakeSpan(static_cast<char*>(workspace_.data()), workspace_.bytes()));
    }

   private:
    Bench& bench_;
    bool small_;
    int32_t blocks_per_sequence_;
    int64_t at_ = 0;
    std::vector<BlockId> blocks_;
    std::vector<float> q_, out_;
    std::vector<AttentionChunk> chunks_;
    PagedAttentionArgs args_;
    Buffer workspace_;
  };

  void Read() {
    pool_->Run([&](int worker) {
      typedef uint64_t Line __attribute__((vector_size(64), aligned(64)));
      const int64_t share = kDramBytes / 4 / threads_ / 4096 * 4096;
      const char* begin = static_cast<const char*>(k_.data()) + worker * share;
      Line sum[4] = {};
      for (int64_t i = 0; i < share; i += 256) {
        for (int64_t j = 0; j < 4; ++j) sum[j] ^= *reinterpret_cast<const Line*>(begin + i + j * 64);
      }
      asm volatile("" ::"m"(sum));
    });
  }

  void PrintDecode(const Heads& heads, int32_t sequences, int32_t context) {
    const double bytes = 4.0 * heads.kv_heads * heads.head_dim * context * sequences;
    Call far(*this, heads, sequences, 1, context, false);
    Call near(*this, heads, 1, 1, 512, true);
    const std::vector<double> best = BestSeconds(threads_, {[&] { Read(); }, std::ref(far)});
    const double cached = BestSeconds(threads_, {std::ref(near)})[0];
    const double dram = static_cast<double>(kDramBytes) / 4 / best[0];
    std::printf("  decode %2d x %5d: %8.1f us, %5.1f GB/s of %5.1f = %.2f; cached %5.1f GB/s\n", sequences, context,
                best[1] * 1e6, bytes / best[1] / 1e9, dram / 1e9, bytes / best[1] / dram,
                4.0 * heads.kv_heads * heads.head_dim * 512 / cached / 1e9);
    std::fflush(stdout);
  }

  void PrintPrefill(const Heads& heads, int32_t context) {
    constexpr int32_t kRows = 512;
    Call call(*this, heads, 1, kRows, context, true);
    const double seconds = BestSeconds(threads_, {std::ref(call)})[0];
    const double products = 4.0 * heads.q_heads * heads.head_dim * kRows * (context - kRows / 2);
    std::printf("  prefill %d rows to %5d: %8.1f us, %6.1f GFLOP/s\n", kRows, context, seconds * 1e6,
                products / seconds / 1e9);
    std::fflush(stdout);
  }

  int threads_;
  CpuIsa isa_;
  std::unique_ptr<ThreadPool> pool_;
  Buffer k_, v_;
};

}  // namespace
}  // namespace quire

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : quire::ThreadPool::AllowedCpus();
  std::optional<quire::CpuIsa> isa = argc > 2 ? quire::ParseCpuIsa(argv[2]) : quire::ChooseCpuIsa();
  quire::Check(threads > 0 && isa.has_value(), "usage: quire_attention_bench [threads [isa]]");
  quire::Bench(threads, *isa).Print();
}
