// ParseGguf on any bytes, then what is made of its contents: an error of one line, or tensors that lie within the file.

#include <cstddef>
#include <cstdint>
#include <string>

#include "engine/gguf.h"
#include "engine/gguf_model.h"
#include "engine/model_config.h"
#include "server/tokenizer/gguf_vocabulary.h"
#include "tests/fuzz/one_line.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto* const begin = reinterpret_cast<const std::byte*>(data);
  const auto gguf = quire::ParseGguf({begin, size}, "file");
  quire::CheckOneLine(gguf.status());
  if (!gguf.ok()) return 0;
  for (const auto& [key, value] : gguf->metadata.pairs()) {  // every getter on every kind of value
    quire::CheckOneLine(gguf->metadata.Integer(key, -5, 1 << 20).status());
    quire::CheckOneLine(gguf->metadata.Number(key).status());
    quire::CheckOneLine(gguf->metadata.Bool(key).status());
    quire::CheckOneLine(gguf->metadata.Text(key).status());
    quire::CheckOneLine(gguf->metadata.Texts(key).status());
    quire::CheckOneLine(gguf->metadata.Integers(key, -5, 1 << 20).status());
    quire::CheckOneLine(gguf->metadata.Numbers(key).status());
  }
  quire::CheckOneLine(quire::ReadGgufVocabulary(gguf->metadata).status());
  const absl::StatusOr<std::string> text = quire::GgufConfigText(*gguf);
  quire::CheckOneLine(text.status());
  if (text.ok()) quire::CheckOneLine(quire::ParseModelConfig(*text, "file").status());
  const auto tensors = quire::GgufTensors(*gguf);
  quire::CheckOneLine(tensors.status());
  if (!tensors.ok()) return 0;
  for (const quire::StoredTensor& tensor : *tensors) {
    quire::Check(tensor.data >= begin && tensor.data + tensor.bytes <= begin + size, "a tensor beyond its file");
  }
  return 0;
}
