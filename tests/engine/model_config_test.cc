// config.json: both of its dialects, and everything that must be refused by name.

#include "engine/model_config.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/engine/engine_testing.h"

namespace quire {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

absl::StatusOr<ModelConfig> Parse(const json& config) { return ParseModelConfig(config.dump(), "config.json"); }

TEST(ModelConfig, ReadsTheHubsForm) {
  const auto config = Parse(Llama3Json());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->q_heads, 32);
  EXPECT_EQ(config->kv_heads, 8);
  EXPECT_EQ(config->head_dim, 128);
  EXPECT_EQ(config->ropes[0].theta, 500000.0);
  EXPECT_EQ(config->dtype, DType::kBFloat16);
  EXPECT_FLOAT_EQ(config->norm_eps, 1e-5f);
  EXPECT_EQ(config->NumParameters(), 8'030'261'248u);  // as the model's card says
}

TEST(ModelConfig, ReadsTheFormOfTransformers5) {
  json hub = Llama3Json();
  hub.erase("rope_theta");
  hub.erase("rope_scaling");
  hub.erase("torch_dtype");
  hub["rope_parameters"] = {{"rope_theta", 500000.0}, {"rope_type", "default"}};
  hub["dtype"] = "float16";
  hub["head_dim"] = 64;
  const auto config = Parse(hub);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->ropes[0].theta, 500000.0);
  EXPECT_EQ(config->dtype, DType::kFloat16);
  EXPECT_EQ(config->head_dim, 64);
}

TEST(ModelConfig, FillsInWhatOldConfigsLack) {
  json old = Llama3Json();
  for (const char* key : {"num_key_value_heads", "rope_theta", "torch_dtype", "tie_word_embeddings", "attention_bias"})
    old.erase(key);
  const auto config = Parse(old);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->kv_heads, 32);
  EXPECT_EQ(config->ropes[0].theta, 10000.0);
  EXPECT_EQ(config->dtype, DType::kFloat32);
  EXPECT_FALSE(config->tie_word_embeddings);
}

struct Broken {
  const char* name;
  json patch;  // merged into Llama3Json; null removes
  const char* says;
};

class ModelConfigHostile : public testing::TestWithParam<Broken> {};

TEST_P(ModelConfigHostile, IsRefusedInOneLineThatNamesFileAndKey) {
  json config = Llama3Json();
  config.merge_patch(GetParam().patch);
  const auto parsed = Parse(config);
  ASSERT_FALSE(parsed.ok());
  const std::string message(parsed.status().message());
  EXPECT_THAT(message, AllOf(HasSubstr("config.json: "), HasSubstr(GetParam().says), HasSubstr("allowed: ")));
  EXPECT_EQ(message.find('\n'), std::string::npos);
  EXPECT_LT(message.size(), 400);
}

