// The CUDA kernels of paged attention, emulated, against the definition: masks, merges, tables and every edge. Each
// problem runs with late and with early copies, threads and CTAs in either order; the device's memory beyond what a
// sequence owns is NaN, and its workspace is what the last problem left.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/paged_attention/cuda.cuh"
#include "tests/kernels/cuda/emulated_device.h"
#include "tests/kernels/paged_attention_problem.h"

namespace quire {
namespace {

using cuda::EmulatedDevice;
using cuda::EmulationOptions;

constexpr EmulationOptions kAllOptions[] = {{true, false}, {true, true}, {false, false}, {false, true}};

// How the backend was told to go about it.
struct Choice {
  bool deterministic = false;
  bool by_wgmma = false;
};
constexpr Choice kDefault, kWgmma = {.by_wgmma = true};
constexpr Choice kAllChoices[] = {{false, false}, {true, false}, {false, true}, {true, true}};

class PagedAttentionCudaTest : public testing::TestWithParam<EmulationOptions> {
 protected:
  // `num_empty`: chunks of no rows behind the problem's, as fill up a graph.
  std::vector<float> Cuda(PagedAttentionProblem& problem, const Choice& choice = kDefault, int32_t num_empty = 0) {
    return problem.Call([&](PagedAttentionArgs args) {
      std::vector<AttentionChunk> chunks(args.chunks, args.chunks + args.num_chunks);
      for (int32_t i = 0; i < num_empty; ++i) chunks.push_back({nullptr, static_cast<int32_t>(args.q.rows) + i, 0, 0});
      args.chunks = chunks.data();
      args.num_chunks += num_empty;
      WorkspaceShape shape;
      shape.max_rows = args.q.rows;
      shape.max_sequences = args.num_chunks;
      shape.q_heads = args.q_heads;
      shape.kv_heads = args.kv.kv_heads;
      shape.head_dim = args.kv.head_dim;
      std::vector<char> workspace(cuda::AttentionWorkspaceBytes(shape, EmulatedDevice::kNumSms));
      cuda::AttentionContext context;
      context.plan = cuda::PlaceAttentionPlan(shape, EmulatedDevice::kNumSms, workspace.data());
      context.deterministic = choice.deterministic;
      context.prefills_by_wgmma = choice.by_wgmma;
      const int32_t rows_per_tile = cuda::PrefillRows(choice.by_wgmma) * args.kv.kv_heads / args.q_heads;
      context.num_prefill_items =
          cuda::NumPrefillItems(args.chunks, args.num_chunks, rows_per_tile, choice.deterministic) + num_empty;
      cuda::PagedAttention(args, context, device_);
      // Another layer of the same step: the counters must be as they were.
      context.has_plan = true;
      cuda::PagedAttention(args, context, device_);
      num_items_ = context.plan.counters->num_decode;
      EXPECT_EQ(context.plan.counters->next, 0);
      EXPECT_EQ(context.plan.counters->num_done, 0);
      EXPECT_TRUE(std::all_of(context.plan.num_arrived, reinterpret_cast<int32_t*>(context.plan.partial_out),
                              [](int32_t arrived) { return arrived == 0; }));
    });
  }

  static float MaxDifference(const std::vector<float>& found, const std::vector<float>& expected) {
    EXPECT_EQ(found.size(), expected.size());
    float max = 0;
    for (size_t i = 0; i < found.size(); ++i) {
      const float difference = std::abs(found[i] - expected[i]);
      if (!(difference <= max)) max = difference;
      if (std::isnan(difference)) return difference;
    }
    return max;
  }

  void ExpectNearRef(AttentionShape shape, const std::vector<ChunkOf>& chunks) {
    shape.key_layout = KeyLayout::kRows;
    PagedAttentionProblem problem(shape, chunks);
    const std::vector<float> expected = problem.Ref();
    const float tolerance = shape.dtype == DType::kFloat32 ? 1e-5f : shape.dtype == DType::kFloat16 ? 1e-3f : 4e-3f;
    const std::string_view type = KvTypeName(shape.dtype, shape.quantization);
    for (const Choice& choice : kAllChoices) {
      EXPECT_LE(MaxDifference(Cuda(problem, choice), expected), tolerance)
          << shape.q_heads << " over " << shape.kv_heads << " heads of " << shape.head_dim << ", block "
          << shape.block_size << " " << type << " deterministic " << choice.deterministic << " wgmma "
          << choice.by_wgmma;
    }
  }

