// GGUF files as models: what their metadata becomes, what llama.cpp's conversion changed is undone, and the bundled
// model answers the same from either format.

#include "engine/gguf_model.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "engine/checkpoint.h"
#include "engine/load_model.h"
#include "engine/mapped_file.h"
#include "engine/model_config.h"
#include "engine/weights.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/linear/blocks.h"
#include "nlohmann/json.hpp"
#include "tests/engine/engine_testing.h"
#include "tests/engine/gguf_bytes.h"

namespace quire {
namespace {

using namespace gguf_bytes;  // NOLINT(google-build-using-namespace): its few words are the language of this test
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

Gguf ParseOrDie(const std::string& file) {
  return *ParseGguf({reinterpret_cast<const std::byte*>(file.data()), file.size()}, "m.gguf");
}

std::vector<std::string> Metadata(const std::string& name) {
  const auto u32 = [&](const std::string& key, uint32_t value) { return Pair(name + "." + key, kUint32, Le(value)); };
  return {Pair("general.architecture", kText, Text(name)),
          u32("context_length", 64),
          u32("embedding_length", 8),
          u32("block_count", 2),
          u32("feed_forward_length", 16),
          u32("attention.head_count", 2),
          u32("attention.head_count_kv", 1),
          Pair(name + ".attention.layer_norm_rms_epsilon", kFloat32, Le(1e-6f)),
          Pair("tokenizer.ggml.eos_token_id", kUint32, Le<uint32_t>(3))};
}

json ConfigOf(const std::vector<std::string>& metadata, const std::vector<std::string>& more_infos = {},
              size_t more_bytes = 0) {
  std::vector<std::string> infos = {Info("token_embd.weight", {8, 4}, 1, 0)};
  infos.insert(infos.end(), more_infos.begin(), more_infos.end());
  const std::string file = File(metadata, infos, 64 + more_bytes);
  const absl::StatusOr<std::string> text = GgufConfigText(ParseOrDie(file));
  return text.ok() ? json::parse(*text) : json(std::string(text.status().message()));
}

TEST(GgufModel, MetadataBecomesAConfig) {
  const json config = ConfigOf(Metadata("llama"));
  EXPECT_EQ(config["architectures"], json::array({"LlamaForCausalLM"}));
  EXPECT_EQ(config["vocab_size"], 4);
  EXPECT_EQ(config["hidden_size"], 8);
  EXPECT_EQ(config["num_hidden_layers"], 2);
  EXPECT_EQ(config["num_key_value_heads"], 1);
  EXPECT_EQ(config["rms_norm_eps"], 1e-6);  // not the float32 nearest to it
  EXPECT_EQ(config["rope_theta"], 10000.0);
  EXPECT_EQ(config["tie_word_embeddings"], true);
  EXPECT_EQ(config["torch_dtype"], "float16");
  EXPECT_EQ(config["eos_token_id"], json::array({3}));
  EXPECT_TRUE(ParseModelConfig(config.dump(), "m.gguf").ok());
}

TEST(GgufModel, FamiliesAreToldApart) {
  const auto architecture = [](std::vector<std::string> metadata) { return ConfigOf(metadata)["architectures"][0]; };
  EXPECT_EQ(architecture(Metadata("qwen2")), "Qwen2ForCausalLM");
  EXPECT_EQ(architecture(Metadata("qwen3")), "Qwen3ForCausalLM");
  EXPECT_EQ(architecture(Metadata("phi3")), "Phi3ForCausalLM");
  std::vector<std::string> mixtral = Metadata("llama");
  mixtral.push_back(Pair("llama.expert_count", kUint32, Le<uint32_t>(4)));
  mixtral.push_back(Pair("llama.expert_used_count", kUint32, Le<uint32_t>(2)));
  EXPECT_EQ(architecture(mixtral), "MixtralForCausalLM");
  EXPECT_EQ(ConfigOf(mixtral)["num_local_experts"], 4);
  EXPECT_THAT(ConfigOf(Metadata("mamba")).get<std::string>(),
              AllOf(HasSubstr("m.gguf: key \"general.architecture\": found \"mamba\""), HasSubstr("allowed: llama")));
}

TEST(GgufModel, FrequencyFactorsBecomeLlama3Scaling) {
  std::vector<std::string> metadata = Metadata("llama");
  metadata.push_back(Pair("llama.rope.freq_base", kFloat32, Le(500000.0f)));
  // A file whose factors are no such scaling (zeroes here) is refused.
  EXPECT_THAT(ConfigOf(metadata, {Info("rope_freqs.weight", {2}, 0, 64)}, 32).get<std::string>(),
              HasSubstr("tensor \"rope_freqs.weight\": found factor 2.36943e-38 at index 0"));
}

TEST(GgufModel, RefusesWhatItCannotName) {
  const auto error = [](const std::string& info, size_t bytes) {
    const std::string file = File(Metadata("llama"), {info}, bytes);
    return std::string(GgufTensors(ParseOrDie(file)).status().message());
  };
  EXPECT_THAT(error(Info("blk.0.mystery.weight", {8}, 0, 0), 32),
              HasSubstr("\"blk.0.mystery.weight\": unknown to llama"));
  EXPECT_THAT(error(Info("blk.x.attn_q.weight", {8, 8}, 0, 0), 256), HasSubstr("unknown to llama"));
  EXPECT_THAT(error(Info("output.weight", {256, 2}, 16, 0), 160), HasSubstr("found type IQ2_XXS, allowed: F32"));
  EXPECT_THAT(error(Info("blk.0.attn_q.weight", {8, 6}, 0, 0), 192), HasSubstr("found 6 rows, allowed: a multiple of"));
}

// Writes the bundled model as llama.cpp converts it: norms in F32, rows of q and k interleaved; `type` for matrices.
class GgufCopy {
 public:
  explicit GgufCopy(GgmlType type) : type_(type) {
    const Checkpoint checkpoint = *Checkpoint::Open(BundledModel());
    const ModelConfig config = *LoadModelConfig(BundledModel());
    Add("token_embd.weight", checkpoint, "model.embed_tokens.weight", 0);
    Add("output_norm.weight", checkpoint, "model.norm.weight", 0);
    for (int32_t l = 0; l < config.num_layers; ++l) {
      const std::string to = "blk." + std::to_string(l) + ".", from = "model.layers." + std::to_string(l) + ".";
      Add(to + "attn_norm.weight", checkpoint, from + "input_layernorm.weight", 0);
      Add(to + "attn_q.weight", checkpoint, from + "self_attn.q_proj.weight", config.q_heads);
      Add(to + "attn_k.weight", checkpoint, from + "self_attn.k_proj.weight", config.kv_heads);
      Add(to + "attn_v.weight", checkpoint, from + "self_attn.v_proj.weight", 0);
      Add(to + "attn_output.weight", checkpoint, from + "self_attn.o_proj.weight", 0);
      Add(to + "ffn_norm.weight", checkpoint, from + "post_attention_layernorm.weight", 0);
      Add(to + "ffn_gate.weight", checkpoint, from + "mlp.gate_proj.weight", 0);
      Add(to + "ffn_up.weight", checkpoint, from + "mlp.up_proj.weight", 0);
      Add(to + "ffn_down.weight", checkpoint, from + "mlp.down_proj.weight", 0);
    }
    const auto u32 = [](const std::string& key, int32_t value) {
      return Pair("llama." + key, kUint32, Le(static_cast<uint32_t>(value)));
    };
    path_ = testing::TempDir() + "quire_" + testing::UnitTest::GetInstance()->current_test_info()->name() + ".gguf";
    std::string head =
        File({Pair("general.architecture", kText, Text("llama")), u32("context_length", config.max_position_embeddings),
              u32("embedding_length", config.hidden_size), u32("block_count", config.num_layers),
              u32("feed_forward_length", config.intermediate_size), u32("attention.head_count", config.q_heads),
              u32("attention.head_count_kv", config.kv_heads), u32("attention.key_length", config.head_dim),
              u32("rope.dimension_count", config.head_dim),
              Pair("llama.attention.layer_norm_rms_epsilon", kFloat32, Le(1e-5f)),
              Pair("llama.rope.freq_base", kFloat32, Le(10000.0f))},
             infos_, 0);
    head.resize((head.size() + 31) / 32 * 32);
    std::ofstream(path_, std::ios::binary) << head << data_;
  }
  ~GgufCopy() { std::filesystem::remove(path_); }

