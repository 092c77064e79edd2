// Staging: host arrays on their way to the device: pinned memory that is filled from its beginning, and the device's
// copy of it. Device is CudaDevice, or the emulation's in tests.
//
// The pinned memory is there twice, so that a step may be staged while the device has yet to read what the one before
// staged. Its copies are made in the order of the stream: of them the device needs one.

#ifndef QUIRE_KERNELS_CUDA_STAGING_H_
#define QUIRE_KERNELS_CUDA_STAGING_H_

#include <array>
#include <cstddef>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/check.h"
#include "kernels/cuda/workspace_sizes.h"
#include "kernels/tensor.h"

namespace quire::cuda {

template <typename Device>
class Staging {
 public:
  absl::Status Allocate(size_t bytes, Device& device) {
    for (Buffer& host : hosts_) {
      absl::StatusOr<Buffer> pinned = device.AllocatePinned(bytes);
      if (!pinned.ok()) return pinned.status();
      host = *std::move(pinned);
    }
    absl::StatusOr<Buffer> copy = device.Allocate(bytes);
    if (!copy.ok()) return copy.status();
    device_ = *std::move(copy);
    return absl::OkStatus();
  }

  // All arrays are forgotten. REQUIRES: the device has read those that were forgotten by the last call.
  void Clear() {
    used_ = sent_ = 0;
    arrays_.clear();
    which_ ^= 1;
  }

  size_t bytes_left() const { return device_.bytes() - used_; }

  // Room for `count` elements: where the host writes them and where the device will read them.
  template <typename T>
  std::pair<T*, T*> Next(size_t count) {
    const size_t at = used_, bytes = StagedBytes<T>(count);
    Check(bytes <= bytes_left(), "a step's inputs are larger than planned");
    used_ += bytes;
    return {reinterpret_cast<T*>(host() + at), reinterpret_cast<T*>(static_cast<char*>(device_.data()) + at)};
  }
  // The device's copy of an array, which goes up with what surrounds it (Send); nullptr of none.
  template <typename T>
  T* Put(const T* from, size_t count) {
    if (count == 0) return nullptr;
    const auto [host, copy] = Next<T>(count);
    std::memcpy(host, from, count * sizeof(T));
    return copy;
  }
  // Sends all that was put since Clear or the last call.
  void Send(Device& device) {
    device.CopyToDevice(static_cast<char*>(device_.data()) + sent_, host() + sent_, used_ - sent_);
    sent_ = used_;
  }

  // As Put, of an array that stays as it is until Clear: it goes up once.
  template <typename T>
  const T* PutOnce(const T* from, size_t count) {
    for (const Array& array : arrays_) {
      if (array.host == from && array.bytes == count * sizeof(T)) return static_cast<const T*>(array.device);
    }
    const T* copy = Put(from, count);
    arrays_.push_back({from, count * sizeof(T), copy});
    return copy;
  }
  // Forgets all arrays since Clear, none of which was sent.
  void Rewind() {
    Check(sent_ == 0, "staged arrays are forgotten that were sent");
    used_ = 0;
    arrays_.clear();
  }

 private:
  struct Array {
    const void* host;
    size_t bytes;
    const void* device;
  };
  char* host() const { return static_cast<char*>(hosts_[which_].data()); }

  std::array<Buffer, 2> hosts_;
  size_t which_ = 0;
  Buffer device_;
  size_t used_ = 0, sent_ = 0;
  std::vector<Array> arrays_;
};

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_CUDA_STAGING_H_
