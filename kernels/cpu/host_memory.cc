#include "kernels/cpu/host_memory.h"

#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
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

// Memory and the thread that faults it in.
class BackgroundFaults {
 public:
  explicit BackgroundFaults(Buffer memory) : memory_(std::move(memory)), thread_([this] { Run(); }) {}
  ~BackgroundFaults() {
    stop_.store(true, std::memory_order_relaxed);
    thread_.join();
  }

  const Buffer& memory() const { return memory_; }

 private:
  void Run() {
    const sched_param none = {};
    sched_setscheduler(0, SCHED_IDLE, &none);  // of this thread; where that is refused it is only less polite
    for (size_t done = 0; done < memory_.bytes() && !stop_.load(std::memory_order_relaxed); done += kHugePage)
      FaultIn(static_cast<char*>(memory_.data()) + done, std::min(kHugePage, memory_.bytes() - done));
  }

  Buffer memory_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

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

void FaultIn(void* data, size_t bytes) {
#ifdef MADV_POPULATE_WRITE
  const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = reinterpret_cast<uintptr_t>(data) / page * page;
  const uintptr_t end = reinterpret_cast<uintptr_t>(data) + bytes;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_POPULATE_WRITE);  // advice, as above
#endif
}

Buffer FaultInBackground(Buffer memory) {
  constexpr size_t kMinBytes = 8 * kHugePage;
  if (memory.bytes() < kMinBytes) return memory;
  auto faults = std::make_shared<BackgroundFaults>(std::move(memory));
  const Buffer& held = faults->memory();
  void* const data = held.data();
  const size_t bytes = held.bytes();
  return Buffer(data, bytes, [faults = std::move(faults)](void*) mutable { faults.reset(); });
}

}  // namespace quire
