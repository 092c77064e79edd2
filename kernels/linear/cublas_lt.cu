#include <algorithm>
#include <bit>
#include <iterator>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "kernels/linear/cublas_lt.cuh"

namespace quire::cuda {
namespace {

constexpr int64_t kPlannedRows = 4096;  // the rows for which the one algorithm of `deterministic` is chosen
// Others that it must take: few, odd and many.
constexpr int64_t kAnyRows[] = {1, 2, 3, 7, 8, 17, 64, 100, 128, 512, 1023, kPlannedRows, 16384};

cudaDataType TypeOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return CUDA_R_32F;
    case DType::kBFloat16:
      return CUDA_R_16BF;
    case DType::kFloat16:
      return CUDA_R_16F;
  }
  return CUDA_R_32F;
}

absl::Status ToStatus(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("cuBLASLt: ", what, ": ", cublasLtGetStatusString(status)));
}

// A matrix layout that ends with its scope.
class Layout {
 public:
  // cuBLAS counts by columns: a row-major [rows, cols] is its [cols, rows].
  Layout(DType dtype, int64_t rows, int64_t cols, int64_t row_stride) {
    cublasLtMatrixLayoutCreate(&layout_, TypeOf(dtype), cols, rows, row_stride);
  }
  ~Layout() { cublasLtMatrixLayoutDestroy(layout_); }
  Layout(const Layout&) = delete;
  cublasLtMatrixLayout_t get() const { return layout_; }

 private:
  cublasLtMatrixLayout_t layout_ = nullptr;
};

// The three matrices of y[rows, n] = x[rows, k] W[n, k]^T.
struct Layouts {
  Layouts(const LinearArgs& args, int64_t rows)
      : w(args.weight->dtype, args.weight->n, args.weight->k, args.weight->k),
        x(args.x.dtype, rows, args.weight->k, args.x.row_stride),
        y(DType::kFloat32, rows, args.weight->n, args.y.row_stride) {}
  Layout w, x, y;
};

// Bytes of which the addresses of all rows are multiples, as far as it matters: nothing loads more than 16 at once. The
// library takes 256 for granted, which activations need not have. Of all rows: that a call begins at this row or at
// that one must not choose another algorithm.
uint32_t AlignmentOf(const void* data, int64_t row_bytes) {
  constexpr uintptr_t kMost = 16;
  const uintptr_t multiples = reinterpret_cast<uintptr_t>(data) | static_cast<uintptr_t>(row_bytes) | kMost;
  return static_cast<uint32_t>(uintptr_t{1} << std::countr_zero(multiples));
}
uint32_t AlignmentOf(const Tensor& x) { return AlignmentOf(x.data, RowBytes(x.dtype, x.row_stride)); }

int32_t SplitsOf(const cublasLtMatmulAlgo_t& algorithm) {
  int32_t splits = 1;
  size_t written = 0;
  cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &splits, sizeof splits, &written);
  return splits;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CublasLt>> CublasLt::Create(bool deterministic) {
  cublasLtHandle_t handle = nullptr;
  if (absl::Status status = ToStatus(cublasLtCreate(&handle), "a handle"); !status.ok()) return status;
  return std::unique_ptr<CublasLt>(new CublasLt(deterministic, handle));
}

CublasLt::CublasLt(bool deterministic, cublasLtHandle_t handle) : deterministic_(deterministic), handle_(handle) {}

CublasLt::~CublasLt() {
  for (auto& [key, plan] : plans_) cublasLtMatmulDescDestroy(plan.product);
  cublasLtDestroy(handle_);
}

