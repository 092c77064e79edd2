// Tokenizer::Parse on any bytes: an error of one line, or a tokenizer that encodes and decodes any text.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "server/tokenizer/tokenizer.h"
#include "tests/fuzz/one_line.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const auto tokenizer = quire::Tokenizer::Parse(text, "file");
  quire::CheckOneLine(tokenizer.status());
  if (!tokenizer.ok()) return 0;
  const std::vector<uint32_t> ids = (*tokenizer)->Encode(text, /*add_special_tokens=*/true);
  for (const uint32_t id : ids) quire::Check(id < (*tokenizer)->vocab_size(), "an id beyond the vocabulary");
  (*tokenizer)->DecodeBytes(ids, /*skip_special_tokens=*/false);
  return 0;
}
