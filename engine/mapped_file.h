// MappedFile: a file's bytes, mapped read-only.

#ifndef QUIRE_ENGINE_MAPPED_FILE_H_
#define QUIRE_ENGINE_MAPPED_FILE_H_

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace quire {

// Unmapped on destruction. Move-only. Whoever truncates the file while it is mapped kills the process, so files are
// replaced by rename.
class MappedFile {
 public:
  // NOT_FOUND; INVALID_ARGUMENT where it is no regular file or empty.
  static absl::StatusOr<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  absl::Span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  MappedFile(const std::byte* data, size_t size) : data_(data), size_(size) {}

  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Begins to read the pages of [begin, end), part of a mapped file, and does not wait for them. Any thread.
void FetchPages(const std::byte* begin, const std::byte* end);

// Gives back the memory of the whole pages within [begin, end), part of a mapped file: whoever reads them again waits
// for the system's page cache or the disk. Any thread.
void ReleasePages(const std::byte* begin, const std::byte* end);

}  // namespace quire

#endif  // QUIRE_ENGINE_MAPPED_FILE_H_
