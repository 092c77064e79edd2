// CudaThread: the thread of a kernel on a device. The only code with PTX of its own beside kernels/cuda/numbers.h; what
// each function means is defined, executably, by the emulation in tests/kernels/cuda/emulation.h.

#ifndef QUIRE_KERNELS_CUDA_THREAD_CUH_
#define QUIRE_KERNELS_CUDA_THREAD_CUH_

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/numbers.h"
#include "kernels/cuda/shared_matrix.h"

namespace quire::cuda {

class CudaThread {
 public:
  // ---- where it is ----
  __device__ int thread() const { return static_cast<int>(threadIdx.x); }  // in its CTA
  __device__ int lane() const { return static_cast<int>(threadIdx.x) % kWarpSize; }
  __device__ int warp() const { return static_cast<int>(threadIdx.x) / kWarpSize; }
  __device__ int num_threads() const { return static_cast<int>(blockDim.x); }
  __device__ int cta() const { return static_cast<int>(blockIdx.x); }
  __device__ int num_ctas() const { return static_cast<int>(gridDim.x); }
  // The CTA's shared memory, aligned to 1024 bytes.
  __device__ char* shared() const {
    extern __shared__ __align__(1024) char memory[];
    return memory;
  }

  // ---- the CTA ----
  __device__ void Sync() const { __syncthreads(); }
  // What this thread wrote to global memory, or saw of what others of its CTA wrote, is seen by whoever sees what it
  // writes afterwards.
  __device__ void Fence() const { __threadfence(); }
  __device__ int AtomicAdd(int* address, int value) const { return atomicAdd(address, value); }
  __device__ int AtomicAddShared(int* address, int value) const { return atomicAdd(address, value); }
  __device__ uint64_t AtomicAddShared(uint64_t* address, uint64_t value) const {
    return atomicAdd(reinterpret_cast<unsigned long long*>(address), static_cast<unsigned long long>(value));
  }

  __device__ uint32_t AtomicOrShared(uint32_t* address, uint32_t bits) const { return atomicOr(address, bits); }

  // ---- the warp: all lanes together ----
  __device__ void SyncWarp() const { __syncwarp(); }
  template <typename T>
  __device__ T ShuffleXor(T value, int lane_mask) const {
    return __shfl_xor_sync(~0u, value, lane_mask);
  }
  template <typename T>
  __device__ T ShuffleUp(T value, int delta) const {  // lanes below delta keep their own
    return __shfl_up_sync(~0u, value, delta);
  }
  template <typename T>
  __device__ T Shuffle(T value, int from_lane) const {
    return __shfl_sync(~0u, value, from_lane);
  }
  __device__ uint32_t Ballot(bool value) const { return __ballot_sync(~0u, value); }

  // ---- copies from global to shared memory that do not wait: groups in flight, as a ring of stages ----
  // 16 bytes, both addresses aligned to 16; zeroes, and no read, if not `valid`.
  __device__ void CopyAsync16(void* shared, const void* global, bool valid) const {
    const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    const uint32_t bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
  }
  __device__ void CommitCopies() const { asm volatile("cp.async.commit_group;" ::: "memory"); }
  // Until all but the last kPending committed groups of this thread have arrived (for the CTA: then Sync).
  template <int kPending>
  __device__ void WaitForCopies() const {
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
  }

