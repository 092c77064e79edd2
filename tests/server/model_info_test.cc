// What `quired plan` and the start log say of a cache: by its kind of layers, never by a formula for another kind.

#include "server/model_info.h"

#include <nlohmann/json.hpp>
#include <vector>

#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace quire {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

MemoryPlan PlanOf(const KvCacheSpec& kv, int32_t num_blocks, int32_t max_model_len) {
  MemoryPlan plan;
  plan.kv = kv;
  plan.num_blocks = num_blocks;
  plan.max_model_len = max_model_len;
  plan.kv_bytes = static_cast<uint64_t>(num_blocks) * kv.BytesPerBlock();
  return plan;
}

v1::GetModelResponse Describe(const MemoryPlan& plan) { return DescribeModel("m", ModelConfig(), plan, "cpu"); }

std::string TextOf(const MemoryPlan& plan) { return PlanText(Describe(plan), plan); }

nlohmann::json JsonOf(const MemoryPlan& plan) { return nlohmann::json::parse(PlanJson(Describe(plan), plan)); }

// Llama-3-8B.
constexpr KvShape kHeads = {.kv_heads = 8, .head_dim = 128};

// Five layers with a window of 1,024 for each that keeps all, as in Gemma 3.
MemoryPlan MixedPlan() {
  std::vector<int32_t> windows(12, 1024);
  windows[5] = windows[11] = 0;
  return PlanOf(MakeKvCacheSpec({.kv_heads = 4, .head_dim = 256}, windows), 4096, 8192);
}

TEST(ModelInfo, TellsTheFormulaOfHeads) {
  const MemoryPlan plan = PlanOf(MakeKvCacheSpec(kHeads, 32), 1024, 8192);
  const std::string text = TextOf(plan);
  EXPECT_THAT(text, HasSubstr("131072 bytes per token = 2 x 32 layers x 8 KV heads x 128 x 2 bytes\n"));
  EXPECT_THAT(text, HasSubstr("blocks      1024 of 16 tokens\n"));
  EXPECT_THAT(text, HasSubstr("longest     a sequence of 8192 tokens, 512 blocks: 2 at once\n"));
  EXPECT_THAT(text, Not(HasSubstr("window")));
}

TEST(ModelInfo, TellsTheFormulaOfQuantizedHeads) {
  KvShape shape = kHeads;
  shape.quantization = KvQuantization::kInt4;
  const MemoryPlan plan = PlanOf(MakeKvCacheSpec(shape, 32), 1024, 8192);
  EXPECT_THAT(TextOf(plan),
              HasSubstr("33792 bytes per token = 2 x 32 layers x 8 KV heads x 66 bytes (128 of int4, a scale)\n"));
  EXPECT_EQ(JsonOf(plan)["kv_cache_dtype"], "int4");
}

TEST(ModelInfo, TellsTheFormulaOfLatents) {  // DeepSeek-V3
  const MemoryPlan plan = PlanOf(MakeKvCacheSpec({.latent_dim = 512, .rope_dim = 64}, 61), 1024, 8192);
  const std::string text = TextOf(plan);
  EXPECT_THAT(text, HasSubstr("70272 bytes per token = 61 layers x 576 latent (512 + 64 rotary) x 2 bytes\n"));
  EXPECT_THAT(text, HasSubstr("one latent for all"));
  EXPECT_THAT(text, Not(HasSubstr("KV heads")));
  EXPECT_EQ(JsonOf(plan)["kv_groups"][0]["kind"], "latent");
  EXPECT_EQ(JsonOf(plan)["kv_bytes_per_token"], 70272);
}

TEST(ModelInfo, TellsWhatAWindowBounds) {  // Mistral 7B
  const std::vector<int32_t> windows(32, 4096);
  const MemoryPlan plan = PlanOf(MakeKvCacheSpec(kHeads, windows), 512, 32768);
  const std::string text = TextOf(plan);
  EXPECT_THAT(text, HasSubstr("131072 bytes per token"));
  EXPECT_THAT(text, HasSubstr("32 layers window 4096: at most 512.0 MiB for a sequence\n"));
  EXPECT_THAT(text, HasSubstr("a sequence of 32768 tokens keeps 512.0 MiB, not 4.0 GiB\n"));
  EXPECT_THAT(text, HasSubstr("longest     a sequence of 32768 tokens, 257 blocks: 1 at once\n"));
  EXPECT_EQ(JsonOf(plan)["longest_sequence_bytes"], uint64_t{512} << 20);
}

TEST(ModelInfo, TellsWhatEachKindOfLayerKeeps) {
  const MemoryPlan plan = MixedPlan();
  const std::string text = TextOf(plan);
  EXPECT_THAT(text,
              HasSubstr("layers      2 layers keep all positions\n            10 layers window 1024: at most 40.0 "
                        "MiB for a sequence\n"));
  EXPECT_THAT(text, HasSubstr("blocks      4096 of 16 tokens in 2 layers, a sequence has tables for 6 such groups\n"));
  // 512 blocks for the layers that keep all, and five times the 65 that a window of 1,024 can touch.
  EXPECT_THAT(text, HasSubstr("longest     a sequence of 8192 tokens, 837 blocks: 4 at once\n"));
}

TEST(ModelInfo, GivesTheGroupsToMachines) {
  const MemoryPlan plan = MixedPlan();
  const nlohmann::json json = JsonOf(plan);
  ASSERT_EQ(json["kv_groups"].size(), 6);
  EXPECT_EQ(json["kv_groups"][0], nlohmann::json::parse(R"({"kind": "full", "window": 0, "layers": [5, 11]})"));
  EXPECT_EQ(json["kv_groups"][1], nlohmann::json::parse(R"({"kind": "window", "window": 1024, "layers": [0, 1]})"));
  EXPECT_EQ(json["kv_bytes_per_block"], plan.kv.BytesPerBlock());
  EXPECT_EQ(json["num_blocks"].get<uint64_t>() * json["kv_bytes_per_block"].get<uint64_t>(), json["kv_bytes"]);
  EXPECT_EQ(json["longest_sequence_blocks"], 837);
  EXPECT_EQ(json["longest_sequence_bytes"], uint64_t{4096} * (2 * 8192 + 10 * 1024));
}

TEST(ServedName, IsTheGivenOneOrTheLastPartOfThePath) {
  EXPECT_EQ(*ServedName("given name", "/models/tales"), "given name");
  EXPECT_EQ(*ServedName("", "/models/tales/"), "tales");
  EXPECT_EQ(*ServedName("", "/models/tales/x/.."), "tales");
  EXPECT_EQ(*ServedName("", "/models/Fr\xc3\xa4nzchen"), "Fr\xc3\xa4nzchen");
}

// It stands in the ready line, in labels of metrics and in protobuf strings.
TEST(ServedName, HasNoControlCharactersAndIsUtf8) {
  EXPECT_EQ(ServedName("a\nb", "m").status().message(),
            "--served-model-name: found \"a\\nb\", allowed: UTF-8 without control characters");
  EXPECT_EQ(ServedName("", "/models/x\xff").status().message(),
            "--served-model-name: the last part of --model is \"x\\xff\", allowed: UTF-8 without control characters");
}

}  // namespace
}  // namespace quire
