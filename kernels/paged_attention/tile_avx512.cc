// The tile kernels in AVX-512, products in float32.

#include "kernels/paged_attention/lanes_avx512.h"
#include "kernels/paged_attention/tile_body.h"

namespace quire::attention {

const AttentionKernels* Avx512Attention() {
  static constexpr AttentionKernels kKernels[] = {
      Softmax<FmaProduct<float>>::Table(), Softmax<FmaProduct<Bf16>>::Table(), Softmax<FmaProduct<F16>>::Table()};
  return kKernels;
}

}  // namespace quire::attention
