// Builds the bytes of GGUF files for tests, good ones and broken ones.

#ifndef QUIRE_TESTS_ENGINE_GGUF_BYTES_H_
#define QUIRE_TESTS_ENGINE_GGUF_BYTES_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace quire::gguf_bytes {

template <typename T>
inline std::string Le(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}
inline std::string Text(const std::string& text) { return Le<uint64_t>(text.size()) + text; }

// Metadata pairs, by the format's type numbers.
inline std::string Pair(const std::string& key, uint32_t type, const std::string& value) {
  return Text(key) + Le(type) + value;
}
inline std::string Array(uint32_t type, uint64_t count, const std::string& elements) {
  return Le(type) + Le(count) + elements;
}
constexpr uint32_t kUint32 = 4, kInt32 = 5, kFloat32 = 6, kBool = 7, kText = 8, kArray = 9, kUint64 = 10, kFloat64 = 12;

inline std::string Info(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
  std::string info = Text(name) + Le<uint32_t>(dims.size());
  for (const uint64_t dim : dims) info += Le(dim);
  return info + Le(type) + Le(offset);
}

// A file of these pairs and infos, and `data_bytes` of data from the next multiple of `alignment` on.
inline std::string File(const std::vector<std::string>& pairs, const std::vector<std::string>& infos, size_t data_bytes,
                        uint32_t version = 3, size_t alignment = 32) {
  std::string file = "GGUF" + Le(version) + Le<uint64_t>(infos.size()) + Le<uint64_t>(pairs.size());
  for (const std::string& pair : pairs) file += pair;
  for (const std::string& info : infos) file += info;
  if (data_bytes > 0) file.resize((file.size() + alignment - 1) / alignment * alignment);
  return file + std::string(data_bytes, '\x01');
}

}  // namespace quire::gguf_bytes

#endif  // QUIRE_TESTS_ENGINE_GGUF_BYTES_H_
