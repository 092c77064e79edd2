// ParseSafetensors on any bytes: an error of one line, or tensors that lie within the file.

#include <cstddef>
#include <cstdint>

#include "engine/safetensors.h"
#include "tests/fuzz/one_line.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto* const begin = reinterpret_cast<const std::byte*>(data);
  const auto tensors = quire::ParseSafetensors({begin, size}, "file");
  quire::CheckOneLine(tensors.status());
  if (!tensors.ok()) return 0;
  for (const quire::StoredTensor& tensor : *tensors) {
    quire::Check(tensor.data >= begin && tensor.data + tensor.bytes <= begin + size, "a tensor beyond its file");
  }
  return 0;
}
