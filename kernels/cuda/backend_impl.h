// CudaBackend: the Backend on a Device: CudaDevice, or the emulation's in tests.
//
// Tensors are the device's memory. What the arguments of a step point to on the host (ids, positions, slots, chunks and
// their block tables, rows, targets) is staged: copied once a step into pinned memory and from there to the device, and
// found again by its address when the next layer names it. Staging is as large as the plan's largest step.
//
// Two steps may be under way. Nothing in a step waits for the device: what Sample and Score bring is copied to pinned
// memory at the step's end and from there to its places when the step is awaited; the tokens stay on the device too,
// where the next step's embedding finds them.

#ifndef QUIRE_KERNELS_CUDA_BACKEND_IMPL_H_
#define QUIRE_KERNELS_CUDA_BACKEND_IMPL_H_

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <map>
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
  CudaBackend(std::unique_ptr<Device> device, bool deterministic, bool prefills_by_wgmma)
      : device_(std::move(device)), deterministic_(deterministic), prefills_by_wgmma_(prefills_by_wgmma) {}

  BackendKind kind() const override { return BackendKind::kCuda; }
  std::string Description() const override {
    const DeviceInfo& info = device_->info();
    return absl::StrFormat("cuda %s, compute capability %d.%d%s%s", info.name, info.major, info.minor,
                           prefills_by_wgmma_ ? ", prefill by wgmma" : "", deterministic_ ? ", deterministic" : "");
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

  absl::Status BeginStep() override;
  absl::Status EndStep() override;
  absl::Status AwaitStep() override;
  int32_t run_ahead() const override { return kMaxSteps - 1; }
  void Replay(int64_t key, absl::FunctionRef<void()> operations) override;
  bool has_graphs() const override { return true; }

 private:
  static constexpr int32_t kMaxSteps = 2;  // under way at once

  void DoEmbedding(const EmbeddingArgs& args) override {
    EmbeddingArgs on_device = args;
    on_device.drawn = drawn();
    on_device.ids = StageOnce(args.ids, static_cast<size_t>(args.x.rows));
    cuda::Embedding(on_device, *device_);
  }
  void DoRmsNorm(const RmsNormArgs& args) override {
    RmsNormArgs on_device = args;
    if (args.rows != nullptr) on_device.rows = Stage(args.rows, static_cast<size_t>(args.y.rows));
    cuda::RmsNorm(on_device, *device_);
  }
  void DoLayerNorm(const LayerNormArgs& args) override {
    LayerNormArgs on_device = args;
    if (args.rows != nullptr) on_device.rows = Stage(args.rows, static_cast<size_t>(args.y.rows));
    cuda::LayerNorm(on_device, *device_);
  }
  void DoActivation(const ActivationArgs& args) override { cuda::Activation(args, *device_); }
  void DoLinear(const LinearArgs& args) override { device_->Linear(args, linear_workspace_.data()); }
  void DoRopeKvWrite(const RopeKvWriteArgs& args) override {
    RopeKvWriteArgs on_device = args;
    on_device.positions = StageOnce(args.positions, static_cast<size_t>(args.q.rows));
    on_device.slots = StageOnce(args.slots, static_cast<size_t>(args.q.rows));
    cuda::RopeKvWrite(on_device, *device_);
  }
  void DoPagedAttention(const PagedAttentionArgs& args) override;
  void DoGatedActivation(const GatedActivationArgs& args) override { cuda::GatedActivation(args, *device_); }
  void DoGatherRows(const GatherRowsArgs& args) override {
    GatherRowsArgs on_device = args;
    on_device.rows = StageOnce(args.rows, static_cast<size_t>(args.num_kept));
    cuda::GatherRows(on_device, *device_);
  }
  void DoCopyBlocks(const CopyBlocksArgs& args) override;
  void DoScrubBlocks(const ScrubBlocksArgs& args) override;
  void DoSample(const quire::SampleArgs& args) override;
  void DoScore(const ScoreArgs& args) override;

  void LaunchSample(const quire::SampleArgs& args, SampledToken* tokens, TokenLogprob* top);
  // Room for `count` results on the device, of which `at` says where they begin.
  template <typename T>
  T* NextResult(size_t count, size_t& at) {
    at = results_used_;
    results_used_ += StagedBytes<T>(count);
    Check(results_used_ <= results_.bytes(), "a step brings more than planned");
    return reinterpret_cast<T*>(static_cast<char*>(results_.data()) + at);
  }

  const SampledToken* drawn() const { return static_cast<const SampledToken*>(drawn_.data()); }

  // The chunks of a group of layers on the device, and whether the work list is theirs.
  struct StepPlan {
    const AttentionChunk* host;
    const AttentionChunk* device;
    int32_t window;
    bool has_decodes, has_prefills;
  };
  const StepPlan& PlanFor(const PagedAttentionArgs& args);

  // The device's copy of an array of the host's: of what it holds now; or of what it holds in the whole step.
  template <typename T>
  const T* Stage(const T* from, size_t count) {
    const T* copy = staging_.Put(from, count);
    if (count > 0) Staged([this, from, count, copy] { CheckSame(staging_.Put(from, count), copy); });
    return copy;
  }
  template <typename T>
  const T* StageOnce(const T* from, size_t count) {
    if (from == nullptr) return nullptr;
    const size_t left = staging_.bytes_left();
    const T* copy = staging_.PutOnce(from, count);
    if (staging_.bytes_left() < left) Staged([this, from, count, copy] { CheckSame(staging_.Put(from, count), copy); });
    return copy;
  }
  // The same of chunks, with their tables' places on the device; of a table only what is used.
  const AttentionChunk* StageChunks(const AttentionChunk* chunks, size_t count, int32_t window, int32_t block_size);
  // Sends what was staged; or, for a graph, remembers how it is staged again.
  template <typename Again>
  void Staged(Again again) {
    if (recording_ != nullptr) {
      recording_->stage.emplace_back(std::move(again));
      return;
    }
    SendStaged();
  }
  void SendStaged() {
    staging_.Send(*device_);
    table_staging_.Send(*device_);
  }
  // Of the step, all but the sampler's rows.
  void ForgetStaged() {
    staging_.Clear();
    table_staging_.Clear();
    plans_.clear();
    planned_ = nullptr;
  }
  static void CheckSame(const void* found, const void* recorded) {
    Check(found == recorded, "a graph's inputs are staged elsewhere than when it was made");
  }

  const std::unique_ptr<Device> device_;
  const bool deterministic_, prefills_by_wgmma_;
  Buffer linear_workspace_, attention_workspace_;
  AttentionPlan attention_plan_;
  // Of the step: arrays whose length its shape tells; block tables; the sampler's rows.
  Staging<Device> staging_, table_staging_, row_staging_;
  std::vector<StepPlan> plans_;
  const StepPlan* planned_ = nullptr;  // whose work list is in attention_plan_
  // What the step brings, on the device; the tokens that the step before brought, to feed this one.
  Buffer results_, drawn_;
  size_t max_draws_ = 0;
  size_t num_drawn_ = 0;     // in this step
  size_t results_used_ = 0;  // bytes

  // What the host is to find where when a step is awaited.
  struct Delivery {
    size_t at;  // in the results
    void* to;
    size_t bytes;
  };
  struct UnderWay {
    Buffer results;  // pinned
    std::vector<Delivery> deliveries;
  };
  // What Replay did when it first saw a key: kernels, and how their inputs are staged.
  struct Recording {
    typename Device::Graph graph;
    std::vector<std::function<void()>> stage;
  };
  std::map<int64_t, Recording> recordings_;
  bool makes_graph_ = false;        // any number of the rows may be filling ones
  Recording* recording_ = nullptr;  // that is being made

  std::array<UnderWay, kMaxSteps> under_way_;  // of step number s: [s % kMaxSteps]
  uint64_t num_begun_ = 0, num_awaited_ = 0;
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
  const int32_t group = shape.q_heads / shape.kv_heads;
  const size_t shared_bytes = AttentionSharedBytes(shape.head_dim, group, prefills_by_wgmma_);
  if (absl::Status status = CheckSharedMemory(device_->info(), shared_bytes, group, shape.head_dim); !status.ok())
    return status;
  const auto allocate = [&](size_t bytes, Buffer& buffer) {
    absl::StatusOr<Buffer> allocated = device_->Allocate(bytes);
    if (allocated.ok()) buffer = *std::move(allocated);
    return allocated.status();
  };
  absl::Status status = allocate(Device::LinearWorkspaceBytes(), linear_workspace_);
  if (status.ok()) status = allocate(AttentionWorkspaceBytes(shape, device_->info().num_sms), attention_workspace_);
  if (status.ok()) status = allocate(ResultBytes(shape), results_);
  if (status.ok()) status = allocate(DrawnBytes(shape), drawn_);
  if (status.ok()) status = staging_.Allocate(StagingBytes(shape), *device_);
  if (status.ok()) status = table_staging_.Allocate(TableStagingBytes(shape), *device_);
  if (status.ok()) status = row_staging_.Allocate(RowStagingBytes(shape), *device_);
  if (!status.ok()) return status;
  max_draws_ = MaxDraws(shape);
  for (UnderWay& step : under_way_) {
    absl::StatusOr<Buffer> results = device_->AllocatePinned(ResultBytes(shape));
    if (!results.ok()) return results.status();
    step.results = *std::move(results);
    step.deliveries.reserve(max_draws_ + static_cast<size_t>(shape.max_rows));
  }
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
  const auto num_chunks = static_cast<size_t>(args.num_chunks);
  StepPlan plan{args.chunks, StageChunks(args.chunks, num_chunks, args.window, args.kv.block_size), args.window, false,
                false};
  Staged([this, chunks = args.chunks, num_chunks, window = args.window, block_size = args.kv.block_size,
          copy = plan.device] { CheckSame(StageChunks(chunks, num_chunks, window, block_size), copy); });
  for (size_t c = 0; c < num_chunks; ++c) {
    if (args.chunks[c].num_rows > 0) (args.chunks[c].num_rows == 1 ? plan.has_decodes : plan.has_prefills) = true;
  }
  plan.has_decodes |= makes_graph_;  // else one that is made of filling rows would have none
  plans_.push_back(plan);
  planned_ = nullptr;
  return plans_.back();
}

