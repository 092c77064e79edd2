// The reference backend: plain float32 loops on one thread, the definition of every operation.

#ifndef QUIRE_KERNELS_BACKEND_REF_H_
#define QUIRE_KERNELS_BACKEND_REF_H_

#include <memory>

#include "kernels/backend.h"

namespace quire {

std::unique_ptr<Backend> CreateRefBackend();

}  // namespace quire

#endif  // QUIRE_KERNELS_BACKEND_REF_H_
