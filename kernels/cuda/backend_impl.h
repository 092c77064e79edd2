// CudaBackend: the Backend on a Device: CudaDevice, or the emulation's in tests.
//
// Tensors are the device's memory. What the arguments of a step point to on the host (ids, positions, slots, chunks and
// their block tables, rows, targets) is staged: copied once a step into pinned memory and from there to the device, and
// found again by its address when the next layer names it. Staging is as large as the plan's largest step.
//
// Sample and Score end with the host's wait for the device: their results are host memory.

#ifndef QUIRE_KERNELS_CUDA_BACKEND_IMPL_H_
#define QUIRE_KERNELS_CUDA_BACKEND_IMPL_H_

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "kernels/activation/cuda.h"
#include "kernels/backend.h"
#include "kernels/check.h"
#include "kernels/cuda/device_info.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/staging.h"
#include "kernels/cuda/workspace_sizes.h"
#include "kernels/embedding/cuda.h"
#include "kernels/gated_activation/cuda.h"
#include "kernels/gather_rows/cuda.h"
#include "kernels/layer_norm/cuda.h"
#include "kernels/paged_attention/cuda.h"
#include "kernels/rms_norm/cuda.h"
#include "kernels/rope/cuda.h"
#include "kernels/sampling/cuda.h"
#include "kernels/sampling/cuda_rows.h"

namespace quire::cuda {

template <typename Device>
class CudaBackend final : public Backend {
 public:
  CudaBackend(std::unique_ptr<Device> device, bool deterministic)
      : device_(std::move(device)), deterministic_(deterministic) {}

  BackendKind kind() const override { return BackendKind::kCuda; }
  std::string Description() const override {
    const DeviceInfo& info = device_->info();
    return absl::StrFormat("cuda %s, compute capability %d.%d%s", info.name, info.major, info.minor,
                           deterministic_ ? ", deterministic" : "");
  }
  KeyLayout key_layout() const override { return KeyLayout::kRows; }

  absl::StatusOr<Buffer> Allocate(size_t bytes) override { return device_->Allocate(bytes); }
  std::optional<uint64_t> FreeBytes() const override { return device_->info().free_bytes; }
  absl::Status CopyToDevice(void* to, const void* from, size_t bytes) override {
    device_->CopyToDevice(to, from, bytes);
    return device_->Synchronize();
  }

  absl::Status CopyToHost(void* to, const void* from, size_t bytes) override {
    device_->CopyToHost(to, from, bytes);
    return device_->Synchronize();
  }

  using Backend::PackLinear;
  absl::StatusOr<LinearWeight> PackLinear(absl::Span<const MatrixSource> parts, WeightFormat format) override;
  size_t PackedBytes(int64_t n, int64_t k, WeightFormat format) const override {
    return static_cast<size_t>(n * RowBytes(format.dtype, k));
  }

  size_t WorkspaceBytes(const WorkspaceShape& shape) const override {
    return cuda::WorkspaceBytes(shape, device_->info().num_sms, Device::LinearWorkspaceBytes());
  }
  absl::Status AllocateWorkspace(const WorkspaceShape& shape) override;

  absl::Status BeginStep() override {
    if (absl::Status status = device_->Synchronize(); !status.ok()) return status;
    staging_.Clear();
    row_staging_.Clear();
    plans_.clear();
    return absl::OkStatus();
  }
  absl::Status EndStep() override { return device_->Synchronize(); }

 private:
  void DoEmbedding(const EmbeddingArgs& args) override {
    EmbeddingArgs on_device = args;
    on_device.ids = staging_.Copy(args.ids, static_cast<size_t>(args.x.rows), *device_);
    cuda::Embedding(on_device, *device_);
  }
  void DoRmsNorm(const RmsNormArgs& args) override {
    RmsNormArgs on_device = args;
    if (args.rows != nullptr)
      on_device.rows = staging_.CopyFresh(args.rows, static_cast<size_t>(args.y.rows), *device_);
    cuda::RmsNorm(on_device, *device_);
  }
  void DoLayerNorm(const LayerNormArgs& args) override {
    LayerNormArgs on_device = args;
    if (args.rows != nullptr)
      on_device.rows = staging_.CopyFresh(args.rows, static_cast<size_t>(args.y.rows), *device_);
    cuda::LayerNorm(on_device, *device_);
  }
  void DoActivation(const ActivationArgs& args) override { cuda::Activation(args, *device_); }
  void DoLinear(const LinearArgs& args) override { device_->Linear(args, linear_workspace_.data()); }
  void DoRopeKvWrite(const RopeKvWriteArgs& args) override {
    RopeKvWriteArgs on_device = args;
    on_device.positions = staging_.Copy(args.positions, static_cast<size_t>(args.q.rows), *device_);
    on_device.slots = staging_.Copy(args.slots, static_cast<size_t>(args.q.rows), *device_);
    cuda::RopeKvWrite(on_device, *device_);
  }
  void DoPagedAttention(const PagedAttentionArgs& args) override;
  void DoGatedActivation(const GatedActivationArgs& args) override { cuda::GatedActivation(args, *device_); }
  void DoGatherRows(const GatherRowsArgs& args) override {
    GatherRowsArgs on_device = args;
    on_device.rows = staging_.Copy(args.rows, static_cast<size_t>(args.num_kept), *device_);
    cuda::GatherRows(on_device, *device_);
  }
  void DoCopyBlocks(const CopyBlocksArgs& args) override;
  void DoScrubBlocks(const ScrubBlocksArgs& args) override;
  void DoSample(const quire::SampleArgs& args) override;
  void DoScore(const ScoreArgs& args) override;

