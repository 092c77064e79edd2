// Model directories: which files are read, which tensors must be in them, and what is refused by name.

#include "engine/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/checkpoint.h"
#include "engine/load_model.h"
#include "engine/mapped_file.h"
#include "engine/safetensors.h"
#include "engine/weight_specs.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/engine/engine_testing.h"

namespace quire {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

json TinyJson() {
  json config = Llama3Json();
  config.merge_patch({{"vocab_size", 10},
                      {"hidden_size", 8},
                      {"intermediate_size", 6},
                      {"num_hidden_layers", 2},
                      {"num_attention_heads", 2},
                      {"num_key_value_heads", 1},
                      {"head_dim", 4},
                      {"max_position_embeddings", 32}});
  return config;
}

// The value of element `i` of a tensor in these tests: exact in every dtype.
float ValueOf(const std::string& name, int64_t i) { return static_cast<float>((name.size() * 7 + i) % 61) - 30.0f; }

using Shapes = std::map<std::string, std::vector<int64_t>>;

Shapes ShapesOf(const ModelConfig& config) {
  Shapes shapes;
  for (const TensorSpec& spec : ExpectedTensors(config)) shapes[spec.name] = spec.shape;
  return shapes;
}

// Writes float32 tensors; the header is padded to `header_align` bytes plus `misalign`.
void WriteSafetensors(const std::string& path, const Shapes& shapes, size_t misalign = 0) {
  json header;
  std::string data;
  for (const auto& [name, shape] : shapes) {
    int64_t count = 1;
    for (const int64_t dim : shape) count *= dim;
    const size_t begin = data.size();
    for (int64_t i = 0; i < count; ++i) {
      const float value = ValueOf(name, i);
      data.append(reinterpret_cast<const char*>(&value), sizeof(value));
    }
    header[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {begin, data.size()}}};
  }
  std::string text = header.dump();
  text.append(8 - text.size() % 8 + misalign, ' ');
  const uint64_t length = text.size();
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(&length), 8);
  file << text << data;
}

class WeightsTest : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = testing::TempDir() + "quire_weights_" + testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directory(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  void WriteIndex(const json& index) const { std::ofstream(Path("model.safetensors.index.json")) << index.dump(); }

  // The first error on the way from the directory to packed weights.
  std::string Refusal() const {
    const auto checkpoint = Checkpoint::Open(directory_);
    const absl::Status status = checkpoint.ok() ? CheckTensors(config_, *checkpoint) : checkpoint.status();
    return std::string(status.message());
  }

  ModelConfig config_ = ConfigOf(TinyJson());
  std::string directory_;
  std::unique_ptr<Backend> ref_ = MakeBackend(BackendKind::kRef);  // packed as it is written: row-major
};

TEST_F(WeightsTest, StacksQkvAndGateUpByRowsAndTiesTheHead) {
  for (const size_t misalign : {0, 1, 2, 3}) {
    config_.tie_word_embeddings = true;
    WriteSafetensors(Path("model.safetensors"), ShapesOf(config_), misalign);
    const auto checkpoint = Checkpoint::Open(directory_);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    ASSERT_TRUE(CheckTensors(config_, *checkpoint).ok());
    for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
      const auto weights = LoadWeights(config_, dtype, *checkpoint, *ref_);
      ASSERT_TRUE(weights.ok()) << weights.status();
      EXPECT_EQ(&weights->head(), &weights->embedding);
      const LinearWeight& qkv = weights->layers[1].qkv.weight;
      EXPECT_EQ(qkv.n, 16);
      EXPECT_EQ(qkv.k, 8);
      const std::string prefix = "model.layers.1.self_attn.";
      EXPECT_EQ(LoadFloat(qkv.data.data(), dtype, 3), ValueOf(prefix + "q_proj.weight", 3));
      EXPECT_EQ(LoadFloat(qkv.data.data(), dtype, 8 * 8 + 3), ValueOf(prefix + "k_proj.weight", 3));
      EXPECT_EQ(LoadFloat(qkv.data.data(), dtype, 12 * 8 + 3), ValueOf(prefix + "v_proj.weight", 3));
      EXPECT_EQ(LoadFloat(weights->layers[0].mlp.up.weight.data.data(), dtype, 6 * 8 + 1),
                ValueOf("model.layers.0.mlp.up_proj.weight", 1));
      EXPECT_EQ(LoadFloat(weights->final_norm.weight.data(), DType::kFloat32, 5), ValueOf("model.norm.weight", 5));
    }
  }
}

TEST_F(WeightsTest, ReadsShards) {
  Shapes first = ShapesOf(config_), second;
  json map;
  for (auto& [name, shape] : first) map[name] = "model-00001-of-00002.safetensors";
  second.insert(first.extract("lm_head.weight"));
  map["lm_head.weight"] = "model-00002-of-00002.safetensors";
  WriteSafetensors(Path("model-00001-of-00002.safetensors"), first);
  WriteSafetensors(Path("model-00002-of-00002.safetensors"), second);
  WriteIndex({{"metadata", {{"total_size", 1}}}, {"weight_map", map}});
  EXPECT_EQ(Refusal(), "");

  json wrong = map;
  wrong["lm_head.weight"] = "model-00001-of-00002.safetensors";
  WriteIndex({{"weight_map", wrong}});
  EXPECT_THAT(Refusal(), AllOf(HasSubstr("index.json"), HasSubstr("lm_head.weight")));
  for (const json& shard : {json("../model.safetensors"), json("/etc/passwd"), json("x.bin"), json(3), json(nullptr),
                            json(std::string(300, 'x') + ".safetensors")}) {
    wrong["lm_head.weight"] = shard;
    WriteIndex({{"weight_map", wrong}});
    EXPECT_THAT(Refusal(), HasSubstr("weight_map[\"lm_head.weight\"]: found"));
  }
  wrong["lm_head.weight"] = "model-00003-of-00002.safetensors";
  WriteIndex({{"weight_map", wrong}});
  EXPECT_THAT(Refusal(), HasSubstr("model-00003-of-00002.safetensors"));
  WriteIndex({{"weight_map", 3}});
  EXPECT_THAT(Refusal(), HasSubstr("weight_map"));

  second["model.norm.weight"] = {8};  // now in both shards
  WriteSafetensors(Path("model-00002-of-00002.safetensors"), second);
  WriteIndex({{"weight_map", map}});
  EXPECT_THAT(Refusal(), AllOf(HasSubstr("\"model.norm.weight\""), HasSubstr("too, allowed once")));
}

