#include <vector>

#include "kernels/embedding/impl.h"
#include "kernels/linear/impl.h"

namespace quire {

void RefEmbedding(const EmbeddingArgs& args) {
  const LinearWeight& table = *args.table;
  std::vector<float> values(static_cast<size_t>(table.k));
  for (int64_t r = 0; r < args.x.rows; ++r) {
    RefLoadRow(table, args.Id(r), values.data());
    for (int64_t i = 0; i < table.k; ++i) {
      const float value = args.scale * values[i];
      float& x = args.x.Row<float>(r)[i];
      x = args.accumulate ? x + value : value;
    }
  }
}

}  // namespace quire
