// Backend: device memory and the operations of a transformer on it.
//
// Three of them: `ref`, the definition, plain float32 loops that one can check with a pencil; `cpu`, packed weights,
// SIMD kernels and a pool of workers; `cuda`, a GPU. Tensors and weights are device memory; ids, positions, slots,
// chunks and what else the arguments point to are the host's. The public operations check their contract once (a
// violation is our bug: Check) and dispatch. The operations are described where they live, in
// kernels/<operation>/<operation>.h.
//
// Thread: one caller at a time (the engine thread). Operations run in the order of the calls; on `ref` and `cpu` they
// are complete on return, on `cuda` the host has what Sample and Score bring when it has awaited their step. Knows
// nothing of sequences, requests or models.

#ifndef QUIRE_KERNELS_BACKEND_H_
#define QUIRE_KERNELS_BACKEND_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/activation/activation.h"
#include "kernels/copy_blocks/copy_blocks.h"
#include "kernels/dtype.h"
#include "kernels/embedding/embedding.h"
#include "kernels/gated_activation/gated_activation.h"
#include "kernels/gather_rows/gather_rows.h"
#include "kernels/head_linear/head_linear.h"
#include "kernels/latent_attention/latent_attention.h"
#include "kernels/layer_norm/layer_norm.h"
#include "kernels/linear/linear.h"
#include "kernels/moe/moe.h"
#include "kernels/paged_attention/paged_attention.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rope/rope.h"
#include "kernels/sampling/sampling.h"
#include "kernels/scrub_blocks/scrub_blocks.h"
#include "kernels/tensor.h"
#include "kernels/workspace.h"

namespace quire {

// kAuto: kCuda where a device is, else kCpu.
enum class BackendKind { kAuto, kRef, kCpu, kCuda };

// When the pages of what Allocate gives come: when they are first written, in the background meanwhile, or at once.
enum class Prefault { kOff, kBackground, kStart };

// How `cuda` multiplies in prefill attention: mma.sync, on every device; wgmma, on those of compute capability 9.x.
// kAuto is kMma until wgmma has been measured on hardware.
enum class PrefillAttention { kAuto, kMma, kWgmma };

struct BackendOptions {
  BackendKind kind = BackendKind::kAuto;
  // `cpu` only. 0: as many as the affinity mask and the cgroup's CPU quota allow (one for less than a whole CPU).
  int num_threads = 0;
  // `cpu` only. CPUs to pin the workers to, one each, repeated if fewer. Empty: pinned only where the affinity mask is
  // narrower than the machine.
  std::vector<int> cpu_bind = {};
  // `cpu` only. "auto", "avx512_bf16", "avx512", "avx2", "portable". An instruction set that this CPU lacks is an
  // error.
  std::string cpu_isa = "auto";
  // `cpu` only.
  Prefault prefault = Prefault::kOff;
  // Company, chunks, preemption and prefix hits change no bit: always so on `cpu` and `ref`, on `cuda` if true.
  std::optional<bool> deterministic = {};
  // `cuda` only.
  PrefillAttention prefill_attention = PrefillAttention::kAuto;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual BackendKind kind() const = 0;
  // For logs and status: e.g. "cpu avx512_bf16, 2 threads".
  virtual std::string Description() const = 0;

  // `bytes` of zeroed device memory, aligned to at least 64 bytes. RESOURCE_EXHAUSTED says what was asked for.
  virtual absl::StatusOr<Buffer> Allocate(size_t bytes) = 0;
  // Between host and device memory; done on return, after everything before it.
  virtual absl::Status CopyToDevice(void* to, const void* from, size_t bytes);
  virtual absl::Status CopyToHost(void* to, const void* from, size_t bytes);
  // Device memory that was free when the backend was made, where that is what bounds the KV cache.
  virtual std::optional<uint64_t> FreeBytes() const { return std::nullopt; }
  // How PagedKv keeps keys here.
  virtual KeyLayout key_layout() const { return KeyLayout::kDimPairs; }

  // Packs the matrices `parts` (same cols), stacked by rows, as one weight. Runs in parallel, reading each row once;
  // the sources may go afterwards. RESOURCE_EXHAUSTED.
  virtual absl::StatusOr<LinearWeight> PackLinear(absl::Span<const MatrixSource> parts, WeightFormat format) = 0;
  // The same of matrices in host memory.
  absl::StatusOr<LinearWeight> PackLinear(absl::Span<const Tensor> parts, WeightFormat format);

  // Device bytes that a weight [n, k] takes once packed: what PackLinear allocates for parts that end in `format`.
  virtual size_t PackedBytes(int64_t n, int64_t k, WeightFormat format) const = 0;
  // The same of stacked parts, whose rows are not read.
  size_t PackedBytes(absl::Span<const MatrixSource> parts, WeightFormat format) const;

