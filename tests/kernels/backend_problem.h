// What the tests that go through a Backend share: backends of every instruction set, and weights packed by them.

#ifndef QUIRE_TESTS_KERNELS_BACKEND_PROBLEM_H_
#define QUIRE_TESTS_KERNELS_BACKEND_PROBLEM_H_

#include <cmath>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "tests/kernels/cpu_problem.h"

namespace quire {

inline std::unique_ptr<Backend> RefBackend() { return *CreateBackend({.kind = BackendKind::kRef}); }

inline std::unique_ptr<Backend> CpuBackend(CpuIsa isa, int num_threads, const WorkspaceShape& shape) {
  std::unique_ptr<Backend> backend = *CreateBackend(
      {.kind = BackendKind::kCpu, .num_threads = num_threads, .cpu_bind = {}, .cpu_isa = std::string(CpuIsaName(isa))});
  if (!backend->AllocateWorkspace(shape).ok()) std::abort();
  return backend;
}

// `count` weights [n, k] of random numbers, the same for every backend.
inline std::vector<LinearWeight> RandomWeights(Backend& backend, int64_t count, int64_t n, int64_t k,
                                               WeightFormat format, uint32_t seed) {
  std::vector<LinearWeight> weights;
  for (int64_t i = 0; i < count; ++i) {
    Matrix matrix(DType::kFloat32, n, k);
    matrix.FillRandom(seed + static_cast<uint32_t>(i) * 17, 1.0f / std::sqrt(static_cast<float>(k)));
    weights.push_back(*backend.PackLinear({matrix.tensor()}, format));
  }
  return weights;
}

// Largest difference over all elements.
inline float Difference(const Matrix& a, const Matrix& b) {
  float most = 0;
  for (int64_t r = 0; r < a.tensor().rows; ++r) {
    for (int64_t c = 0; c < a.tensor().cols; ++c) {
      const float difference = std::fabs(a.At(r, c) - b.At(r, c));
      if (!(difference <= most)) most = difference;  // NaN stays
    }
  }
  return most;
}

}  // namespace quire

#endif  // QUIRE_TESTS_KERNELS_BACKEND_PROBLEM_H_