INSTANTIATE_TEST_SUITE_P(
    Configs, ModelConfigHostile,
    testing::ValuesIn(std::vector<Broken>{
        {"WithoutLayers", {{"num_hidden_layers", nullptr}}, "num_hidden_layers: found none"},
        {"WithoutVocab", {{"vocab_size", nullptr}}, "vocab_size: found none"},
        {"WithoutHidden", {{"hidden_size", nullptr}}, "hidden_size: found none"},
        {"WithoutIntermediate", {{"intermediate_size", nullptr}}, "intermediate_size: found none"},
        {"WithoutHeads", {{"num_attention_heads", nullptr}}, "num_attention_heads: found none"},
        {"WithoutContext", {{"max_position_embeddings", nullptr}}, "max_position_embeddings: found none"},
        {"WithoutEpsilon", {{"rms_norm_eps", nullptr}}, "rms_norm_eps: found none"},
        {"HeadsAsText", {{"num_attention_heads", "many"}}, "num_attention_heads: found \"many\""},
        {"HeadsAsFraction", {{"num_attention_heads", 31.5}}, "num_attention_heads: found 31.5"},
        {"HeadsAsList", {{"num_attention_heads", json::array()}}, "num_attention_heads: found an array"},
        {"NoHeads", {{"num_attention_heads", 0}}, "num_attention_heads: found 0"},
        {"NegativeHeads", {{"num_attention_heads", -8}}, "num_attention_heads: found -8"},
        {"NoKvHeads", {{"num_key_value_heads", 0}}, "num_key_value_heads: found 0"},
        {"KvHeadsDoNotDivide", {{"num_key_value_heads", 5}}, "num_key_value_heads: found 5"},
        {"HeadsDoNotDivideHidden", {{"num_attention_heads", 24}}, "num_attention_heads: found 24"},
        {"HeadDimOdd", {{"head_dim", 127}}, "head_dim: found 127"},
        {"HeadDimHuge", {{"head_dim", 1 << 20}}, "head_dim: found 1048576"},
        {"HugeLayers", {{"num_hidden_layers", int64_t{1} << 40}}, "num_hidden_layers: found 1099511627776"},
        {"HugeHidden", {{"hidden_size", int64_t{1} << 31}}, "hidden_size: found 2147483648"},
        {"HugeVocab", {{"vocab_size", int64_t{1} << 62}}, "vocab_size: found"},
        {"HugeContext", {{"max_position_embeddings", 1e30}}, "max_position_embeddings: found"},
        {"EpsilonZero", {{"rms_norm_eps", 0}}, "rms_norm_eps: found 0"},
        {"EpsilonText", {{"rms_norm_eps", "1e-5"}}, "rms_norm_eps: found \"1e-5\""},
        {"ThetaZero", {{"rope_theta", 0}}, "rope_theta: found 0"},
        {"ThetaHuge", {{"rope_theta", 1e300}}, "rope_theta: found 1e+300"},
        {"RopeKindUnknown",
         {{"rope_scaling", {{"rope_type", "mrope"}, {"factor", 8.0}}}},
         "rope_scaling: rope_type: found \"mrope\""},
        {"RopeKindUnknownOldForm", {{"rope_scaling", {{"type", 3}}}}, "rope_scaling: type: found 3"},
        {"RopeKeyUnknown",
         {{"rope_scaling", {{"rope_type", "default"}, {"mrope_section", json::array({1, 2})}}}},
         "rope_scaling: \"mrope_section\": found an array"},
        {"RopeWithoutFactor", {{"rope_scaling", {{"type", "linear"}}}}, "rope_scaling: factor: found none"},
        {"RopeFactorBelowOne",
         {{"rope_parameters", {{"rope_type", "dynamic"}, {"factor", 0.5}}}},
         "rope_parameters: factor: found 0.5"},
        {"Llama3FactorsCrossed",
         {{"rope_scaling", {{"rope_type", "llama3"}, {"factor", 8}, {"low_freq_factor", 4}, {"high_freq_factor", 1}}}},
         "rope_scaling: high_freq_factor: found 1"},
        {"LongRopeTooShort",
         {{"rope_scaling",
           {{"type", "longrope"}, {"short_factor", json::array({1, 2})}, {"long_factor", json::array({1, 2})}}}},
         "rope_scaling: short_factor: found an array of 2"},
        {"RopeScalingIsText", {{"rope_scaling", "llama3"}}, "rope_scaling: found \"llama3\""},
        {"RopePartial", {{"partial_rotary_factor", 1.5}}, "partial_rotary_factor: found 1.5"},
        {"AttentionBias", {{"attention_bias", "yes"}}, "attention_bias: found \"yes\""},
        {"Gelu", {{"hidden_act", "gelu"}}, "hidden_act: found \"gelu\""},
        {"Quantized", {{"quantization_config", {{"quant_method", "awq"}}}}, "quantization_config: found an object"},
        {"Int8", {{"torch_dtype", "int8"}}, "torch_dtype: found \"int8\""},
        {"TieIsText", {{"tie_word_embeddings", "yes"}}, "tie_word_embeddings: found \"yes\""},
        {"UnknownModel",
         {{"model_type", "no_such"}, {"architectures", json::array({"NoSuchForCausalLM"})}},
         "\"NoSuchForCausalLM\""},
        {"TwoArchitectures",
         {{"architectures", json::array({"LlamaForCausalLM", "X"})}},
         "architectures: found an array"},
        {"ArchitectureNewline", {{"architectures", json::array({"A\nB"})}}, "A\\nB"},
    }),
    [](const auto& info) { return info.param.name; });

TEST(ModelConfigText, MustBeOneJsonObject) {
  const auto message = [](const std::string& text) {
    return std::string(ParseModelConfig(text, "config.json").status().message());
  };
  EXPECT_THAT(message(R"({"model_type": "llama", )"), HasSubstr("config.json: found no JSON"));
  EXPECT_THAT(message(""), HasSubstr("config.json: found no JSON"));
  EXPECT_THAT(message("[]"), HasSubstr("config.json: found a JSON array"));
  EXPECT_THAT(message(std::string(200'000, '[')), HasSubstr("config.json: found brackets nested 200000 deep"));
  EXPECT_THAT(message(R"({"vocab_size": 1, "vocab_size": 2})"), HasSubstr("\"vocab_size\" twice"));
  EXPECT_THAT(message(R"({"rms_norm_eps": 1e999})"), HasSubstr("config.json: found a number"));
  EXPECT_THAT(message(R"({"a": "\xff"})"), HasSubstr("config.json: found no JSON"));
}

TEST(ModelConfigFile, MustBeThere) {
  EXPECT_THAT(std::string(LoadModelConfig("/nonexistent/no-such-model").status().message()),
              HasSubstr("/nonexistent/no-such-model/config.json"));
}

}  // namespace
}  // namespace quire
