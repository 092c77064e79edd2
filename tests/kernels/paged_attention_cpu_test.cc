// The CPU's paged attention, on every instruction set that this machine runs: near the definition, and the same bits
// for every chunking, block size, company and number of workers.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/cpu/isa.h"
#include "tests/kernels/paged_attention_problem.h"

namespace quire {
namespace {

// Largest difference between implementations whose values are about 1: sums of float32, or weights rounded to bfloat16
// (2^-9 each).
float Tolerance(CpuIsa isa, DType dtype) {
  return isa == CpuIsa::kAvx512Bf16 && dtype == DType::kBFloat16 ? 3e-3f : 1e-5f;
}

float MaxDifference(const std::vector<float>& a, const std::vector<float>& b) {
  float max = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const float difference = std::fabs(a[i] - b[i]);
    if (!(difference <= max)) max = difference;  // keeps a NaN
  }
  return a.size() == b.size() ? max : INFINITY;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::string IsaName(const testing::TestParamInfo<CpuIsa>& info) { return std::string(CpuIsaName(info.param)); }

class PagedAttentionCpuTest : public testing::TestWithParam<CpuIsa> {
 protected:
  // Compares with the definition.
  void ExpectNearRef(const AttentionShape& shape, const std::vector<ChunkOf>& chunks, int num_threads = 1) {
    PagedAttentionProblem problem(shape, chunks);
    EXPECT_LE(MaxDifference(problem.Cpu(GetParam(), num_threads), problem.Ref()), Tolerance(GetParam(), shape.dtype))
        << "q_heads " << shape.q_heads << " kv_heads " << shape.kv_heads << " head_dim " << shape.head_dim
        << " block_size " << shape.block_size << " " << DTypeName(shape.dtype) << " window " << shape.window
        << " softcap " << shape.softcap << " sinks " << shape.sinks << " alibi " << shape.alibi << " first chunk "
        << chunks[0].begin << "+" << chunks[0].count;
  }

  // The row of (sequence, position) computed alone, one position at a time, is what `chunks` give together.
  void ExpectRowsAlone(const AttentionShape& shape, const std::vector<ChunkOf>& chunks, int num_threads = 1) {
    PagedAttentionProblem together(shape, chunks);
    const std::vector<float> all = together.Cpu(GetParam(), num_threads);
    auto row = all.begin();
    for (const ChunkOf& chunk : chunks) {
      for (int32_t i = 0; i < chunk.count; ++i, row += together.RowElements()) {
        PagedAttentionProblem alone(shape, {{chunk.sequence, chunk.begin + i, 1}}, 2);
        EXPECT_TRUE(SameBits(alone.Cpu(GetParam(), 1), std::vector<float>(row, row + together.RowElements())))
            << "sequence " << chunk.sequence << " position " << chunk.begin + i;
      }
    }
  }
};

INSTANTIATE_TEST_SUITE_P(Isa, PagedAttentionCpuTest, testing::ValuesIn(SupportedCpuIsas()), IsaName);

TEST_P(PagedAttentionCpuTest, EveryGroupTypeAndBlockSizeIsNearTheDefinition) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    for (int32_t group : {1, 3, 4, 8, 16, 64}) {
      for (int32_t block_size : {8, 16, 24, 256}) {
        ExpectNearRef({2 * group, 2, 64, block_size, dtype}, {{0, 70, 1}, {1, 0, 9}, {2, 15, 1}, {3, 60, 7}});
      }
    }
  }
}

TEST_P(PagedAttentionCpuTest, EveryHeadDimIsNearTheDefinition) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    for (int32_t head_dim : {2, 30, 32, 36, 48, 64, 80, 96, 100, 112, 128, 192, 256}) {
      ExpectNearRef({12, 2, head_dim, 16, dtype}, {{0, 76, 1}, {1, 3, 4}});
    }
  }
}

TEST_P(PagedAttentionCpuTest, EveryOutputTypeIsNearTheDefinition) {
  for (DType out_dtype : {DType::kBFloat16, DType::kFloat16}) {
    for (int32_t head_dim : {36, 64}) {
      PagedAttentionProblem problem({6, 2, head_dim, 16, DType::kFloat32, out_dtype}, {{0, 33, 5}});
      EXPECT_LE(MaxDifference(problem.Cpu(GetParam(), 1), problem.Ref()), 5e-3f);
    }
  }
}

TEST_P(PagedAttentionCpuTest, ContextsAroundTheEdgesOfTilesAndSplits) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (int32_t position : {0, 14, 15, 16, 17, 62, 63, 64, 65, 510, 511, 512, 513, 575, 576, 1023, 1024, 1100, 3000}) {
      ExpectNearRef({8, 1, 64, 16, dtype}, {{0, position, 1}});
      ExpectNearRef({4, 2, 32, 8, dtype}, {{0, std::max(0, position - 2), 5}}, 2);
    }
  }
}

