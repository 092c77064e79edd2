// ReadAhead: asks the system for the parts of mapped files that are read next, so that the disk works while what is
// there already is packed. Page faults alone would wait for each piece.

#ifndef QUIRE_ENGINE_READ_AHEAD_H_
#define QUIRE_ENGINE_READ_AHEAD_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/types/span.h"

namespace quire {

// Owns a thread, from construction to destruction.
class ReadAhead {
 public:
  // How far ahead of the reader: enough for a disk's queue, little beside a model.
  static constexpr uint64_t kWindowBytes = uint64_t{256} << 20;

  // `regions` in the order in which they will be read. They stay mapped.
  explicit ReadAhead(std::vector<absl::Span<const std::byte>> regions);
  ~ReadAhead();

  // The reader has come to region `index`. Any thread.
  void Reached(size_t index);

 private:
  void Run();

  const std::vector<absl::Span<const std::byte>> regions_;
  std::vector<uint64_t> begins_;  // [regions] bytes of all before
  std::mutex mutex_;
  std::condition_variable moved_;
  uint64_t reached_ = 0;  // bytes; guarded by mutex_, as is stops_
  bool stops_ = false;
  std::thread thread_;
};

}  // namespace quire

#endif  // QUIRE_ENGINE_READ_AHEAD_H_
