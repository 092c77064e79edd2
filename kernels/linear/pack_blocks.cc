// Packing of quantised weights for `cpu`, and reading a packed row back. Layout: kernels/linear/block_format.h.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/cpu/parallel.h"
#include "kernels/linear/block_visit.h"
#include "kernels/linear/blocks.h"
#include "kernels/linear/impl.h"

namespace quire {
namespace {

// Where element `i` of a chunk lies in a plane of `bits` bits whose first word is `word`: the byte, and the shift in
// it.
template <class Traits>
struct CodePlace {
  using Layout = BlockLayout<Traits>;
  int64_t byte;
  int shift;

  CodePlace(int word, int bits, int64_t lane, int i) {
    const int step_bit = i / 4 * bits;
    byte = ((word + step_bit / 8) * Layout::kLanes + lane) * 4 + i % 4;
    shift = step_bit % 8;
  }
};

// The codes of a chunk, four to a word as they lie in it: see CodePlace.
template <class Traits>
void StoreCodes(const uint8_t* codes, uint8_t* chunk, int64_t lane) {
  using Layout = BlockLayout<Traits>;
  constexpr int kLow = Layout::kLowBits, kHigh = Layout::kHighBits;
  constexpr uint32_t kBytes = 0x01010101u, kLowMask = kBytes * ((1u << kLow) - 1),
                     kHighMask = kBytes * ((1u << kHigh) - 1);
  uint32_t words[kLow + kHigh] = {};
  for (int s = 0; s < Layout::kChunk / 4; ++s) {
    uint32_t four;
    std::memcpy(&four, codes + 4 * s, sizeof four);
    words[s * kLow / 8] |= (four & kLowMask) << (s * kLow % 8);
    if constexpr (kHigh > 0) words[kLow + s * kHigh / 8] |= (four >> kLow & kHighMask) << (s * kHigh % 8);
  }
  for (int w = 0; w < kLow + kHigh; ++w)
    std::memcpy(chunk + (w * Layout::kLanes + lane) * 4, &words[w], sizeof words[w]);
}

template <class Traits>
uint8_t LoadCode(const uint8_t* chunk, int64_t lane, int i) {
  using Layout = BlockLayout<Traits>;
  const CodePlace<Traits> low(0, Layout::kLowBits, lane, i);
  int code = chunk[low.byte] >> low.shift & ((1 << Layout::kLowBits) - 1);
  if constexpr (Layout::kHighBits > 0) {
    const CodePlace<Traits> high(Layout::kLowBits, Layout::kHighBits, lane, i);
    code |= (chunk[high.byte] >> high.shift & ((1 << Layout::kHighBits) - 1)) << Layout::kLowBits;
  }
  return static_cast<uint8_t>(code);
}

template <class Traits>
void StoreBlock(const DecodedBlock& block, uint8_t* super, int64_t lane) {
  using Layout = BlockLayout<Traits>;
  uint8_t* const scales = super + Layout::kScales + lane * 2;
  std::memcpy(scales, &block.d, 2);
  if constexpr (Traits::kHasMin) std::memcpy(scales + Layout::kLanes * 2, &block.dmin, 2);
  for (int c = 0; c < Layout::kChunksPerSuper; ++c) {
    uint8_t* const chunk = super + Layout::kFirstChunk + c * Layout::kChunkBytes;
    StoreCodes<Traits>(block.codes + c * Layout::kChunk, chunk, lane);
    if constexpr (Traits::kHasSubScales) {
      for (int g = 0; g < Layout::kGroupsPerChunk; ++g) {
        uint8_t* const sub = chunk + Layout::kCodeBytes + g * Layout::kLanes + lane;
        const int group = c * Layout::kGroupsPerChunk + g;
        *sub = static_cast<uint8_t>(block.scales[group]);
        if constexpr (Traits::kHasMin)
          sub[Layout::kGroupsPerChunk * Layout::kLanes] = static_cast<uint8_t>(block.mins[group]);
      }
    }
  }
}

template <class Traits>
void LoadRow(const LinearWeight& weight, const WeightSlab& slab, int64_t row,
             absl::FunctionRef<void(int64_t i, float value)> set) {
  using Layout = BlockLayout<Traits>;
  const int64_t num_supers = NumBlocks(slab.blocks, weight.k), lane = row % kPanelRows;
  const uint8_t* super = static_cast<const uint8_t*>(weight.data.data()) + slab.offset +
                         row / kPanelRows * num_supers * Layout::kSuperBytes;
  for (int64_t s = 0; s < num_supers; ++s, super += Layout::kSuperBytes) {
    uint16_t half = 0, half_min = 0;
    std::memcpy(&half, super + Layout::kScales + lane * 2, 2);
    if constexpr (Traits::kHasMin) std::memcpy(&half_min, super + Layout::kScales + (Layout::kLanes + lane) * 2, 2);
    const float d = HalfOf<Traits>(half), dmin = HalfOf<Traits>(half_min);
    const int64_t begin = s * Traits::kSuper;
    for (int64_t i = 0; i < std::min<int64_t>(Traits::kSuper, weight.k - begin); ++i) {
      const uint8_t* const chunk = super + Layout::kFirstChunk + i / Layout::kChunk * Layout::kChunkBytes;
      const int in_chunk = static_cast<int>(i % Layout::kChunk);
      const uint8_t* const sub = chunk + Layout::kCodeBytes + in_chunk / Traits::kGroup * Layout::kLanes + lane;
      const int scale = Traits::kHasSubScales ? static_cast<int8_t>(*sub) : 1;
      const int min = Traits::kHasSubScales && Traits::kHasMin ? sub[Layout::kGroupsPerChunk * Layout::kLanes] : 1;
      const int code = ValueOf<Traits>(LoadCode<Traits>(chunk, lane, in_chunk)) - Traits::kOffset;
      const float value = d * static_cast<float>(scale) * static_cast<float>(code);
      set(begin + i, Traits::kHasMin ? value - dmin * static_cast<float>(min) : value);
    }
  }
}

}  // namespace

BlockRowReader::BlockRowReader(absl::Span<const MatrixSource> parts, BlockFormat blocks)
    : parts_(parts), blocks_(blocks) {
  int64_t bytes = 0;
  for (const MatrixSource& part : parts) bytes = std::max(bytes, RowBytes(part.format, part.cols));
  stored_.resize(static_cast<size_t>(bytes));
  values_.resize(static_cast<size_t>(parts[0].cols));
}

void BlockRowReader::Read(int64_t row, std::byte* to) {
  const MatrixSource* part = parts_.data();
  while (row >= part->rows) row -= (part++)->rows;
  if (part->format.blocks == blocks_) return part->read_row(row, to);
  part->read_row(row, stored_.data());
  for (int64_t i = 0; i < part->cols; ++i) values_[i] = LoadFloat(stored_.data(), part->format.dtype, i);
  QuantizeRow(blocks_, values_.data(), part->cols, to);
}

size_t CpuBlockBytes(int64_t n, int64_t k, BlockFormat blocks) {
  return VisitBlocks(blocks, [&]<class Traits>(Traits) {
    return static_cast<size_t>(NumPanels(n) * NumBlocks(blocks, k)) * BlockLayout<Traits>::kSuperBytes;
  });
}

void CpuPackBlocks(absl::Span<const MatrixSource> parts, BlockFormat blocks, ThreadPool& pool, void* packed) {
  int64_t n = 0;
  for (const MatrixSource& part : parts) n += part.rows;
  const int64_t num_supers = NumBlocks(blocks, parts[0].cols);
  pool.Run([&](int worker) {
    const Share share = ShareOf(NumPanels(n), worker, pool.num_threads());
    BlockRowReader reader(parts, blocks);
    std::vector<std::byte> row(static_cast<size_t>(num_supers * InfoOf(blocks).bytes));
    VisitBlocks(blocks, [&]<class Traits>(Traits) {
      constexpr int64_t kSuperBytes = BlockLayout<Traits>::kSuperBytes;
      DecodedBlock block;
      for (int64_t r = share.begin * kPanelRows; r < std::min(n, share.end * kPanelRows); ++r) {
        reader.Read(r, row.data());
        auto* const panel = static_cast<uint8_t*>(packed) + r / kPanelRows * num_supers * kSuperBytes;
        for (int64_t s = 0; s < num_supers; ++s) {
          DecodeBlock(blocks, row.data(), s, &block);
          StoreBlock<Traits>(block, panel + s * kSuperBytes, r % kPanelRows);
        }
      }
    });
  });
}

void CpuLoadRow(const LinearWeight& weight, int64_t row, absl::FunctionRef<void(int64_t i, float value)> set) {
  const WeightSlab* slab = weight.slabs.data();
  while (row >= slab->begin + slab->rows) ++slab;
  row -= slab->begin;
  if (slab->blocks != BlockFormat::kNone)
    return VisitBlocks(slab->blocks, [&]<class Traits>(Traits) { LoadRow<Traits>(weight, *slab, row, set); });
  const int64_t elements = PanelElements(weight.k, weight.dtype);
  const auto* const panel = static_cast<const std::byte*>(weight.data.data()) + slab->offset +
                            row / kPanelRows * elements * static_cast<int64_t>(DTypeBytes(weight.dtype));
  for (int64_t i = 0; i < weight.k; ++i)
    set(i, LoadFloat(panel, weight.dtype, PanelIndex(row % kPanelRows, i, weight.dtype)));
}

}  // namespace quire
