#include "kernels/backend_cpu.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "kernels/activation/impl.h"
#include "kernels/copy_blocks/impl.h"
#include "kernels/cpu/host_memory.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/embedding/impl.h"
#include "kernels/gated_activation/impl.h"
#include "kernels/gather_rows/impl.h"
#include "kernels/head_linear/impl.h"
#include "kernels/latent_attention/impl.h"
#include "kernels/layer_norm/impl.h"
#include "kernels/linear/impl.h"
#include "kernels/moe/impl.h"
#include "kernels/paged_attention/impl.h"
#include "kernels/rms_norm/impl.h"
#include "kernels/rope/impl.h"
#include "kernels/sampling/impl.h"
#include "kernels/scrub_blocks/impl.h"

namespace quire {
namespace {

class CpuBackend final : public Backend {
 public:
  CpuBackend(CpuIsa isa, Prefault prefault, std::unique_ptr<ThreadPool> pool)
      : isa_(isa),
        prefault_(prefault),
        kernels_(KernelsFor(isa)),
        block_kernels_(BlockKernelsFor(isa)),
        pool_(std::move(pool)) {}

  BackendKind kind() const override { return BackendKind::kCpu; }
  std::string Description() const override {
    const std::string_view name = CpuIsaName(isa_);
    std::string text = absl::StrFormat("cpu %s, %d thread%s", absl::string_view(name.data(), name.size()),
                                       pool_->num_threads(), pool_->num_threads() == 1 ? "" : "s");
    if (!pool_->bind().empty()) absl::StrAppend(&text, ", pinned to CPUs ", absl::StrJoin(pool_->bind(), ","));
    return text;
  }

  absl::StatusOr<Buffer> Allocate(size_t bytes) override {
    absl::StatusOr<Buffer> memory = AllocateHostMemory(bytes);
    if (!memory.ok() || prefault_ == Prefault::kOff) return memory;
    if (prefault_ == Prefault::kBackground) return FaultInBackground(*std::move(memory));
    char* const data = static_cast<char*>(memory->data());
    pool_->Run([&](int worker) {
      const Share share = ShareOf(static_cast<int64_t>(bytes), worker, pool_->num_threads());
      FaultIn(data + share.begin, static_cast<size_t>(share.end - share.begin));
    });
    return memory;
  }

  using Backend::PackLinear;
  absl::StatusOr<LinearWeight> PackLinear(absl::Span<const MatrixSource> parts, WeightFormat format) override {
    LinearWeight weight = PackedShape(parts, format);
    size_t bytes = weight.slabs.empty() ? PackedBytes(weight.n, weight.k, format) : 0;
    for (WeightSlab& slab : weight.slabs) {
      slab.offset = bytes;
      bytes += PackedBytes(slab.rows, weight.k, {format.dtype, slab.blocks});
    }
    absl::StatusOr<Buffer> data = AllocateHostMemory(bytes);
    if (!data.ok()) return data.status();
    weight.data = *std::move(data);
    if (weight.slabs.empty()) CpuPackLinear(parts, format, *pool_, weight.data.data());
    ForEachSlab(parts, weight.slabs, [&](absl::Span<const MatrixSource> of_slab, const WeightSlab& slab) {
      std::byte* const to = static_cast<std::byte*>(weight.data.data()) + slab.offset;
      if (slab.blocks == BlockFormat::kNone) {
        CpuPackLinear(of_slab, format.dtype, *pool_, to);
      } else {
        CpuPackBlocks(of_slab, slab.blocks, *pool_, to);
      }
    });
    return weight;
  }
  using Backend::PackedBytes;
  size_t PackedBytes(int64_t n, int64_t k, WeightFormat format) const override {
    if (format.quantized()) return CpuBlockBytes(n, k, format.blocks);
    return static_cast<size_t>(NumPanels(n) * PanelElements(k, format.dtype)) * DTypeBytes(format.dtype);
  }

  // Operations never run at the same time: one workspace serves them all.
  size_t WorkspaceBytes(const WorkspaceShape& shape) const override {
    const int num_threads = pool_->num_threads();
    return std::max({CpuPagedAttentionWorkspaceBytes(shape, num_threads), CpuSampleWorkspaceBytes(shape, num_threads),
                     CpuHeadLinearWorkspaceBytes(shape, num_threads),
                     CpuLatentAttentionWorkspaceBytes(shape, num_threads), CpuMoeWorkspaceBytes(shape),
                     CpuLinearWorkspaceBytes(shape)});
  }
  absl::Status AllocateWorkspace(const WorkspaceShape& shape) override {
    absl::StatusOr<Buffer> workspace = AllocateHostMemory(WorkspaceBytes(shape));
    if (!workspace.ok()) return workspace.status();
    workspace_ = *std::move(workspace);
    return absl::OkStatus();
  }