  const std::string& path() const { return path_; }

 private:
  void Add(const std::string& name, const Checkpoint& checkpoint, const std::string& from, int64_t heads) {
    const StoredTensor& tensor = checkpoint.tensors().at(from).tensor;
    const bool is_vector = tensor.shape.size() == 1;
    const int64_t cols = tensor.shape.back(), rows = is_vector ? 1 : tensor.shape[0];
    const int64_t half = heads > 0 ? rows / heads / 2 : 0;
    infos_.push_back(Info(name,
                          is_vector ? std::vector<uint64_t>{static_cast<uint64_t>(cols)}
                                    : std::vector<uint64_t>{static_cast<uint64_t>(cols), static_cast<uint64_t>(rows)},
                          static_cast<uint32_t>(is_vector ? GgmlType::kF32 : type_), data_.size()));
    for (int64_t row = 0; row < rows; ++row) {
      // Row 2 i + h of a head of the file is row h * half + i of the head.
      const int64_t in_head = heads > 0 ? row % (2 * half) : 0;
      const int64_t source = heads > 0 ? row - in_head + in_head % 2 * half + in_head / 2 : row;
      std::vector<float> values(static_cast<size_t>(cols));
      std::vector<std::byte> aligned(static_cast<size_t>(cols) * DTypeBytes(tensor.dtype));
      std::memcpy(aligned.data(), tensor.data + source * static_cast<int64_t>(aligned.size()), aligned.size());
      for (int64_t i = 0; i < cols; ++i) values[i] = LoadFloat(aligned.data(), tensor.dtype, i);
      AppendRow(values, is_vector);
    }
    data_.resize((data_.size() + 31) / 32 * 32);
  }