TEST_P(PagedAttentionCpuTest, ManySequencesWithDifferentNumbersOfRows) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (int num_threads : {1, 2, 3}) {
      ExpectNearRef({8, 2, 64, 16, dtype}, {{0, 700, 1}, {1, 0, 130}, {2, 511, 2}, {3, 40, 1}, {4, 500, 30}, {5, 0, 1}},
                    num_threads);
    }
  }
}

TEST_P(PagedAttentionCpuTest, WindowsShorterAndLongerThanChunksTilesAndSplits) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    for (int32_t window : {1, 2, 7, 8, 9, 63, 64, 65, 128, 300, 512, 513, 700, 5000}) {
      ExpectNearRef({.q_heads = 8, .kv_heads = 2, .head_dim = 64, .block_size = 16, .dtype = dtype, .window = window},
                    {{0, 0, 80}, {1, 700, 3}, {2, 1030, 40}, {3, 5, 1}}, 2);
    }
    for (int32_t block_size : {8, 24, 256}) {
      for (int32_t position : {62, 63, 64, 65, 511, 512, 575, 576, 1100}) {
        ExpectNearRef(
            {.q_heads = 3, .kv_heads = 1, .head_dim = 32, .block_size = block_size, .dtype = dtype, .window = 70},
            {{0, position, 1}});
      }
    }
  }
}

// What a family has beside plain attention, alone and together.
std::vector<AttentionShape> Features(DType dtype) {
  const AttentionShape plain{.q_heads = 6, .kv_heads = 2, .head_dim = 48, .block_size = 16, .dtype = dtype};
  std::vector<AttentionShape> all(5, plain);
  all[0].softcap = 3;
  all[1].sinks = true;
  all[2].alibi = true;
  all[3].sinks = true;
  all[3].window = 90;
  all[4].softcap = 2;
  all[4].alibi = true;
  all[4].sinks = true;
  all[4].window = 33;
  return all;
}

TEST_P(PagedAttentionCpuTest, EveryFeatureIsNearTheDefinition) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    for (AttentionShape shape : Features(dtype)) {
      for (int32_t head_dim : {32, 80, 256}) {
        shape.head_dim = head_dim;
        ExpectNearRef(shape, {{0, 0, 70}, {1, 900, 1}, {2, 515, 2}}, 2);
      }
    }
  }
}

TEST_P(PagedAttentionCpuTest, ChunksBlocksAndWorkersAreInvisibleWithEveryFeature) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (AttentionShape shape : Features(dtype)) {
      const std::vector<ChunkOf> chunks = {{0, 0, 70}, {1, 1050, 20}, {2, 2000, 1}};
      ExpectRowsAlone(shape, chunks, 2);
      PagedAttentionProblem problem(shape, chunks);
      const std::vector<float> expected = problem.Cpu(GetParam(), 1);
      for (int num_threads : {2, 3, 7}) EXPECT_TRUE(SameBits(problem.Cpu(GetParam(), num_threads), expected));
      for (int32_t block_size : {8, 24, 256}) {
        shape.block_size = block_size;
        EXPECT_TRUE(SameBits(PagedAttentionProblem(shape, chunks, 5).Cpu(GetParam(), 3), expected)) << block_size;
      }
    }
  }
}

TEST_P(PagedAttentionCpuTest, WorkersAreInvisibleInLongWindows) {
  AttentionShape shape{.q_heads = 4, .kv_heads = 1, .head_dim = 64, .block_size = 16, .dtype = DType::kBFloat16};
  for (int32_t window : {100, 1500, 2900}) {
    shape.window = window;
    for (const std::vector<ChunkOf>& chunks :
         {std::vector<ChunkOf>{{0, 3000, 1}}, {{0, 100, 1}, {1, 5000, 1}, {2, 3, 1}}, {{0, 2000, 2}, {2, 0, 50}}}) {
      PagedAttentionProblem problem(shape, chunks);
      const std::vector<float> expected = problem.Cpu(GetParam(), 1);
      EXPECT_LE(MaxDifference(expected, problem.Ref()), Tolerance(GetParam(), shape.dtype));
      for (int num_threads : {2, 3, 7})
        EXPECT_TRUE(SameBits(problem.Cpu(GetParam(), num_threads), expected)) << num_threads << " window " << window;
    }
  }
}

TEST_P(PagedAttentionCpuTest, ConstantValuesComeOutExactly) {
  PagedAttentionProblem problem({8, 1, 64, 16, DType::kBFloat16}, {{0, 600, 1}});
  for (int32_t t = 0; t <= 600; ++t) {
    for (int32_t d = 0; d < 64; ++d) problem.SetV(0, t, 0, d, 1.0f);
  }
  for (float value : problem.Cpu(GetParam(), 1)) EXPECT_NEAR(value, 1.0f, 1e-6f);
}

