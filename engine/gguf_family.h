// GgufFamily: one of llama.cpp's architectures, and what its converter renames in it. Internal to what reads GGUF
// models.

#ifndef QUIRE_ENGINE_GGUF_FAMILY_H_
#define QUIRE_ENGINE_GGUF_FAMILY_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/gguf.h"

namespace quire {

// A tensor's name there and here; without ".weight" or ".bias" where it is so of both.
struct GgufName {
  const char* gguf;
  const char* ours;
};

// What config.json calls the sizes that every family has.
struct GgufSizeKeys {
  const char* hidden = "hidden_size";
  const char* layers = "num_hidden_layers";
  const char* inner = "intermediate_size";
  const char* q_heads = "num_attention_heads";
  const char* positions = "max_position_embeddings";
};

struct GgufFamily {
  const char* name;  // general.architecture
  const char* architecture;
  const char* model_type;
  absl::Span<const GgufName> names = {};  // of a layer, where they differ from Llama's
  // Rows of q and k alternate the two halves of a head, as rotating neighbours wants them; else the halves lie apart.
  bool interleaves_rotary = false;
  bool norms_are_shifted = false;               // norm weights hold 1 + w
  absl::Span<const GgufName> model_names = {};  // of no layer, where they differ from Llama's
  const char* layers = "model.layers.";
  GgufSizeKeys sizes = {};

  bool Is(absl::string_view type) const { return model_type == type; }
  bool IsLatent() const { return Is("deepseek_v2") || Is("deepseek_v3"); }
};

// All that are read; an architecture of llama.cpp may be several families.
absl::Span<const GgufFamily> GgufFamilies();

// The family of a file. An error lists the architectures that there are.
absl::StatusOr<const GgufFamily*> GgufFamilyOf(const Gguf& gguf);

// nullptr where the file has none of the name.
const GgufTensor* FindTensor(const Gguf& gguf, absl::string_view name);

}  // namespace quire

#endif  // QUIRE_ENGINE_GGUF_FAMILY_H_
