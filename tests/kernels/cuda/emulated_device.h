// EmulatedDevice: what CudaDevice (kernels/cuda/cuda_device.cuh) is, on the CPU. Device memory is the host's, and a
// linear is the definition's loop in place of cuBLASLt.
//
// The stream does everything at once, or, with EmulationOptions::lazy, as late as it may: when somebody waits. Then
// pinned memory that is written too soon, or read before somebody waited, shows in the result.
//
// A graph is the list of what was asked for while it was captured, with the arguments of then.

#ifndef QUIRE_TESTS_KERNELS_CUDA_EMULATED_DEVICE_H_
#define QUIRE_TESTS_KERNELS_CUDA_EMULATED_DEVICE_H_

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <typeindex>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cpu/host_memory.h"
#include "kernels/cuda/device_info.h"
#include "kernels/linear/impl.h"
#include "tests/kernels/cuda/emulation.h"

namespace quire::cuda {

class EmulatedDevice {
 public:
  explicit EmulatedDevice(const EmulationOptions& options = {}) : lazy_(options.lazy), grid_(options) {}

  static constexpr int32_t kNumSms = 3;

  const DeviceInfo& info() const { return info_; }
  absl::Status status() const { return status_; }
  absl::StatusOr<Buffer> Allocate(size_t bytes) {
    if (allocated_bytes_ + bytes > capacity_)
      return OutOfDeviceMemory(bytes, capacity_ - allocated_bytes_, info_.total_bytes);
    allocated_bytes_ += bytes;
    ++num_allocations_;
    return AllocateHostMemory(bytes);
  }
  absl::StatusOr<Buffer> AllocatePinned(size_t bytes) {
    ++num_allocations_;
    return AllocateHostMemory(bytes);
  }
  // What Allocate was ever asked for; how often it, or AllocatePinned, was asked.
  uint64_t allocated_bytes() const { return allocated_bytes_; }
  int num_allocations() const { return num_allocations_; }
  void CopyToDevice(void* to, const void* from, size_t bytes) { Copy(to, from, bytes); }
  void CopyToHost(void* to, const void* from, size_t bytes) { Copy(to, from, bytes); }
  void CopyOnDevice(void* to, const void* from, size_t bytes) { Copy(to, from, bytes); }
  void Clear(void* to, size_t bytes) {
    Do([=] { std::memset(to, 0, bytes); });
  }
  absl::Status Synchronize() {
    ++num_waits_;
    DoUntil(num_asked_);
    return status_;
  }
  using Graph = std::vector<std::function<void()>>;
  void BeginCapture() { captured_.emplace(); }
  Graph EndCapture() { return *std::exchange(captured_, std::nullopt); }
  void Replay(const Graph& graph) {
    ++num_replays_;
    for (const auto& act : graph) Do(act);
  }
  int num_replays() const { return num_replays_; }
  // How often somebody waited for all that the device was asked for, and not for a mark.
  int num_waits() const { return num_waits_; }
  // Whether all that it was asked for is done.
  bool is_idle() const { return queue_.empty(); }
  // Kernels, and linears for which a library chooses an algorithm, that were launched at least once.
  size_t num_seen() const { return seen_.size(); }
  void Record(int mark) { marks_[mark] = num_asked_; }
  absl::Status Await(int mark) {
    DoUntil(marks_[mark]);
    return status_;
  }

  // As if others had taken all but so many bytes since it was asked what is free.
  void SetCapacity(uint64_t bytes) { capacity_ = bytes; }
  // As if the device failed now.
  void Fail(absl::Status status) { status_ = std::move(status); }

  static size_t LinearWorkspaceBytes() { return 64; }
  void Linear(const LinearArgs& args, void* workspace) {
    seen_.insert(std::array{static_cast<uint64_t>(args.weight->n), static_cast<uint64_t>(args.weight->k),
                            std::bit_ceil(static_cast<uint64_t>(args.x.rows))});
    Do([args] { RefLinear(args); });
  }

  // CTAs of a kernel that the device holds at once: few, so that small problems are split and queued as large ones are.
  template <typename Kernel>
  int64_t MaxCtas() {
    return int64_t{kNumSms} * Kernel::kMinCtas;
  }

  template <typename Kernel>
  void Run(int64_t num_ctas, const typename Kernel::Params& params) {
    if (num_ctas == 0) return;
    seen_.insert(std::type_index(typeid(Kernel)));
    Do([this, num_ctas, params] {
      grid_.Run(static_cast<int>(num_ctas), Kernel::kThreads, Kernel::kSharedBytes,
                [&](const EmulatedThread& thread) { Kernel::Run(thread, params); });
    });
  }

 private:
  template <typename Act>
  void Do(Act act) {
    if (!status_.ok()) return;
    if (captured_.has_value()) return captured_->push_back(std::move(act));
    ++num_asked_;
    if (lazy_) return queue_.push_back(std::move(act));
    act();
  }
  // Does what was asked for first, until `count` acts are done. A device that has failed does nothing more.
  void DoUntil(uint64_t count) {
    for (; num_asked_ - queue_.size() < count && !queue_.empty(); queue_.pop_front()) {
      if (status_.ok()) queue_.front()();
    }
  }
  void Copy(void* to, const void* from, size_t bytes) {
    if (bytes == 0) return;
    Do([=] { std::memcpy(to, from, bytes); });
  }

  DeviceInfo info_{.name = "emulation",
                   .major = 9,
                   .minor = 0,
                   .num_sms = kNumSms,
                   .max_shared_bytes = size_t{227} << 10,
                   .total_bytes = uint64_t{1} << 40,
                   .free_bytes = uint64_t{1} << 40};
  absl::Status status_;
  const bool lazy_;
  std::deque<std::function<void()>> queue_;  // asked for and not done
  std::optional<Graph> captured_;
  int num_replays_ = 0, num_waits_ = 0, num_allocations_ = 0;
  uint64_t allocated_bytes_ = 0, capacity_ = info_.total_bytes;
  std::set<std::variant<std::type_index, std::array<uint64_t, 3>>>
      seen_;  // kernels; n, k and rows of linears, rounded up
  uint64_t num_asked_ = 0;
  std::array<uint64_t, 2> marks_ = {0, 0};  // num_asked_ when they were made
  EmulatedGrid grid_;
};

}  // namespace quire::cuda

#endif  // QUIRE_TESTS_KERNELS_CUDA_EMULATED_DEVICE_H_
