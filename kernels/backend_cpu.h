// The CPU backend: packed weights, kernels for the instruction set chosen at Create, and a pool of workers.

#ifndef QUIRE_KERNELS_BACKEND_CPU_H_
#define QUIRE_KERNELS_BACKEND_CPU_H_

#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace quire {

// INVALID_ARGUMENT for an instruction set that is unknown or that this CPU lacks, and what ThreadPool::Create refuses.
absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(const BackendOptions& options);

}  // namespace quire

#endif  // QUIRE_KERNELS_BACKEND_CPU_H_
