// Emulation of a CUDA device on the CPU: the threads of a CTA are fibers of one host thread, CTAs run one after
// another.
//
// EmulatedThread means, function by function, what CudaThread (kernels/cuda/thread.cuh) does on a device, and checks
// what a device leaves undefined: lanes that do not call a warp's function together, barriers that not all threads
// reach, 16 bytes that are not aligned or not the CTA's, and bytes written beyond its shared memory abort. Shared
// memory begins as NaN. Copies to shared memory arrive as late as they may (or, in another run, as early), so that a
// missing wait or a stage overwritten too soon shows in the result; threads and CTAs run in rising or falling order, so
// that a missing barrier does too.
//
// A product of a warpgroup is done when somebody waits for it, its accumulators are NaN until then, and it aborts where
// the bytes that it reads, found by decoding the descriptor, are not those that the last FenceAsyncProxy made visible:
// when it was asked for, and when it is done.

#ifndef QUIRE_TESTS_KERNELS_CUDA_EMULATION_H_
#define QUIRE_TESTS_KERNELS_CUDA_EMULATION_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/cuda/numbers.h"
#include "kernels/cuda/shared_matrix.h"

namespace quire::cuda {

struct EmulationOptions {
  bool late_copies = true;  // CopyAsync16 takes effect in WaitForCopies; false: at once
  bool reversed = false;    // threads and CTAs from the last to the first
  bool lazy = false;        // the stream does nothing until somebody waits for it (EmulatedDevice)
};

class EmulatedCta;

class EmulatedThread {
 public:
  using WarpFunction = void (*)(void* const lanes[kWarpSize]);

  EmulatedThread(EmulatedCta* cta, int thread) : cta_(cta), thread_(thread) {}

  int thread() const { return thread_; }
  int lane() const { return thread_ % kWarpSize; }
  int warp() const { return thread_ / kWarpSize; }
  int num_threads() const;
  int cta() const;
  int num_ctas() const;
  char* shared() const;

  void Sync() const;
  void Fence() const {}
  int AtomicAdd(int* address, int value) const { return std::exchange(*address, *address + value); }
  int AtomicAddShared(int* address, int value) const { return std::exchange(*address, *address + value); }
  uint64_t AtomicAddShared(uint64_t* address, uint64_t value) const {
    return std::exchange(*address, *address + value);
  }

  uint32_t AtomicOrShared(uint32_t* address, uint32_t bits) const { return std::exchange(*address, *address | bits); }

  void SyncWarp() const;
  template <typename T>
  T ShuffleXor(T value, int lane_mask) const {
    return Shuffle(value, lane() ^ lane_mask);
  }
  template <typename T>
  T ShuffleUp(T value, int delta) const {
    return Shuffle(value, lane() < delta ? lane() : lane() - delta);
  }
  template <typename T>
  T Shuffle(T value, int from_lane) const {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    bits = ShuffleBits(bits, from_lane);
    std::memcpy(&value, &bits, sizeof(T));
    return value;
  }
  uint32_t Ballot(bool value) const;

  void CopyAsync16(void* shared, const void* global, bool valid) const;
  void CommitCopies() const;
  template <int kPending>
  void WaitForCopies() const {
    WaitForCopies(kPending);
  }

  void LoadMatrices(const void* shared_row, uint32_t (&r)[4]) const;
  void LoadMatricesTransposed(const void* shared_row, uint32_t (&r)[4]) const;
  uint32_t Transpose(uint32_t pair) const;
  template <typename T>
  void MultiplyAdd(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) const {
    MultiplyAddLane mine{d, a, {b0, b1}};
    Together(&mine, &MultiplyAddWarp<T>);
  }

  static constexpr bool kHasWarpgroups = true;
  SharedMatrix Matrix(const void* shared) const;
  void FenceAsyncProxy() const;
  template <typename... Registers>
  void WarpgroupFence(Registers&...) const {
    WarpgroupFence();
  }
  void WarpgroupFence() const;
  void WarpgroupCommit() const;
  template <int kPending, typename... Registers>
  void WarpgroupWait(Registers&...) const {
    WarpgroupWait(kPending);
  }
  template <typename T, bool kTransposed>
  void MultiplyAdd(float (*d)[4], const uint32_t (&a)[4], SharedMatrix b, bool accumulates) const {
    Issue({&d[0][0], a, b.bits, kTransposed, accumulates, [](uint16_t bits) { return UnpackLow<T>(bits); }});
  }

  // What a lane gives to a product of its warpgroup.
  struct WarpgroupLane {
    float* d;  // [8][4]
    const uint32_t* a;
    uint64_t b;
    bool transposed, accumulates;
    float (*to_float)(uint16_t bits);
  };

 private:
  struct MultiplyAddLane {
    float* d;
    const uint32_t* a;
    uint32_t b[2];
  };
  // When all lanes have called it: runs `function` once, over what each of them gave.
  void Together(void* mine, WarpFunction function) const;
  uint64_t ShuffleBits(uint64_t bits, int from_lane) const;
  void WaitForCopies(int num_pending) const;
  void Issue(const WarpgroupLane& lane) const;
  void WarpgroupWait(int num_pending) const;
  template <typename Work>
  void WarpgroupTogether(int operation, const Work& work) const;

  template <typename T>
  static void MultiplyAddWarp(void* const lanes[kWarpSize]) {
    float a[16][16], b[16][8];
    for (int l = 0; l < kWarpSize; ++l) {
      const auto& lane = *static_cast<const MultiplyAddLane*>(lanes[l]);
      const int i = l / 4, j = l % 4 * 2;
      for (int r = 0; r < 4; ++r) {
        a[i + r % 2 * 8][j + r / 2 * 8] = UnpackLow<T>(lane.a[r]);
        a[i + r % 2 * 8][j + r / 2 * 8 + 1] = UnpackHigh<T>(lane.a[r]);
      }
      for (int r = 0; r < 2; ++r) {
        b[j + r * 8][i] = UnpackLow<T>(lane.b[r]);
        b[j + r * 8 + 1][i] = UnpackHigh<T>(lane.b[r]);
      }
    }
    for (int l = 0; l < kWarpSize; ++l) {
      const auto& lane = *static_cast<const MultiplyAddLane*>(lanes[l]);
      for (int e = 0; e < 4; ++e) {
        const int row = l / 4 + e / 2 * 8, col = l % 4 * 2 + e % 2;
        float sum = 0;
        for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][col];
        lane.d[e] += sum;
      }
    }
  }

  EmulatedCta* cta_;
  int thread_;
};

// Runs `kernel` for every thread of a grid and returns when all have ended. Stacks are kept for the next launch.
class EmulatedGrid {
 public:
  explicit EmulatedGrid(const EmulationOptions& options);
  ~EmulatedGrid();

  void Run(int num_ctas, int num_threads, size_t shared_bytes,
           const std::function<void(const EmulatedThread&)>& kernel);

 private:
  EmulationOptions options_;
  std::unique_ptr<EmulatedCta> cta_;
};

}  // namespace quire::cuda

#endif  // QUIRE_TESTS_KERNELS_CUDA_EMULATION_H_
