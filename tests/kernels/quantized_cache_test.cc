// Quantised KV caches: records by hand and their error, attention over them near the definition and near a cache of
// float32, and the laws bitwise, on every instruction set that this machine runs.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cpu/isa.h"
#include "kernels/paged_attention/kv_record.h"
#include "kernels/rope/impl.h"
#include "tests/kernels/paged_attention_problem.h"

namespace quire {
namespace {

using testing::ElementsAre;

constexpr KvQuantization kAll[] = {KvQuantization::kFp8E4M3, KvQuantization::kInt8, KvQuantization::kInt4};

std::string Name(KvQuantization quantization) { return std::string(KvTypeName(DType::kBFloat16, quantization)); }

std::vector<uint8_t> Record(KvQuantization quantization, const std::vector<float>& x) {
  const auto head_dim = static_cast<int32_t>(x.size());
  std::vector<char> record(KvHeadBytes(DType::kBFloat16, quantization, head_dim));
  WriteKvRecord(quantization, x.data(), head_dim, record.data());
  return {record.begin(), record.end()};
}

std::vector<float> RoundTrip(KvQuantization quantization, const std::vector<float>& x) {
  const std::vector<uint8_t> record = Record(quantization, x);
  std::vector<float> back;
  for (size_t d = 0; d < x.size(); ++d) {
    back.push_back(LoadKvRecord(quantization, reinterpret_cast<const char*>(record.data()),
                                static_cast<int32_t>(x.size()), static_cast<int32_t>(d)));
  }
  return back;
}

TEST(KvRecordTest, HandWorkedCases) {
  // bfloat16: 1 is 0x3f80, 2 is 0x4000, 0.5 is 0x3f00; the lower byte comes first.
  EXPECT_THAT(Record(KvQuantization::kInt8, {127, -63.5, 1.4f, 0}), ElementsAre(127, 192, 1, 0, 0x80, 0x3f));
  EXPECT_THAT(RoundTrip(KvQuantization::kInt8, {127, -63.5, 1.4f, 0}), ElementsAre(127, -64, 1, 0));
  EXPECT_THAT(Record(KvQuantization::kInt4, {14, -14, 3, -2}), ElementsAre(0x97, 0xf2, 0x00, 0x40));
  EXPECT_THAT(RoundTrip(KvQuantization::kInt4, {14, -14, 3, -2}), ElementsAre(14, -14, 4, -2));  // 1.5 to even
  // E4M3: 448 is 0x7e, 1 is 0x38, 1.125 is 0x39, 2^-9 is 0x01, 2^-6 is 0x08.
  EXPECT_THAT(Record(KvQuantization::kFp8E4M3, {448, -1, 1.125f, 0x1p-9f, -0x1p-6f, 0}),
              ElementsAre(0x7e, 0xb8, 0x39, 0x01, 0x88, 0x00, 0x80, 0x3f));
  EXPECT_THAT(RoundTrip(KvQuantization::kFp8E4M3, {448, -1.0625f, 1.1875f, 0x1.8p-9f, 0x1.ep-7f, 0x1p-10f}),
              ElementsAre(448, -1, 1.25f, 0x1p-8f, 0x1p-6f, 0));  // ties to even
  EXPECT_THAT(RoundTrip(KvQuantization::kFp8E4M3, {224, -0.5f, 0, 1}), ElementsAre(224, -0.5f, 0, 1));
}

TEST(KvRecordTest, EveryCodeOfFp8ComesBack) {
  for (int code = 0; code < 127; ++code) {
    const float size = code < 8 ? code * 0x1p-9f : std::ldexp(8.0f + code % 8, code / 8 - 10);
    EXPECT_THAT(Record(KvQuantization::kFp8E4M3, {448, -size}), ElementsAre(0x7e, code | 0x80, 0x80, 0x3f)) << size;
    EXPECT_EQ(RoundTrip(KvQuantization::kFp8E4M3, {448, -size})[1], -size);
  }
}

TEST(KvRecordTest, ErrorsAreWithinTheBounds) {
  for (KvQuantization quantization : kAll) {
    const float codes = quantization == KvQuantization::kInt8 ? 127 : quantization == KvQuantization::kInt4 ? 7 : 448;
    for (float factor : {1e-30f, 1e-6f, 0.3f, 1.0f, 77.0f, 1e30f}) {
      for (uint64_t record = 0; record < 200; ++record) {
        std::vector<float> x;
        for (uint64_t d = 0; d < 64; ++d) x.push_back(factor * std::pow(Noise(7, record, 0, 0, d), 3.0f));
        const std::vector<float> back = RoundTrip(quantization, x);
        float largest = 0;
        for (float each : x) largest = std::max(largest, std::fabs(each));
        const float scale = largest / codes * (1 + 0x1p-7f);  // rounded up to a bfloat16
        for (size_t d = 0; d < x.size(); ++d) {
          const float bound =
              quantization == KvQuantization::kFp8E4M3 ? std::max(std::fabs(x[d]) / 16, scale / 1024) : scale / 2;
          EXPECT_LE(std::fabs(back[d] - x[d]), bound * 1.0001f) << Name(quantization) << " " << x[d];
        }
      }
    }
  }
}

TEST(KvRecordTest, ZerosStayZerosAndWhatIsNotFiniteMakesAllNaN) {
  for (KvQuantization quantization : kAll) {
    EXPECT_THAT(RoundTrip(quantization, {0, -0.0f}), ElementsAre(0, 0));
    for (float bad : {NAN, -NAN, INFINITY, -INFINITY}) {
      for (float each : RoundTrip(quantization, {1, bad, 2, 3})) EXPECT_TRUE(std::isnan(each)) << Name(quantization);
    }
  }
}

std::string IsaName(const testing::TestParamInfo<CpuIsa>& info) { return std::string(CpuIsaName(info.param)); }

class QuantizedCacheTest : public testing::TestWithParam<CpuIsa> {
 protected:
  static AttentionShape Shape(KvQuantization quantization, int32_t group = 4, int32_t head_dim = 64) {
    return {.q_heads = 2 * group,
            .kv_heads = 2,
            .head_dim = head_dim,
            .dtype = DType::kBFloat16,
            .quantization = quantization};
  }

