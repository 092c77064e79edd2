#include "engine/gguf_model.h"

#include <cstring>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "engine/gguf_family.h"
#include "engine/json_text.h"
#include "engine/mapped_file.h"

namespace quire {
namespace {

constexpr uint64_t kMaxConfigBytes = 1 << 20;
constexpr int64_t kMaxHeads = 1 << 24;  // the config's reader has a bound of its own
constexpr int64_t kMaxExperts = 1 << 12;

// How the engine calls the elements of a tensor; nullopt where it has no such.
std::optional<WeightFormat> FormatOf(GgmlType type) {
  const auto blocks = [](BlockFormat format) { return WeightFormat(DType::kBFloat16, format); };
  switch (type) {
    case GgmlType::kF32:
      return DType::kFloat32;
    case GgmlType::kF16:
      return DType::kFloat16;
    case GgmlType::kBF16:
      return DType::kBFloat16;
    case GgmlType::kQ4_0:
      return blocks(BlockFormat::kQ4_0);
    case GgmlType::kQ4_1:
      return blocks(BlockFormat::kQ4_1);
    case GgmlType::kQ5_0:
      return blocks(BlockFormat::kQ5_0);
    case GgmlType::kQ5_1:
      return blocks(BlockFormat::kQ5_1);
    case GgmlType::kQ8_0:
      return blocks(BlockFormat::kQ8_0);
    case GgmlType::kQ2_K:
      return blocks(BlockFormat::kQ2_K);
    case GgmlType::kQ3_K:
      return blocks(BlockFormat::kQ3_K);
    case GgmlType::kQ4_K:
      return blocks(BlockFormat::kQ4_K);
    case GgmlType::kQ5_K:
      return blocks(BlockFormat::kQ5_K);
    case GgmlType::kQ6_K:
      return blocks(BlockFormat::kQ6_K);
    case GgmlType::kMXFP4:
      return blocks(BlockFormat::kMxfp4);
  }
  return std::nullopt;
}

// Of every family that has no other name for it.
constexpr GgufName kModelNames[] = {
    {"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"}};
constexpr GgufName kLayerNames[] = {{"attn_norm", "input_layernorm"},
                                    {"attn_q", "self_attn.q_proj"},
                                    {"attn_k", "self_attn.k_proj"},
                                    {"attn_v", "self_attn.v_proj"},
                                    {"attn_output", "self_attn.o_proj"},
                                    {"attn_q_norm", "self_attn.q_norm"},
                                    {"attn_k_norm", "self_attn.k_norm"},
                                    {"ffn_norm", "post_attention_layernorm"},
                                    {"ffn_gate", "mlp.gate_proj"},
                                    {"ffn_up", "mlp.up_proj"},
                                    {"ffn_down", "mlp.down_proj"},
                                    {"ffn_gate_inp", "mlp.gate"},
                                    {"ffn_gate_exps", "mlp.experts.gate_proj"},
                                    {"ffn_up_exps", "mlp.experts.up_proj"},
                                    {"ffn_down_exps", "mlp.experts.down_proj"}};

// `name`, or its part before ".weight" or ".bias", by the table; empty where it is not in it.
std::string Renamed(absl::Span<const GgufName> names, absl::string_view name) {
  absl::string_view stem = name;
  const absl::string_view suffix = absl::EndsWith(name, ".bias") ? ".bias" : ".weight";
  if (!absl::ConsumeSuffix(&stem, suffix)) return "";
  for (const GgufName& each : names) {
    if (name == each.gguf) return each.ours;
    if (stem == each.gguf) return absl::StrCat(each.ours, suffix);
  }
  return "";
}

// "blk.7.attn_q.weight" as ours; empty where it is unknown.
std::string OurName(const GgufFamily& family, absl::string_view name) {
  const bool is_of_layer = absl::ConsumePrefix(&name, "blk.");
  std::string prefix;
  if (is_of_layer) {
    const size_t dot = name.find('.');
    int32_t layer = 0;
    if (dot == absl::string_view::npos || !absl::SimpleAtoi(name.substr(0, dot), &layer) || layer < 0) return "";
    prefix = absl::StrCat(family.layers, layer, ".");
    name = name.substr(dot + 1);
  }
  std::string ours = Renamed(is_of_layer ? family.names : family.model_names, name);
  if (ours.empty()) ours = is_of_layer ? Renamed(kLayerNames, name) : Renamed(kModelNames, name);
  return ours.empty() ? "" : prefix + ours;
}

// What the config is made of, or nobody reads.
bool IsNoWeight(absl::string_view name) {
  return name == "rope_freqs.weight" || name == "rope_factors_long.weight" || name == "rope_factors_short.weight" ||
         absl::StrContains(name, ".nextn.");
}

// A stack [experts, rows, cols] as one matrix for each: NAME.experts.PART becomes NAME.experts.E.PART.
void AppendExperts(const StoredTensor& stack, std::vector<StoredTensor>& tensors) {
  const size_t dot = stack.name.find(".experts.") + std::strlen(".experts.");
  for (int64_t e = 0; e < stack.shape[0]; ++e) {
    StoredTensor expert = stack;
    expert.name = absl::StrCat(stack.name.substr(0, dot), e, ".", stack.name.substr(dot));
    expert.shape = {stack.shape[1], stack.shape[2]};
    expert.bytes = stack.bytes / static_cast<uint64_t>(stack.shape[0]);
    expert.data = stack.data + e * static_cast<int64_t>(expert.bytes);
    tensors.push_back(std::move(expert));
  }
}

}  // namespace

bool IsGgufPath(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(path, ignored);
}

absl::StatusOr<std::vector<StoredTensor>> GgufTensors(const Gguf& gguf) {
  const GgufMetadata& metadata = gguf.metadata;
  const absl::StatusOr<const GgufFamily*> family = GgufFamilyOf(gguf);
  if (!family.ok()) return family.status();
  const std::string prefix = absl::StrCat((*family)->name, ".attention.head_count");
  const absl::StatusOr<int64_t> q_heads = metadata.Integer(prefix, 1, kMaxHeads);
  if (!q_heads.ok()) return q_heads.status();
  const absl::StatusOr<int64_t> kv_heads = metadata.Integer(prefix + "_kv", 1, kMaxHeads);
  std::vector<StoredTensor> tensors;
  for (const GgufTensor& from : gguf.tensors) {
    if (IsNoWeight(from.name)) continue;
    const auto error = [&](auto... parts) {
      return absl::InvalidArgumentError(absl::StrCat(metadata.file(), ": tensor ", Quoted(from.name), ": ", parts...));
    };
    const std::optional<WeightFormat> format = FormatOf(from.type->type);
    if (!format.has_value()) {
      return error("found type ", from.type->name,
                   ", allowed: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, MXFP4");
    }
    StoredTensor tensor = {.name = OurName(**family, from.name),
                           .dtype = format->dtype,
                           .shape = from.shape,
                           .data = from.data,
                           .bytes = from.bytes,
                           .blocks = format->blocks};
    if (tensor.name.empty()) return error("unknown to ", (*family)->name);
    if (format->quantized() && from.shape.size() == 1) return error("found a vector of type ", from.type->name);
    if ((*family)->interleaves_rotary && absl::StrContains(tensor.name, ".q_proj."))
      tensor.interleaved_heads = *q_heads;
    if ((*family)->interleaves_rotary && absl::StrContains(tensor.name, ".k_proj."))
      tensor.interleaved_heads = kv_heads.ok() ? *kv_heads : *q_heads;
    if (tensor.interleaved_heads > 0 && tensor.shape[0] % (2 * tensor.interleaved_heads) != 0) {
      return error("found ", tensor.shape[0], " rows, allowed: a multiple of twice its ", tensor.interleaved_heads,
                   " heads");
    }
    if ((*family)->norms_are_shifted && absl::EndsWith(tensor.name, "norm.weight")) tensor.addend = -1;
    if (absl::StrContains(tensor.name, ".experts.") && absl::EndsWith(tensor.name, ".weight")) {
      if (tensor.shape.size() != 3 || tensor.shape[0] > kMaxExperts)
        return error("found ", tensor.shape.size(), " dimensions, allowed 3, at most ", kMaxExperts, " experts");
      AppendExperts(tensor, tensors);
    } else {
      tensors.push_back(std::move(tensor));
    }
  }
  return tensors;
}

absl::StatusOr<std::string> ReadConfigText(const std::string& path, std::string& name) {
  name = IsGgufPath(path) ? path : path + "/config.json";
  if (!IsGgufPath(path)) return ReadTextFile(name, kMaxConfigBytes);
  const absl::StatusOr<MappedFile> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  const absl::StatusOr<Gguf> gguf = ParseGguf(file->bytes(), path);
  if (!gguf.ok()) return gguf.status();
  return GgufConfigText(*gguf);
}

}  // namespace quire