  // ---- matrices of 16-bit elements ----
  // Lane l names the row l % 8 (16 bytes, in shared memory) of matrix l / 8, of four 8x8 matrices. Register i gets, of
  // matrix i, row lane / 4, columns 2 * (lane % 4) and the next; transposed: of column lane / 4, rows the same.
  __device__ void LoadMatrices(const void* shared_row, uint32_t (&r)[4]) const {
    const auto from = static_cast<uint32_t>(__cvta_generic_to_shared(shared_row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
  }
  __device__ void LoadMatricesTransposed(const void* shared_row, uint32_t (&r)[4]) const {
    const auto from = static_cast<uint32_t>(__cvta_generic_to_shared(shared_row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
  }
  // The 8x8 matrix of which each lane holds row lane / 4, columns 2 * (lane % 4) and the next, transposed.
  __device__ uint32_t Transpose(uint32_t pair) const {
    uint32_t result;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(pair));
    return result;
  }
  // D[16, 8] += A[16, 16] B[16, 8], float32 sums. With i = lane / 4, j = 2 * (lane % 4), each register two neighbours:
  //   a = A[i, j], A[i + 8, j], A[i, j + 8], A[i + 8, j + 8]     b = B[j.., i], B[j + 8.., i]
  //   d = D[i, j], D[i, j + 1], D[i + 8, j], D[i + 8, j + 1]
  template <typename T>
  __device__ void MultiplyAdd(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) const {
    if constexpr (std::is_same_v<T, BFloat16>) {
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
          "{%0, %1, %2, %3};"
          : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    } else {
      static_assert(std::is_same_v<T, Float16>);
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
          "{%0, %1, %2, %3};"
          : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    }
  }

  // ---- products of warpgroups (four warps, the first a multiple of four): sm_90a alone ----
  // They run beside the threads, a group of them at a time: Fence, products, Commit; from Fence to the Wait for the
  // group the registers that it was given belong to it. They read shared memory as another proxy: of what was written
  // they see what each thread wrote, or waited for, before its FenceAsyncProxy and a Sync after that.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  static constexpr bool kHasWarpgroups = true;
#else
  static constexpr bool kHasWarpgroups = false;
#endif
  // `shared` is aligned to an atom.
  __device__ SharedMatrix Matrix(const void* shared) const {
    return SharedMatrix::At(static_cast<uint32_t>(__cvta_generic_to_shared(shared)));
  }
  // All threads of the CTA, as Sync.
  __device__ void FenceAsyncProxy() const { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
  template <typename... Registers>
  __device__ void WarpgroupFence(Registers&... registers) const {
    (Pin(registers), ...);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  }
  __device__ void WarpgroupCommit() const { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
  // Until all but the last kPending committed groups are done; `registers` are those of the groups that are.
  template <int kPending, typename... Registers>
  __device__ void WarpgroupWait(Registers&... registers) const {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
    (Pin(registers), ...);
  }
  // D[64, 64] = A[64, 16] B[16, 64] (+ D, if `accumulates`), float32 sums. Each warp has 16 rows of A and D: `a` as
  // above, d[n] as above of the columns [8 n, 8 n + 8). B's columns are the rows of `b` or, transposed, its rows are.
  template <typename T, bool kTransposed>
  __device__ void MultiplyAdd(float (*d)[4], const uint32_t (&a)[4], SharedMatrix b, bool accumulates) const {
    static_assert(std::is_same_v<T, BFloat16> || std::is_same_v<T, Float16>);
#define QUIRE_WGMMA(type)                                                                                          \
  asm volatile(                                                                                                    \
      "{.reg .pred p; setp.ne.b32 p, %37, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type            \
      " "                                                                                                          \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, " \
      "%23, %24, %25, %26, %27, %28, %29, %30, %31}, {%32, %33, %34, %35}, %36, p, 1, 1, %38;}"                    \
      : QUIRE_FOUR(0), QUIRE_FOUR(1), QUIRE_FOUR(2), QUIRE_FOUR(3), QUIRE_FOUR(4), QUIRE_FOUR(5), QUIRE_FOUR(6),   \
        QUIRE_FOUR(7)                                                                                              \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.bits), "r"(int{accumulates}), "n"(int{kTransposed}))
#define QUIRE_FOUR(n) "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])
    if constexpr (std::is_same_v<T, BFloat16>) {
      QUIRE_WGMMA("bf16");
    } else {
      QUIRE_WGMMA("f16");
    }
#undef QUIRE_FOUR
#undef QUIRE_WGMMA
  }

 private:
  // The compiler knows of a product only what its statement says: what uses its registers stays on its side of this.
  template <int kCount>
  static __device__ void Pin(float (&registers)[kCount][4]) {
    QUIRE_UNROLL
    for (int i = 0; i < 4 * kCount; ++i) asm volatile("" : "+f"(registers[i / 4][i % 4])::"memory");
  }
  template <int kCount>
  static __device__ void Pin(uint32_t (&registers)[kCount][4]) {
    QUIRE_UNROLL
    for (int i = 0; i < 4 * kCount; ++i) asm volatile("" : "+r"(registers[i / 4][i % 4])::"memory");
  }
};

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_CUDA_THREAD_CUH_
