#include "kernels/paged_attention/kv_record.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/dtype.h"
#include "kernels/paged_attention/kv_codes.h"

namespace quire {

void WriteKvRecord(KvQuantization quantization, const float* x, int32_t head_dim, char* record) {
  uint32_t largest = 0;
  for (int32_t d = 0; d < head_dim; ++d) largest = std::max(largest, kv::SizeBits(x[d]));
  const uint16_t scale_bits = kv::ScaleBits(quantization, largest);
  const float scale = kv::Scale(scale_bits);
  const int64_t code_bytes = KvHeadBytes(DType::kBFloat16, quantization, head_dim) - int64_t{sizeof scale_bits};
  std::memcpy(record + code_bytes, &scale_bits, sizeof scale_bits);
  if (!kv::HasCodes(scale)) {
    std::memset(record, 0, static_cast<size_t>(code_bytes));
    return;
  }
  if (quantization == KvQuantization::kInt4) {
    for (int32_t d = 0; d < head_dim; d += 2) {
      record[d / 2] =
          static_cast<char>(kv::ToCode(quantization, x[d], scale) | kv::ToCode(quantization, x[d + 1], scale) << 4);
    }
    return;
  }
  for (int32_t d = 0; d < head_dim; ++d) record[d] = static_cast<char>(kv::ToCode(quantization, x[d], scale));
}

float LoadKvRecord(KvQuantization quantization, const char* record, int32_t head_dim, int32_t dim) {
  uint16_t scale_bits;
  const int64_t code_bytes = KvHeadBytes(DType::kBFloat16, quantization, head_dim) - int64_t{sizeof scale_bits};
  std::memcpy(&scale_bits, record + code_bytes, sizeof scale_bits);
  return kv::FromRecord(quantization, record, dim) * kv::Scale(scale_bits);
}

}  // namespace quire