 private:
  absl::Span<char> workspace() const { return {static_cast<char*>(workspace_.data()), workspace_.bytes()}; }

  void DoEmbedding(const EmbeddingArgs& args) override { CpuEmbedding(args, *pool_); }
  void DoRmsNorm(const RmsNormArgs& args) override { CpuRmsNorm(args, kernels_, *pool_); }
  void DoLinear(const LinearArgs& args) override {
    if (args.weight->slabs.empty()) return CpuLinear(args, kernels_, *pool_);
    CpuBlockLinear(args, kernels_, block_kernels_, *pool_, workspace());
  }
  void DoRopeKvWrite(const RopeKvWriteArgs& args) override { CpuRopeKvWrite(args, kernels_, *pool_); }
  void DoPagedAttention(const PagedAttentionArgs& args) override { CpuPagedAttention(args, isa_, *pool_, workspace()); }
  void DoGatedActivation(const GatedActivationArgs& args) override { CpuGatedActivation(args, kernels_, *pool_); }
  void DoLayerNorm(const LayerNormArgs& args) override { CpuLayerNorm(args, kernels_, *pool_); }
  void DoHeadLinear(const HeadLinearArgs& args) override { CpuHeadLinear(args, kernels_, *pool_, workspace()); }
  void DoLatentKvWrite(const LatentKvWriteArgs& args) override { CpuLatentKvWrite(args, kernels_, *pool_); }
  void DoLatentAttention(const LatentAttentionArgs& args) override {
    CpuLatentAttention(args, isa_, *pool_, workspace());
  }
  void DoActivation(const ActivationArgs& args) override { CpuActivation(args, kernels_, *pool_); }
  void DoRoute(const RouteArgs& args) override {
    constexpr int64_t kElementsOfWork = 16;  // exp and a search through the experts for each of the chosen
    ParallelRows(*pool_, args.logits.rows, args.logits.cols * kElementsOfWork,
                 [&](int64_t row) { HostRoute(args, row, row + 1); });
  }
  void DoMoe(const MoeArgs& args) override { CpuMoe(args, kernels_, block_kernels_, *pool_, workspace()); }
  void DoGatherRows(const GatherRowsArgs& args) override { HostGatherRows(args); }
  void DoCopyBlocks(const CopyBlocksArgs& args) override { HostCopyBlocks(args); }
  void DoScrubBlocks(const ScrubBlocksArgs& args) override { HostScrubBlocks(args); }
  void DoSample(const SampleArgs& args) override { CpuSample(args, isa_, *pool_, workspace()); }
  void DoScore(const ScoreArgs& args) override { CpuScore(args, isa_, *pool_, workspace()); }

  const CpuIsa isa_;
  const Prefault prefault_;
  const CpuKernels& kernels_;
  const BlockKernels& block_kernels_;
  const std::unique_ptr<ThreadPool> pool_;
  Buffer workspace_;
};

absl::StatusOr<CpuIsa> ResolveIsa(const std::string& name) {
  if (name == "auto") return ChooseCpuIsa();
  const std::vector<CpuIsa> supported = SupportedCpuIsas();
  const std::optional<CpuIsa> isa = ParseCpuIsa(name);
  if (isa && std::find(supported.begin(), supported.end(), *isa) != supported.end()) return *isa;
  std::string allowed = "auto";
  for (CpuIsa each : supported) absl::StrAppend(&allowed, ", ", std::string(CpuIsaName(each)));
  return absl::InvalidArgumentError(
      absl::StrFormat("cpu_isa is \"%s\", which %s; allowed here are %s", name,
                      isa ? "this CPU does not have" : "is not an instruction set known to quire", allowed));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(const BackendOptions& options) {
  const absl::StatusOr<CpuIsa> isa = ResolveIsa(options.cpu_isa);
  if (!isa.ok()) return isa.status();
  absl::StatusOr<std::unique_ptr<ThreadPool>> pool = ThreadPool::Create({options.num_threads, options.cpu_bind});
  if (!pool.ok()) return pool.status();
  return std::make_unique<CpuBackend>(*isa, options.prefault, *std::move(pool));
}

}  // namespace quire
