#include "kernels/backend.h"

#include "kernels/backend_cpu.h"
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
  for (int64_t r = 0; r < args.x.rows; ++r) Check(args.ids[r] < args.table->n, "Embedding: id beyond the table");
  DoEmbedding(args);
}

void Backend::RmsNorm(const RmsNormArgs& args) {
  CheckFloat32(args.x, "RmsNorm: x");
  CheckTensor(args.y, "RmsNorm: y");
  Check(args.weight != nullptr && args.epsilon > 0, "RmsNorm: weight, epsilon");
  Check(args.y.cols == args.x.cols, "RmsNorm: widths of x and y");
  if (args.rows == nullptr) {
    Check(args.y.rows == args.x.rows, "RmsNorm: rows of x and y");
  } else {
    for (int64_t r = 0; r < args.y.rows; ++r) {
      Check(args.rows[r] >= 0 && args.rows[r] < args.x.rows, "RmsNorm: gathered row beyond x");
    }
  }
  if (args.y.rows > 0) DoRmsNorm(args);
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

void Backend::RopeKvWrite(const RopeKvWriteArgs& args) {
  CheckKv(args.kv);
  CheckFloat32(args.q, "RopeKvWrite: q");
  CheckFloat32(args.k, "RopeKvWrite: k");
  CheckFloat32(args.v, "RopeKvWrite: v");
  const int64_t kv_cols = int64_t{args.kv.kv_heads} * args.kv.head_dim;
  Check(args.q.cols % args.kv.head_dim == 0 && args.k.cols == kv_cols && args.v.cols == kv_cols, "RopeKvWrite: widths");
  Check(args.q.rows == args.k.rows && args.q.rows == args.v.rows, "RopeKvWrite: rows");
  if (args.q.rows == 0) return;
  Check(args.positions != nullptr && args.slots != nullptr && args.cos != nullptr && args.sin != nullptr,
        "RopeKvWrite: positions, slots, tables");
  const int64_t num_slots = int64_t{args.kv.num_blocks} * args.kv.block_size;
  for (int64_t r = 0; r < args.q.rows; ++r) {
    Check(args.positions[r] >= 0, "RopeKvWrite: position");
    Check(args.slots[r] >= 0 && args.slots[r] < num_slots, "RopeKvWrite: slot beyond the cache");
  }
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
  if (args.q.rows == 0) return;
  Check(args.chunks != nullptr, "PagedAttention: chunks");
  int64_t row = 0;
  for (int32_t i = 0; i < args.num_chunks; ++i) {
    const AttentionChunk& chunk = args.chunks[i];
    Check(chunk.block_table != nullptr && chunk.num_rows >= 1 && chunk.first_position >= 0, "PagedAttention: chunk");
    Check(chunk.first_row == row, "PagedAttention: chunks do not follow each other");
    row += chunk.num_rows;
    const int64_t end = int64_t{chunk.first_position} + chunk.num_rows;
    for (int64_t b = 0; b * args.kv.block_size < end; ++b) {
      Check(chunk.block_table[b] >= 0 && chunk.block_table[b] < args.kv.num_blocks,
            "PagedAttention: block beyond the cache");
    }
  }
  Check(row == args.q.rows, "PagedAttention: chunks do not cover the rows");
  DoPagedAttention(args);
}

void Backend::SwiGlu(const SwiGluArgs& args) {
  CheckFloat32(args.gate_up, "SwiGlu: gate_up");
  CheckTensor(args.y, "SwiGlu: y");
  Check(args.gate_up.cols == 2 * args.y.cols && args.gate_up.rows == args.y.rows, "SwiGlu: shapes of gate_up and y");
  if (args.y.rows > 0) DoSwiGlu(args);
}

void Backend::Sample(const SampleArgs& args) {
  CheckFloat32(args.logits, "Sample: logits");
  if (args.logits.rows == 0) return;
  Check(args.rows != nullptr && args.tokens != nullptr, "Sample: rows, tokens");
  for (int64_t r = 0; r < args.logits.rows; ++r) {
    const SampleRow& row = args.rows[r];
    Check(row.params != nullptr && (row.banned != nullptr || row.num_banned == 0) && row.num_banned >= 0,
          "Sample: row");
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

absl::StatusOr<std::unique_ptr<Backend>> CreateBackend(const BackendOptions& options) {
  if (options.kind == BackendKind::kCpu) return CreateCpuBackend(options);
  return CreateRefBackend();
}

LinearWeight PackedShape(absl::Span<const Tensor> parts, DType dtype) {
  Check(!parts.empty(), "PackLinear: no parts");
  LinearWeight weight;
  weight.k = parts[0].cols;
  weight.dtype = dtype;
  for (const Tensor& part : parts) {
    CheckTensor(part, "PackLinear: part");
    Check(part.cols == weight.k, "PackLinear: parts of different widths");
    weight.n += part.rows;
  }
  Check(weight.n > 0, "PackLinear: no rows");
  return weight;
}

}  // namespace quire