TEST_P(PagedAttentionCpuTest, LargeScoresNeitherOverflowNorVanish) {
  for (float factor : {1e3f, -1e3f}) {
    PagedAttentionProblem problem({4, 1, 32, 16, DType::kFloat32}, {{0, 600, 1}});
    for (int32_t h = 0; h < 4; ++h) {
      for (int32_t d = 0; d < 32; ++d) problem.q(0, h, d) *= factor;
    }
    EXPECT_LE(MaxDifference(problem.Cpu(GetParam(), 2), problem.Ref()), 1e-3f);
  }
}

TEST_P(PagedAttentionCpuTest, ChunksAreInvisible) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    for (int32_t group : {1, 3, 8})
      ExpectRowsAlone({group * 2, 2, 48, 16, dtype}, {{0, 0, 70}, {1, 500, 40}, {2, 1020, 9}}, 2);
  }
}

TEST_P(PagedAttentionCpuTest, BordersOfChunksAreInvisible) {
  const AttentionShape shape{8, 2, 64, 16, DType::kBFloat16};
  const std::vector<float> whole = PagedAttentionProblem(shape, {{0, 0, 600}}).Cpu(GetParam(), 2);
  for (std::vector<int32_t> borders :
       {std::vector<int32_t>{0, 1, 600}, {0, 64, 512, 600}, {0, 63, 127, 300, 513, 599, 600}}) {
    std::vector<float> parts;
    for (size_t i = 0; i + 1 < borders.size(); ++i) {
      PagedAttentionProblem part(shape, {{0, borders[i], borders[i + 1] - borders[i]}}, 3);
      const std::vector<float> rows = part.Cpu(GetParam(), 1);
      parts.insert(parts.end(), rows.begin(), rows.end());
    }
    EXPECT_TRUE(SameBits(parts, whole));
  }
}

TEST_P(PagedAttentionCpuTest, BlockSizeIsInvisible) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    AttentionShape shape{12, 2, 64, 16, dtype};
    const std::vector<ChunkOf> chunks = {{0, 1100, 1}, {1, 40, 30}, {2, 511, 3}};
    const std::vector<float> expected = PagedAttentionProblem(shape, chunks).Cpu(GetParam(), 1);
    for (int32_t block_size : {8, 24, 40, 64, 256}) {
      shape.block_size = block_size;
      EXPECT_TRUE(SameBits(PagedAttentionProblem(shape, chunks, 5).Cpu(GetParam(), 1), expected)) << block_size;
    }
  }
}

TEST_P(PagedAttentionCpuTest, WorkersAreInvisible) {
  for (int32_t kv_heads : {1, 3}) {
    const AttentionShape shape{kv_heads * 4, kv_heads, 64, 16, DType::kBFloat16};
    for (const std::vector<ChunkOf>& chunks : {std::vector<ChunkOf>{{0, 3000, 1}},
                                               {{0, 100, 1}, {1, 5000, 1}, {2, 3, 1}},
                                               {{0, 2000, 2}, {1, 1500, 1}, {2, 0, 50}}}) {
      PagedAttentionProblem problem(shape, chunks);
      const std::vector<float> expected = problem.Cpu(GetParam(), 1);
      for (int num_threads : {2, 3, 7})
        EXPECT_TRUE(SameBits(problem.Cpu(GetParam(), num_threads), expected)) << num_threads;
    }
  }
}

TEST_P(PagedAttentionCpuTest, CompanyIsInvisible) {
  const AttentionShape shape{8, 1, 64, 16, DType::kBFloat16};
  ExpectRowsAlone(shape, {{0, 900, 1}, {1, 12, 1}, {2, 100, 33}, {3, 1300, 1}, {4, 0, 1}}, 3);
}

// A row whose own K and V are finite is not touched by NaN at later positions of its own block.
TEST_P(PagedAttentionCpuTest, LaterRowsOfTheSameChunkDoNotTouchEarlierOnes) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    PagedAttentionProblem clean({2, 2, 64, 16, dtype}, {{0, 0, 20}});
    PagedAttentionProblem poisoned({2, 2, 64, 16, dtype}, {{0, 0, 20}});
    for (int32_t d = 0; d < 64; ++d) {
      poisoned.SetK(0, 11, 0, d, NAN);
      poisoned.SetV(0, 11, 0, d, NAN);
      poisoned.SetV(0, 12, 1, d, INFINITY);
    }
    std::vector<float> expected = clean.Cpu(GetParam(), 1);
    std::vector<float> found = poisoned.Cpu(GetParam(), 1);
    expected.resize(11 * clean.RowElements());
    found.resize(11 * clean.RowElements());
    EXPECT_TRUE(SameBits(found, expected));
  }
}

}  // namespace
}  // namespace quire