  EmulatedDevice device_{GetParam()};
  int32_t num_items_ = 0;  // of the decode kernel, in the last call
};

INSTANTIATE_TEST_SUITE_P(Order, PagedAttentionCudaTest, testing::ValuesIn(kAllOptions), [](const auto& info) {
  return std::string(info.param.late_copies ? "LateCopies" : "EarlyCopies") + (info.param.reversed ? "Reversed" : "");
});

TEST_P(PagedAttentionCudaTest, EveryGroupIsNearTheDefinition) {
  for (int32_t group : {1, 3, 8, 12, 16, 32, 64}) {
    ExpectNearRef({group, 1, 64, 16, DType::kBFloat16}, {{0, 70, 1}, {1, 0, 9}, {2, 15, 1}, {3, 60, 7}});
  }
  // Wide heads leave a CTA no room for all of a group: its slices share a KV head.
  for (int32_t group : {17, 64}) ExpectNearRef({group, 1, 256, 16, DType::kBFloat16}, {{0, 70, 1}, {1, 3, 2}});
  ExpectNearRef({128, 2, 128, 8, DType::kFloat16}, {{0, 130, 1}});
}

TEST_P(PagedAttentionCudaTest, EveryBlockSizeAndTypeIsNearTheDefinition) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    for (int32_t block_size : {8, 24, 64, 256}) {
      ExpectNearRef({4, 2, 32, block_size, dtype}, {{0, 130, 1}, {1, 62, 4}});
    }
  }
}

TEST_P(PagedAttentionCudaTest, EveryHeadDimIsNearTheDefinition) {
  for (int32_t head_dim : {32, 64, 80, 128, 192, 256}) {
    ExpectNearRef({4, 2, head_dim, 16, DType::kFloat16}, {{0, 76, 1}, {1, 3, 4}});
  }
  for (int32_t head_dim : {2, 36, 100}) {  // not for tensor cores
    ExpectNearRef({4, 2, head_dim, 16, DType::kBFloat16}, {{0, 20, 1}, {1, 3, 4}});
  }
}

TEST_P(PagedAttentionCudaTest, ContextsAroundTheEdgesOfBlocksTilesAndSplits) {
  for (int32_t position : {0, 7, 8, 15, 16, 63, 64, 127, 128, 129, 255, 256, 700}) {
    ExpectNearRef({8, 1, 64, 16, DType::kBFloat16}, {{0, position, 1}});
    ExpectNearRef({4, 1, 64, 8, DType::kBFloat16}, {{0, std::max(0, position - 2), 3}});
  }
}

// By the list that the device makes: as many items as it holds at once, each of two tiles at least.
TEST_P(PagedAttentionCudaTest, LongContextsAreSplitAndShortOnesAreNot) {
  const AttentionShape shape{.q_heads = 8, .kv_heads = 1, .dtype = DType::kBFloat16, .key_layout = KeyLayout::kRows};
  const auto items = [&](const std::vector<ChunkOf>& chunks) {
    PagedAttentionProblem problem(shape, chunks);
    Cuda(problem);
    return num_items_;
  };
  EXPECT_EQ(items({{0, 127, 1}}), 1);
  EXPECT_EQ(items({{0, 128, 1}}), 2);
  EXPECT_EQ(items({{0, 3000, 1}}), EmulatedDevice::kNumSms * 2);  // CTAs at once
  EXPECT_EQ(items({{0, 100, 1}, {1, 700, 1}, {2, 0, 1}}), EmulatedDevice::kNumSms * 2);
}

TEST_P(PagedAttentionCudaTest, DecodesAndChunksOfManyLengthsInOneCall) {
  ExpectNearRef({8, 2, 64, 16, DType::kBFloat16},
                {{0, 400, 1}, {1, 0, 66}, {2, 127, 2}, {3, 40, 1}, {4, 100, 30}, {5, 0, 1}, {6, 0, 1}, {7, 290, 1}});
}

TEST_P(PagedAttentionCudaTest, EmptyChunksAreNobodys) {
  for (const int32_t head_dim : {64, 36}) {
    const AttentionShape shape{.head_dim = head_dim, .dtype = DType::kBFloat16, .key_layout = KeyLayout::kRows};
    PagedAttentionProblem problem(shape, {{0, 200, 1}, {1, 7, 1}});
    for (const Choice& choice : kAllChoices) EXPECT_EQ(Cuda(problem, choice, 300), Cuda(problem, choice)) << head_dim;
  }
}

