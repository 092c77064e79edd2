// CublasLt: y = x W^T by cuBLASLt, an algorithm for each shape chosen once by the library's heuristics.
//
// Shapes are (n, k, rows rounded up to a power of two); under `deterministic` one algorithm without split-K serves
// every number of rows, so that the bits of a row do not depend on how many there are (law 5). What an algorithm is
// chosen for is not all that it is used for: only one that the library accepts for the ends of its range, or for a
// spread of all numbers, is taken.
//
// Thread: one caller at a time. May be called while a stream is captured.

#ifndef QUIRE_KERNELS_LINEAR_CUBLAS_LT_CUH_
#define QUIRE_KERNELS_LINEAR_CUBLAS_LT_CUH_

#include <cublasLt.h>

#include <cstdint>
#include <map>
#include <memory>
#include <tuple>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/workspace_sizes.h"
#include "kernels/linear/linear.h"

namespace quire::cuda {

class CublasLt {
 public:
  static absl::StatusOr<std::unique_ptr<CublasLt>> Create(bool deterministic);
  ~CublasLt();

  // Launches the product on `stream`. `workspace` is kLinearWorkspaceBytes of device memory.
  absl::Status Linear(const LinearArgs& args, void* workspace, cudaStream_t stream);

 private:
  // Descriptors of one product: kept with its algorithm.
  struct Plan {
    cublasLtMatmulDesc_t product = nullptr;
    cublasLtMatmulAlgo_t algorithm;
  };
  // n, k, rows, dtype, bias, accumulate, alignment of x and of y in bytes.
  using Key = std::tuple<int64_t, int64_t, int64_t, DType, bool, bool, uint32_t, uint32_t>;

  CublasLt(bool deterministic, cublasLtHandle_t handle);

  absl::StatusOr<const Plan*> PlanFor(const LinearArgs& args);
  // Whether the library accepts an algorithm, with the workspace that there is, for what the plan of `rows` serves.
  bool TakesItsRows(const cublasLtMatmulAlgo_t& algorithm, const Plan& plan, const LinearArgs& args,
                    int64_t rows) const;

  const bool deterministic_;
  const cublasLtHandle_t handle_;
  std::map<Key, Plan> plans_;
};

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_LINEAR_CUBLAS_LT_CUH_