  // Scratch that the operations need at these largest shapes, allocated here and not later. Part of the memory plan.
  using WorkspaceShape = ::quire::WorkspaceShape;
  virtual size_t WorkspaceBytes(const WorkspaceShape& shape) const = 0;
  virtual absl::Status AllocateWorkspace(const WorkspaceShape& shape) = 0;

  // Around the operations of a step. Host arrays that their arguments point to may change only outside, those that
  // results go to only when AwaitStep has returned for this step: it waits for the oldest step that nobody awaited. An
  // error is the device's, and nothing can go on. REQUIRES: at most run_ahead() steps that ended are not awaited when
  // one begins.
  virtual absl::Status BeginStep() { return absl::OkStatus(); }
  virtual absl::Status EndStep() { return absl::OkStatus(); }
  virtual absl::Status AwaitStep() { return absl::OkStatus(); }
  virtual int32_t run_ahead() const { return 0; }

  // Does `operations`; or, where the backend has graphs, what they did when it first saw `key`, without calling them,
  // on what the host arrays hold now that they named then. These stay where they are and as long as they are; of
  // attention's chunks only the last ones may be without rows (they fill up: their row's slot is kNoSlot), and the
  // others have one. Neither Sample nor Score is among them; it is the first in its step but for blocks copied and
  // scrubbed.
  virtual void Replay(int64_t key, absl::FunctionRef<void()> operations) { operations(); }
  virtual bool has_graphs() const { return false; }

  void Embedding(const EmbeddingArgs& args);
  void RmsNorm(const RmsNormArgs& args);
  void LayerNorm(const LayerNormArgs& args);
  void Linear(const LinearArgs& args);
  void HeadLinear(const HeadLinearArgs& args);
  void RopeKvWrite(const RopeKvWriteArgs& args);
  void PagedAttention(const PagedAttentionArgs& args);
  void LatentKvWrite(const LatentKvWriteArgs& args);
  void LatentAttention(const LatentAttentionArgs& args);
  void GatedActivation(const GatedActivationArgs& args);
  void Activation(const ActivationArgs& args);
  void GatherRows(const GatherRowsArgs& args);
  void Route(const RouteArgs& args);
  void Moe(const MoeArgs& args);
  void CopyBlocks(const CopyBlocksArgs& args);
  void ScrubBlocks(const ScrubBlocksArgs& args);
  void Sample(const SampleArgs& args);
  void Score(const ScoreArgs& args);

 private:
  virtual void DoEmbedding(const EmbeddingArgs& args) = 0;
  virtual void DoRmsNorm(const RmsNormArgs& args) = 0;
  virtual void DoLinear(const LinearArgs& args) = 0;
  virtual void DoRopeKvWrite(const RopeKvWriteArgs& args) = 0;
  virtual void DoPagedAttention(const PagedAttentionArgs& args) = 0;
  virtual void DoGatedActivation(const GatedActivationArgs& args) = 0;
  virtual void DoGatherRows(const GatherRowsArgs& args) = 0;
  virtual void DoSample(const SampleArgs& args) = 0;
  virtual void DoScore(const ScoreArgs& args) = 0;

  // Not every backend has these; a model that needs what its backend lacks is refused when it is loaded. By default
  // they abort.
  virtual void DoLayerNorm(const LayerNormArgs& args);
  virtual void DoHeadLinear(const HeadLinearArgs& args);
  virtual void DoLatentKvWrite(const LatentKvWriteArgs& args);
  virtual void DoLatentAttention(const LatentAttentionArgs& args);
  virtual void DoActivation(const ActivationArgs& args);
  virtual void DoRoute(const RouteArgs& args);
  virtual void DoMoe(const MoeArgs& args);
  virtual void DoCopyBlocks(const CopyBlocksArgs& args);
  virtual void DoScrubBlocks(const ScrubBlocksArgs& args);
};

// The weight, without its data, that packing `parts` gives, slabs without their offsets. Checks PackLinear's contract
// for the backends.
LinearWeight PackedShape(absl::Span<const MatrixSource> parts, WeightFormat format);

// INVALID_ARGUMENT names an option that is of `cpu` or of `cuda` only and was set, where `kind` (not kAuto) is another.
absl::Status CheckOptionsOf(BackendKind kind, const BackendOptions& options);

// INVALID_ARGUMENT names the option, what was found and what is allowed.
absl::StatusOr<std::unique_ptr<Backend>> CreateBackend(const BackendOptions& options);

}  // namespace quire

#endif  // QUIRE_KERNELS_BACKEND_H_