TEST_P(PagedAttentionCudaTest, MoreRowsThanTheDeviceHoldsAtOnce) {
  std::vector<ChunkOf> chunks;
  for (uint32_t s = 0; s < 40; ++s) chunks.push_back({s, static_cast<int32_t>(s * 7 % 90), 1});
  ExpectNearRef({2, 1, 64, 16, DType::kBFloat16}, chunks);
}

TEST_P(PagedAttentionCudaTest, WhatFamiliesAddIsNearTheDefinition) {
  const std::vector<ChunkOf> chunks = {{0, 210, 1}, {1, 0, 9}, {2, 5, 1}, {3, 110, 33}};
  for (int32_t head_dim : {64, 36}) {
    AttentionShape shape{6, 2, head_dim, 16, DType::kFloat16};
    for (int32_t window : {0, 1, 33, 70}) {
      shape.window = window;
      shape.softcap = window == 33 ? 3.0f : 0.0f;
      shape.sinks = window != 70;
      shape.alibi = window <= 1;
      ExpectNearRef(shape, chunks);
    }
  }
}

constexpr KvQuantization kAllQuantizations[] = {KvQuantization::kFp8E4M3, KvQuantization::kInt8, KvQuantization::kInt4};

AttentionShape Quantized(KvQuantization quantization, int32_t q_heads, int32_t kv_heads, int32_t head_dim,
                         int32_t block_size = 16) {
  return {.q_heads = q_heads,
          .kv_heads = kv_heads,
          .head_dim = head_dim,
          .block_size = block_size,
          .dtype = DType::kBFloat16,
          .quantization = quantization};
}

TEST_P(PagedAttentionCudaTest, EveryShapeOfAQuantizedCacheIsNearTheDefinition) {
  const std::vector<ChunkOf> chunks = {{0, 70, 1}, {1, 0, 9}, {2, 15, 1}, {3, 60, 7}};
  for (const KvQuantization quantization : kAllQuantizations) {
    for (const int32_t group : {1, 3, 8, 12, 32, 64}) ExpectNearRef(Quantized(quantization, group, 1, 64), chunks);
    for (const int32_t head_dim : {32, 64, 96, 128, 192, 256})
      ExpectNearRef(Quantized(quantization, 4, 2, head_dim), {{0, 76, 1}, {1, 3, 4}});
    for (const int32_t head_dim : {2, 36, 80})  // not for tensor cores
      ExpectNearRef(Quantized(quantization, 4, 2, head_dim), {{0, 20, 1}, {1, 3, 4}});
    for (const int32_t block_size : {8, 24, 256})
      ExpectNearRef(Quantized(quantization, 4, 2, 64, block_size), {{0, 130, 1}, {1, 62, 4}, {2, 300, 1}});
  }
}

TEST_P(PagedAttentionCudaTest, ContextsOfAQuantizedCacheAroundEveryEdge) {
  for (const KvQuantization quantization : kAllQuantizations) {
    for (const int32_t position : {0, 7, 8, 63, 64, 129, 256, 700}) {
      ExpectNearRef(Quantized(quantization, 8, 1, 64), {{0, position, 1}});
      ExpectNearRef(Quantized(quantization, 4, 1, 64, 8), {{0, std::max(0, position - 2), 3}});
    }
    AttentionShape shape = Quantized(quantization, 6, 2, 64);
    for (const int32_t window : {1, 33, 70}) {
      shape.window = window;
      shape.softcap = window == 33 ? 3.0f : 0.0f;
      shape.sinks = window != 70;
      shape.alibi = window == 1;
      ExpectNearRef(shape, {{0, 210, 1}, {1, 0, 9}, {2, 5, 1}, {3, 110, 33}});
    }
  }
}