  void LaunchSample(const quire::SampleArgs& args, SampledToken* tokens, TokenLogprob* top);

  // The chunks of a group of layers on the device, and whether the work list is theirs.
  struct StepPlan {
    const AttentionChunk* host;
    const AttentionChunk* device;
    int32_t window;
    bool has_decodes, has_prefills;
  };
  const StepPlan& PlanFor(const PagedAttentionArgs& args);

  const std::unique_ptr<Device> device_;
  const bool deterministic_;
  Buffer linear_workspace_, attention_workspace_;
  AttentionPlan attention_plan_;
  Staging<Device> staging_, row_staging_;  // of the step; of the sampler's rows
  std::vector<StepPlan> plans_;
  const StepPlan* planned_ = nullptr;  // whose work list is in attention_plan_
  // Results: on the device and, pinned, on the host: SampledToken (or float) of each row, then its top.
  Buffer results_, host_results_;
  size_t tops_offset_ = 0;
};

template <typename Device>
absl::StatusOr<LinearWeight> CudaBackend<Device>::PackLinear(absl::Span<const MatrixSource> parts,
                                                             WeightFormat format) {
  if (format.quantized())
    return absl::UnimplementedError(
        "backend cuda: quantised weights are not built; allowed are float32, bfloat16 and "
        "float16");
  LinearWeight weight = PackedShape(parts, format);
  absl::StatusOr<Buffer> data = device_->Allocate(PackedBytes(weight.n, weight.k, format));
  if (!data.ok()) return data.status();
  weight.data = *std::move(data);

  // Rows go up in pieces: the plain row-major matrix is what cuBLASLt takes.
  const size_t row_bytes = static_cast<size_t>(RowBytes(format.dtype, weight.k));
  const int64_t rows_at_once = std::max<int64_t>(1, (int64_t{4} << 20) / static_cast<int64_t>(row_bytes));
  std::vector<char> piece(static_cast<size_t>(rows_at_once) * row_bytes);
  auto* to = static_cast<char*>(weight.data.data());
  for (const MatrixSource& part : parts) {
    if (part.format.quantized())
      return absl::UnimplementedError("backend cuda: checkpoints with quantised weights are not built");
    std::vector<char> row(static_cast<size_t>(RowBytes(part.format, part.cols)));
    for (int64_t begin = 0; begin < part.rows; begin += rows_at_once) {
      const int64_t count = std::min(rows_at_once, part.rows - begin);
      for (int64_t r = 0; r < count; ++r) {
        char* row_to = piece.data() + static_cast<size_t>(r) * row_bytes;
        if (part.format == format) {
          part.read_row(begin + r, row_to);
          continue;
        }
        part.read_row(begin + r, row.data());
        for (int64_t i = 0; i < part.cols; ++i)
          StoreFloat(row_to, format.dtype, i, LoadFloat(row.data(), part.format.dtype, i));
      }
      device_->CopyToDevice(to, piece.data(), static_cast<size_t>(count) * row_bytes);
      if (absl::Status status = device_->Synchronize(); !status.ok()) return status;
      to += static_cast<size_t>(count) * row_bytes;
    }
  }
  return weight;
}

template <typename Device>
absl::Status CudaBackend<Device>::AllocateWorkspace(const WorkspaceShape& shape) {
  const DeviceInfo& info = device_->info();
  if (const size_t shared = AttentionSharedBytes(shape.head_dim, shape.q_heads / shape.kv_heads);
      shared > info.max_shared_bytes) {
    return absl::UnimplementedError(absl::StrFormat(
        "backend cuda: found %s, whose CTAs have %d bytes of shared memory; attention with %d query heads "
        "for a KV head and heads of %d dims takes %d",
        info.name, info.max_shared_bytes, shape.q_heads / shape.kv_heads, shape.head_dim, shared));
  }
  const auto allocate = [&](size_t bytes, Buffer& buffer) {
    absl::StatusOr<Buffer> allocated = device_->Allocate(bytes);
    if (allocated.ok()) buffer = *std::move(allocated);
    return allocated.status();
  };
  absl::Status status = allocate(Device::LinearWorkspaceBytes(), linear_workspace_);
  if (status.ok()) status = allocate(AttentionWorkspaceBytes(shape, device_->info().num_sms), attention_workspace_);
  if (status.ok()) status = allocate(ResultBytes(shape), results_);
  if (status.ok()) status = staging_.Allocate(StagingBytes(shape), *device_);
  if (status.ok()) status = row_staging_.Allocate(RowStagingBytes(shape), *device_);
  if (!status.ok()) return status;
  absl::StatusOr<Buffer> host_results = device_->AllocatePinned(ResultBytes(shape));
  if (!host_results.ok()) return host_results.status();
  host_results_ = *std::move(host_results);
  tops_offset_ = RoundUp<size_t>(static_cast<size_t>(shape.max_head_rows) * sizeof(SampledToken), 64);
  attention_plan_ = PlaceAttentionPlan(shape, device_->info().num_sms, attention_workspace_.data());
  plans_.reserve(static_cast<size_t>(shape.num_kv_groups));
  return device_->Synchronize();
}

template <typename Device>
const typename CudaBackend<Device>::StepPlan& CudaBackend<Device>::PlanFor(const PagedAttentionArgs& args) {
  for (const StepPlan& plan : plans_) {
    if (plan.host == args.chunks && plan.window == args.window) return plan;
  }
  Check(plans_.size() < plans_.capacity(), "PagedAttention: more kinds of chunks in a step than planned");
  // The chunks, with their tables' places on the device; of a table only what is used.
  StepPlan plan{args.chunks, nullptr, args.window, false, false};
  const auto num_chunks = static_cast<size_t>(args.num_chunks);
  const auto [host, copy] = staging_.template Next<AttentionChunk>(num_chunks);
  size_t num_entries = 0;
  for (size_t c = 0; c < num_chunks; ++c) {
    const AttentionChunk& chunk = args.chunks[c];
    num_entries += static_cast<size_t>(CeilDiv(chunk.first_position + chunk.num_rows, args.kv.block_size));
    (chunk.num_rows == 1 ? plan.has_decodes : plan.has_prefills) = true;
  }
  auto [host_tables, tables] = staging_.template Next<BlockId>(num_entries);
  BlockId* host_entry = host_tables;
  BlockId* entry = tables;
  for (size_t c = 0; c < num_chunks; ++c) {
    host[c] = args.chunks[c];
    host[c].block_table = entry;
    const AttentionChunk& chunk = args.chunks[c];
    const int32_t count = CeilDiv(chunk.first_position + chunk.num_rows, args.kv.block_size);
    const int32_t first = FirstEntry(chunk.first_position, args.window, args.kv.block_size);
    std::copy(chunk.block_table + first, chunk.block_table + count, host_entry + first);
    host_entry += count;
    entry += count;
  }
  // Chunks and tables lie one after the other: one copy.
  device_->CopyToDevice(copy, host,
                        static_cast<size_t>(reinterpret_cast<char*>(host_entry) - reinterpret_cast<char*>(host)));
  plan.device = copy;
  plans_.push_back(plan);
  planned_ = nullptr;
  return plans_.back();
}

template <typename Device>
void CudaBackend<Device>::DoPagedAttention(const PagedAttentionArgs& args) {
  const StepPlan& step = PlanFor(args);
  PagedAttentionArgs on_device = args;
  on_device.chunks = step.device;
  AttentionContext context;
  context.plan = attention_plan_;
  context.deterministic = deterministic_;
  context.has_plan = planned_ == &step;
  context.has_decodes = step.has_decodes;
  context.has_prefills = step.has_prefills;
  context.num_prefill_items =
      NumPrefillItems(args.chunks, args.num_chunks, args.q_heads / args.kv.kv_heads, deterministic_);
  cuda::PagedAttention(on_device, context, *device_);
  planned_ = &step;
}

template <typename Device>
void CudaBackend<Device>::DoCopyBlocks(const CopyBlocksArgs& args) {
  for (int32_t r = 0; r < args.num_regions; ++r) {
    const BlockRegion& region = args.regions[r];
    auto* const blocks = static_cast<char*>(region.data);
    for (int32_t c = 0; c < args.num_copies; ++c) {
      device_->CopyOnDevice(blocks + static_cast<size_t>(args.copies[c].to) * region.block_bytes,
                            blocks + static_cast<size_t>(args.copies[c].from) * region.block_bytes, region.block_bytes);
    }
  }
}

template <typename Device>
void CudaBackend<Device>::DoScrubBlocks(const ScrubBlocksArgs& args) {
  for (int32_t r = 0; r < args.num_regions; ++r) {
    const BlockRegion& region = args.regions[r];
    for (int32_t b = 0; b < args.num_blocks; ++b)
      device_->Clear(static_cast<char*>(region.data) + static_cast<size_t>(args.blocks[b]) * region.block_bytes,
                     region.block_bytes);
  }
}

// Rows go up, with all that they name, as many as there is room for: all of them unless they name very much.
template <typename Device>
void CudaBackend<Device>::LaunchSample(const quire::SampleArgs& args, SampledToken* tokens, TokenLogprob* top) {
  const int64_t num_rows = args.logits.rows, vocab = args.logits.cols;
  for (int64_t begin = 0; begin < num_rows;) {
    const auto left = absl::MakeConstSpan(args.rows + begin, static_cast<size_t>(num_rows - begin));
    size_t count = NumRowsThatFit(left, vocab, row_staging_);
    if (count == 0) {  // until the device has read those before
      if (!device_->Synchronize().ok()) return;
      row_staging_.Clear();
      count = NumRowsThatFit(left, vocab, row_staging_);
      Check(count > 0, "Sample: a row names an id twice");  // what it names once there is room for
    }
    const auto [host_rows, rows] = row_staging_.template Next<SampleRow>(count);
    for (size_t r = 0; r < count; ++r) host_rows[r] = StageRow(left[r], vocab, row_staging_);
    row_staging_.Send(*device_);
    Tensor logits = args.logits;
    logits.data = args.logits.template Row<float>(begin);
    logits.rows = static_cast<int64_t>(count);
    cuda::Sample(cuda::SampleArgs{logits, rows, tokens + begin, top + begin * kMaxTop, kMaxTop}, *device_);
    begin += logits.rows;
  }
}

template <typename Device>
void CudaBackend<Device>::DoSample(const quire::SampleArgs& args) {
  const auto num_rows = static_cast<size_t>(args.logits.rows);
  auto* const results = static_cast<char*>(results_.data());
  auto* const host = static_cast<char*>(host_results_.data());
  LaunchSample(args, reinterpret_cast<SampledToken*>(results), reinterpret_cast<TokenLogprob*>(results + tops_offset_));
  device_->CopyToHost(host, results, tops_offset_ + num_rows * kMaxTop * sizeof(TokenLogprob));
  if (!device_->Synchronize().ok()) {  // the step's end will say why
    std::fill_n(args.tokens, num_rows, SampledToken{.id = 0, .finite = false});
    return;
  }
  std::memcpy(args.tokens, host, num_rows * sizeof(SampledToken));
  for (size_t r = 0; r < num_rows; ++r) {
    if (!args.rows[r].wants_logprob) continue;
    std::memcpy(args.top + r * static_cast<size_t>(args.top_stride),
                host + tops_offset_ + r * kMaxTop * sizeof(TokenLogprob),
                static_cast<size_t>(args.rows[r].num_top) * sizeof(TokenLogprob));
  }
}

template <typename Device>
void CudaBackend<Device>::DoScore(const ScoreArgs& args) {
  const auto num_rows = static_cast<size_t>(args.logits.rows), num_top = static_cast<size_t>(args.num_top);
  auto* const results = static_cast<char*>(results_.data());
  auto* const host = static_cast<char*>(host_results_.data());
  ScoreArgs on_device = args;
  on_device.targets = staging_.CopyFresh(args.targets, num_rows, *device_);
  on_device.logprobs = reinterpret_cast<float*>(results);
  on_device.top = reinterpret_cast<TokenLogprob*>(results + tops_offset_);
  cuda::Score(on_device, *device_);
  device_->CopyToHost(host, results, tops_offset_ + num_rows * num_top * sizeof(TokenLogprob));
  if (!device_->Synchronize().ok()) return;
  std::memcpy(args.logprobs, host, num_rows * sizeof(float));
  if (num_top > 0) std::memcpy(args.top, host + tops_offset_, num_rows * num_top * sizeof(TokenLogprob));
}

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_CUDA_BACKEND_IMPL_H_
