// The plan's arithmetic, and the flags that it refuses.

#include "engine/memory_plan.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "engine/weight_specs.h"
#include "engine/weights.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/backend_cuda.h"
#include "kvcache/block_pool.h"
#include "tests/engine/engine_testing.h"

namespace quire {
namespace {

using testing::HasSubstr;

class MemoryPlanTest : public testing::Test {
 protected:
  absl::StatusOr<MemoryPlan> Plan() const { return MakeMemoryPlan(ConfigOf(json_), options_, *backend_); }
  std::string Refusal() const { return std::string(Plan().status().message()); }

  nlohmann::json json_ = Llama3Json();
  EngineOptions options_;
  std::unique_ptr<Backend> backend_ = MakeBackend(BackendKind::kRef);
};

TEST_F(MemoryPlanTest, SizesTheCacheByKvHeads) {
  options_.kv_cache_bytes = uint64_t{4} << 30;
  const auto plan = Plan();
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->kv.BytesPerToken(), 131'072u);
  EXPECT_EQ(plan->num_blocks, 2048);  // 4 GiB / (16 * 131,072)
  EXPECT_EQ(plan->kv_bytes, uint64_t{4} << 30);
  EXPECT_EQ(plan->max_model_len, 8192);
  EXPECT_EQ(plan->scheduler.num_blocks, 2048);
  EXPECT_EQ(plan->scheduler.max_model_len, 8192);
  EXPECT_EQ(plan->weight_bytes,
            ConfigOf(json_).NumParameters() * 2 + 65 * 4096 * 2);  // norms are float32: two bytes more each
}

TEST_F(MemoryPlanTest, Needs2Point5GiBForLlama2_70BAt8192TokensAndEightTimesThatWithoutGrouping) {
  json_["num_hidden_layers"] = 80;
  json_["num_attention_heads"] = 64;
  json_["hidden_size"] = 8192;
  options_.kv_cache_bytes = 327'680u * 8192u;
  options_.max_model_len = 8192;
  ASSERT_TRUE(Plan().ok()) << Plan().status();
  EXPECT_EQ(Plan()->kv_bytes, uint64_t{5} << 29);
  json_["num_key_value_heads"] = 64;
  EXPECT_THAT(Refusal(), HasSubstr(std::to_string(uint64_t{20} << 30)));
}

TEST_F(MemoryPlanTest, TakesDTypesFromTheFlagsBeforeTheCheckpoint) {
  EXPECT_EQ(Plan()->dtype, DType::kBFloat16);
  options_.dtype = DType::kFloat32;
  EXPECT_EQ(Plan()->dtype, DType::kFloat32);
  EXPECT_EQ(Plan()->kv.BytesPerToken(), 262'144u);
  options_.kv_cache_dtype = DType::kFloat16;
  EXPECT_EQ(Plan()->kv.BytesPerToken(), 131'072u);
}

TEST_F(MemoryPlanTest, AQuantizedCacheCountsItsScales) {
  const uint64_t workspace = Plan()->workspace_bytes;
  options_.kv_quantization = KvQuantization::kInt8;
  EXPECT_EQ(Plan()->kv.BytesPerToken(), 2u * 32 * 8 * (128 + 2));
  EXPECT_EQ(Plan()->kv_bytes, Plan()->num_blocks * uint64_t{66'560} * 16);
  EXPECT_EQ(Plan()->workspace_bytes, workspace);  // `ref` takes none
  options_.kv_quantization = KvQuantization::kFp8E4M3;
  EXPECT_EQ(Plan()->kv.BytesPerToken(), 66'560u);
  options_.kv_quantization = KvQuantization::kInt4;
  EXPECT_EQ(Plan()->kv.BytesPerToken(), 2u * 32 * 8 * (64 + 2));
  options_.dtype = DType::kFloat32;  // of the weights: the cache stays
  EXPECT_EQ(Plan()->kv.BytesPerToken(), 33'792u);
}

TEST_F(MemoryPlanTest, FillsADeviceThatIsNotThere) {
  constexpr uint64_t kFree = uint64_t{80} << 30;
  backend_ = CreatePlannedCudaBackend(kFree);
  const auto plan = Plan();
  ASSERT_TRUE(plan.ok()) << plan.status();
  const uint64_t planned = plan->weight_bytes + plan->workspace_bytes + plan->graph_bytes + plan->kv_bytes;
  const auto usable = static_cast<uint64_t>(0.92 * kFree);
  EXPECT_LE(planned, usable);
  EXPECT_GT(planned, usable - plan->kv.BytesPerBlock());
  backend_ = CreatePlannedCudaBackend(uint64_t{8} << 30);  // half of the weights
  EXPECT_THAT(Refusal(), testing::AllOf(HasSubstr("device memory: needed"), HasSubstr("free 8589934592"),
                                        HasSubstr("a smaller --max-num-batched-tokens")));
}

TEST_F(MemoryPlanTest, GraphsAreFewAndOnlyWhereTheBackendHasThem) {
  options_.enforce_eager = true;
  EXPECT_THAT(Refusal(), HasSubstr("--enforce-eager: is for the CUDA graphs of backend cuda"));
  options_.enforce_eager = false;
  options_.lazy_graphs = true;
  EXPECT_THAT(Refusal(), HasSubstr("--lazy-graphs: is for the CUDA graphs of backend cuda"));

  backend_ = CreatePlannedCudaBackend(uint64_t{80} << 30);
  options_.max_num_seqs = 512;
  const auto plan = Plan();
  EXPECT_TRUE(plan->lazy_graphs);
  EXPECT_EQ(plan->scheduler.run_ahead, 1);
  EXPECT_EQ(plan->graph_rows.front(), 1);
  EXPECT_EQ(plan->graph_rows.back(), 512);
  EXPECT_LE(plan->graph_rows.size(), 22u);
  for (size_t i = 1; i < plan->graph_rows.size(); ++i) {
    const int32_t filled = plan->graph_rows[i] - plan->graph_rows[i - 1] - 1;  // rows of nobody, at most
    EXPECT_GE(filled, 0);
    EXPECT_LE(filled, std::max(7, plan->graph_rows[i] / 4));
  }
  EXPECT_GT(plan->graph_bytes, 0u);
  options_.lazy_graphs = false;
  options_.enforce_eager = true;
  EXPECT_TRUE(Plan()->graph_rows.empty());
  EXPECT_EQ(Plan()->graph_bytes, 0u);
}

TEST_F(MemoryPlanTest, CudaRefusesByNameWhatItHasNoKernelsFor) {
  backend_ = CreatePlannedCudaBackend(uint64_t{80} << 30);
  const auto refusal = [&](const auto& change) {
    ModelConfig config = ConfigOf(json_);
    EngineOptions options = options_;
    change(config, options);
    return std::string(MakeMemoryPlan(config, options, *backend_).status().message());
  };
  EXPECT_EQ(refusal([](ModelConfig& config, EngineOptions&) { config.q_heads = 65 * config.kv_heads; }),
            "backend cuda: LlamaForCausalLM: found 65 query heads for a KV head, allowed: at most 64; --backend cpu "
            "computes it");
  EXPECT_THAT(refusal([](ModelConfig& config, EngineOptions&) { config.head_dim = 512; }),
              HasSubstr("found heads of 512 dims, allowed: at most 256"));
  EXPECT_THAT(refusal([](ModelConfig& config, EngineOptions&) { config.latent.emplace(); }),
              HasSubstr("found latent attention, allowed: MHA, MQA and GQA"));
  EXPECT_THAT(refusal([](ModelConfig& config, EngineOptions&) { config.moe.emplace(); }),
              HasSubstr("found a mixture of experts, allowed: dense MLPs"));
  EXPECT_THAT(refusal([](ModelConfig&, EngineOptions& options) { options.quantization = BlockFormat::kQ8_0; }),
              HasSubstr("found --quantization, allowed: none"));
}

TEST_F(MemoryPlanTest, RefusesAQuantizedCacheOfLatents) {
  ModelConfig config = ConfigOf(json_);
  config.latent = LatentConfig{.kv_rank = 512, .nope_dim = 128, .rope_dim = 64, .v_dim = 128};
  options_.kv_quantization = KvQuantization::kInt4;
  EXPECT_EQ(MakeMemoryPlan(config, options_, *backend_).status().message(),
            "--kv-cache-dtype: found int4, allowed: auto, float32, bfloat16, float16 for the latents of this model");
}

TEST_F(MemoryPlanTest, CutsTheContextToTheCacheUnlessItIsGiven) {
  options_.kv_cache_bytes = 131'072u * 100;  // 100 tokens: 6 blocks of 16
  ASSERT_TRUE(Plan().ok()) << Plan().status();
  EXPECT_EQ(Plan()->num_blocks, 6);
  EXPECT_EQ(Plan()->max_model_len, 96);
  options_.max_model_len = 96;
  EXPECT_TRUE(Plan().ok());
  options_.max_model_len = 97;
  EXPECT_THAT(Refusal(),
              testing::AllOf(HasSubstr("--max-model-len: found 97"), HasSubstr("96"), HasSubstr("--kv-cache-memory")));
  options_.max_model_len = 8193;
  EXPECT_THAT(Refusal(),
              HasSubstr("--max-model-len: found 8193, allowed: 2 to the model's max_position_embeddings = 8192"));
  options_.max_model_len = 1;
  EXPECT_THAT(Refusal(), HasSubstr("--max-model-len: found 1"));
}

TEST_F(MemoryPlanTest, HasNoMoreBlocksThanAPoolCanNumber) {
  options_.kv_cache_bytes = uint64_t{1} << 62;
  ASSERT_TRUE(Plan().ok()) << Plan().status();
  EXPECT_EQ(Plan()->num_blocks, BlockPool::kMaxBlocks);
  EXPECT_EQ(Plan()->kv_bytes, (uint64_t{1} << 30) * 16 * 131'072);
}

TEST_F(MemoryPlanTest, RefusesACacheWithoutABlock) {
  options_.kv_cache_bytes = 1024;
  EXPECT_THAT(Refusal(), HasSubstr("--kv-cache-memory: found 1024 bytes, allowed: at least 2097152 bytes"));
  options_.kv_cache_bytes = 0;
  EXPECT_THAT(Refusal(), HasSubstr("--kv-cache-memory"));
}

TEST_F(MemoryPlanTest, RefusesFlagsOutOfRangeByName) {
  const auto refusal = [&](auto EngineOptions::*field, auto value) {
    options_ = {};
    options_.*field = value;
    return Refusal();
  };
  for (const int32_t size : {-8, 0, 4, 7, 12, 264, 1 << 30}) {
    EXPECT_THAT(refusal(&EngineOptions::block_size, size), HasSubstr("--block-size: found " + std::to_string(size)));
  }
  for (const int32_t bad : {-1, 0, 1 << 30}) {
    EXPECT_THAT(refusal(&EngineOptions::max_num_seqs, bad), HasSubstr("--max-num-seqs: found"));
    EXPECT_THAT(refusal(&EngineOptions::max_num_batched_tokens, bad), HasSubstr("--max-num-batched-tokens: found"));
  }
  EXPECT_THAT(refusal(&EngineOptions::max_waiting_requests, 0), HasSubstr("--max-waiting-requests: found 0"));
  EXPECT_THAT(refusal(&EngineOptions::max_waiting_tokens, int64_t{-1}), HasSubstr("--max-waiting-tokens: found -1"));
  for (const int32_t size : {8, 16, 32, 64, 128, 256}) EXPECT_EQ(refusal(&EngineOptions::block_size, size), "");
}

TEST_F(MemoryPlanTest, PlansWhatTheBackendAllocates) {
  json_["num_hidden_layers"] = 2;
  json_["vocab_size"] = 320;
  json_["hidden_size"] = 64;
  json_["intermediate_size"] = 96;
  json_["num_attention_heads"] = 4;
  json_["num_key_value_heads"] = 2;
  json_["head_dim"] = 16;
  for (const BackendKind kind : {BackendKind::kRef, BackendKind::kCpu}) {
    for (const bool tied : {false, true}) {
      json_["tie_word_embeddings"] = tied;
      const ModelConfig config = ConfigOf(json_);
      const auto backend = MakeBackend(kind);
      auto weights = DummyWeights(config, DType::kBFloat16, 1, *backend);
      ASSERT_TRUE(weights.ok()) << weights.status();
      uint64_t bytes = 0;
      for (const WeightSpec& spec : WeightSpecs(config, "", *weights))
        bytes += spec.matrix != nullptr ? spec.matrix->data.bytes() : spec.vector->buffer.bytes();
      EXPECT_EQ(MakeMemoryPlan(config, options_, *backend)->weight_bytes, bytes);
    }
  }
}

}  // namespace
}  // namespace quire
