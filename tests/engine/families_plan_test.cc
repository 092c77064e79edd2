// The arithmetic of published models, from config.json alone: parameters, bytes per token, what a window bounds.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/gguf_model.h"
#include "engine/memory_plan.h"
#include "engine/weight_specs.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/engine/engine_testing.h"

namespace quire {
namespace {

using nlohmann::json;

json Llama2_70B() {
  json config = Llama3Json();
  config.merge_patch({{"hidden_size", 8192},
                      {"intermediate_size", 28672},
                      {"num_hidden_layers", 80},
                      {"num_attention_heads", 64},
                      {"max_position_embeddings", 8192},
                      {"rope_theta", 10000},
                      {"torch_dtype", "float16"},
                      {"vocab_size", 32000}});
  return config;
}

json Mistral7B() {
  json config = Llama3Json();
  config.merge_patch({{"architectures", json::array({"MistralForCausalLM"})},
                      {"max_position_embeddings", 32768},
                      {"sliding_window", 4096},
                      {"vocab_size", 32000}});
  return config;
}

json Mixtral8x7B() {
  json config = Mistral7B();
  config.merge_patch({{"architectures", json::array({"MixtralForCausalLM"})},
                      {"sliding_window", nullptr},
                      {"num_local_experts", 8},
                      {"num_experts_per_tok", 2}});
  return config;
}

json Qwen3_8B() {
  json config = Llama3Json();
  config.merge_patch({{"architectures", json::array({"Qwen3ForCausalLM"})},
                      {"intermediate_size", 12288},
                      {"num_hidden_layers", 36},
                      {"max_position_embeddings", 40960},
                      {"vocab_size", 151936}});
  return config;
}

json Gemma2_2B() {
  return json::parse(R"({"architectures": ["Gemma2ForCausalLM"], "hidden_size": 2304, "intermediate_size": 9216,
      "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 256000,
      "max_position_embeddings": 8192, "sliding_window": 4096, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-6,
      "hidden_activation": "gelu_pytorch_tanh", "torch_dtype": "bfloat16"})");
}

json DeepseekV2Lite() {
  return json::parse(R"({"architectures": ["DeepseekV2ForCausalLM"], "hidden_size": 2048, "intermediate_size": 10944,
      "num_hidden_layers": 27, "num_attention_heads": 16, "num_key_value_heads": 16, "kv_lora_rank": 512,
      "q_lora_rank": null, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 64,
      "n_shared_experts": 2, "num_experts_per_tok": 6, "moe_intermediate_size": 1408, "first_k_dense_replace": 1,
      "topk_method": "greedy", "vocab_size": 102400, "max_position_embeddings": 163840, "rms_norm_eps": 1e-6,
      "torch_dtype": "bfloat16"})");
}

json DeepseekV2() {
  json config = DeepseekV2Lite();
  config.merge_patch({{"hidden_size", 5120},
                      {"intermediate_size", 12288},
                      {"num_hidden_layers", 60},
                      {"num_attention_heads", 128},
                      {"num_key_value_heads", 128},
                      {"q_lora_rank", 1536},
                      {"n_routed_experts", 160},
                      {"moe_intermediate_size", 1536},
                      {"topk_method", "group_limited_greedy"},
                      {"n_group", 8},
                      {"topk_group", 3}});
  return config;
}

json DeepseekV3() {
  json config = DeepseekV2();
  config.merge_patch({{"architectures", json::array({"DeepseekV3ForCausalLM"})},
                      {"hidden_size", 7168},
                      {"intermediate_size", 18432},
                      {"num_hidden_layers", 61},
                      {"n_routed_experts", 256},
                      {"n_shared_experts", 1},
                      {"num_experts_per_tok", 8},
                      {"moe_intermediate_size", 2048},
                      {"first_k_dense_replace", 3},
                      {"topk_method", "noaux_tc"},
                      {"topk_group", 4},
                      {"num_nextn_predict_layers", 1},
                      {"vocab_size", 129280}});
  return config;
}

json Gpt2() {
  return json::parse(R"({"architectures": ["GPT2LMHeadModel"], "n_embd": 768, "n_layer": 12, "n_head": 12,
      "n_positions": 1024, "vocab_size": 50257, "layer_norm_epsilon": 1e-5})");
}

