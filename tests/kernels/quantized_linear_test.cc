// Linear over quantised weights: what the codes mean, cpu against ref within the stated bound, and the laws.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "kernels/backend.h"
#include "kernels/cpu/host_memory.h"
#include "kernels/cpu/isa.h"
#include "kernels/embedding/impl.h"
#include "kernels/linear/blocks.h"
#include "kernels/linear/impl.h"
#include "tests/kernels/cpu_problem.h"

namespace quire {
namespace {

using testing::ElementsAre;

constexpr BlockFormat kAllBlocks[] = {BlockFormat::kQ8_0, BlockFormat::kQ4_0, BlockFormat::kQ4_1, BlockFormat::kQ5_0,
                                      BlockFormat::kQ5_1, BlockFormat::kQ2_K, BlockFormat::kQ3_K, BlockFormat::kQ4_K,
                                      BlockFormat::kQ5_K, BlockFormat::kQ6_K, BlockFormat::kMxfp4};

std::vector<float> Dequantized(BlockFormat blocks, const std::vector<uint8_t>& row, int64_t cols) {
  std::vector<float> values(static_cast<size_t>(cols));
  DequantizeRow(blocks, row.data(), cols, values.data());
  return values;
}

void StoreHalf(float value, uint8_t* to) {
  const uint16_t bits = ToFloat16(value).bits;
  std::memcpy(to, &bits, 2);
}

// By the layouts that llama.cpp documents: one element of each kind, worked by hand.
TEST(Blocks, HandWorkedCases) {
  std::vector<uint8_t> q8(34);
  StoreHalf(0.5f, q8.data());
  q8[2] = 3;
  q8[2 + 31] = 0x80;  // -128
  const std::vector<float> of_q8 = Dequantized(BlockFormat::kQ8_0, q8, 32);
  EXPECT_EQ(of_q8[0], 1.5f);
  EXPECT_EQ(of_q8[31], -64.0f);

  std::vector<uint8_t> q4(18);
  StoreHalf(2, q4.data());
  q4[2] = 0x5f;  // element 0: 15 - 8, element 16: 5 - 8
  const std::vector<float> of_q4 = Dequantized(BlockFormat::kQ4_0, q4, 32);
  EXPECT_EQ(of_q4[0], 14.0f);
  EXPECT_EQ(of_q4[16], -6.0f);

  std::vector<uint8_t> q5(24);
  StoreHalf(1, q5.data());
  StoreHalf(-3, q5.data() + 2);
  q5[4] = 1;  // the fifth bit of element 0
  q5[8] = 0x02;
  EXPECT_EQ(Dequantized(BlockFormat::kQ5_1, q5, 32)[0], 18.0f - 3.0f);

  std::vector<uint8_t> q4k(144);
  StoreHalf(0.5f, q4k.data());
  StoreHalf(0.25f, q4k.data() + 2);
  q4k[4 + 0] = 0xc7;          // group 0: scale 7; the upper bits of group 4's scale: 3
  q4k[4 + 4] = 0x42;          // group 0: min 2; the upper bits of group 4's min: 1
  q4k[4 + 8] = 0x95;          // group 4: scale 3 << 4 | 5, min 1 << 4 | 9
  q4k[16] = 0x0a;             // element 0
  q4k[16 + 2 * 32 + 1] = 11;  // element 2 * 64 + 1: group 4
  const std::vector<float> of_q4k = Dequantized(BlockFormat::kQ4_K, q4k, 256);
  EXPECT_EQ(of_q4k[0], 0.5f * 7 * 10 - 0.25f * 2);
  EXPECT_EQ(of_q4k[129], 0.5f * 53 * 11 - 0.25f * 25);

  std::vector<uint8_t> q6k(210);
  StoreHalf(0.5f, q6k.data() + 208);
  q6k[192 + 8 + 2] = 0xfe;  // scale -2 of group 10: elements 160 .. 175
  q6k[64 + 32] = 0x07;      // low bits of element 128 + 32
  q6k[128 + 32] = 0x0c;     // high bits 3 of element 128 + 32
  EXPECT_EQ(Dequantized(BlockFormat::kQ6_K, q6k, 256)[160], 0.5f * -2 * (0x37 - 32));

  std::vector<uint8_t> fp4(17);
  fp4[0] = 128;   // 2
  fp4[1] = 0x9d;  // element 0: code 13, -3; element 16: code 9, -0.5
  const std::vector<float> of_fp4 = Dequantized(BlockFormat::kMxfp4, fp4, 32);
  EXPECT_EQ(of_fp4[0], -6.0f);
  EXPECT_EQ(of_fp4[16], -1.0f);
}

TEST(Blocks, QuantizingIsAsNearAsItsStep) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> row(75);  // the last group is partly filled
  for (float& value : row) value = normal(random);
  row[40] = 9;
  for (const auto& [blocks, steps] : {std::pair(BlockFormat::kQ8_0, 127.0f), std::pair(BlockFormat::kQ4_0, 8.0f)}) {
    std::vector<uint8_t> stored(static_cast<size_t>(RowBytes({DType::kFloat32, blocks}, 75)));
    QuantizeRow(blocks, row.data(), 75, stored.data());
    const std::vector<float> back = Dequantized(blocks, stored, 75);
    for (int group = 0; group < 3; ++group) {
      float largest = 0;
      for (int i = group * 32; i < std::min(75, group * 32 + 32); ++i) largest = std::max(largest, std::abs(row[i]));
      const float step = largest / steps;
      for (int i = group * 32; i < std::min(75, group * 32 + 32); ++i) {
        // int4 has one code less above zero than below: the largest of the other sign may be cut by one step.
        const float allowed = blocks == BlockFormat::kQ8_0 ? step * 0.51f : step * 1.01f;
        EXPECT_NEAR(back[i], row[i], allowed) << InfoOf(blocks).name << " " << i;
      }
    }
  }
}

TEST(Blocks, ExtremeGroupsStayFinite) {
  std::vector<float> row(32, 0.0f);
  for (const float extreme : {0.0f, 1e-30f, 3e38f, -3e38f}) {
    row[5] = extreme;
    for (const BlockFormat blocks : {BlockFormat::kQ8_0, BlockFormat::kQ4_0}) {
      std::vector<uint8_t> stored(static_cast<size_t>(InfoOf(blocks).bytes));
      QuantizeRow(blocks, row.data(), 32, stored.data());
      for (const float value : Dequantized(blocks, stored, 32)) EXPECT_TRUE(std::isfinite(value)) << extreme;
    }
  }
}

// A matrix of random codes and scales of moderate size.
struct BlockMatrix {
  BlockMatrix(BlockFormat blocks, int64_t rows, int64_t cols, uint32_t seed)
      : blocks(blocks),
        rows(rows),
        cols(cols),
        row_bytes(RowBytes({DType::kFloat32, blocks}, cols)),
        bytes(static_cast<size_t>(rows * row_bytes)) {
    std::mt19937 random(seed);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    const BlockInfo info = InfoOf(blocks);
    for (size_t at = 0; at < bytes.size(); at += static_cast<size_t>(info.bytes)) {
      const auto scale = [&](int offset, float value) { StoreHalf(value, &bytes[at + offset]); };
      const float d = 0.001f + 0.01f * static_cast<float>(random() % 100),
                  min = 0.01f * static_cast<float>(random() % 9);
      switch (blocks) {
        case BlockFormat::kQ2_K:
          scale(80, d);
          scale(82, min);
          break;
        case BlockFormat::kQ3_K:
          scale(108, d);
          break;
        case BlockFormat::kQ6_K:
          scale(208, d);
          break;
        case BlockFormat::kMxfp4:
          bytes[at] = static_cast<uint8_t>(120 + random() % 10);
          break;
        case BlockFormat::kQ4_1:
        case BlockFormat::kQ5_1:
        case BlockFormat::kQ4_K:
        case BlockFormat::kQ5_K:
          scale(0, d);
          scale(2, -min);
          break;
        default:
          scale(0, d);
      }
    }
  }

