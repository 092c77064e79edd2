#include "kernels/cpu/vector_avx512.h"
// The vector comes first: the kernels are written in terms of it.
#include "kernels/cpu/table.h"

namespace quire {
namespace {

// vdpbf16ps: sum += w[0] * x[0] + w[1] * x[1] in each lane, products exact, subnormals taken as zero.
struct BFloat16PairWeight {
  using Element = uint16_t;
  using X = uint16_t;
  using W = __m512bh;
  using XVector = __m512bh;
  static constexpr int kStep = 2;
  static constexpr int kParts = 1;
  static constexpr int64_t kStepBytes = kPanelRows * 4;
  static constexpr bool kConvertsX = false;
  static W Load(const char* step, int64_t lane, int part) {
    return reinterpret_cast<W>(_mm512_loadu_si512(step + lane * 4));
  }
  static XVector Broadcast(const X* x) {
    int pair;
    __builtin_memcpy(&pair, x, sizeof pair);
    return reinterpret_cast<XVector>(_mm512_set1_epi32(pair));
  }
  static Vector::F MultiplyAdd(W w, XVector x, Vector::F sum) { return _mm512_dpbf16_ps(sum, w, x); }
};

}  // namespace

const CpuKernels& Avx512Bf16Kernels() { return kTable<BFloat16PairWeight>; }

}  // namespace quire
