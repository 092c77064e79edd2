// The small CUDA kernels, emulated, against the definition.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/activation/cuda.cuh"
#include "kernels/activation/impl.h"
#include "kernels/cpu/host_memory.h"
#include "kernels/embedding/cuda.cuh"
#include "kernels/embedding/impl.h"
#include "kernels/gated_activation/cuda.cuh"
#include "kernels/gated_activation/impl.h"
#include "kernels/gather_rows/cuda.cuh"
#include "kernels/gather_rows/impl.h"
#include "kernels/layer_norm/cuda.cuh"
#include "kernels/layer_norm/impl.h"
#include "kernels/linear/impl.h"
#include "kernels/rms_norm/cuda.cuh"
#include "kernels/rms_norm/impl.h"
#include "kernels/rope/cuda.cuh"
#include "kernels/rope/impl.h"
#include "tests/kernels/cpu_problem.h"
#include "tests/kernels/cuda/emulated_device.h"

namespace quire {
namespace {

// Of two roundings of nearly the same number.
void ExpectClose(const Matrix& got, const Matrix& want, DType dtype) {
  const float unit = dtype == DType::kFloat32 ? 4e-6f : dtype == DType::kFloat16 ? 0x1p-10f : 0x1p-7f;
  for (int64_t r = 0; r < want.tensor().rows; ++r) {
    for (int64_t i = 0; i < want.tensor().cols; ++i) {
      ASSERT_NEAR(got.At(r, i), want.At(r, i), unit * std::abs(want.At(r, i)) + 2e-6f)
          << DTypeName(dtype) << " row " << r << " col " << i;
    }
    for (int64_t i = want.tensor().cols; i < got.tensor().row_stride && r + 1 < want.tensor().rows; ++i)
      ASSERT_TRUE(std::isnan(got.At(r, i))) << "wrote past a row";
  }
}

TEST(ElementwiseCudaTest, EmbeddingReadsTheRowsThatIdsName) {
  cuda::EmulatedDevice device;
  for (DType dtype : kAllDTypes) {
    for (int64_t k : {1, 64, 901}) {
      Matrix rows(dtype, 50, k), got(DType::kFloat32, 4, k, 2);
      rows.FillRandom(5);
      LinearWeight table{50, k, dtype, *AllocateHostMemory(static_cast<size_t>(50 * k) * DTypeBytes(dtype))};
      RefPackLinear({SourceOf(rows.tensor())}, dtype, table.data.data());
      const uint32_t ids[] = {49, 0, 7, 7};
      cuda::Embedding({ids, &table, got.tensor()}, device);
      for (int r = 0; r < 4; ++r) ASSERT_EQ(got.Row(r), rows.Row(ids[r])) << DTypeName(dtype) << " k " << k;

      Matrix want(DType::kFloat32, 4, k, 2);
      RefEmbedding({ids, &table, want.tensor(), 1.5f});
      RefEmbedding({ids, &table, want.tensor(), 0.3f, true});
      cuda::Embedding({ids, &table, got.tensor(), 1.5f}, device);
      cuda::Embedding({ids, &table, got.tensor(), 0.3f, true}, device);
      ASSERT_TRUE(SameBits(got, want)) << DTypeName(dtype) << " k " << k;
    }
  }
}

TEST(ElementwiseCudaTest, GatherRowsKeepsThemInPlace) {
  cuda::EmulatedDevice device;
  constexpr int64_t kNumRows = 30;
  std::vector<int32_t> rows = {0, 1, 4, 5, 8};
  for (int32_t row = 9; row < kNumRows; row += 2) rows.push_back(row);
  for (DType dtype : kAllDTypes) {
    for (int64_t cols : {1, 63, 64, 200}) {
      for (const int64_t num_kept : {int64_t{0}, int64_t{1}, int64_t{5}, static_cast<int64_t>(rows.size())}) {
        Matrix got(dtype, kNumRows, cols, 3), want(dtype, kNumRows, cols, 3);
        got.FillRandom(1);
        want.FillRandom(1);
        cuda::GatherRows({got.tensor(), rows.data(), num_kept}, device);
        HostGatherRows({want.tensor(), rows.data(), num_kept});
        for (int64_t r = 0; r < num_kept; ++r)
          ASSERT_EQ(got.Row(r), want.Row(r)) << DTypeName(dtype) << " cols " << cols << " of " << num_kept;
      }
    }
  }
}

TEST(ElementwiseCudaTest, RmsNormIsNearTheDefinition) {
  cuda::EmulatedDevice device;
  for (DType dtype : kAllDTypes) {
    for (int64_t cols : {1, 31, 256, 300, 5003}) {
      Matrix x(DType::kFloat32, 6, cols, 3), weight(DType::kFloat32, 1, cols), want(dtype, 7, cols),
          got(dtype, 7, cols, 5);
      x.FillRandom(static_cast<uint32_t>(cols), 3.0f);
      weight.FillRandom(4);
      const int32_t rows[] = {5, 0, 1, 2, 2, 4, 3};
      RefRmsNorm({x.tensor(), weight.tensor().Row<float>(0), 1e-5f, rows, want.tensor()});
      cuda::RmsNorm({x.tensor(), weight.tensor().Row<float>(0), 1e-5f, rows, got.tensor()}, device);
      ExpectClose(got, want, dtype);
    }
  }
}

TEST(ElementwiseCudaTest, RmsNormOfHeadsInPlaceAndAddedToY) {
  cuda::EmulatedDevice device;
  for (int64_t hidden : {6, 128}) {
    Matrix x(DType::kFloat32, 5, 3 * hidden, 3), want(DType::kFloat32, 5, 3 * hidden, 3);
    Matrix y(DType::kFloat32, 5, 3 * hidden), weight(DType::kFloat32, 1, hidden);
    x.FillRandom(1);
    weight.FillRandom(2);
    for (Matrix* sum : {&y, &want}) sum->FillRandom(3);
    RmsNormArgs args{x.tensor(), weight.tensor().Row<float>(0), 1e-5f, nullptr, want.tensor(), 3, true};
    RefRmsNorm(args);
    args.y = y.tensor();
    cuda::RmsNorm(args, device);
    ExpectClose(y, want, DType::kFloat32);

    want.FillRandom(1);
    args = {want.tensor(), weight.tensor().Row<float>(0), 1e-5f, nullptr, want.tensor(), 3};
    RefRmsNorm(args);
    args.x = args.y = x.tensor();
    cuda::RmsNorm(args, device);
    ExpectClose(x, want, DType::kFloat32);
  }
}

TEST(ElementwiseCudaTest, EveryGateIsNearTheDefinition) {
  cuda::EmulatedDevice device;
  for (DType dtype : kAllDTypes) {
    for (int64_t cols : {1, 200, 1025}) {
      for (GateKind kind : {GateKind::kSilu, GateKind::kGeluTanh, GateKind::kGeluErf, GateKind::kClampedSwiGlu}) {
        Matrix gate_up(DType::kFloat32, 3, 2 * cols, 1), want(dtype, 3, cols), got(dtype, 3, cols, 3);
        gate_up.FillRandom(9, 9.0f);
        RefGatedActivation({gate_up.tensor(), want.tensor(), {kind}});
        cuda::GatedActivation({gate_up.tensor(), got.tensor(), {kind}}, device);
        ExpectClose(got, want, dtype);
      }
    }
  }
}

TEST(ElementwiseCudaTest, EveryActivationIsNearTheDefinition) {
  cuda::EmulatedDevice device;
  for (DType dtype : kAllDTypes) {
    for (ActivationKind kind : {ActivationKind::kIdentity, ActivationKind::kRelu, ActivationKind::kSilu,
                                ActivationKind::kGeluTanh, ActivationKind::kGeluErf, ActivationKind::kSoftCap}) {
      Matrix x(DType::kFloat32, 3, 300, 1), want(dtype, 3, 300), got(dtype, 3, 300, 3);
      x.FillRandom(9, 9.0f);
      RefActivation({x.tensor(), kind, want.tensor(), 3.0f});
      cuda::Activation({x.tensor(), kind, got.tensor(), 3.0f}, device);
      ExpectClose(got, want, dtype);
    }
  }
}

TEST(ElementwiseCudaTest, LayerNormIsNearTheDefinition) {
  cuda::EmulatedDevice device;
  for (DType dtype : kAllDTypes) {
    for (int64_t cols : {1, 31, 600}) {
      Matrix x(DType::kFloat32, 4, cols, 3), weight(DType::kFloat32, 1, cols), bias(DType::kFloat32, 1, cols);
      Matrix want(dtype, 5, cols), got(dtype, 5, cols, 5);
      x.FillRandom(static_cast<uint32_t>(cols), 3.0f);
      weight.FillRandom(4);
      bias.FillRandom(5);
      const int32_t rows[] = {3, 0, 1, 2, 2};
      LayerNormArgs args{x.tensor(),   weight.tensor().Row<float>(0), bias.tensor().Row<float>(0), 1e-5f, rows,
                         want.tensor()};
      RefLayerNorm(args);
      args.y = got.tensor();
      cuda::LayerNorm(args, device);
      ExpectClose(got, want, dtype);
    }
  }
}

TEST(ElementwiseCudaTest, SwiGluOfExtremeGates) {
  cuda::EmulatedDevice device;
  Matrix gate_up(DType::kFloat32, 1, 8), y(DType::kFloat32, 1, 4);
  gate_up.Fill({{1000, -1000, NAN, 0, 1, 1, 1, 5}});
  cuda::GatedActivation({gate_up.tensor(), y.tensor()}, device);
  EXPECT_EQ(y.At(0, 0), 1000.0f);
  EXPECT_NEAR(y.At(0, 1), 0.0f, 1e-30f);
  EXPECT_TRUE(std::isnan(y.At(0, 2)));
  EXPECT_EQ(y.At(0, 3), 0.0f);
}

// Rows of q, k and v for both writers of the cache, the last of them without a slot.
struct RopeProblem {
  static constexpr int32_t kRows = 4, kQHeads = 3, kKvHeads = 2, kBlocks = 3, kBlockSize = 8, kPositions = 90;

