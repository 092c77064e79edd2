#include "kernels/embedding/impl.h"

namespace quire {

void RefEmbedding(const EmbeddingArgs& args) {
  const LinearWeight& table = *args.table;
  for (int64_t r = 0; r < args.x.rows; ++r) {
    for (int64_t i = 0; i < table.k; ++i) {
      const float value = args.scale * LoadFloat(table.data.data(), table.dtype, args.ids[r] * table.k + i);
      float& x = args.x.Row<float>(r)[i];
      x = args.accumulate ? x + value : value;
    }
  }
}

}  // namespace quire
