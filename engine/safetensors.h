// Safetensors: one file of tensors, mapped read-only.
//
//   u64 little-endian N | N bytes of JSON: {name: {dtype, shape, data_offsets: [begin, end)}} | data
//
// Nothing in the file is trusted: the header's length, every key, shape and offset is checked before a byte of data is
// looked at; tensors must tile the data without holes or overlap. Data need not be aligned. The one thing that cannot
// be checked is the future: whoever truncates the file while it is mapped kills the process, so files are replaced by
// rename.

#ifndef QUIRE_ENGINE_SAFETENSORS_H_
#define QUIRE_ENGINE_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/stored_tensor.h"

namespace quire {

// The tensors of a file's bytes, by name. INVALID_ARGUMENT in one line names `name` (the file), the tensor, what was
// found and what is allowed. The result points into `file`.
absl::StatusOr<std::vector<StoredTensor>> ParseSafetensors(absl::Span<const std::byte> file, absl::string_view name);

}  // namespace quire

#endif  // QUIRE_ENGINE_SAFETENSORS_H_