  explicit RopeProblem(int32_t head_dim)
      : cos(DType::kFloat32, kPositions, head_dim / 2),
        sin(DType::kFloat32, kPositions, head_dim / 2),
        q(DType::kFloat32, kRows, kQHeads * head_dim, 4),
        q_want(DType::kFloat32, kRows, kQHeads * head_dim, 4),
        k(DType::kFloat32, kRows, kKvHeads * head_dim, 1),
        v(DType::kFloat32, kRows, kKvHeads * head_dim, 2) {
    cos.FillRandom(1);
    sin.FillRandom(2);
    q.FillRandom(3);
    q_want.FillRandom(3);
    k.FillRandom(4);
    v.FillRandom(5);
  }

  // The definition writes to `want` the rows that have a slot; all go to `got`, and a row without one changes nothing.
  void Write(const PagedKv& want, const PagedKv& got, RopePairing pairing, int32_t rotary_dim,
             cuda::EmulatedDevice& device) {
    const int32_t positions[kRows] = {0, 89, 7, 0};
    const int64_t slots[kRows] = {23, 0, 9, kNoSlot};
    const auto args = [&](const Matrix& queries, int64_t rows, const PagedKv& kv) {
      return RopeKvWriteArgs{queries.tensor().Rows(0, rows),
                             k.tensor().Rows(0, rows),
                             v.tensor().Rows(0, rows),
                             positions,
                             slots,
                             cos.tensor().Row<float>(0),
                             sin.tensor().Row<float>(0),
                             kv,
                             pairing,
                             rotary_dim};
    };
    RefRopeKvWrite(args(q_want, kRows - 1, want));
    cuda::RopeKvWrite(args(q, kRows, got), device);
  }

