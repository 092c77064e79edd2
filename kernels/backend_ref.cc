#include "kernels/backend_ref.h"

#include <string>

#include "kernels/activation/impl.h"
#include "kernels/copy_blocks/impl.h"
#include "kernels/cpu/host_memory.h"
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

class RefBackend final : public Backend {
 public:
  BackendKind kind() const override { return BackendKind::kRef; }
  std::string Description() const override { return "ref"; }

  absl::StatusOr<Buffer> Allocate(size_t bytes) override { return AllocateHostMemory(bytes); }

  using Backend::PackLinear;
  absl::StatusOr<LinearWeight> PackLinear(absl::Span<const MatrixSource> parts, WeightFormat format) override {
    LinearWeight weight = PackedShape(parts, format);
    size_t bytes = weight.slabs.empty() ? PackedBytes(weight.n, weight.k, format) : 0;
    for (WeightSlab& slab : weight.slabs) {
      bytes = (bytes + 63) / 64 * 64;  // numbers may follow blocks
      slab.offset = bytes;
      bytes += PackedBytes(slab.rows, weight.k, {format.dtype, slab.blocks});
    }
    absl::StatusOr<Buffer> data = AllocateHostMemory(bytes);
    if (!data.ok()) return data.status();
    weight.data = *std::move(data);
    if (weight.slabs.empty()) RefPackLinear(parts, format, weight.data.data());
    ForEachSlab(parts, weight.slabs, [&](absl::Span<const MatrixSource> of_slab, const WeightSlab& slab) {
      std::byte* const to = static_cast<std::byte*>(weight.data.data()) + slab.offset;
      if (slab.blocks == BlockFormat::kNone) {
        RefPackLinear(of_slab, format.dtype, to);
      } else {
        RefPackBlocks(of_slab, slab.blocks, to);
      }
    });
    return weight;
  }
  using Backend::PackedBytes;
  size_t PackedBytes(int64_t n, int64_t k, WeightFormat format) const override {
    return static_cast<size_t>(n) * static_cast<size_t>(RowBytes(format, k));
  }

  // The definitions take what they need as they go.
  size_t WorkspaceBytes(const WorkspaceShape& shape) const override { return 0; }
  absl::Status AllocateWorkspace(const WorkspaceShape& shape) override { return absl::OkStatus(); }

 private:
  void DoEmbedding(const EmbeddingArgs& args) override { RefEmbedding(args); }
  void DoRmsNorm(const RmsNormArgs& args) override { RefRmsNorm(args); }
  void DoLinear(const LinearArgs& args) override { RefLinear(args); }
  void DoRopeKvWrite(const RopeKvWriteArgs& args) override { RefRopeKvWrite(args); }
  void DoPagedAttention(const PagedAttentionArgs& args) override { RefPagedAttention(args); }
  void DoGatedActivation(const GatedActivationArgs& args) override { RefGatedActivation(args); }
  void DoLayerNorm(const LayerNormArgs& args) override { RefLayerNorm(args); }
  void DoHeadLinear(const HeadLinearArgs& args) override { RefHeadLinear(args); }
  void DoLatentKvWrite(const LatentKvWriteArgs& args) override { RefLatentKvWrite(args); }
  void DoLatentAttention(const LatentAttentionArgs& args) override { RefLatentAttention(args); }
  void DoActivation(const ActivationArgs& args) override { RefActivation(args); }
  void DoRoute(const RouteArgs& args) override { HostRoute(args, 0, args.logits.rows); }
  void DoMoe(const MoeArgs& args) override { RefMoe(args); }
  void DoGatherRows(const GatherRowsArgs& args) override { HostGatherRows(args); }
  void DoCopyBlocks(const CopyBlocksArgs& args) override { HostCopyBlocks(args); }
  void DoScrubBlocks(const ScrubBlocksArgs& args) override { HostScrubBlocks(args); }
  void DoSample(const SampleArgs& args) override { RefSample(args); }
  void DoScore(const ScoreArgs& args) override { RefScore(args); }
};

}  // namespace

std::unique_ptr<Backend> CreateRefBackend() { return std::make_unique<RefBackend>(); }

}  // namespace quire
