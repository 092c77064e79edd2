// Element types of tensors and their conversions to and from float32.

#ifndef QUIRE_KERNELS_DTYPE_H_
#define QUIRE_KERNELS_DTYPE_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace quire {

enum class DType : uint8_t { kFloat32, kBFloat16, kFloat16 };

// Bytes of one element.
constexpr size_t DTypeBytes(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

// The name that flags and metrics use: "float32", "bfloat16", "float16".
constexpr std::string_view DTypeName(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return "float32";
    case DType::kBFloat16:
      return "bfloat16";
    case DType::kFloat16:
      return "float16";
  }
  return "";
}

// The inverse of DTypeName; nullopt for any other text.
constexpr std::optional<DType> ParseDType(std::string_view name) {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    if (DTypeName(dtype) == name) return dtype;
  }
  return std::nullopt;
}

// Storage of a bfloat16: the upper half of a float32.
struct BFloat16 {
  uint16_t bits;
};

// Storage of an IEEE 754 binary16.
struct Float16 {
  uint16_t bits;
};

inline float ToFloat(float value) { return value; }

inline float ToFloat(BFloat16 value) { return std::bit_cast<float>(uint32_t{value.bits} << 16); }

// Rounds to nearest, ties to even; a NaN stays a (quiet) NaN.
inline BFloat16 ToBFloat16(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  bits += 0x7fffu + ((bits >> 16) & 1u);
  return {static_cast<uint16_t>(bits >> 16)};
}

float ToFloat(Float16 value);
Float16 ToFloat16(float value);  // rounds to nearest, ties to even; overflow becomes infinity

// Element `index` of an array of dtype, as float32 and, rounded as above, back. For the plain code that is the
// definition.
float LoadFloat(const void* data, DType dtype, int64_t index);
void StoreFloat(void* data, DType dtype, int64_t index, float value);

}  // namespace quire

#endif  // QUIRE_KERNELS_DTYPE_H_