  Matrix cos, sin, q, q_want, k, v;
};

struct RopeShape {
  int32_t head_dim;
  RopePairing pairing;
  int32_t rotary_dim;
};
constexpr RopeShape kRopeShapes[] = {{2, RopePairing::kHalves, 0},
                                     {10, RopePairing::kInterleaved, 0},
                                     {128, RopePairing::kHalves, 96},
                                     {64, RopePairing::kNone, 0},
                                     {256, RopePairing::kInterleaved, 64}};

// Both layouts of keys have one writer and one index formula; a row without a slot leaves everything as it was.
TEST(ElementwiseCudaTest, RopeKvWriteHasTheBitsOfTheDefinition) {
  using P = RopeProblem;
  cuda::EmulatedDevice device;
  for (DType dtype : kAllDTypes) {
    for (KeyLayout layout : {KeyLayout::kRows, KeyLayout::kDimPairs}) {
      for (const auto& [head_dim, pairing, rotary_dim] : kRopeShapes) {
        const int64_t elements = int64_t{P::kBlocks} * P::kBlockSize * P::kKvHeads * head_dim;
        Matrix k_got(dtype, 1, elements), v_got(dtype, 1, elements), k_want(dtype, 1, elements),
            v_want(dtype, 1, elements);
        const auto kv = [&, head_dim = head_dim](const Matrix& k, const Matrix& v) {
          return PagedKv{k.tensor().data, v.tensor().data, dtype,    P::kBlocks,
                         P::kBlockSize,   P::kKvHeads,     head_dim, layout};
        };
        P problem(head_dim);
        problem.Write(kv(k_want, v_want), kv(k_got, v_got), pairing, rotary_dim, device);
        EXPECT_TRUE(SameBits(problem.q, problem.q_want)) << DTypeName(dtype) << " head_dim " << head_dim;
        EXPECT_TRUE(SameBits(k_got, k_want)) << DTypeName(dtype) << " head_dim " << head_dim;
        EXPECT_TRUE(SameBits(v_got, v_want)) << DTypeName(dtype) << " head_dim " << head_dim;
      }
    }
  }
}

TEST(ElementwiseCudaTest, RopeWritesTheRecordsOfTheDefinition) {
  using P = RopeProblem;
  cuda::EmulatedDevice device;
  for (const KvQuantization quantization : {KvQuantization::kFp8E4M3, KvQuantization::kInt8, KvQuantization::kInt4}) {
    for (const auto& [head_dim, pairing, rotary_dim] : kRopeShapes) {
      PagedKv kv{.dtype = DType::kBFloat16,
                 .num_blocks = P::kBlocks,
                 .block_size = P::kBlockSize,
                 .kv_heads = P::kKvHeads,
                 .head_dim = head_dim,
                 .key_layout = KeyLayout::kRows,
                 .quantization = quantization};
      P problem(head_dim);
      for (int32_t d = 0; d < head_dim; ++d) problem.v.tensor().Row<float>(2)[d] *= 1e-30f;
      problem.v.tensor().Row<float>(0)[1] = NAN;
      problem.v.tensor().Row<float>(0)[head_dim] = -INFINITY;  // the other head's
      for (int32_t d = 0; d < head_dim; ++d) problem.k.tensor().Row<float>(1)[d] = 0;
      std::vector<char> got(2 * kv.RecordBegin(P::kBlocks, 0, 0), 0x77), want = got;
      const auto in = [&](std::vector<char>& bytes) {
        kv.k = bytes.data();
        kv.v = bytes.data() + bytes.size() / 2;
        return kv;
      };
      const PagedKv kv_want = in(want), kv_got = in(got);
      problem.Write(kv_want, kv_got, pairing, rotary_dim, device);
      EXPECT_TRUE(SameBits(problem.q, problem.q_want)) << "head_dim " << head_dim;
      EXPECT_EQ(got, want) << KvTypeName(kv.dtype, quantization) << " head_dim " << head_dim;
    }
  }
}

}  // namespace
}  // namespace quire
