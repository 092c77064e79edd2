// Latent attention: the write of the latents and the attention over them.

#include "kernels/latent_attention/latent_attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/latent_attention/impl.h"
#include "tests/kernels/backend_problem.h"

namespace quire {
namespace {

using testing::ElementsAre;
using testing::FloatNear;

// A paged cache of latents, full of NaN.
struct LatentCache {
  LatentCache(DType dtype, int32_t num_blocks, int32_t block_size, int32_t latent_dim, int32_t rope_dim)
      : data(dtype, 1, int64_t{num_blocks} * block_size * (latent_dim + rope_dim)), kv{data.tensor().data, dtype,
                                                                                       num_blocks,         block_size,
                                                                                       latent_dim,         rope_dim} {}
  Matrix data;
  LatentKv kv;
};

TEST(LatentKvWriteRefTest, HandWorkedCase) {
  const std::unique_ptr<Backend> backend = RefBackend();
  Matrix q(DType::kFloat32, 1, 8), kv(DType::kFloat32, 1, 4);
  q.Fill({{1, 2, 3, 4, 5, 6, 7, 8}});  // two heads: two without position, two to be turned
  kv.Fill({{3, 4, 5, 7}});
  const float weight[] = {1, 2}, cos[] = {1, 0}, sin[] = {0, 1};  // position 1: a quarter turn
  const int32_t positions[] = {1};
  const int64_t slots[] = {9};
  LatentCache cache(DType::kFloat32, 2, 8, 2, 2);
  backend->LatentKvWrite({.q_rope = {q.tensor().Cols(2, 6), 4},
                          .num_heads = 2,
                          .kv = kv.tensor(),
                          .norm_weight = weight,
                          .epsilon = 1e-30f,
                          .positions = positions,
                          .slots = slots,
                          .cos = cos,
                          .sin = sin,
                          .pairing = RopePairing::kInterleaved,
                          .cache = cache.kv});
  EXPECT_THAT(q.Row(0), ElementsAre(1, 2, -4, 3, 5, 6, -8, 7));
  EXPECT_NEAR(cache.data.At(0, 36), 0.848528f, 1e-6f);  // (block 1, slot 1): 9 * 4 elements on
  EXPECT_NEAR(cache.data.At(0, 37), 2.262742f, 1e-6f);
  EXPECT_EQ(cache.data.At(0, 38), -7);
  EXPECT_EQ(cache.data.At(0, 39), 5);
  int written = 0;
  for (int64_t i = 0; i < 64; ++i) written += !std::isnan(cache.data.At(0, i));
  EXPECT_EQ(written, 4);
}

TEST(LatentAttentionRefTest, HandWorkedCase) {
  const std::unique_ptr<Backend> backend = RefBackend();
  LatentCache cache(DType::kFloat32, 3, 8, 2, 2);
  const BlockId table[] = {2, 77};  // what follows the last used entry is not read
  const float slots[2][4] = {{0, 4, 1, 0}, {std::log(3.0f), 0, 7, 0}};
  for (int32_t t = 0; t < 2; ++t) {
    for (int32_t d = 0; d < 4; ++d) cache.data.Set(0, cache.kv.Index(2, t, d), slots[t][d]);
  }
  const AttentionChunk chunk{.block_table = table, .first_row = 0, .num_rows = 2, .first_position = 0};
  Matrix q_latent(DType::kFloat32, 2, 4), q_rope(DType::kFloat32, 2, 5), out(DType::kFloat32, 2, 4);
  q_latent.Fill({{1, 1, 1, 1}, {2, 0, 0, 0}});
  q_rope.Fill({{1, 1, 99, 1, 1}, {0, 2, 99, 2 * std::log(2.0f) / 6, 0}});  // two heads, 3 apart
  backend->LatentAttention({.q_latent = q_latent.tensor(),
                            .q_rope = {q_rope.tensor(), 3},
                            .chunks = &chunk,
                            .num_chunks = 1,
                            .num_heads = 2,
                            .scale = 0.5f,
                            .kv = cache.kv,
                            .out = out.tensor()});
  EXPECT_THAT(out.Row(0), ElementsAre(0, 4, 0, 4));
  // Head 0: weights 1/4, 3/4. Head 1: s = ln 2 / 6 * (1, 7), weights 1/3, 2/3.
  EXPECT_THAT(out.Row(1), ElementsAre(FloatNear(0.75f * std::log(3.0f), 1e-6f), FloatNear(1, 1e-6f),
                                      FloatNear(2.0f / 3 * std::log(3.0f), 1e-6f), FloatNear(4.0f / 3, 1e-6f)));
}

class LatentAttentionTest : public EachIsa {};
INSTANTIATE_TEST_SUITE_P(Isas, LatentAttentionTest, testing::ValuesIn(SupportedCpuIsas()), IsaTestName);

TEST_P(LatentAttentionTest, TheWriteAgreesWithTheDefinition) {
  const std::unique_ptr<ThreadPool> pool = MakePool(3);
  constexpr int32_t kRows = 70, kHeads = 3, kNope = 6, kBlocks = 10;
  for (DType dtype : kAllDTypes) {
    for (RopePairing pairing : {RopePairing::kHalves, RopePairing::kInterleaved}) {
      for (const auto& [latent_dim, rope_dim] : {std::pair{512, 64}, {34, 10}, {2, 2}}) {
        const int32_t stride = kNope + rope_dim;
        Matrix cos(DType::kFloat32, 50, rope_dim / 2), sin(DType::kFloat32, 50, rope_dim / 2);
        Matrix weight(DType::kFloat32, 1, latent_dim), kv(DType::kFloat32, kRows, latent_dim + rope_dim, 3);
        Matrix q(DType::kFloat32, kRows, kHeads * stride), q_want(DType::kFloat32, kRows, kHeads * stride);
        uint32_t seed = 1;
        for (Matrix* m : {&cos, &sin, &weight, &kv, &q}) m->FillRandom(++seed);
        q_want.FillRandom(seed);
        std::vector<int32_t> positions;
        std::vector<int64_t> slots;
        for (int32_t r = 0; r < kRows; ++r) {
          positions.push_back((r * 7) % 50);
          slots.push_back((r * 41) % (kBlocks * 8));
        }
        LatentCache want(dtype, kBlocks, 8, latent_dim, rope_dim), got(dtype, kBlocks, 8, latent_dim, rope_dim);
        LatentKvWriteArgs args = {.q_rope = {q_want.tensor().Cols(kNope, kHeads * stride - kNope), stride},
                                  .num_heads = kHeads,
                                  .kv = kv.tensor(),
                                  .norm_weight = weight.tensor().Row<float>(0),
                                  .epsilon = 1e-6f,
                                  .positions = positions.data(),
                                  .slots = slots.data(),
                                  .cos = cos.tensor().Row<float>(0),
                                  .sin = sin.tensor().Row<float>(0),
                                  .pairing = pairing,
                                  .cache = want.kv};
        RefLatentKvWrite(args);
        args.q_rope.q = q.tensor().Cols(kNope, kHeads * stride - kNope);
        args.cache = got.kv;
        CpuLatentKvWrite(args, kernels(), *pool);
        EXPECT_TRUE(SameBits(q, q_want));
        const float unit = dtype == DType::kBFloat16 ? 0x1p-7f : dtype == DType::kFloat16 ? 0x1p-10f : 0;
        for (int64_t i = 0; i < want.data.tensor().cols; ++i) {
          const float a = got.data.At(0, i), b = want.data.At(0, i);
          ASSERT_EQ(std::isnan(a), std::isnan(b)) << i;
          if (std::isnan(b)) continue;
          ASSERT_NEAR(a, b, (unit + 4e-6f) * std::fabs(b)) << DTypeName(dtype) << " " << i;
        }
      }
    }
  }
}

struct LatentShape {
  int32_t heads, latent_dim, rope_dim, block_size;
};

// Consecutive rows of a sequence of its own.
struct Rows {
  uint32_t sequence;
  int32_t begin, count;
};

// Latents and queries are functions of (sequence, position): the same rows can be asked in other company. What no row
// sees is NaN, and table entries behind the used ones are out of bounds.
class LatentProblem {
 public:
  LatentProblem(const LatentShape& shape, DType dtype, const std::vector<Rows>& chunks)
      : shape_(shape), cache_(dtype, NumBlocks(shape, chunks), shape.block_size, shape.latent_dim, shape.rope_dim) {
    int32_t rows = 0, block = cache_.kv.num_blocks;
    for (const Rows& chunk : chunks) rows += chunk.count;
    q_latent_ = std::make_unique<Matrix>(DType::kFloat32, rows, shape.heads * shape.latent_dim, 5);
    q_rope_ = std::make_unique<Matrix>(DType::kFloat32, rows, shape.heads * (shape.rope_dim + 6));
    tables_.resize(chunks.size());
    for (size_t c = 0, row = 0; c < chunks.size(); row += chunks[c].count, ++c) {
      const int32_t end = chunks[c].begin + chunks[c].count;
      for (int32_t t = 0; t < end; t += shape.block_size) tables_[c].push_back(--block);
      for (int32_t t = 0; t < end; ++t) {
        const BlockId id = tables_[c][t / shape.block_size];
        std::minstd_rand random(chunks[c].sequence * 100003 + t + 1);
        for (int32_t d = 0; d < cache_.kv.dim(); ++d) {
          cache_.data.Set(0, cache_.kv.Index(id, t % shape.block_size, d), Uniform(random));
        }
      }
      tables_[c].insert(tables_[c].end(), 20, 1 << 30);
      for (int32_t i = 0; i < chunks[c].count; ++i) {
        std::minstd_rand random(chunks[c].sequence * 7919 + chunks[c].begin + i + 1);
        for (Matrix* q : {q_latent_.get(), q_rope_.get()}) {
          for (int64_t j = 0; j < q->tensor().cols; ++j) q->Set(static_cast<int64_t>(row) + i, j, 2 * Uniform(random));
        }
      }
      chunks_.push_back({tables_[c].data(), static_cast<int32_t>(row), chunks[c].count, chunks[c].begin});
    }
  }