  void AppendRow(const std::vector<float>& values, bool is_vector) {
    const auto cols = static_cast<int64_t>(values.size());
    std::string row;
    if (is_vector) {
      for (const float value : values) row += Le(value);
    } else if (type_ == GgmlType::kBF16) {
      for (const float value : values) row += Le(ToBFloat16(value).bits);
    } else {
      row.resize(static_cast<size_t>(RowBytes({DType::kFloat32, BlockFormat::kQ8_0}, cols)));
      QuantizeRow(BlockFormat::kQ8_0, values.data(), cols, row.data());
    }
    data_ += row;
  }

  const GgmlType type_;
  std::vector<std::string> infos_;
  std::string data_, path_;
};

std::map<RequestId, Output> Answers(const EngineOptions& options) {
  absl::StatusOr<LoadedModel> model = LoadModel(options);
  EXPECT_TRUE(model.ok()) << model.status();
  std::vector<std::shared_ptr<const Request>> requests;
  for (RequestId id = 1; id <= 3; ++id)
    requests.push_back(MakeRequest(id, RandomPrompt(id, 10 * id, static_cast<uint32_t>(model->config.vocab_size)), 16));
  return RunAll(model->plan.scheduler, std::move(model->runner), requests);
}

TEST(GgufModel, AnswersAsTheSafetensorsModelDoes) {
  const GgufCopy copy(GgmlType::kBF16);
  for (const BackendKind kind : {BackendKind::kRef, BackendKind::kCpu}) {
    EngineOptions options = BundledModelOptions(kind);
    const std::map<RequestId, Output> expected = Answers(options);
    options.model = copy.path();
    EXPECT_EQ(Answers(options), expected);
  }
}

// A file in Q8_0 and --quantization int8 are the same weights; both stay quantised.
TEST(GgufModel, QuantizedFilesAreAsQuantizingAtLoad) {
  const GgufCopy copy(GgmlType::kQ8_0);
  EngineOptions options = BundledModelOptions(BackendKind::kCpu);
  options.quantization = BlockFormat::kQ8_0;
  const std::map<RequestId, Output> expected = Answers(options);
  options.quantization = BlockFormat::kNone;
  options.model = copy.path();
  EXPECT_EQ(Answers(options), expected);
  const absl::StatusOr<LoadedModel> model = LoadModel(options);
  EXPECT_EQ(model->plan.weight_dtype, "q8_0");
  options.model = BundledModel();
  EXPECT_LT(model->plan.weight_bytes, LoadModel(options)->plan.weight_bytes * 6 / 10);
}

// llama.cpp's names of the same architecture, told apart by what else the file says.
TEST(GgufModel, DeepseekIsTheSecondOrTheThird) {
  std::vector<std::string> metadata = Metadata("deepseek2");
  const auto add = [&](const std::string& key, uint32_t value) {
    metadata.push_back(Pair("deepseek2." + key, kUint32, Le(value)));
  };
  add("attention.kv_lora_rank", 4);
  add("attention.key_length", 10);  // an older file: nope and rope together
  add("attention.value_length", 6);
  add("rope.dimension_count", 4);
  add("expert_count", 256);
  add("expert_used_count", 8);
  add("expert_feed_forward_length", 8);
  add("leading_dense_block_count", 1);
  json config = ConfigOf(metadata);
  EXPECT_EQ(config["architectures"][0], "DeepseekV2ForCausalLM");
  EXPECT_EQ(config["qk_nope_head_dim"], 6);
  EXPECT_EQ(config["v_head_dim"], 6);
  EXPECT_EQ(config["topk_method"], "greedy");
  add("expert_gating_func", 2);
  add("nextn_predict_layers", 1);
  config = ConfigOf(metadata);
  EXPECT_EQ(config["architectures"][0], "DeepseekV3ForCausalLM");
  EXPECT_EQ(config["n_group"], 8);  // of a file from before the key
  EXPECT_EQ(config["num_hidden_layers"], 1);
}

// Files from before W_uk and W_uv were split have both in one matrix, quantised: W_uk is read by its columns.
TEST(GgufModel, AnOlderDeepseekFileHasOneQuantizedKvB) {
  constexpr int64_t kRank = 32, kNope = 4, kStep = 8, kHeads = 2;
  std::vector<std::string> metadata = Metadata("deepseek2"), infos;
  for (const auto& [key, value] :
       std::vector<std::pair<std::string, uint32_t>>{{"attention.kv_lora_rank", kRank},
                                                     {"attention.key_length", kNope + 2},
                                                     {"attention.value_length", kStep - kNope},
                                                     {"rope.dimension_count", 2},
                                                     {"expert_count", 2},
                                                     {"expert_used_count", 1},
                                                     {"expert_feed_forward_length", 8},
                                                     {"leading_dense_block_count", 2}})
    metadata.push_back(Pair("deepseek2." + key, kUint32, Le(value)));
  size_t bytes = 0, kv_b = 0;
  const auto add = [&](const std::string& name, const std::vector<uint64_t>& dims, GgmlType type = GgmlType::kF32) {
    infos.push_back(Info(name, dims, static_cast<uint32_t>(type), bytes));
    const uint64_t elements = dims[0] * (dims.size() > 1 ? dims[1] : 1);
    bytes += ((type == GgmlType::kF32 ? elements * 4 : elements / 32 * 34) + 31) / 32 * 32;
  };
  add("token_embd.weight", {8, 4});
  add("output_norm.weight", {8});
  for (const std::string layer : {"blk.0.", "blk.1."}) {
    add(layer + "attn_norm.weight", {8});
    add(layer + "attn_q.weight", {8, kHeads * (kNope + 2)});
    add(layer + "attn_kv_a_mqa.weight", {8, kRank + 2});
    add(layer + "attn_kv_a_norm.weight", {kRank});
    kv_b = bytes;  // of the second layer
    add(layer + "attn_kv_b.weight", {kRank, kHeads * kStep}, GgmlType::kQ8_0);
    add(layer + "attn_output.weight", {kHeads * (kStep - kNope), 8});
    add(layer + "ffn_norm.weight", {8});
    for (const std::string part : {"gate", "up"}) add(layer + "ffn_" + part + ".weight", {8, 16});
    add(layer + "ffn_down.weight", {16, 8});
  }
  std::string file = File(metadata, infos, bytes);
  std::vector<std::vector<float>> rows(kHeads * kStep, std::vector<float>(kRank));
  for (size_t row = 0; row < rows.size(); ++row) {
    for (size_t i = 0; i < kRank; ++i) rows[row][i] = static_cast<float>((row * 37 + i * 11) % 29) - 14.0f;
    char* const block = file.data() + file.size() - bytes + kv_b + row * 34;
    QuantizeRow(BlockFormat::kQ8_0, rows[row].data(), kRank, block);
    DequantizeRow(BlockFormat::kQ8_0, block, kRank, rows[row].data());
  }
  const std::string path = testing::TempDir() + "quire_old_deepseek.gguf";
  std::ofstream(path, std::ios::binary) << file;
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(path);
  ASSERT_TRUE(config.ok()) << config.status();
  const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(path);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ASSERT_TRUE(CheckTensors(*config, *checkpoint).ok()) << CheckTensors(*config, *checkpoint);
  const std::unique_ptr<Backend> ref = MakeBackend(BackendKind::kRef);  // packed as it is written: row-major
  const absl::StatusOr<Weights> weights = LoadWeights(*config, DType::kBFloat16, *checkpoint, *ref);
  ASSERT_TRUE(weights.ok()) << weights.status();
  const LatentWeights& latent = weights->layers[1].latent;
  const auto value = [](const LinearWeight& weight, int64_t i) {
    return LoadFloat(weight.data.data(), DType::kBFloat16, i);
  };
  const auto rounded = [&](int64_t row, int64_t i) { return ToFloat(ToBFloat16(rows[row][i])); };
  for (int64_t head = 0; head < kHeads; ++head) {
    for (int64_t r = 0; r < kRank; ++r) {
      for (int64_t c = 0; c < kNope; ++c) {
        EXPECT_EQ(value(latent.k_up[head], r * kNope + c), rounded(head * kStep + c, r));
        EXPECT_EQ(value(latent.v_up[head], c * kRank + r), rounded(head * kStep + kNope + c, r));
      }
    }
  }
  std::filesystem::remove(path);
}

TEST(GgufModel, AScaleThatIsNoNumberIsNamed) {
  const GgufCopy copy(GgmlType::kQ8_0);
  int64_t last_block = 0;
  {
    const absl::StatusOr<MappedFile> mapped = MappedFile::Open(copy.path());
    const Gguf gguf = *ParseGguf(mapped->bytes(), copy.path());
    last_block = gguf.tensors.back().data + gguf.tensors.back().bytes - 34 - mapped->bytes().data();
  }
  std::fstream file(copy.path(), std::ios::binary | std::ios::in | std::ios::out);
  file.seekp(last_block);  // d, then 32 codes
  const uint16_t nan = 0x7e00;
  file.write(reinterpret_cast<const char*>(&nan), sizeof nan);
  file.close();
  for (const BackendKind kind : {BackendKind::kRef, BackendKind::kCpu}) {
    EngineOptions options = BundledModelOptions(kind);
    options.model = copy.path();
    EXPECT_THAT(std::string(LoadModel(options).status().message()),
                AllOf(HasSubstr(copy.path() + ": tensor \"model.layers."),
                      HasSubstr("mlp.down_proj.weight\": found a scale that is no finite number in row")));
  }
}

// float32 asks for numbers, whatever the file has.
TEST(GgufModel, Float32UnpacksWhatIsQuantized) {
  const GgufCopy copy(GgmlType::kQ8_0);
  EngineOptions options = BundledModelOptions(BackendKind::kCpu);
  options.model = copy.path();
  const uint64_t quantized = LoadModel(options)->plan.weight_bytes;
  options.dtype = DType::kFloat32;
  const absl::StatusOr<LoadedModel> model = LoadModel(options);
  EXPECT_EQ(model->plan.weight_dtype, "float32");
  EXPECT_GT(model->plan.weight_bytes, quantized * 3);
  const std::map<RequestId, Output> cpu = Answers(options);
  options.backend.kind = BackendKind::kRef;
  const std::map<RequestId, Output> ref = Answers(options);
  for (const auto& [id, output] : ref) EXPECT_EQ(output.tokens, cpu.at(id).tokens);
}

TEST(GgufModel, LoadFormatMustFitThePath) {
  EngineOptions options = BundledModelOptions(BackendKind::kCpu);
  options.load_format = LoadFormat::kGguf;
  EXPECT_THAT(std::string(LoadModel(options).status().message()), HasSubstr("--load-format: found gguf"));
}

}  // namespace
}  // namespace quire
