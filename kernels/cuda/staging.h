// Staging: host arrays on their way to the device: pinned memory that is filled from its beginning, and the device's
// copy of it. Device is CudaDevice, or the emulation's in tests.

#ifndef QUIRE_KERNELS_CUDA_STAGING_H_
#define QUIRE_KERNELS_CUDA_STAGING_H_

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
    absl::StatusOr<Buffer> host = device.AllocatePinned(bytes), copy = device.Allocate(bytes);
    if (!host.ok()) return host.status();
    if (!copy.ok()) return copy.status();
    host_ = *std::move(host);
    device_ = *std::move(copy);
    return absl::OkStatus();
  }

  // All arrays are forgotten. REQUIRES: the device has read them.
  void Clear() {
    used_ = sent_ = 0;
    arrays_.clear();
  }

  size_t bytes_left() const { return host_.bytes() - used_; }

  // Room for `count` elements: where the host writes them and where the device will read them.
  template <typename T>
  std::pair<T*, T*> Next(size_t count) {
    const size_t at = used_, bytes = StagedBytes<T>(count);
    Check(bytes <= bytes_left(), "a step's inputs are larger than planned");
    used_ += bytes;
    return {reinterpret_cast<T*>(static_cast<char*>(host_.data()) + at),
            reinterpret_cast<T*>(static_cast<char*>(device_.data()) + at)};
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
    device.CopyToDevice(static_cast<char*>(device_.data()) + sent_, static_cast<char*>(host_.data()) + sent_,
                        used_ - sent_);
    sent_ = used_;
  }

  // The same of one array, at once: its memory may be used again afterwards.
  template <typename T>
  const T* CopyFresh(const T* from, size_t count, Device& device) {
    if (count == 0) return nullptr;
    const auto [host, copy] = Next<T>(count);
    std::memcpy(host, from, count * sizeof(T));
    device.CopyToDevice(copy, host, count * sizeof(T));
    return copy;
  }
  // The same of an array that stays as it is until Clear: it goes up once.
  template <typename T>
  const T* Copy(const T* from, size_t count, Device& device) {
    if (from == nullptr || count == 0) return nullptr;
    for (const Array& array : arrays_) {
      if (array.host == from && array.bytes == count * sizeof(T)) return static_cast<const T*>(array.device);
    }
    const T* copy = CopyFresh(from, count, device);
    arrays_.push_back({from, count * sizeof(T), copy});
    return copy;
  }

 private:
  struct Array {
    const void* host;
    size_t bytes;
    const void* device;
  };
  Buffer host_, device_;
  size_t used_ = 0, sent_ = 0;
  std::vector<Array> arrays_;
};

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_CUDA_STAGING_H_