  std::unique_ptr<Matrix> Run(Backend& backend) const {
    auto out = std::make_unique<Matrix>(DType::kFloat32, q_latent_->tensor().rows, shape_.heads * shape_.latent_dim, 3);
    backend.LatentAttention({.q_latent = q_latent_->tensor(),
                             .q_rope = {q_rope_->tensor(), shape_.rope_dim + 6},
                             .chunks = chunks_.data(),
                             .num_chunks = static_cast<int32_t>(chunks_.size()),
                             .num_heads = shape_.heads,
                             .scale = 0.1f,
                             .kv = cache_.kv,
                             .out = out->tensor()});
    return out;
  }

 private:
  static float Uniform(std::minstd_rand& random) { return static_cast<float>(random() % 65536) / 32768.0f - 1.0f; }
  static int32_t NumBlocks(const LatentShape& shape, const std::vector<Rows>& chunks) {
    int32_t blocks = 1;
    for (const Rows& chunk : chunks) blocks += (chunk.begin + chunk.count + shape.block_size - 1) / shape.block_size;
    return blocks;
  }

  LatentShape shape_;
  LatentCache cache_;
  std::unique_ptr<Matrix> q_latent_, q_rope_;
  std::vector<std::vector<BlockId>> tables_;
  std::vector<AttentionChunk> chunks_;
};

std::unique_ptr<Backend> CpuFor(CpuIsa isa, int num_threads, const LatentShape& shape) {
  return CpuBackend(isa, num_threads,
                    {.max_context = 3000,
                     .latent_heads = shape.heads,
                     .latent_dim = shape.latent_dim,
                     .latent_rope_dim = shape.rope_dim,
                     .head_linear_dim = 1});
}

TEST_P(LatentAttentionTest, AgreesWithTheDefinition) {
  const std::unique_ptr<Backend> ref = RefBackend();
  for (const LatentShape& shape : {LatentShape{16, 64, 16, 16}, {37, 30, 6, 8}, {64, 512, 64, 256}, {3, 48, 128, 24}}) {
    const std::unique_ptr<Backend> cpu = CpuFor(GetParam(), 2, shape);
    for (DType dtype : kAllDTypes) {
      const float bound = dtype == DType::kBFloat16 && GetParam() == CpuIsa::kAvx512Bf16 ? 3e-3f : 1e-5f;
      const std::vector<Rows> chunks = shape.latent_dim == 512
                                           ? std::vector<Rows>{{0, 70, 1}, {1, 0, 2}}
                                           : std::vector<Rows>{{0, 0, 67}, {1, 600, 1}, {2, 0, 1}, {3, 510, 4}};
      const LatentProblem problem(shape, dtype, chunks);
      EXPECT_LE(Difference(*problem.Run(*cpu), *problem.Run(*ref)), bound)
          << DTypeName(dtype) << " " << shape.heads << " heads, latent_dim " << shape.latent_dim;
    }
  }
}

TEST_P(LatentAttentionTest, ChunksBlocksCompanyAndWorkersAreInvisible) {
  LatentShape shape{40, 64, 16, 16};
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    const std::unique_ptr<Backend> one = CpuFor(GetParam(), 1, shape), three = CpuFor(GetParam(), 3, shape);
    const std::vector<Rows> chunks = {{0, 0, 20}, {1, 1500, 1}, {2, 505, 12}, {3, 2400, 1}};
    const std::unique_ptr<Matrix> together = LatentProblem(shape, dtype, chunks).Run(*three);
    EXPECT_TRUE(SameBits(*together, *LatentProblem(shape, dtype, chunks).Run(*one)));
    int64_t row = 0;
    for (const Rows& chunk : chunks) {
      for (int32_t i = 0; i < chunk.count; ++i, ++row) {
        shape.block_size = i % 2 == 0 ? 16 : 24;
        const std::unique_ptr<Matrix> alone =
            LatentProblem(shape, dtype, {{chunk.sequence, chunk.begin + i, 1}}).Run(i % 3 == 0 ? *three : *one);
        EXPECT_EQ(alone->Row(0), together->Row(row)) << "sequence " << chunk.sequence << " row " << i;
      }
    }
    shape.block_size = 16;
  }
}

}  // namespace
}  // namespace quire
