#include "kernels/cuda/device_info.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace quire::cuda {
namespace {

constexpr int32_t kMinMajor = 8;    // mma of bfloat16, cp.async
constexpr int32_t kWgmmaMajor = 9;  // and no other: later ones have no wgmma

}  // namespace

absl::Status NoDevice(absl::string_view why) {
  return absl::UnavailableError(
      absl::StrCat("backend cuda: found no CUDA device (", why, "); --backend cpu needs none"));
}

absl::Status CheckCapability(const DeviceInfo& info) {
  if (info.major >= kMinMajor) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrFormat(
      "backend cuda: found %s of compute capability %d.%d, allowed %d.0 and later; --backend cpu needs no device",
      info.name, info.major, info.minor, kMinMajor));
}

absl::Status CheckSharedMemory(const DeviceInfo& info, size_t needed, int32_t group, int32_t head_dim) {
  if (needed <= info.max_shared_bytes) return absl::OkStatus();
  return absl::UnimplementedError(absl::StrFormat(
      "backend cuda: found %s, whose CTAs have %d bytes of shared memory; attention with %d query heads for a KV head "
      "and heads of %d dims takes %d",
      info.name, info.max_shared_bytes, group, head_dim, needed));
}

absl::StatusOr<bool> PrefillsByWgmma(const DeviceInfo& info, PrefillAttention chosen) {
  if (chosen != PrefillAttention::kWgmma) return false;
  if (info.major == kWgmmaMajor) return true;
  return absl::UnimplementedError(absl::StrFormat(
      "--prefill-attention: found wgmma, allowed auto and mma: %s is of compute capability %d.%d, and wgmma needs %d.0",
      info.name, info.major, info.minor, kWgmmaMajor));
}

absl::Status OutOfDeviceMemory(size_t needed, size_t free_bytes, size_t total_bytes) {
  return absl::ResourceExhaustedError(
      absl::StrFormat("device memory: needed %d bytes more, free %d of %d; a smaller --gpu-memory-utilization, "
                      "--kv-cache-memory, --max-num-batched-tokens or --max-model-len fits",
                      needed, free_bytes, total_bytes));
}

}  // namespace quire::cuda
