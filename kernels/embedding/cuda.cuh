// The kernel of kernels/embedding/cuda.h: one CTA for each row.

#ifndef QUIRE_KERNELS_EMBEDDING_CUDA_CUH_
#define QUIRE_KERNELS_EMBEDDING_CUDA_CUH_

#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"
#include "kernels/embedding/cuda.h"

namespace quire::cuda {

template <typename T>
struct EmbeddingKernel {
  struct Params {
    const uint32_t* ids;        // [num_ctas]
    const SampledToken* drawn;  // by what follows kDrawn in an id
    const T* table;             // [n, hidden]
    int64_t hidden;
    float* x;  // [num_ctas, hidden], rows x_stride apart
    int64_t x_stride;
    float scale;
    bool accumulate;
  };
  static constexpr int kThreads = 256;
  static constexpr int kMinCtas = 4;
  static constexpr int kSharedBytes = 0;

  template <typename Thread>
  static QUIRE_DEVICE void Run(const Thread& thread, const Params& p) {
    const int64_t row = thread.cta();
    const uint32_t given = p.ids[row];
    const uint32_t id = (given & kDrawn) != 0 ? p.drawn[given & ~kDrawn].id : given;
    const T* from = p.table + int64_t{id} * p.hidden;
    float* to = p.x + row * p.x_stride;
    for (int64_t i = thread.thread(); i < p.hidden; i += kThreads) {
      const float value = MultiplyRounded(p.scale, Load(from + i));
      to[i] = p.accumulate ? to[i] + value : value;
    }
  }
};

template <typename Device>
void Embedding(const EmbeddingArgs& args, Device& device) {
  WithElement(args.table->dtype, [&]<typename T>(T) {
    device.template Run<EmbeddingKernel<T>>(
        args.x.rows, {args.ids, args.drawn, static_cast<const T*>(args.table->data.data()), args.table->k,
                      args.x.Row<float>(0), args.x.row_stride, args.scale, args.accumulate});
  });
}

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_EMBEDDING_CUDA_CUH_
