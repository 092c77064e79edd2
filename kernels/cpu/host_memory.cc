#include "kernels/cpu/host_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"

namespace quire {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;
// What is faulted in at once: some milliseconds' work, so that a buffer need not wait longer to go.
constexpr size_t kFaultBytes = size_t{16} << 20;

// Faults in [data, data + bytes), whole pages, until it is told to stop.
void FaultIn(std::stop_token stop, char* data, size_t bytes) {
#ifdef MADV_POPULATE_WRITE
  for (size_t done = 0; done < bytes && !stop.stop_requested(); done += kFaultBytes) {
    if (madvise(data + done, std::min(kFaultBytes, bytes - done), MADV_POPULATE_WRITE) != 0) return;
  }
#endif
}

absl::Status Exhausted(size_t bytes) {
  return absl::ResourceExhaustedError(absl::StrFormat("cannot allocate %d bytes (%.2f GiB) of host memory: %s", bytes,
                                                      static_cast<double>(bytes) / static_cast<double>(size_t{1} << 30),
                                                      std::strerror(ENOMEM)));
}

// Whole huge pages at a multiple of their size: maps one more than needed and gives the ends back.
absl::StatusOr<Buffer> AllocateHuge(size_t bytes) {
  if (bytes > SIZE_MAX / 2) return Exhausted(bytes);
  const size_t mapped = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  void* const raw = mmap(nullptr, mapped + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return Exhausted(bytes);
  char* const begin = static_cast<char*>(raw);
  const size_t head = (kHugePage - reinterpret_cast<uintptr_t>(raw) % kHugePage) % kHugePage;
  char* const data = begin + head;
  if (head > 0) munmap(begin, head);
  if (head < kHugePage) munmap(data + mapped, kHugePage - head);
  madvise(data, mapped, MADV_HUGEPAGE);  // advice: without it the memory is slower, not wrong
  return Buffer(data, bytes, [mapped](void* p) { munmap(p, mapped); });
}

}  // namespace

absl::StatusOr<Buffer> AllocateHostMemory(size_t bytes) {
  if (bytes >= kHugePage) return AllocateHuge(bytes);
  const size_t rounded =
      (bytes + kAlignment) / kAlignment * kAlignment;  // at least one unit: a Buffer of 0 bytes has an address
  void* const data = std::aligned_alloc(kAlignment, rounded);
  if (data == nullptr) return Exhausted(bytes);
  std::memset(data, 0, rounded);
  return Buffer(data, bytes, [](void* p) { std::free(p); });
}

absl::StatusOr<Buffer> AllocateFaultedHostMemory(size_t bytes) {
  absl::StatusOr<Buffer> memory = AllocateHostMemory(bytes);
  if (!memory.ok() || bytes < kHugePage) return memory;  // what comes from the heap is written already
  const auto data = static_cast<char*>(memory->data());
  // A std::function must be copyable: hence shared, though by nobody.
  const auto pages = std::make_shared<Buffer>(*std::move(memory));
  const auto thread = std::make_shared<std::jthread>(FaultIn, data, bytes / kHugePage * kHugePage);
  return Buffer(data, bytes, [pages, thread](void*) {
    *thread = std::jthread();  // stops it and waits
    *pages = Buffer();
  });
}

}  // namespace quire