TEST_F(WeightsTest, NamesAMissingFile) {
  EXPECT_THAT(Refusal(), AllOf(HasSubstr(directory_), HasSubstr("model.safetensors")));
}

TEST_F(WeightsTest, NamesAMissingTensor) {
  Shapes shapes = ShapesOf(config_);
  shapes.erase("model.layers.1.mlp.down_proj.weight");
  WriteSafetensors(Path("model.safetensors"), shapes);
  EXPECT_THAT(Refusal(), AllOf(HasSubstr("\"model.layers.1.mlp.down_proj.weight\""), HasSubstr("[8, 6]")));
}

TEST_F(WeightsTest, NamesATensorOfTheWrongShape) {
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{6, 8}, {48}, {8, 6, 1}, {8, 0}}) {
    Shapes shapes = ShapesOf(config_);
    shapes["model.layers.1.mlp.down_proj.weight"] = shape;
    WriteSafetensors(Path("model.safetensors"), shapes);
    EXPECT_THAT(Refusal(), AllOf(HasSubstr("\"model.layers.1.mlp.down_proj.weight\": found shape ["),
                                 HasSubstr("allowed [8, 6]")));
  }
}

TEST_F(WeightsTest, NamesATensorThatItDoesNotKnowAndPassesOverRotaryFrequencies) {
  Shapes shapes = ShapesOf(config_);
  shapes["model.layers.0.self_attn.rotary_emb.inv_freq"] = {2};
  WriteSafetensors(Path("model.safetensors"), shapes);
  EXPECT_EQ(Refusal(), "");
  shapes["model.layers.0.self_attn.q_proj.bias"] = {8};
  WriteSafetensors(Path("model.safetensors"), shapes);
  EXPECT_THAT(Refusal(), HasSubstr("\"model.layers.0.self_attn.q_proj.bias\": unknown"));
  shapes.erase("model.layers.0.self_attn.q_proj.bias");
  config_.tie_word_embeddings = true;  // a head of its own would be ignored in silence
  WriteSafetensors(Path("model.safetensors"), shapes);
  EXPECT_THAT(Refusal(), HasSubstr("\"lm_head.weight\": unknown"));
}

TEST_F(WeightsTest, DummyWeightsAreAFunctionOfTheSeedOfUnitVariancePerInput) {
  json json = TinyJson();
  json.merge_patch({{"hidden_size", 256}, {"vocab_size", 4096}});
  config_ = ConfigOf(json);
  const auto values = [&](uint64_t seed) {
    const auto weights = DummyWeights(config_, DType::kFloat32, seed, *ref_);
    const auto* first = static_cast<const float*>(weights->embedding.data.data());
    return std::vector<float>(first, first + 4096 * 256);
  };
  const std::vector<float> one = values(1);
  EXPECT_EQ(one, values(1));
  EXPECT_NE(one, values(2));
  double sum = 0, squares = 0;
  for (const float value : one) {
    sum += value;
    squares += double{value} * value;
  }
  EXPECT_NEAR(sum / double(one.size()), 0, 1e-3);
  EXPECT_NEAR(squares / double(one.size()), 1.0 / 256, 1e-4);
}

// E8M0's 255 stands for no number.
TEST(Mxfp4, AScaleThatIsNoNumberIsNamed) {
  namespace fs = std::filesystem;
  const std::string directory = testing::TempDir() + "quire_mxfp4", file = directory + "/model.safetensors";
  fs::remove_all(directory);
  fs::copy(FamilyModel("gpt-oss-mxfp4"), directory);
  const std::string name = "model.layers.0.mlp.experts.down_proj_scales";
  int64_t at = 0;
  {
    const absl::StatusOr<MappedFile> mapped = MappedFile::Open(file);
    const std::vector<StoredTensor> tensors = *ParseSafetensors(mapped->bytes(), file);
    const auto scales =
        std::find_if(tensors.begin(), tensors.end(), [&](const auto& each) { return each.name == name; });
    at = scales->data - mapped->bytes().data() + 3;  // row 3 of expert 0
  }
  std::fstream(file, std::ios::binary | std::ios::in | std::ios::out).seekp(at).put('\xff');
  for (const DType dtype : {DType::kBFloat16, DType::kFloat32}) {
    EngineOptions options = FamilyModelOptions("gpt-oss-mxfp4", BackendKind::kCpu);
    options.model = directory;
    options.dtype = dtype;
    EXPECT_EQ(
        LoadModel(options).status().message(),
        file + ": tensor \"" + name + "\": found a scale that is no finite number in row 3, block 0, allowed: finite");
  }
  fs::remove_all(directory);
}

}  // namespace
}  // namespace quire
