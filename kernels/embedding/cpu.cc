#include "kernels/cpu/parallel.h"
#include "kernels/embedding/impl.h"
#include "kernels/linear/impl.h"

namespace quire {
namespace {

// A row of W is a lane of its panel: its elements lie 128 to 256 bytes apart.
template <class T>
void GatherRow(const EmbeddingArgs& args, uint32_t id, float* x) {
  const LinearWeight& table = *args.table;
  const int64_t panel = id / kPanelRows, lane = id % kPanelRows;
  const T* const from = static_cast<const T*>(table.data.data()) + panel * PanelElements(table.k, table.dtype);
  for (int64_t i = 0; i < table.k; ++i) {
    const float value = args.scale * ToFloat(from[PanelIndex(lane, i, table.dtype)]);
    x[i] = args.accumulate ? x[i] + value : value;
  }
}

}  // namespace

void CpuEmbedding(const EmbeddingArgs& args, ThreadPool& pool) {
  constexpr int64_t kElementsOfWork = 8;  // a cache line each: as slow as so many elements of other operations
  ParallelRows(pool, args.x.rows, args.x.cols * kElementsOfWork, [&](int64_t row) {
    float* const x = args.x.Row<float>(row);
    if (!args.table->slabs.empty()) {
      return CpuLoadRow(*args.table, args.Id(row), [&](int64_t i, float value) {
        x[i] = args.accumulate ? x[i] + args.scale * value : args.scale * value;
      });
    }
    switch (args.table->dtype) {
      case DType::kFloat32:
        return GatherRow<float>(args, args.Id(row), x);
      case DType::kBFloat16:
        return GatherRow<BFloat16>(args, args.Id(row), x);
      case DType::kFloat16:
        return GatherRow<Float16>(args, args.Id(row), x);
    }
  });
}

}  // namespace quire