json Opt125M() {
  return json::parse(R"({"architectures": ["OPTForCausalLM"], "hidden_size": 768, "num_hidden_layers": 12,
      "num_attention_heads": 12, "ffn_dim": 3072, "max_position_embeddings": 2048, "vocab_size": 50272,
      "word_embed_proj_dim": 768, "do_layer_norm_before": true})");
}

json Phi3Mini() {
  json config = Llama3Json();
  config.merge_patch({{"architectures", json::array({"Phi3ForCausalLM"})},
                      {"hidden_size", 3072},
                      {"intermediate_size", 8192},
                      {"num_key_value_heads", 32},
                      {"max_position_embeddings", 4096},
                      {"sliding_window", 2047},
                      {"vocab_size", 32064}});
  return config;
}

json Qwen3Moe30B() {
  json config = Qwen3_8B();
  config.merge_patch({{"architectures", json::array({"Qwen3MoeForCausalLM"})},
                      {"hidden_size", 2048},
                      {"intermediate_size", 6144},
                      {"num_hidden_layers", 48},
                      {"num_key_value_heads", 4},
                      {"head_dim", 128},
                      {"num_experts", 128},
                      {"num_experts_per_tok", 8},
                      {"moe_intermediate_size", 768}});
  return config;
}

json Gemma3_1B() {
  json config = Gemma2_2B();
  config.merge_patch({{"architectures", json::array({"Gemma3ForCausalLM"})},
                      {"hidden_size", 1152},
                      {"intermediate_size", 6912},
                      {"num_attention_heads", 4},
                      {"num_key_value_heads", 1},
                      {"vocab_size", 262144},
                      {"max_position_embeddings", 32768},
                      {"sliding_window", 512}});
  return config;
}

json Falcon7B() {
  return json::parse(R"({"architectures": ["FalconForCausalLM"], "hidden_size": 4544, "num_hidden_layers": 32,
      "num_attention_heads": 71, "num_kv_heads": 71, "multi_query": true, "parallel_attn": true, "bias": false,
      "alibi": false, "vocab_size": 65024, "torch_dtype": "bfloat16"})");
}

json GptOss20B() {
  return json::parse(R"({"architectures": ["GptOssForCausalLM"], "hidden_size": 2880, "intermediate_size": 2880,
      "num_hidden_layers": 24, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64,
      "num_local_experts": 32, "num_experts_per_tok": 4, "vocab_size": 201088, "max_position_embeddings": 131072,
      "sliding_window": 128, "rms_norm_eps": 1e-5, "torch_dtype": "bfloat16",
      "quantization_config": {"quant_method": "mxfp4"}})");
}

absl::StatusOr<MemoryPlan> PlanOf(const json& config, int32_t block_size = 16) {
  EngineOptions options;
  options.block_size = block_size;
  return MakeMemoryPlan(ConfigOf(config), options, *MakeBackend(BackendKind::kRef));
}

uint64_t BytesPerToken(const json& config) { return PlanOf(config)->kv.BytesPerToken(); }