absl::StatusOr<const CublasLt::Plan*> CublasLt::PlanFor(const LinearArgs& args) {
  const int64_t rows =
      deterministic_ ? kPlannedRows : static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(args.x.rows)));
  const uint32_t w_alignment = AlignmentOf(args.weight->data.data(), RowBytes(args.weight->dtype, args.weight->k)),
                 x_alignment = AlignmentOf(args.x), y_alignment = AlignmentOf(args.y);
  const Key key(args.weight->n, args.weight->k, rows, args.weight->dtype, args.bias != nullptr, args.accumulate,
                x_alignment, y_alignment);
  const auto found = plans_.find(key);
  if (found != plans_.end()) return &found->second;

  Plan plan;
  absl::Status status = ToStatus(cublasLtMatmulDescCreate(&plan.product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "descriptor");
  const cublasOperation_t transposed = CUBLAS_OP_T;
  cublasLtMatmulDescSetAttribute(plan.product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
  if (args.bias != nullptr) {
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    cublasLtMatmulDescSetAttribute(plan.product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    cublasLtMatmulDescSetAttribute(plan.product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &args.bias, sizeof args.bias);
  }

  cublasLtMatmulPreference_t preference = nullptr;
  status.Update(ToStatus(cublasLtMatmulPreferenceCreate(&preference), "preference"));
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    status.Update(
        ToStatus(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value), "a preference"));
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kLinearWorkspaceBytes});
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, w_alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, x_alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, y_alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, y_alignment);
  if (deterministic_) prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_NONE});
  const Layouts layouts(args, rows);
  constexpr int kCandidates = 32;
  cublasLtMatmulHeuristicResult_t candidates[kCandidates];
  int num_found = 0;
  status.Update(
      ToStatus(cublasLtMatmulAlgoGetHeuristic(handle_, plan.product, layouts.w.get(), layouts.x.get(), layouts.y.get(),
                                              layouts.y.get(), preference, kCandidates, candidates, &num_found),
               "heuristics"));
  if (preference != nullptr) cublasLtMatmulPreferenceDestroy(preference);
  const cublasLtMatmulHeuristicResult_t *best = nullptr, *next_best = nullptr;
  for (int c = 0; c < num_found && best == nullptr; ++c) {
    const cublasLtMatmulHeuristicResult_t& candidate = candidates[c];
    if (candidate.state != CUBLAS_STATUS_SUCCESS || (deterministic_ && SplitsOf(candidate.algo) > 1)) continue;
    if (TakesItsRows(candidate.algo, plan, args, rows)) {
      best = &candidate;
    } else if (next_best == nullptr && !deterministic_) {
      next_best = &candidate;  // serves the number of rows that it was found for
    }
  }
  if (best == nullptr) best = next_best;
  if (status.ok() && best == nullptr)
    status = absl::InternalError(absl::StrCat("cuBLASLt: no algorithm for [", args.x.rows, ", ", args.weight->k,
                                              "] x [", args.weight->n, ", ", args.weight->k, "]^T"));
  if (!status.ok()) {
    if (plan.product != nullptr) cublasLtMatmulDescDestroy(plan.product);
    return status;
  }
  plan.algorithm = best->algo;
  return &plans_.emplace(key, plan).first->second;
}

bool CublasLt::TakesItsRows(const cublasLtMatmulAlgo_t& algorithm, const Plan& plan, const LinearArgs& args,
                            int64_t rows) const {
  const auto takes = [&](int64_t count) {
    const Layouts layouts(args, count);
    cublasLtMatmulHeuristicResult_t found = {};
    return cublasLtMatmulAlgoCheck(handle_, plan.product, layouts.w.get(), layouts.x.get(), layouts.y.get(),
                                   layouts.y.get(), &algorithm, &found) == CUBLAS_STATUS_SUCCESS &&
           found.workspaceSize <= kLinearWorkspaceBytes;
  };
  if (deterministic_) return std::all_of(std::begin(kAnyRows), std::end(kAnyRows), takes);
  return takes(rows / 2 + 1) && takes(std::max<int64_t>(rows - 1, 1)) && takes(rows);
}

absl::Status CublasLt::Linear(const LinearArgs& args, void* workspace, cudaStream_t stream) {
  const absl::StatusOr<const Plan*> plan = PlanFor(args);
  if (!plan.ok()) return plan.status();
  if (args.bias != nullptr) {
    cublasLtMatmulDescSetAttribute((*plan)->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &args.bias, sizeof args.bias);
  }
  const Layouts layouts(args, args.x.rows);
  const float alpha = 1, beta = args.accumulate ? 1 : 0;
  return ToStatus(cublasLtMatmul(handle_, (*plan)->product, &alpha, args.weight->data.data(), layouts.w.get(),
                                 args.x.data, layouts.x.get(), &beta, args.y.data, layouts.y.get(), args.y.data,
                                 layouts.y.get(), &(*plan)->algorithm, workspace, kLinearWorkspaceBytes, stream),
                  "product");
}

}  // namespace quire::cuda