  static float MaxDifference(const std::vector<float>& a, const std::vector<float>& b) {
    float max = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      const float difference = std::fabs(a[i] - b[i]);
      if (!(difference <= max)) max = difference;  // keeps a NaN
    }
    return a.size() == b.size() ? max : INFINITY;
  }

  static bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  }

  void ExpectNearRef(const AttentionShape& shape, const std::vector<ChunkOf>& chunks) {
    // Sums of float32, or weights rounded to bfloat16 (2^-9 each).
    const float tolerance = GetParam() == CpuIsa::kAvx512Bf16 ? 4e-3f : 2e-5f;
    PagedAttentionProblem problem(shape, chunks);
    EXPECT_LE(MaxDifference(problem.Cpu(GetParam(), 2), problem.Ref()), tolerance)
        << Name(shape.quantization) << " q_heads " << shape.q_heads << " head_dim " << shape.head_dim << " block_size "
        << shape.block_size << " window " << shape.window;
  }
};

INSTANTIATE_TEST_SUITE_P(Isa, QuantizedCacheTest, testing::ValuesIn(SupportedCpuIsas()), IsaName);

TEST_P(QuantizedCacheTest, EveryShapeIsNearTheDefinitionAndReadsNoSlotThatItDoesNotOwn) {
  for (KvQuantization quantization : kAll) {
    const std::vector<ChunkOf> chunks = {{0, 70, 1}, {1, 0, 9}, {2, 15, 1}};
    for (int32_t group : {1, 3, 8, 64}) ExpectNearRef(Shape(quantization, group), chunks);
    ExpectNearRef(Shape(quantization), {{3, 515, 7}});
    for (int32_t head_dim : {2, 30, 36, 48, 80, 100, 128, 256}) ExpectNearRef(Shape(quantization, 6, head_dim), chunks);
    for (int32_t block_size : {8, 24, 256}) {
      AttentionShape shape = Shape(quantization);
      shape.block_size = block_size;
      ExpectNearRef(shape, chunks);
    }
    for (int32_t window : {1, 70, 600}) {
      AttentionShape shape = Shape(quantization);
      shape.window = window;
      ExpectNearRef(shape, {{0, 0, 20}, {1, 700, 3}, {2, 1030, 9}});
    }
    AttentionShape shape = Shape(quantization);
    shape.softcap = 2;
    shape.alibi = true;
    shape.sinks = true;
    shape.window = 33;
    ExpectNearRef(shape, {{0, 0, 20}, {1, 900, 1}, {2, 515, 2}});
  }
}

// Bitwise: a row alone, in other blocks, with any number of workers.
TEST_P(QuantizedCacheTest, ChunksCompanyBlocksAndWorkersAreInvisible) {
  for (KvQuantization quantization : kAll) {
    for (int32_t window : {0, 90}) {
      AttentionShape shape = Shape(quantization, 3, 48);
      shape.window = window;
      const std::vector<ChunkOf> chunks = {{0, 0, 70}, {1, 1050, 20}, {2, 2000, 1}};
      PagedAttentionProblem together(shape, chunks);
      const std::vector<float> all = together.Cpu(GetParam(), 1);
      for (int num_threads : {2, 3, 7}) EXPECT_TRUE(SameBits(together.Cpu(GetParam(), num_threads), all));
      auto row = all.begin();
      for (const ChunkOf& chunk : chunks) {
        for (int32_t i = 0; i < chunk.count; ++i, row += together.RowElements()) {
          PagedAttentionProblem alone(shape, {{chunk.sequence, chunk.begin + i, 1}}, 2);
          EXPECT_TRUE(SameBits(alone.Cpu(GetParam(), 1), std::vector<float>(row, row + together.RowElements())))
              << Name(quantization) << " position " << chunk.begin + i;
        }
      }
      for (int32_t block_size : {8, 24, 256}) {
        shape.block_size = block_size;
        EXPECT_TRUE(SameBits(PagedAttentionProblem(shape, chunks, 5).Cpu(GetParam(), 3), all)) << block_size;
      }
    }
  }
}