TEST(FamiliesPlan, CountsTheParametersOfPublishedModels) {
  EXPECT_EQ(ConfigOf(Llama2_70B()).NumParameters(), 68'976'648'192u);
  EXPECT_EQ(ConfigOf(Mistral7B()).NumParameters(), 7'241'732'096u);
  EXPECT_EQ(ConfigOf(Mixtral8x7B()).NumParameters(), 46'702'792'704u);
  EXPECT_EQ(ConfigOf(Qwen3_8B()).NumParameters(), 8'190'735'360u);
  EXPECT_EQ(ConfigOf(Gemma2_2B()).NumParameters(), 2'614'341'888u);
  EXPECT_EQ(ConfigOf(Phi3Mini()).NumParameters(), 3'821'079'552u);
  EXPECT_EQ(ConfigOf(DeepseekV2Lite()).NumParameters(), 15'706'484'224u);
  EXPECT_EQ(ConfigOf(Qwen3Moe30B()).NumParameters(), 30'532'122'624u);
  EXPECT_EQ(ConfigOf(Gemma3_1B()).NumParameters(), 999'885'952u);
  EXPECT_EQ(ConfigOf(Falcon7B()).NumParameters(), 6'921'720'704u);
  EXPECT_EQ(ConfigOf(GptOss20B()).NumParameters(), 20'914'757'184u);
  EXPECT_EQ(ConfigOf(Gpt2()).NumParameters(), 124'439'808u);
  EXPECT_EQ(ConfigOf(Opt125M()).NumParameters(), 125'239'296u);
}

TEST(FamiliesPlan, GroupingDividesTheCacheByEight) {
  json config = Llama2_70B();
  EXPECT_EQ(BytesPerToken(config), 327'680u);
  EXPECT_EQ(BytesPerToken(config) * 8192, uint64_t{5} << 29);  // 2.5 GiB
  config["num_key_value_heads"] = 64;
  EXPECT_EQ(BytesPerToken(config), 8 * 327'680u);
  EXPECT_EQ(BytesPerToken(Llama3Json()), 131'072u);
}

TEST(FamiliesPlan, LatentsAreWhatTheCacheKeepsOfDeepseek) {
  EXPECT_EQ(BytesPerToken(DeepseekV3()), 70'272u);   // 61 * 576 * 2: the extra layer is not counted
  EXPECT_EQ(61 * 128 * (192 + 128) * 2, 4'997'120);  // what the heads of all layers would take
  EXPECT_EQ(4'997'120 / 70'272, 71);
  EXPECT_EQ(BytesPerToken(DeepseekV2()), 69'120u);
  EXPECT_EQ(BytesPerToken(DeepseekV2Lite()), 31'104u);
}

TEST(FamiliesPlan, OneHeadServesAllOfFalcon7B) { EXPECT_EQ(BytesPerToken(Falcon7B()), 2u * 32 * 64 * 2); }

// 4.25 bits each, 19.1 billion of them; --dtype float32 unpacks them.
TEST(FamiliesPlan, ExpertsInMxfp4StayInFourBits) {
  const auto plan = [](std::optional<DType> dtype) {
    EngineOptions options;
    options.dtype = dtype;
    return *MakeMemoryPlan(ConfigOf(GptOss20B()), options, *MakeBackend(BackendKind::kCpu));
  };
  EXPECT_EQ(plan(std::nullopt).weight_dtype, "mxfp4");
  EXPECT_LT(plan(std::nullopt).weight_bytes, uint64_t{15} << 30);
  EXPECT_EQ(plan(DType::kFloat32).weight_dtype, "float32");
  EXPECT_GT(plan(DType::kFloat32).weight_bytes, uint64_t{20} * 4 * 1'000'000'000);
}

TEST(FamiliesPlan, AWindowBoundsWhatASequenceKeeps) {
  const KvCacheSpec kv = PlanOf(Mistral7B())->kv;
  EXPECT_EQ(kv.BytesPerToken(), 131'072u);
  EXPECT_EQ(kv.BytesPerSequence(4096), uint64_t{512} << 20);
  EXPECT_EQ(kv.BytesPerSequence(32768), uint64_t{512} << 20);
  const KvCacheSpec gemma = PlanOf(Gemma2_2B())->kv;  // 13 layers of 26 slide
  EXPECT_EQ(gemma.BytesPerToken(), 2u * 26 * 4 * 256 * 2);
  EXPECT_EQ(gemma.BytesPerSequence(8192), uint64_t{13} * 4096 * (8192 + 4096));
}

TEST(FamiliesPlan, PlansWhatEveryFamilyAllocates) {
  for (const std::string& name : FamilyModels()) {
    if (IsGgufPath(FamilyModel(name))) continue;  // its plan counts what the file has quantised
    const auto config = LoadModelConfig(FamilyModel(name));
    ASSERT_TRUE(config.ok()) << config.status();
    for (const BackendKind kind : {BackendKind::kRef, BackendKind::kCpu}) {
      const auto backend = MakeBackend(kind);
      auto weights = DummyWeights(*config, DType::kBFloat16, 1, *backend);
      ASSERT_TRUE(weights.ok()) << weights.status();
      uint64_t bytes = 0;
      for (const WeightSpec& spec : WeightSpecs(*config, "", *weights))
        bytes += spec.matrix != nullptr ? spec.matrix->data.bytes() : spec.vector->buffer.bytes();
      EXPECT_EQ(MakeMemoryPlan(*config, FamilyModelOptions(name, kind), *backend)->weight_bytes, bytes) << name;
    }
  }
}

}  // namespace
}  // namespace quire