TEST_P(PagedAttentionCudaTest, LaterRecordsOfTheSameChunkDoNotTouchEarlierRows) {
  for (const KvQuantization quantization : kAllQuantizations) {
    for (const int32_t head_dim : {64, 36}) {
      AttentionShape shape = Quantized(quantization, 2, 2, head_dim);
      shape.key_layout = KeyLayout::kRows;
      PagedAttentionProblem clean(shape, {{0, 0, 20}}), poisoned(shape, {{0, 0, 20}});
      const std::vector<float> nan(head_dim, NAN), one(head_dim, 1), infinite(head_dim, INFINITY);
      poisoned.SetHeads(0, 11, 0, nan, infinite);
      poisoned.SetHeads(0, 12, 1, one, nan);
      for (const Choice& choice : {kDefault, kWgmma}) {
        const std::vector<float> expected = Cuda(clean, choice), found = Cuda(poisoned, choice);
        EXPECT_TRUE(std::equal(found.begin(), found.begin() + 11 * clean.RowElements(), expected.begin()));
        for (int32_t row = 12; row < 20; ++row) {
          EXPECT_FALSE(std::isfinite(found[row * clean.RowElements()])) << row;
          EXPECT_FALSE(std::isfinite(found[row * clean.RowElements() + head_dim])) << row;
        }
      }
    }
  }
}

TEST_P(PagedAttentionCudaTest, LaterRowsOfTheSameChunkDoNotTouchEarlierOnes) {
  const AttentionShape shape{.q_heads = 2, .dtype = DType::kBFloat16, .key_layout = KeyLayout::kRows};
  PagedAttentionProblem clean(shape, {{0, 0, 20}}), poisoned(shape, {{0, 0, 20}});
  for (int32_t d = 0; d < 64; ++d) {
    poisoned.SetK(0, 11, 0, d, NAN);
    poisoned.SetV(0, 11, 0, d, NAN);
  }
  poisoned.SetV(0, 12, 1, 63, INFINITY);
  for (const Choice& choice : {kDefault, kWgmma}) {
    const std::vector<float> expected = Cuda(clean, choice), found = Cuda(poisoned, choice);
    const int64_t before = 11 * clean.RowElements();
    EXPECT_TRUE(std::equal(found.begin(), found.begin() + before, expected.begin()));
    // And the rows that see them are not finite.
    for (int32_t row = 12; row < 20; ++row) {
      EXPECT_FALSE(std::isfinite(found[row * clean.RowElements()])) << row;
      EXPECT_FALSE(std::isfinite(found[row * clean.RowElements() + 64])) << row;
    }
  }
}

// Laws 4, 5 and 7 on the device: under --deterministic a row has the same bits in every company, chunk and block size.
TEST_P(PagedAttentionCudaTest, DeterministicRowsHaveTheSameBitsInAnyCompany) {
  for (const Choice& choice : {Choice{true, false}, Choice{true, true}}) {
    for (const KvQuantization quantization : {KvQuantization::kNone, KvQuantization::kFp8E4M3, KvQuantization::kInt8}) {
      AttentionShape shape{
          .q_heads = 8, .dtype = DType::kBFloat16, .key_layout = KeyLayout::kRows, .quantization = quantization};
      PagedAttentionProblem together(shape, {{0, 90, 50}, {1, 300, 1}, {2, 0, 3}});
      const std::vector<float> rows = Cuda(together, choice);
      shape.block_size = 40;
      for (int32_t i : {0, 1, 37, 38, 49}) {
        PagedAttentionProblem alone(shape, {{0, 90 + i, 1}}, 5);
        const std::vector<float> row = Cuda(alone, choice);
        EXPECT_TRUE(std::equal(row.begin(), row.end(), rows.begin() + i * together.RowElements())) << i;
      }
      PagedAttentionProblem split(shape, {{0, 90, 17}, {9, 5, 1}, {1, 300, 1}}, 7);
      const std::vector<float> parts = Cuda(split, choice);
      EXPECT_TRUE(std::equal(parts.begin(), parts.begin() + 17 * together.RowElements(), rows.begin()));
      EXPECT_TRUE(std::equal(parts.begin() + 18 * together.RowElements(), parts.end(),
                             rows.begin() + 50 * together.RowElements()));
    }
  }
}

TEST(AttentionSharedBytesTest, FitsAnA100AndUsualModelsFitSmallerDevices) {
  for (const int32_t head_dim : {32, 64, 128, 256}) {
    for (const int32_t group : {1, 8, 16, 64}) {
      EXPECT_LE(cuda::AttentionSharedBytes(head_dim, group, false), 163u << 10);
      EXPECT_LE(cuda::AttentionSharedBytes(head_dim, group, true), 227u << 10);  // 9.0, the only one that has it
    }
  }
  EXPECT_LE(cuda::AttentionSharedBytes(128, 8, false), 99u << 10);  // compute capability 8.6, 8.9, 12
}

}  // namespace
}  // namespace quire