TEST_P(QuantizedCacheTest, LaterRowsOfTheSameChunkDoNotTouchEarlierOnes) {
  for (KvQuantization quantization : kAll) {
    PagedAttentionProblem clean(Shape(quantization), {{0, 0, 20}});
    PagedAttentionProblem poisoned(Shape(quantization), {{0, 0, 20}});
    poisoned.SetHeads(0, 11, 0, std::vector<float>(64, NAN), std::vector<float>(64, INFINITY));
    poisoned.SetHeads(0, 12, 1, std::vector<float>(64, 1), std::vector<float>(64, NAN));
    std::vector<float> expected = clean.Cpu(GetParam(), 1), found = poisoned.Cpu(GetParam(), 1);
    EXPECT_FALSE(std::isfinite(found.back()));  // its own K and V are among what it sees
    expected.resize(11 * clean.RowElements());
    found.resize(11 * clean.RowElements());
    EXPECT_TRUE(SameBits(found, expected));
  }
}

// Beside a cache of float32: K in [-2, 2), V in [-1, 1).
TEST_P(QuantizedCacheTest, IsNearACacheOfFloat32) {
  const std::vector<ChunkOf> chunks = {{0, 300, 8}, {1, 0, 40}};
  AttentionShape exact = Shape(KvQuantization::kNone);
  exact.dtype = DType::kFloat32;
  const std::vector<float> expected = PagedAttentionProblem(exact, chunks).Ref();
  const auto error = [&](KvQuantization quantization) {
    const std::vector<float> found = PagedAttentionProblem(Shape(quantization), chunks).Cpu(GetParam(), 2);
    double squares = 0;
    for (size_t i = 0; i < found.size(); ++i) squares += std::pow(double{found[i]} - expected[i], 2);
    return std::sqrt(squares / static_cast<double>(found.size()));
  };
  EXPECT_LE(error(KvQuantization::kInt8), 0.004);
  EXPECT_LE(error(KvQuantization::kFp8E4M3), 0.02);
  EXPECT_LE(error(KvQuantization::kInt4), 0.06);
}

// RopeKvWrite puts the same records into the cache on both backends: the definition's.
TEST_P(QuantizedCacheTest, RopeWritesTheRecordsOfTheDefinition) {
  constexpr int32_t kHeads = 2, kDim = 12, kRows = 3;
  const auto pool = ThreadPool::Create({.num_threads = 2, .cpu_bind = {}});
  ASSERT_TRUE(pool.ok());
  std::vector<float> cos, sin, k, v;
  for (int i = 0; i < 5 * kDim / 2; ++i) {
    cos.push_back(std::cos(0.3f * static_cast<float>(i)));
    sin.push_back(std::sin(0.3f * static_cast<float>(i)));
  }
  for (int i = 0; i < kRows * kHeads * kDim; ++i) {
    k.push_back(Noise(1, 0, i, 0, 0));
    v.push_back(Noise(2, 0, i, 0, 0));
  }
  const int32_t positions[] = {4, 0, 2};
  const int64_t slots[] = {9, 0, 15};
  for (KvQuantization quantization : kAll) {
    for (RopePairing pairing : {RopePairing::kHalves, RopePairing::kInterleaved, RopePairing::kNone}) {
      for (int32_t rotary_dim : {0, 4}) {
        const auto write = [&](bool on_cpu) {
          std::vector<float> q(kRows * kHeads * kDim, 1);
          PagedKv kv{.dtype = DType::kBFloat16,
                     .num_blocks = 2,
                     .block_size = 8,
                     .kv_heads = kHeads,
                     .head_dim = kDim,
                     .quantization = quantization};
          std::vector<char> bytes(2 * kv.RecordBegin(2, 0, 0), '\x77');
          kv.k = bytes.data();
          kv.v = bytes.data() + bytes.size() / 2;
          const auto tensor = [&](std::vector<float>& x) {
            return Tensor{x.data(), DType::kFloat32, kRows, kHeads * kDim, kHeads * kDim};
          };
          const RopeKvWriteArgs args{tensor(q),  tensor(k),  tensor(v), positions, slots,
                                     cos.data(), sin.data(), kv,        pairing,   rotary_dim};
          if (on_cpu) {
            CpuRopeKvWrite(args, KernelsFor(GetParam()), **pool);
          } else {
            RefRopeKvWrite(args);
          }
          return bytes;
        };
        EXPECT_EQ(write(true), write(false)) << Name(quantization) << " rotary_dim " << rotary_dim;
      }
    }
  }
}

}  // namespace
}  // namespace quire