template <typename Device>
const AttentionChunk* CudaBackend<Device>::StageChunks(const AttentionChunk* chunks, size_t count, int32_t window,
                                                       int32_t block_size) {
  const auto num_entries = [&](const AttentionChunk& chunk) {
    return chunk.num_rows == 0 ? 0 : CeilDiv(chunk.first_position + chunk.num_rows, block_size);
  };
  size_t num_all = 0;
  for (size_t c = 0; c < count; ++c) num_all += static_cast<size_t>(num_entries(chunks[c]));
  const auto [host, copy] = staging_.template Next<AttentionChunk>(count);
  auto [host_entry, entry] = table_staging_.template Next<BlockId>(num_all);
  for (size_t c = 0; c < count; ++c) {
    const AttentionChunk& chunk = chunks[c];
    host[c] = chunk;
    host[c].block_table = entry;
    const int32_t end = num_entries(chunk), first = end == 0 ? 0 : FirstEntry(chunk.first_position, window, block_size);
    std::copy(chunk.block_table + first, chunk.block_table + end, host_entry + first);
    host_entry += end;
    entry += end;
  }
  return copy;
}

template <typename Device>
void CudaBackend<Device>::DoPagedAttention(const PagedAttentionArgs& args) {
  const StepPlan& step = PlanFor(args);
  PagedAttentionArgs on_device = args;
  on_device.chunks = step.device;
  AttentionContext context;
  context.plan = attention_plan_;
  context.deterministic = deterministic_;
  context.prefills_by_wgmma = prefills_by_wgmma_;
  context.has_plan = planned_ == &step;
  context.has_decodes = step.has_decodes;
  context.has_prefills = step.has_prefills;
  const int32_t rows_per_tile = PrefillRows(prefills_by_wgmma_) * args.kv.kv_heads / args.q_heads;
  // A graph's rows are decodes, whose number changes: each has a tile, and those of filling rows find nothing to do.
  context.num_prefill_items = makes_graph_ && deterministic_
                                  ? args.num_chunks
                                  : NumPrefillItems(args.chunks, args.num_chunks, rows_per_tile, deterministic_);
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
    for (size_t r = 0; r < count; ++r) host_rows[r] = StageRow(left[r], vocab, drawn(), row_staging_);
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
  Check(num_drawn_ + num_rows <= max_draws_, "Sample: more draws in a step than planned");
  const bool wants_top = std::any_of(args.rows, args.rows + num_rows,
                                     [](const auto& row) { return row.wants_logprob && row.num_top > 0; });
  size_t at;
  TokenLogprob* const top = NextResult<TokenLogprob>(wants_top ? num_rows * kMaxTop : 0, at);
  LaunchSample(args, static_cast<SampledToken*>(results_.data()) + num_drawn_, top);
  std::vector<Delivery>& deliveries = under_way_[(num_begun_ - 1) % kMaxSteps].deliveries;
  deliveries.push_back({num_drawn_ * sizeof(SampledToken), args.tokens, num_rows * sizeof(SampledToken)});
  for (size_t r = 0; r < num_rows; ++r) {
    if (!args.rows[r].wants_logprob || args.rows[r].num_top == 0) continue;
    deliveries.push_back({at + r * kMaxTop * sizeof(TokenLogprob), args.top + r * static_cast<size_t>(args.top_stride),
                          static_cast<size_t>(args.rows[r].num_top) * sizeof(TokenLogprob)});
  }
  num_drawn_ += num_rows;
}