  MatrixSource source() const {
    return {.format = {DType::kFloat32, blocks}, .rows = rows, .cols = cols, .read_row = [this](int64_t row, void* to) {
              std::memcpy(to, bytes.data() + row * row_bytes, static_cast<size_t>(row_bytes));
            }};
  }

  BlockFormat blocks;
  int64_t rows, cols, row_bytes;
  std::vector<uint8_t> bytes;
};

std::vector<CpuIsa> Isas() { return SupportedCpuIsas(); }

// The kernels of every integer path that this CPU has.
std::vector<const BlockKernels*> AllBlockKernels() {
  std::vector<const BlockKernels*> all;
  for (const CpuIsa isa : Isas()) {
    const BlockKernels* kernels = &BlockKernelsFor(isa);
    if (std::find(all.begin(), all.end(), kernels) == all.end()) all.push_back(kernels);
  }
  return all;
}

LinearWeight PackCpu(const BlockMatrix& matrix, DType dtype, ThreadPool& pool) {
  LinearWeight w;
  w.n = matrix.rows;
  w.k = matrix.cols;
  w.dtype = dtype;
  w.slabs = {{0, matrix.rows, matrix.blocks, 0}};
  w.data = *AllocateHostMemory(CpuBlockBytes(w.n, w.k, matrix.blocks));
  CpuPackBlocks({matrix.source()}, matrix.blocks, pool, w.data.data());
  return w;
}

TEST(QuantizedLinear, PackedRowsAreTheDequantizedOnes) {
  const std::unique_ptr<ThreadPool> pool = MakePool(3);
  for (const BlockFormat blocks : kAllBlocks) {
    const int64_t k = InfoOf(blocks).len * 3;
    const BlockMatrix matrix(blocks, 150, k, 3);
    const LinearWeight w = PackCpu(matrix, DType::kFloat32, *pool);
    std::vector<float> expected(static_cast<size_t>(k)), found(static_cast<size_t>(k));
    for (int64_t row = 0; row < 150; ++row) {
      DequantizeRow(blocks, matrix.bytes.data() + row * matrix.row_bytes, k, expected.data());
      CpuLoadRow(w, row, [&](int64_t i, float value) { found[i] = value; });
      ASSERT_EQ(found, expected) << InfoOf(blocks).name << " row " << row;
    }
  }
}

// |y - y_ref| <= sum_b s_b / 2 sum_{k in b} |W|, and rounding: 1e-5 of the sum of |x W|.
TEST(QuantizedLinear, CpuIsWithinTheStatedBoundOfRefOnEveryPath) {
  const std::unique_ptr<ThreadPool> pool = MakePool(2);
  for (const BlockKernels* kernels : AllBlockKernels()) {
    for (const BlockFormat blocks : kAllBlocks) {
      for (const DType dtype : kAllDTypes) {
        const int64_t n = 130, k = InfoOf(blocks).len * 2 + (InfoOf(blocks).len == 32 ? 32 : 0), rows = 7;
        const BlockMatrix matrix(blocks, n, k, 5);
        const LinearWeight w = PackCpu(matrix, dtype, *pool);
        Matrix x(dtype, rows, k, 4), y(DType::kFloat32, rows, n, 3);
        x.FillRandom(7);
        std::vector<char> workspace(QuantizedRowsBytes(rows, k));
        CpuBlockLinear({.x = x.tensor(), .weight = &w, .bias = nullptr, .accumulate = false, .y = y.tensor()},
                       KernelsFor(CpuIsa::kPortable), *kernels, *pool, absl::MakeSpan(workspace));
        std::vector<float> row(static_cast<size_t>(k));
        for (int64_t j = 0; j < n; ++j) {
          DequantizeRow(blocks, matrix.bytes.data() + j * matrix.row_bytes, k, row.data());
          for (int64_t r = 0; r < rows; ++r) {
            const std::vector<float> xs = x.Row(r);
            double expected = 0, allowed = 1e-6;
            for (int64_t begin = 0; begin < k; begin += 32) {
              double largest = 0, weights = 0;
              for (int64_t i = begin; i < begin + 32; ++i) {
                expected += double{xs[i]} * row[i];
                allowed += 1e-5 * std::abs(double{xs[i]} * row[i]);
                largest = std::max(largest, std::abs(double{xs[i]}));
                weights += std::abs(double{row[i]});
              }
              allowed += largest / 127 / 2 * weights * 1.0001;
            }
            ASSERT_NEAR(y.Row(r)[j], expected, allowed) << InfoOf(blocks).name << " row " << r << " column " << j;
          }
        }
      }
    }
  }
}

// Law 5: the same bits alone and in company, for every number of workers and split into slices.
TEST(QuantizedLinear, CompanyAndWorkersAreInvisible) {
  const std::unique_ptr<ThreadPool> one = MakePool(1), three = MakePool(3);
  for (const BlockKernels* kernels : AllBlockKernels()) {
    for (const BlockFormat blocks : kAllBlocks) {
      const int64_t n = 200, k = 512, rows = 103;
      const BlockMatrix matrix(blocks, n, k, 5);
      const LinearWeight w = PackCpu(matrix, DType::kBFloat16, *three);
      Matrix x(DType::kBFloat16, rows, k), together(DType::kFloat32, rows, n), alone(DType::kFloat32, rows, n);
      x.FillRandom(9);
      std::vector<char> workspace(QuantizedRowsBytes(rows, k));
      const auto run = [&](int64_t begin, int64_t count, Matrix& y, ThreadPool& pool, size_t bytes) {
        CpuBlockLinear({.x = x.tensor().Rows(begin, count),
                        .weight = &w,
                        .bias = nullptr,
                        .accumulate = false,
                        .y = y.tensor().Rows(begin, count)},
                       KernelsFor(CpuIsa::kPortable), *kernels, pool, absl::MakeSpan(workspace).subspan(0, bytes));
      };
      run(0, rows, together, *three, workspace.size());
      for (int64_t r = 0; r < rows; ++r) run(r, 1, alone, *one, workspace.size());
      for (int64_t r = 0; r < rows; ++r) ASSERT_EQ(together.Row(r), alone.Row(r)) << InfoOf(blocks).name << " " << r;
      run(0, rows, together, *one, QuantizedRowsBytes(10, k));  // slices of ten rows
      for (int64_t r = 0; r < rows; ++r) ASSERT_EQ(together.Row(r), alone.Row(r)) << InfoOf(blocks).name << " " << r;
    }
  }
}

// A stack of parts in different formats, numbers among them, as the fused weights of a GGUF file are.
TEST(QuantizedLinear, BackendsStackPartsOfDifferentFormats) {
  const BlockMatrix a(BlockFormat::kQ4_K, 70, 256, 1), b(BlockFormat::kQ6_K, 30, 256, 2);
  Matrix c(DType::kBFloat16, 5, 256), x(DType::kFloat32, 3, 256);
  c.FillRandom(3);
  x.FillRandom(4);
  std::vector<float> bias(105);
  for (size_t i = 0; i < bias.size(); ++i) bias[i] = static_cast<float>(i);
  std::vector<std::vector<float>> results;
  for (const BackendKind kind : {BackendKind::kRef, BackendKind::kCpu}) {
    const std::unique_ptr<Backend> backend =
        *CreateBackend({.kind = kind, .num_threads = kind == BackendKind::kCpu ? 2 : 0});
    ASSERT_TRUE(backend
                    ->AllocateWorkspace({.max_rows = 8,
                                         .max_head_rows = 8,
                                         .max_cols = 256,
                                         .vocab_size = 105,
                                         .q_heads = 1,
                                         .kv_heads = 1,
                                         .head_dim = 64,
                                         .max_context = 64,
                                         .max_sequences = 1,
                                         .quantized_weights = true})
                    .ok());
    const MatrixSource parts[] = {a.source(), b.source(), SourceOf(c.tensor())};
    const LinearWeight w = *backend->PackLinear(parts, DType::kFloat32);
    ASSERT_EQ(w.n, 105);
    ASSERT_EQ(w.slabs.size(), 3);
    Matrix y(DType::kFloat32, 3, 105, 2), rows(DType::kFloat32, 4, 256);
    y.FillRandom(5);
    backend->Linear({x.tensor(), &w, bias.data(), true, y.tensor()});
    const uint32_t ids[] = {0, 69, 99, 104};
    backend->Embedding({ids, &w, rows.tensor()});
    EXPECT_EQ(rows.Row(3), c.Row(4));
    results.push_back({});
    for (int64_t r = 0; r < 3; ++r)
      for (const float value : y.Row(r)) results.back().push_back(value);
    for (int64_t r = 0; r < 4; ++r)
      for (const float value : rows.Row(r)) results.back().push_back(value);
  }
  double squares = 0, error = 0;
  for (size_t i = 0; i < results[0].size(); ++i) {
    squares += double{results[0][i]} * results[0][i];
    error += std::pow(double{results[0][i]} - results[1][i], 2);
  }
  EXPECT_LT(error, 1e-4 * squares);  // int8 activations: some thousandths of the root mean square
}

TEST(QuantizedLinear, PacksNumbersAsInt8AndInt4) {
  Matrix numbers(DType::kBFloat16, 70, 100);
  numbers.FillRandom(1);
  for (const BackendKind kind : {BackendKind::kRef, BackendKind::kCpu}) {
    const std::unique_ptr<Backend> backend =
        *CreateBackend({.kind = kind, .num_threads = kind == BackendKind::kCpu ? 2 : 0});
    for (const BlockFormat blocks : {BlockFormat::kQ8_0, BlockFormat::kQ4_0}) {
      const LinearWeight w = *backend->PackLinear({numbers.tensor()}, {DType::kBFloat16, blocks});
      EXPECT_EQ(w.data.bytes(), backend->PackedBytes(70, 100, {DType::kBFloat16, blocks}));
      Matrix back(DType::kFloat32, 1, 100);
      const uint32_t id = 69;
      backend->Embedding({&id, &w, back.tensor()});
      for (int64_t i = 0; i < 100; ++i) EXPECT_NEAR(back.Row(0)[i], numbers.Row(69)[i], 0.2f);
    }
  }
}

// Experts in blocks: the same bits alone and in company, and near to ref.
TEST(QuantizedLinear, MixturesOfExpertsTakeThem) {
  const int64_t hidden = 64, inner = 96, rows = 9;
  const int32_t num_experts = 3, top_k = 2;
  Matrix gate_up(DType::kFloat32, 2 * inner, hidden), down(DType::kFloat32, hidden, inner);
  Matrix x(DType::kFloat32, rows, hidden);
  x.FillRandom(3);
  std::vector<int32_t> experts;
  std::vector<float> weights;
  for (int32_t r = 0; r < rows; ++r) {
    experts.insert(experts.end(), {r % num_experts, (r + 1) % num_experts});
    weights.insert(weights.end(), {0.25f, 0.75f});
  }
  std::vector<std::vector<float>> results;
  for (const BackendKind kind : {BackendKind::kRef, BackendKind::kCpu}) {
    const std::unique_ptr<Backend> backend =
        *CreateBackend({.kind = kind, .num_threads = kind == BackendKind::kCpu ? 2 : 0});
    WorkspaceShape shape = {.max_rows = rows, .max_head_rows = 1, .max_cols = 2 * inner, .vocab_size = 8};
    shape.num_experts = num_experts;
    shape.experts_per_token = top_k;
    shape.hidden = hidden;
    shape.expert_intermediate = inner;
    shape.quantized_weights = true;
    ASSERT_TRUE(backend->AllocateWorkspace(shape).ok());
    std::vector<LinearWeight> gate_ups, downs;
    for (uint32_t e = 0; e < num_experts; ++e) {
      gate_up.FillRandom(10 + e, 0.2f);
      down.FillRandom(20 + e, 0.2f);
      gate_ups.push_back(*backend->PackLinear({gate_up.tensor()}, {DType::kFloat32, BlockFormat::kQ8_0}));
      downs.push_back(*backend->PackLinear({down.tensor()}, {DType::kFloat32, BlockFormat::kQ8_0}));
    }
    const auto run = [&](int64_t begin, int64_t count, Matrix& y) {
      backend->Moe({.x = x.tensor().Rows(begin, count),
                    .experts = experts.data() + begin * top_k,
                    .weights = weights.data() + begin * top_k,
                    .top_k = top_k,
                    .num_experts = num_experts,
                    .gate_up = gate_ups.data(),
                    .down = downs.data(),
                    .gate = {},
                    .y = y.tensor().Rows(begin, count)});
    };
    Matrix together(DType::kFloat32, rows, hidden), alone(DType::kFloat32, rows, hidden);
    together.FillRandom(1, 0);
    alone.FillRandom(1, 0);
    run(0, rows, together);
    for (int64_t r = 0; r < rows; ++r) run(r, 1, alone);
    EXPECT_TRUE(SameBits(together, alone));
    results.push_back({});
    for (int64_t r = 0; r < rows; ++r)
      for (const float value : together.Row(r)) results.back().push_back(value);
  }
  double squares = 0, error = 0;
  for (size_t i = 0; i < results[0].size(); ++i) {
    squares += double{results[0][i]} * results[0][i];
    error += std::pow(double{results[0][i]} - results[1][i], 2);
  }
  EXPECT_GT(squares, 0);
  EXPECT_LT(error, 4e-4 * squares);
}

}  // namespace
}  // namespace quire
