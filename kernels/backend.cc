#include "kernels/backend.h"

#include <cstring>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/backend_cpu.h"
#include "kernels/backend_cuda.h"
#include "kernels/backend_ref.h"
#include "kernels/check.h"

namespace quire {
namespace {

void CheckTensor(const Tensor& t, const char* what) {
  Check(t.rows >= 0 && t.cols > 0 && t.row_stride >= t.cols && (t.data != nullptr || t.rows == 0), what);
}

void CheckFloat32(const Tensor& t, const char* what) {
  CheckTensor(t, what);
  Check(t.dtype == DType::kFloat32, what);
}

void CheckKv(const PagedKv& kv) {
  Check(kv.k != nullptr && kv.v != nullptr && kv.num_blocks > 0, "paged cache: no memory");
  Check(kv.block_size >= 8 && kv.block_size <= 256 && kv.block_size % 8 == 0, "paged cache: block_size");
  Check(kv.kv_heads > 0 && kv.head_dim > 0 && kv.head_dim % 2 == 0, "paged cache: heads");
  Check(!kv.quantized() || (kv.dtype == DType::kBFloat16 && kv.head_dim <= 256), "paged cache: quantised");
}

void CheckLatentKv(const LatentKv& kv) {
  Check(kv.data != nullptr && kv.num_blocks > 0, "latent cache: no memory");
  Check(kv.block_size >= 8 && kv.block_size <= 256 && kv.block_size % 8 == 0, "latent cache: block_size");
  Check(kv.latent_dim > 0 && kv.latent_dim % 2 == 0 && kv.latent_dim <= kMaxLatentDim, "latent cache: latent_dim");
  Check(kv.rope_dim > 0 && kv.rope_dim % 2 == 0 && kv.rope_dim <= kMaxLatentRopeDim, "latent cache: rope_dim");
}

// The chunks cover `num_rows` rows in order, and what they may read of their tables lies in the cache.
// `pads`: rows may fill up a graph (Backend::Replay).
void CheckChunks(const AttentionChunk* chunks, int32_t num_chunks, int64_t num_rows, int32_t window, int32_t block_size,
                 int32_t num_blocks, bool pads = false) {
  Check(chunks != nullptr, "attention: chunks");
  int64_t row = 0;
  for (int32_t i = 0; i < num_chunks; ++i) {
    const AttentionChunk& chunk = chunks[i];
    Check(chunk.first_row == row, "attention: chunks do not follow each other");
    if (pads && chunk.num_rows == 0) {
      ++row;  // that of nobody
      continue;
    }
    Check(chunk.block_table != nullptr && chunk.num_rows >= 1 && chunk.first_position >= 0, "attention: chunk");
    row += chunk.num_rows;
    const int64_t end = int64_t{chunk.first_position} + chunk.num_rows;
    for (int64_t b = FirstEntry(chunk.first_position, window, block_size); b * block_size < end; ++b) {
      Check(chunk.block_table[b] >= 0 && chunk.block_table[b] < num_blocks, "attention: block beyond the cache");
    }
  }
  Check(row == num_rows, "attention: chunks do not cover the rows");
}

void CheckSlots(const int64_t* slots, int64_t num_rows, int64_t num_slots, bool pads = false) {
  Check(slots != nullptr, "slots");
  for (int64_t r = 0; r < num_rows; ++r)
    Check((pads && slots[r] == kNoSlot) || (slots[r] >= 0 && slots[r] < num_slots), "slot beyond the cache");
}

void CheckPositions(const int32_t* positions, int64_t num_rows, const float* cos, const float* sin) {
  Check(positions != nullptr && cos != nullptr && sin != nullptr, "rope: positions, tables");
  for (int64_t r = 0; r < num_rows; ++r) Check(positions[r] >= 0, "rope: position");
}

void CheckGate(const Gate& gate) { Check(gate.kind != GateKind::kClampedSwiGlu || gate.limit > 0, "gate: limit"); }

void CheckRopeQueries(const RopeQueries& queries, int64_t num_rows, int32_t num_heads, int32_t rope_dim) {
  CheckFloat32(queries.q, "latent attention: q_rope");
  Check(num_heads > 0 && queries.head_stride >= rope_dim && queries.q.rows == num_rows &&
            queries.q.cols >= (num_heads - 1) * queries.head_stride + rope_dim,
        "latent attention: shape of q_rope");
}

// Rows that a norm reads and writes.
void CheckNormRows(const int32_t* rows, const Tensor& x, const Tensor& y) {
  Check(y.cols == x.cols, "norm: widths of x and y");
  if (rows == nullptr) {
    Check(y.rows == x.rows, "norm: rows of x and y");
    return;
  }
  for (int64_t r = 0; r < y.rows; ++r) Check(rows[r] >= 0 && rows[r] < x.rows, "norm: gathered row beyond x");
}

void CheckWeight(const LinearWeight* weight, const char* what) {
  Check(weight != nullptr && weight->n > 0 && weight->k > 0 && weight->data.data() != nullptr, what);
}

}  // namespace

void Backend::Embedding(const EmbeddingArgs& args) {
  CheckWeight(args.table, "Embedding: table");
  CheckFloat32(args.x, "Embedding: x");
  Check(args.x.cols == args.table->k, "Embedding: width of x");
  if (args.x.rows == 0) return;
  Check(args.ids != nullptr, "Embedding: ids");
  for (int64_t r = 0; r < args.x.rows; ++r) {
    const bool is_drawn = (args.ids[r] & kDrawn) != 0;
    Check(is_drawn ? args.drawn != nullptr : args.ids[r] < args.table->n, "Embedding: id beyond the table");
  }
  DoEmbedding(args);
}

void Backend::RmsNorm(const RmsNormArgs& args) {
  CheckFloat32(args.x, "RmsNorm: x");
  CheckTensor(args.y, "RmsNorm: y");
  Check(args.weight != nullptr && args.epsilon > 0, "RmsNorm: weight, epsilon");
  Check(args.heads >= 1 && args.x.cols % args.heads == 0, "RmsNorm: heads");
  Check(!args.accumulate || args.y.dtype == DType::kFloat32, "RmsNorm: adds to float32 only");
  CheckNormRows(args.rows, args.x, args.y);
  if (args.y.rows > 0) DoRmsNorm(args);
}

void Backend::LayerNorm(const LayerNormArgs& args) {
  CheckFloat32(args.x, "LayerNorm: x");
  CheckTensor(args.y, "LayerNorm: y");
  Check(args.epsilon > 0, "LayerNorm: epsilon");
  CheckNormRows(args.rows, args.x, args.y);
  if (args.y.rows > 0) DoLayerNorm(args);
}

void Backend::Linear(const LinearArgs& args) {
  CheckWeight(args.weight, "Linear: weight");
  CheckTensor(args.x, "Linear: x");
  CheckFloat32(args.y, "Linear: y");
  Check(args.x.dtype == args.weight->dtype, "Linear: x is not of the weight's dtype");
  Check(args.x.cols == args.weight->k && args.y.cols == args.weight->n, "Linear: widths of x and y");
  Check(args.x.rows == args.y.rows, "Linear: rows of x and y");
  if (args.x.rows > 0) DoLinear(args);
}

void Backend::HeadLinear(const HeadLinearArgs& args) {
  CheckFloat32(args.x, "HeadLinear: x");
  CheckTensor(args.y, "HeadLinear: y");
  Check(args.weights != nullptr && args.num_heads > 0, "HeadLinear: weights");
  const LinearWeight& first = args.weights[0];
  for (int32_t head = 0; head < args.num_heads; ++head) {
    const LinearWeight& weight = args.weights[head];
    CheckWeight(&weight, "HeadLinear: weight");
    Check(weight.slabs.empty(), "HeadLinear: weights are quantised");
    Check(weight.n == first.n && weight.k == first.k && weight.dtype == first.dtype, "HeadLinear: weights differ");
  }
  Check(args.x_head_stride >= first.k && args.x.cols >= (args.num_heads - 1) * args.x_head_stride + first.k &&
            args.y_head_stride >= first.n && args.y.cols >= (args.num_heads - 1) * args.y_head_stride + first.n,
        "HeadLinear: widths of x and y");
  Check(args.x.rows == args.y.rows, "HeadLinear: rows of x and y");
  if (args.x.rows > 0) DoHeadLinear(args);
}

void Backend::RopeKvWrite(const RopeKvWriteArgs& args) {
  CheckKv(args.kv);
  CheckFloat32(args.q, "RopeKvWrite: q");
  CheckFloat32(args.k, "RopeKvWrite: k");
  CheckFloat32(args.v, "RopeKvWrite: v");
  const int64_t kv_cols = int64_t{args.kv.kv_heads} * args.kv.head_dim;
  Check(args.q.cols % args.kv.head_dim == 0 && args.k.cols == kv_cols && args.v.cols == kv_cols, "RopeKvWrite: widths");
  Check(args.q.rows == args.k.rows && args.q.rows == args.v.rows, "RopeKvWrite: rows");
  Check(RotaryDim(args) % 2 == 0 && RotaryDim(args) <= args.kv.head_dim, "RopeKvWrite: rotary_dim");
  if (args.q.rows == 0) return;
  if (args.pairing != RopePairing::kNone) CheckPositions(args.positions, args.q.rows, args.cos, args.sin);
  CheckSlots(args.slots, args.q.rows, int64_t{args.kv.num_blocks} * args.kv.block_size, has_graphs());
  DoRopeKvWrite(args);
}

void Backend::PagedAttention(const PagedAttentionArgs& args) {
  CheckKv(args.kv);
  CheckFloat32(args.q, "PagedAttention: q");
  CheckTensor(args.out, "PagedAttention: out");
  Check(args.q_heads > 0 && args.q_heads % args.kv.kv_heads == 0,
        "PagedAttention: q_heads is not a multiple of kv_heads");
  const int64_t cols = int64_t{args.q_heads} * args.kv.head_dim;
  Check(args.q.cols == cols && args.out.cols == cols && args.q.rows == args.out.rows,
        "PagedAttention: shapes of q and out");
  Check(args.scale > 0 && args.window >= 0 && args.softcap >= 0, "PagedAttention: scale, window, softcap");
  if (args.q.rows == 0) return;
  CheckChunks(args.chunks, args.num_chunks, args.q.rows, args.window, args.kv.block_size, args.kv.num_blocks,
              has_graphs());
  DoPagedAttention(args);
}

void Backend::LatentKvWrite(const LatentKvWriteArgs& args) {
  CheckLatentKv(args.cache);
  CheckFloat32(args.kv, "LatentKvWrite: kv");
  Check(args.kv.cols == args.cache.dim(), "LatentKvWrite: width of kv");
  CheckRopeQueries(args.q_rope, args.kv.rows, args.num_heads, args.cache.rope_dim);
  Check(args.norm_weight != nullptr && args.epsilon > 0, "LatentKvWrite: norm");
  Check(args.pairing != RopePairing::kNone, "LatentKvWrite: pairing");
  if (args.kv.rows == 0) return;
  CheckPositions(args.positions, args.kv.rows, args.cos, args.sin);
  CheckSlots(args.slots, args.kv.rows, int64_t{args.cache.num_blocks} * args.cache.block_size);
  DoLatentKvWrite(args);
}

void Backend::LatentAttention(const LatentAttentionArgs& args) {
  CheckLatentKv(args.kv);
  CheckFloat32(args.q_latent, "LatentAttention: q_latent");
  CheckTensor(args.out, "LatentAttention: out");
  const int64_t rows = args.q_latent.rows, cols = int64_t{args.num_heads} * args.kv.latent_dim;
  CheckRopeQueries(args.q_rope, rows, args.num_heads, args.kv.rope_dim);
  Check(args.q_latent.cols == cols && args.out.cols == cols && args.out.rows == rows,
        "LatentAttention: shapes of q_latent and out");
  Check(args.scale > 0, "LatentAttention: scale");
  if (rows == 0) return;
  CheckChunks(args.chunks, args.num_chunks, rows, 0, args.kv.block_size, args.kv.num_blocks);
  DoLatentAttention(args);
}

void Backend::GatedActivation(const GatedActivationArgs& args) {
  CheckFloat32(args.gate_up, "GatedActivation: gate_up");
  CheckTensor(args.y, "GatedActivation: y");
  CheckGate(args.gate);
  Check(args.gate_up.cols == 2 * args.y.cols && args.gate_up.rows == args.y.rows,
        "GatedActivation: shapes of gate_up and y");
  if (args.y.rows > 0) DoGatedActivation(args);
}

void Backend::Activation(const ActivationArgs& args) {
  CheckFloat32(args.x, "Activation: x");
  CheckTensor(args.y, "Activation: y");
  Check(args.x.cols == args.y.cols && args.x.rows == args.y.rows, "Activation: shapes of x and y");
  Check(args.kind != ActivationKind::kSoftCap || args.cap > 0, "Activation: cap");
  if (args.y.rows > 0) DoActivation(args);
}

void Backend::Route(const RouteArgs& args) {
  CheckFloat32(args.logits, "Route: logits");
  Check(args.num_groups >= 1 && args.logits.cols <= kMaxExperts && args.logits.cols % args.num_groups == 0 &&
            args.top_groups >= 1 && args.top_groups <= args.num_groups,
        "Route: groups");
  Check(args.top_k >= 1 && args.top_k <= args.logits.cols / args.num_groups * args.top_groups, "Route: top_k");
  if (args.logits.rows == 0) return;
  Check(args.experts != nullptr && args.weights != nullptr, "Route: experts, weights");
  DoRoute(args);
}

void Backend::Moe(const MoeArgs& args) {
  CheckTensor(args.x, "Moe: x");
  CheckFloat32(args.y, "Moe: y");
  CheckGate(args.gate);
  Check(args.num_experts > 0 && args.top_k >= 1 && args.gate_up != nullptr && args.down != nullptr, "Moe: experts");
  for (int32_t e = 0; e < args.num_experts; ++e) {
    const LinearWeight &gate_up = args.gate_up[e], &down = args.down[e];
    CheckWeight(&gate_up, "Moe: gate_up");
    CheckWeight(&down, "Moe: down");
    Check(gate_up.k == args.x.cols && gate_up.n == 2 * down.k && down.n == args.y.cols, "Moe: shapes of the weights");
    Check(gate_up.n == args.gate_up[0].n && gate_up.dtype == args.gate_up[0].dtype && down.dtype == args.down[0].dtype,
          "Moe: experts differ");
  }
  Check(args.x.rows == args.y.rows && args.x.dtype == args.gate_up[0].dtype, "Moe: x and y");
  if (args.x.rows == 0) return;
  Check(args.experts != nullptr && args.weights != nullptr, "Moe: ids, weights");
  for (int64_t i = 0; i < args.x.rows * args.top_k; ++i) {
    Check(args.experts[i] >= 0 && args.experts[i] < args.num_experts, "Moe: id beyond the experts");
  }
  DoMoe(args);
}

void Backend::GatherRows(const GatherRowsArgs& args) {
  CheckTensor(args.x, "GatherRows: x");
  if (args.num_kept == 0) return;
  Check(args.rows != nullptr, "GatherRows: rows");
  for (int64_t i = 0; i < args.num_kept; ++i) {
    Check(args.rows[i] >= 0 && args.rows[i] < args.x.rows && (i == 0 || args.rows[i] > args.rows[i - 1]),
          "GatherRows: row beyond the matrix, or not behind the one before");
  }
  DoGatherRows(args);
}

void Backend::CopyBlocks(const CopyBlocksArgs& args) {
  if (args.num_copies == 0) return;
  Check(args.copies != nullptr && (args.regions != nullptr || args.num_regions == 0), "CopyBlocks: regions, copies");
  for (int32_t r = 0; r < args.num_regions; ++r) {
    Check(args.regions[r].data != nullptr && args.regions[r].block_bytes > 0, "CopyBlocks: region");
    for (int32_t c = 0; c < args.num_copies; ++c) {
      const BlockCopy& copy = args.copies[c];
      Check(copy.from >= 0 && copy.from < args.regions[r].num_blocks && copy.to >= 0 &&
                copy.to < args.regions[r].num_blocks && copy.from != copy.to,
            "CopyBlocks: block beyond the cache");
    }
  }
  DoCopyBlocks(args);
}

void Backend::ScrubBlocks(const ScrubBlocksArgs& args) {
  if (args.num_blocks == 0) return;
  Check(args.blocks != nullptr && (args.regions != nullptr || args.num_regions == 0), "ScrubBlocks: regions, blocks");
  for (int32_t r = 0; r < args.num_regions; ++r) {
    Check(args.regions[r].data != nullptr && args.regions[r].block_bytes > 0, "ScrubBlocks: region");
    for (int32_t b = 0; b < args.num_blocks; ++b) {
      Check(args.blocks[b] >= 0 && args.blocks[b] < args.regions[r].num_blocks, "ScrubBlocks: block beyond the cache");
    }
  }
  DoScrubBlocks(args);
}

void Backend::Sample(const SampleArgs& args) {
  CheckFloat32(args.logits, "Sample: logits");
  if (args.logits.rows == 0) return;
  Check(args.rows != nullptr && args.tokens != nullptr, "Sample: rows, tokens");
  for (int64_t r = 0; r < args.logits.rows; ++r) {
    const SampleRow& row = args.rows[r];
    Check(row.params != nullptr && (!row.drawn.has_value() || args.drawn != nullptr), "Sample: row");
    const int32_t num_top = row.wants_logprob ? row.num_top : 0;
    Check(num_top >= 0 && num_top <= args.top_stride && (num_top == 0 || args.top != nullptr), "Sample: num_top");
  }
  DoSample(args);
}

void Backend::Score(const ScoreArgs& args) {
  CheckFloat32(args.logits, "Score: logits");
  if (args.logits.rows == 0) return;
  Check(args.targets != nullptr && args.logprobs != nullptr, "Score: targets, logprobs");
  Check(args.num_top >= 0 && (args.num_top == 0 || args.top != nullptr), "Score: num_top");
  for (int64_t r = 0; r < args.logits.rows; ++r)
    Check(args.targets[r] < args.logits.cols, "Score: target beyond the vocabulary");
  DoScore(args);
}

absl::Status CheckOptionsOf(BackendKind kind, const BackendOptions& options) {
  constexpr BackendKind kCpu = BackendKind::kCpu, kCuda = BackendKind::kCuda;
  const BackendOptions unset;
  const std::tuple<bool, absl::string_view, BackendKind> was_set[] = {
      {options.num_threads != unset.num_threads, "threads", kCpu},
      {options.cpu_bind != unset.cpu_bind, "cpu-bind", kCpu},
      {options.cpu_isa != unset.cpu_isa, "cpu-isa", kCpu},
      {options.prefault != unset.prefault, "prefault", kCpu},
      {options.prefill_attention != unset.prefill_attention, "prefill-attention", kCuda},
  };
  const auto name = [](BackendKind of) { return of == kCpu ? "cpu" : of == kCuda ? "cuda" : "ref"; };
  for (const auto& [set, flag, of] : was_set) {
    if (!set || of == kind) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("--", flag, ": is for backend ", name(of), "; in use is ", name(kind)));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Backend>> CreateBackend(const BackendOptions& options) {
  const BackendKind kind = options.kind != BackendKind::kAuto ? options.kind
                           : HasCudaDevice()                  ? BackendKind::kCuda
                                                              : BackendKind::kCpu;
  if (absl::Status status = CheckOptionsOf(kind, options); !status.ok()) return status;
  if (kind == BackendKind::kCuda) return CreateCudaBackend(options);
  if (!options.deterministic.value_or(true))
    return absl::InvalidArgumentError("--deterministic: found false, allowed true: backends cpu and ref always are");
  if (kind == BackendKind::kRef) return CreateRefBackend();
  return CreateCpuBackend(options);
}

absl::Status Backend::CopyToDevice(void* to, const void* from, size_t bytes) {
  std::memcpy(to, from, bytes);
  return absl::OkStatus();
}

absl::Status Backend::CopyToHost(void* to, const void* from, size_t bytes) { return CopyToDevice(to, from, bytes); }

void Backend::DoLayerNorm(const LayerNormArgs&) { Check(false, "this backend has no LayerNorm"); }
void Backend::DoHeadLinear(const HeadLinearArgs&) { Check(false, "this backend has no HeadLinear"); }
void Backend::DoLatentKvWrite(const LatentKvWriteArgs&) { Check(false, "this backend has no LatentKvWrite"); }
void Backend::DoLatentAttention(const LatentAttentionArgs&) { Check(false, "this backend has no LatentAttention"); }
void Backend::DoActivation(const ActivationArgs&) { Check(false, "this backend has no Activation"); }
void Backend::DoRoute(const RouteArgs&) { Check(false, "this backend has no Route"); }
void Backend::DoMoe(const MoeArgs&) { Check(false, "this backend has no Moe"); }
void Backend::DoCopyBlocks(const CopyBlocksArgs&) { Check(false, "this backend has no CopyBlocks"); }
void Backend::DoScrubBlocks(const ScrubBlocksArgs&) { Check(false, "this backend has no ScrubBlocks"); }

absl::StatusOr<LinearWeight> Backend::PackLinear(absl::Span<const Tensor> parts, WeightFormat format) {
  std::vector<MatrixSource> sources;
  for (const Tensor& part : parts) {
    CheckTensor(part, "PackLinear: part");
    sources.push_back(SourceOf(part));
  }
  return PackLinear(sources, format);
}

size_t Backend::PackedBytes(absl::Span<const MatrixSource> parts, WeightFormat format) const {
  const LinearWeight weight = PackedShape(parts, format);
  if (weight.slabs.empty()) return PackedBytes(weight.n, weight.k, format);
  size_t bytes = 0;
  for (const WeightSlab& slab : weight.slabs) bytes += PackedBytes(slab.rows, weight.k, {format.dtype, slab.blocks});
  return bytes;
}

LinearWeight PackedShape(absl::Span<const MatrixSource> parts, WeightFormat format) {
  Check(!parts.empty(), "PackLinear: no parts");
  LinearWeight weight;
  weight.k = parts[0].cols;
  weight.dtype = format.dtype;
  bool is_quantized = false;
  for (const MatrixSource& part : parts) {
    Check(part.rows > 0 && part.cols > 0, "PackLinear: part");
    Check(part.cols == weight.k, "PackLinear: parts of different widths");
    const BlockFormat blocks = part.format.quantized() ? part.format.blocks : format.blocks;
    is_quantized |= blocks != BlockFormat::kNone;
    if (weight.slabs.empty() || weight.slabs.back().blocks != blocks)
      weight.slabs.push_back({.begin = weight.n, .blocks = blocks});
    weight.slabs.back().rows += part.rows;
    weight.n += part.rows;
  }
  if (!is_quantized) weight.slabs.clear();
  return weight;
}

}  // namespace quire