template <typename Device>
void CudaBackend<Device>::DoScore(const ScoreArgs& args) {
  const auto num_rows = static_cast<size_t>(args.logits.rows), num_top = static_cast<size_t>(args.num_top);
  std::vector<Delivery>& deliveries = under_way_[(num_begun_ - 1) % kMaxSteps].deliveries;
  size_t logprobs_at, top_at;
  ScoreArgs on_device = args;
  on_device.targets = Stage(args.targets, num_rows);
  on_device.logprobs = NextResult<float>(num_rows, logprobs_at);
  on_device.top = NextResult<TokenLogprob>(num_rows * num_top, top_at);
  cuda::Score(on_device, *device_);
  deliveries.push_back({logprobs_at, args.logprobs, num_rows * sizeof(float)});
  if (num_top > 0) deliveries.push_back({top_at, args.top, num_rows * num_top * sizeof(TokenLogprob)});
}

template <typename Device>
void CudaBackend<Device>::Replay(int64_t key, absl::FunctionRef<void()> operations) {
  const auto [it, is_new] = recordings_.try_emplace(key);
  Recording& recording = it->second;
  if (is_new) {
    makes_graph_ = true;
    // Once by themselves: what drivers and libraries load and choose at a first call has no place in a capture.
    operations();
    if (!device_->Synchronize().ok()) return;
    ForgetStaged();
    recording_ = &recording;
    device_->BeginCapture();
    operations();
    recording.graph = device_->EndCapture();
    recording_ = nullptr;
    makes_graph_ = false;
    staging_.Rewind();
    table_staging_.Rewind();
  }
  for (const std::function<void()>& stage : recording.stage) stage();
  SendStaged();
  device_->Replay(recording.graph);
}

