// GGUF: one file of typed metadata and tensors, as llama.cpp writes it, versions 2 and 3, little-endian.
//
//   "GGUF" | u32 version | u64 tensors | u64 pairs | pairs of metadata | tensor infos | padding | data
//   pair: text key, u32 type, value          text: u64 length, bytes          array: u32 type, u64 count, elements
//   info: text name, u32 dimensions, u64 each (fastest first), u32 type, u64 offset in the data, a multiple of
//   general.alignment (32 where absent)
//
// Nothing in the file is trusted: lengths, counts, types, shapes and offsets are checked before a byte of data is
// looked at, and tensors must follow one another in the order of their infos with padding to the alignment alone
// between them. Memory is bounded by a small multiple of the part of the file before the data. Errors are
// INVALID_ARGUMENT in one line that names the file, the key or tensor, what was found and what is allowed.

#ifndef QUIRE_ENGINE_GGUF_H_
#define QUIRE_ENGINE_GGUF_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace quire {

// Types of metadata, by the format's numbers.
enum class GgufValueType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kText,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};

// Elements of one type: texts as views of the file, numbers as they lie there, of any alignment.
struct GgufArray {
  GgufValueType type = GgufValueType::kUint8;  // no kArray: arrays of arrays are refused
  uint64_t count = 0;
  const std::byte* numbers = nullptr;         // [count] of type; nullptr for texts
  std::vector<absl::string_view> texts = {};  // [count] for kText, else empty
};

using GgufValue = std::variant<uint64_t, int64_t, double, bool, absl::string_view, GgufArray>;

// Typed access to the pairs of a file. A getter's error is NOT_FOUND where the key is missing, INVALID_ARGUMENT where
// its value is of another kind or outside what is allowed; both name file and key. Views point into the file.
class GgufMetadata {
 public:
  GgufMetadata() = default;
  GgufMetadata(std::string file, std::map<std::string, GgufValue, std::less<>> pairs)
      : file_(std::move(file)), pairs_(std::move(pairs)) {}

  const std::string& file() const { return file_; }  // for messages
  const std::map<std::string, GgufValue, std::less<>>& pairs() const { return pairs_; }
  bool Has(absl::string_view key) const { return pairs_.find(key) != pairs_.end(); }

  absl::StatusOr<int64_t> Integer(absl::string_view key, int64_t min, int64_t max) const;
  absl::StatusOr<double> Number(absl::string_view key) const;  // finite; an integer is one too
  absl::StatusOr<bool> Bool(absl::string_view key) const;
  absl::StatusOr<absl::string_view> Text(absl::string_view key) const;
  absl::StatusOr<absl::Span<const absl::string_view>> Texts(absl::string_view key) const;
  absl::StatusOr<std::vector<int64_t>> Integers(absl::string_view key, int64_t min, int64_t max) const;  // bool: 0, 1
  absl::StatusOr<std::vector<float>> Numbers(absl::string_view key) const;                               // finite

 private:
  std::string file_;
  std::map<std::string, GgufValue, std::less<>> pairs_;
};

// Types of tensors, by ggml's numbers. The reader knows the size of more types than the engine computes with.
enum class GgmlType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30,
  kMXFP4 = 39,
};

struct GgmlTypeInfo {
  GgmlType type;
  const char* name;      // as llama.cpp prints it: "Q4_K"
  uint32_t block_len;    // elements of a row that are stored together
  uint32_t block_bytes;  // bytes of such a block
};
// nullptr for a number that is no type of a stored tensor.
const GgmlTypeInfo* FindGgmlType(uint32_t number);

struct GgufTensor {
  std::string name;
  const GgmlTypeInfo* type = nullptr;
  std::vector<int64_t> shape;       // slowest first, as safetensors has it: a matrix is [rows, cols]
  const std::byte* data = nullptr;  // rows of cols / block_len blocks; aligned to general.alignment in the file
  uint64_t bytes = 0;
};

struct Gguf {
  uint32_t version = 0;
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;  // in the order of the file
};

// The contents of a file's bytes; `name` is what messages call the file. The result points into `file`. A file without
// tensors (a vocabulary) is fine.
absl::StatusOr<Gguf> ParseGguf(absl::Span<const std::byte> file, absl::string_view name);

}  // namespace quire

#endif  // QUIRE_ENGINE_GGUF_H_
