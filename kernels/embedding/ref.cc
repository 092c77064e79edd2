#include "kernels/embedding/impl.h"

namespace quire {

void RefEmbedding(const EmbeddingArgs& args) {
  const LinearWeight& table = *args.table;
  for (int64_t r = 0; r < args.x.rows; ++r) {
    for (int64_t i = 0; i < table.k; ++i) {
      args.x.Row<float>(r)[i] = LoadFloat(table.data.data(), table.dtype, args.ids[r] * table.k + i);
    }
  }
}

}  // namespace quire