template <typename Device>
absl::Status CudaBackend<Device>::BeginStep() {
  Check(num_begun_ - num_awaited_ < kMaxSteps, "a step begins before the one before the last was awaited");
  ForgetStaged();
  row_staging_.Clear();
  under_way_[num_begun_++ % kMaxSteps].deliveries.clear();
  device_->CopyOnDevice(drawn_.data(), results_.data(), num_drawn_ * sizeof(SampledToken));
  num_drawn_ = 0;
  results_used_ = StagedBytes<SampledToken>(max_draws_);
  return device_->status();
}

template <typename Device>
absl::Status CudaBackend<Device>::EndStep() {
  const auto which = static_cast<int>((num_begun_ - 1) % kMaxSteps);
  const UnderWay& step = under_way_[which];
  if (!step.deliveries.empty()) device_->CopyToHost(step.results.data(), results_.data(), results_used_);
  device_->Record(which);
  return device_->status();
}

template <typename Device>
absl::Status CudaBackend<Device>::AwaitStep() {
  Check(num_awaited_ < num_begun_, "no step is under way");
  const auto which = static_cast<int>(num_awaited_++ % kMaxSteps);
  if (absl::Status status = device_->Await(which); !status.ok()) return status;
  const UnderWay& step = under_way_[which];
  for (const Delivery& delivery : step.deliveries)
    std::memcpy(delivery.to, static_cast<const char*>(step.results.data()) + delivery.at, delivery.bytes);
  return absl::OkStatus();
}

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_CUDA_BACKEND_IMPL_H_
