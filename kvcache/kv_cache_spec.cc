#include "kvcache/kv_cache_spec.h"

#include <algorithm>
#include <limits>
#include <map>

#include "kernels/check.h"
#include "kvcache/kv_table_layout.h"

namespace quire {
namespace {

constexpr double kMaxPadding = 1.0 / 8;  // of the layers of a kind

int32_t CeilDiv(int32_t a, int32_t b) { return (a + b - 1) / b; }

// How many layers a group should have, given how many there are of each kind.
int32_t LayersPerGroup(absl::Span<const int32_t> counts) {
  const int32_t most = *std::max_element(counts.begin(), counts.end());
  struct Choice {
    int32_t width;
    int32_t num_groups;
    double padding;  // the worst of all kinds
  };
  Choice best{1, std::numeric_limits<int32_t>::max(), 0};
  for (int32_t width = 1; width <= most; ++width) {
    Choice choice{width, 0, 0};
    for (const int32_t count : counts) {
      const int32_t groups = CeilDiv(count, width);
      choice.num_groups += groups;
      choice.padding = std::max(choice.padding, double(groups * width - count) / count);
    }
    if (choice.padding > kMaxPadding) continue;  // never with width 1
    if (choice.num_groups < best.num_groups ||
        (choice.num_groups == best.num_groups && choice.padding < best.padding)) {
      best = choice;
    }
  }
  return best.width;
}

}  // namespace

KvCacheSpec MakeKvCacheSpec(const KvShape& shape, absl::Span<const int32_t> windows) {
  Check(!windows.empty(), "a KV cache has at least one layer");
  Check(shape.quantization == KvQuantization::kNone || (!shape.is_latent() && shape.dtype == DType::kBFloat16),
        "a cache that cannot be quantised");
  std::map<int32_t, std::vector<int32_t>> layers_of;  // by window: 0, all positions, comes first
  for (size_t layer = 0; layer < windows.size(); ++layer) {
    Check(windows[layer] >= 0 && !(windows[layer] > 0 && shape.is_latent()), "a window that no layer can have");
    layers_of[windows[layer]].push_back(static_cast<int32_t>(layer));
  }
  std::vector<int32_t> counts;
  for (const auto& [window, layers] : layers_of) counts.push_back(static_cast<int32_t>(layers.size()));

  KvCacheSpec spec{shape, {}, LayersPerGroup(counts)};
  const KvKind kind_of_all = shape.is_latent() ? KvKind::kLatent : KvKind::kFull;
  for (const auto& [window, layers] : layers_of) {
    for (size_t begin = 0; begin < layers.size(); begin += spec.layers_per_group) {
      const size_t end = std::min(layers.size(), begin + spec.layers_per_group);
      spec.groups.push_back({.kind = window > 0 ? KvKind::kWindow : kind_of_all,
                             .window = window,
                             .layers = {layers.begin() + begin, layers.begin() + end}});
    }
  }
  return spec;
}

KvCacheSpec MakeKvCacheSpec(const KvShape& shape, int32_t num_layers) {
  return MakeKvCacheSpec(shape, std::vector<int32_t>(num_layers, 0));
}

int32_t KvCacheSpec::NumLayers() const {
  size_t num_layers = 0;
  for (const KvGroup& group : groups) num_layers += group.layers.size();
  return static_cast<int32_t>(num_layers);
}

int32_t KvCacheSpec::GroupOf(int32_t layer) const {
  for (size_t group = 0; group < groups.size(); ++group) {
    if (std::binary_search(groups[group].layers.begin(), groups[group].layers.end(), layer)) {
      return static_cast<int32_t>(group);
    }
  }
  Check(false, "no such layer");
  return 0;
}

int32_t KvCacheSpec::PlaceInGroup(int32_t layer) const {
  const std::vector<int32_t>& layers = groups[GroupOf(layer)].layers;
  return static_cast<int32_t>(std::lower_bound(layers.begin(), layers.end(), layer) - layers.begin());
}

std::vector<int32_t> KvCacheSpec::Windows() const {
  std::vector<int32_t> windows;
  for (const KvGroup& group : groups) windows.push_back(group.window);
  return windows;
}

uint64_t KvCacheSpec::BytesPerSequence(int64_t num_tokens) const {
  uint64_t bytes = 0;
  for (const KvGroup& group : groups) {
    const int64_t kept = group.window > 0 ? std::min<int64_t>(num_tokens, group.window) : num_tokens;
    bytes += static_cast<uint64_t>(kept) * group.layers.size() * BytesPerTokenPerLayer();
  }
  return bytes;
}

int64_t KvCacheSpec::BlocksFor(int64_t num_tokens) const {
  return KvTableLayout{.block_size = block_size, .windows = Windows()}.MaxBlocks(num_tokens);
}

int64_t KvCacheSpec::TokensIn(int64_t num_blocks, int64_t max_tokens) const {
  const KvTableLayout layout{.block_size = block_size, .windows = Windows()};
  int64_t fits = 0, too_many = max_tokens + 1;
  while (too_many - fits > 1) {
    const int64_t middle = fits + (too_many - fits) / 2;
    (layout.MaxBlocks(middle) <= num_blocks ? fits : too_many) = middle;
  }
  return fits;
}

}  // namespace quire
