// ParseModelConfig on any bytes: an error of one line, or a config whose sizes can be multiplied.

#include <cstddef>
#include <cstdint>

#include "engine/model_config.h"
#include "tests/fuzz/one_line.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto config = quire::ParseModelConfig({reinterpret_cast<const char*>(data), size}, "file");
  quire::CheckOneLine(config.status());
  if (config.ok()) quire::Check(config->NumParameters() > 0, "a model without parameters");
  return 0;
}
