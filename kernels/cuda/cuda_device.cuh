// CudaDevice: one GPU as the backend uses it: memory, one stream, launches, linears by cuBLASLt.
//
// Work is asynchronous and in order. The first error stays in status(): nothing is launched after it, and whoever
// waits gets it. Thread: one caller at a time.

#ifndef QUIRE_KERNELS_CUDA_CUDA_DEVICE_CUH_
#define QUIRE_KERNELS_CUDA_CUDA_DEVICE_CUH_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/device_info.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/thread.cuh"
#include "kernels/linear/linear.h"
#include "kernels/tensor.h"

namespace quire::cuda {

// Its shared memory is part of its name: tests/kernels/cuda/check_resources.py finds it there.
template <typename Kernel, int kSharedBytes = Kernel::kSharedBytes>
__global__ void __launch_bounds__(Kernel::kThreads, Kernel::kMinCtas)
    Entry(const __grid_constant__ typename Kernel::Params params) {
  Kernel::Run(CudaThread(), params);
}

class CublasLt;  // kernels/linear/cublas_lt.cuh

class CudaDevice {
 public:
  // UNAVAILABLE: no driver or no device, UNIMPLEMENTED: a compute capability below 8.0.
  static absl::StatusOr<std::unique_ptr<CudaDevice>> Create(bool deterministic);
  ~CudaDevice();
  CudaDevice(const CudaDevice&) = delete;

  const DeviceInfo& info() const { return info_; }
  absl::Status status() const { return status_; }

  // Zeroed. RESOURCE_EXHAUSTED says what was asked for and what is free.
  absl::StatusOr<Buffer> Allocate(size_t bytes);
  // Host memory that copies read and write without waiting.
  absl::StatusOr<Buffer> AllocatePinned(size_t bytes);

  // In the order of the stream; the host's side is pinned, or the call waits for the copy.
  void CopyToDevice(void* to, const void* from, size_t bytes) { Copy(to, from, bytes, cudaMemcpyHostToDevice); }
  void CopyToHost(void* to, const void* from, size_t bytes) { Copy(to, from, bytes, cudaMemcpyDeviceToHost); }
  void CopyOnDevice(void* to, const void* from, size_t bytes) { Copy(to, from, bytes, cudaMemcpyDeviceToDevice); }

  void Clear(void* to, size_t bytes);

  // Waits for everything launched so far; the first error of all.
  absl::Status Synchronize();
  // Marks what was launched so far as mark 0 or 1, and waits for no more than what was launched before the mark.
  void Record(int mark);
  absl::Status Await(int mark);

  // What is launched between the two is not done but becomes a graph, which Replay does as often as one likes. The
  // first error of the device leaves a graph that does nothing.
  using Graph = std::shared_ptr<std::remove_pointer_t<cudaGraphExec_t>>;
  void BeginCapture();
  Graph EndCapture();
  void Replay(const Graph& graph);

  // CTAs of a kernel that the device holds at once.
  template <typename Kernel>
  int64_t MaxCtas() {
    Prepare<Kernel>();
    int& per_sm = max_ctas_[reinterpret_cast<const void*>(&Entry<Kernel>)];
    if (per_sm == 0)
      Require(
          cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_sm, Entry<Kernel>, Kernel::kThreads, Kernel::kSharedBytes),
          "occupancy");
    return int64_t{Max(per_sm, 1)} * info_.num_sms;
  }

  template <typename Kernel>
  void Run(int64_t num_ctas, const typename Kernel::Params& params) {
    if (num_ctas == 0 || !status_.ok()) return;
    Prepare<Kernel>();
    Entry<Kernel><<<static_cast<unsigned>(num_ctas), Kernel::kThreads, Kernel::kSharedBytes, stream_>>>(params);
    Require(cudaGetLastError(), "a kernel's launch");
  }

  // Linear of linear.h, by cuBLASLt.
  static size_t LinearWorkspaceBytes();
  void Linear(const LinearArgs& args, void* workspace);

  cudaStream_t stream() const { return stream_; }
  // Keeps the first error.
  void Require(cudaError_t error, const char* what);
  void Fail(absl::Status status);

 private:
  explicit CudaDevice(DeviceInfo info);
  void Copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind);

  // A kernel may have more than 48 KiB of shared memory only after this.
  template <typename Kernel>
  void Prepare() {
    if constexpr (Kernel::kSharedBytes > 48 * 1024) {
      if (!prepared_.insert(reinterpret_cast<const void*>(&Entry<Kernel>)).second) return;
      Require(cudaFuncSetAttribute(Entry<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize, Kernel::kSharedBytes),
              "shared memory of a kernel");
    }
  }

  DeviceInfo info_;
  absl::Status status_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t marks_[2] = {nullptr, nullptr};
  std::unique_ptr<CublasLt> blas_;
  // By kernel.
  std::set<const void*> prepared_;
  std::map<const void*, int> max_ctas_;
};

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_CUDA_CUDA_DEVICE_CUH_
