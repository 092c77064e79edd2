// A device that is not there: sizes alone.

#include <cstdlib>
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/str_format.h"
#include "kernels/backend_cuda.h"
#include "kernels/check.h"
#include "kernels/cuda/workspace_sizes.h"

namespace quire {
namespace {

class PlannedCudaBackend final : public Backend {
 public:
  explicit PlannedCudaBackend(uint64_t device_bytes) : device_bytes_(device_bytes) {}

  BackendKind kind() const override { return BackendKind::kCuda; }
  std::string Description() const override {
    return absl::StrFormat("cuda, a device with %d bytes free and %d multiprocessors", device_bytes_, kNumSms);
  }
  KeyLayout key_layout() const override { return KeyLayout::kRows; }
  std::optional<uint64_t> FreeBytes() const override { return device_bytes_; }
  int32_t run_ahead() const override { return 1; }
  bool has_graphs() const override { return true; }
  size_t PackedBytes(int64_t n, int64_t k, WeightFormat format) const override {
    return static_cast<size_t>(n * RowBytes(format.dtype, k));
  }
  using Backend::PackedBytes;
  size_t WorkspaceBytes(const WorkspaceShape& shape) const override {
    return cuda::WorkspaceBytes(shape, kNumSms, cuda::kLinearWorkspaceBytes);
  }

  absl::StatusOr<Buffer> Allocate(size_t) override { return NoDevice(); }
  using Backend::PackLinear;
  absl::StatusOr<LinearWeight> PackLinear(absl::Span<const MatrixSource>, WeightFormat) override { return NoDevice(); }
  absl::Status AllocateWorkspace(const WorkspaceShape&) override { return NoDevice(); }

 private:
  static constexpr int32_t kNumSms = 132;  // of H100 and H200; attention's scratch grows a little with it

  static absl::Status NoDevice() { return absl::UnavailableError("backend cuda: a planned device has no memory"); }
  [[noreturn]] static void Computes() {
    Check(false, "a planned device computes nothing");
    std::abort();
  }

  void DoEmbedding(const EmbeddingArgs&) override { Computes(); }
  void DoGatherRows(const GatherRowsArgs&) override { Computes(); }
  void DoRmsNorm(const RmsNormArgs&) override { Computes(); }
  void DoLinear(const LinearArgs&) override { Computes(); }
  void DoRopeKvWrite(const RopeKvWriteArgs&) override { Computes(); }
  void DoPagedAttention(const PagedAttentionArgs&) override { Computes(); }
  void DoGatedActivation(const GatedActivationArgs&) override { Computes(); }
  void DoSample(const SampleArgs&) override { Computes(); }
  void DoScore(const ScoreArgs&) override { Computes(); }

  const uint64_t device_bytes_;
};

}  // namespace

std::unique_ptr<Backend> CreatePlannedCudaBackend(uint64_t device_bytes) {
  return std::make_unique<PlannedCudaBackend>(device_bytes);
}

}  // namespace quire
