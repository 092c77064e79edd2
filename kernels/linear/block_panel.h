// Linear over one panel of quantised weights, for whatever Vector and Int are: included by the block_*.cc of each
// instruction set alone, after their vector_*.h.
//
// x meets the weights as int8. Of each group of k the dot product is an exact integer; it becomes float32 and is added
// to the row's sum, in rising order of groups: the bits of a row depend on the instruction set alone, not on the number
// of rows. Tiles and blocks are as in cpu_panel.h.
//
// Int is integers in 32-bit lanes as wide as Vector: X, four int8 of x in every lane; Dot(sum, codes, x) adds the dot
// products of four unsigned codes below 128 and four x; Dot8 that of codes of 8 bits less 128 - kDot8Offset.

#ifndef QUIRE_KERNELS_LINEAR_BLOCK_PANEL_H_
#define QUIRE_KERNELS_LINEAR_BLOCK_PANEL_H_

#include <cstdint>

#include "kernels/cpu/row.h"
#include "kernels/linear/block_kernels.h"
#include "kernels/linear/cpu_panel.h"

namespace quire {
namespace {

constexpr int kBlockTileRows = 4;

// Vectors of weight rows in a tile of `rows` rows: an integer and a float32 sum for each fit the registers.
constexpr int BlockTileVectors(int rows) {
  constexpr int kAll = static_cast<int>(kPanelRows) / Vector::kWidth;
  const int fit = Vector::kRegisters == 32 ? (rows <= 2 ? 4 : 2) : rows == 1 ? 4 : rows == 2 ? 2 : 1;
  return fit < kAll ? fit : kAll;
}

// Four codes for each lane: those of step s of a chunk.
template <class Traits>
Int::V LoadCodes(const char* chunk, int64_t lane, int s) {
  using Layout = BlockLayout<Traits>;
  constexpr int kLow = Layout::kLowBits, kHigh = Layout::kHighBits;
  const auto* words = reinterpret_cast<const uint32_t*>(chunk) + lane;
  const Int::V low = Int::Load(words + s * kLow / 8 * Layout::kLanes);
  if constexpr (kLow == 8) return low;
  Int::V codes = Int::Bits(low, s * kLow % 8, 0x01010101u * ((1u << kLow) - 1));
  if constexpr (kHigh > 0) {
    const Int::V high = Int::Load(words + (kLow + s * kHigh / 8) * Layout::kLanes);
    codes = Int::Or(codes, Int::ShiftLeft(Int::Bits(high, s * kHigh % 8, 0x01010101u * ((1u << kHigh) - 1)), kLow));
  }
  if constexpr (Traits::kIsTable) codes = Int::Lookup(kMxfp4Values, codes);
  return codes;
}

template <class Traits>
Vector::F LoadScales(const char* halves, int64_t lane) {
  const auto* from = reinterpret_cast<const uint16_t*>(halves) + lane;
  if constexpr (Traits::kIsTable) return Vector::LoadBf16(from);
  return Vector::LoadF16(from);
}

// Weights, and the rows of x that meet them, of a tile: super-blocks from `super` on.
struct BlockTileOperands {
  const BlockOperands* o;
  const char* w;  // the panel's super-blocks
  int64_t super;
  int64_t num_supers;
  int64_t row;
  bool first;   // sums start at zero
  float* sums;  // [rows][kPanelRows], in and out
};

// Adds one group's part to the sums: its dot products in integers, then the scales.
template <class Traits, int R, int V>
struct GroupSums {
  using F = Vector::F;
  static constexpr int kSteps = Traits::kGroup / 4;
  static constexpr int kOffset = Traits::kBits == 8 ? Int::kDot8Offset : Traits::kOffset;

  // `chunk` and `group` in it; x, x_sums and x_scale are the first row's at that group.
  static void Add(const char* chunk, int64_t lane, int group, const F* d, const F* dmin, const QuantizedRows& x,
                  int64_t row, int64_t k, F (*c)[V]) {
    using Layout = BlockLayout<Traits>;
    const int8_t* q = x.q + row * x.stride + k;
    int32_t sums[R];
    Int::V dots[R][V];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const int32_t* s = x.sums + ((row + r) * x.stride + k) / 16;
      sums[r] = Traits::kGroup == 16 ? s[0] : s[0] + s[1];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) dots[r][v] = Int::Set1(-kOffset * sums[r]);
    }
#pragma GCC unroll 8
    for (int s = 0; s < kSteps; ++s) {
      Int::V codes[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) codes[v] = LoadCodes<Traits>(chunk, lane + v * Vector::kWidth, group * kSteps + s);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const Int::X x4 = Int::Broadcast(q + r * x.stride + 4 * s);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
          dots[r][v] = Traits::kBits == 8 ? Int::Dot8(dots[r][v], codes[v], x4) : Int::Dot(dots[r][v], codes[v], x4);
        }
      }
    }
    const auto* sub = reinterpret_cast<const int8_t*>(chunk + Layout::kCodeBytes) + group * Layout::kLanes + lane;
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      F scale = d[v], min = dmin[v];
      if constexpr (Traits::kHasSubScales) {
        scale = Vector::Mul(scale, Int::LoadInt8(sub + v * Vector::kWidth));
        if constexpr (Traits::kHasMin) {
          const int8_t* mins = sub + Layout::kGroupsPerChunk * Layout::kLanes;
          min = Vector::Mul(min, Int::LoadInt8(mins + v * Vector::kWidth));
        }
      }
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        F part = Vector::Mul(scale, Int::ToFloat(dots[r][v]));
        if constexpr (Traits::kHasMin)
          part = Vector::Sub(part, Vector::Mul(min, Vector::Set1(static_cast<float>(sums[r]))));
        c[r][v] = Vector::Fma(part, Vector::Set1(x.scales[((row + r) * x.stride + k) / 32]), c[r][v]);
      }
    }
  }
};

template <class Traits, int R>
void BlockTile(const BlockTileOperands& t) {
  using F = Vector::F;
  using Layout = BlockLayout<Traits>;
  constexpr int V = BlockTileVectors(R);
  constexpr int64_t kAhead = 4096;  // bytes: what the hardware does not fetch in time by itself
  for (int64_t lane = 0; lane < kPanelRows; lane += V * Vector::kWidth) {
    float* const sums = t.sums + lane;
    F c[R][V];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v)
        c[r][v] = t.first ? Vector::Set1(0) : Vector::Load(sums + r * kPanelRows + v * Vector::kWidth);
    }
    for (int64_t s = t.super; s < t.super + t.num_supers; ++s) {
      const char* const super = t.w + s * Layout::kSuperBytes;
      F d[V], dmin[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        const char* const scales = super + Layout::kScales;
        d[v] = LoadScales<Traits>(scales, lane + v * Vector::kWidth);
        dmin[v] = Traits::kHasMin ? LoadScales<Traits>(scales + 2 * kPanelRows, lane + v * Vector::kWidth) : d[v];
      }
      for (int chunk = 0; chunk < Layout::kChunksPerSuper; ++chunk) {
        const char* const at = super + Layout::kFirstChunk + chunk * Layout::kChunkBytes;
        if (lane == 0) {
          for (int line = 0; line < Layout::kChunkBytes; line += 64) __builtin_prefetch(at + kAhead + line, 0, 3);
        }
#pragma GCC unroll 2
        for (int group = 0; group < Layout::kGroupsPerChunk; ++group) {
          GroupSums<Traits, R, V>::Add(at, lane, group, d, dmin, t.o->x, t.row,
                                       s * Traits::kSuper + chunk * Layout::kChunk + group * Traits::kGroup, c);
        }
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) Vector::Store(sums + r * kPanelRows + v * Vector::kWidth, c[r][v]);
    }
  }
}

template <class Traits>
void BlockPanel(const BlockOperands& o, int64_t panel, int64_t row_begin, int64_t row_end) {
  using Layout = BlockLayout<Traits>;
  using Function = void (*)(const BlockTileOperands&);
  static constexpr Function kTiles[kBlockTileRows] = {BlockTile<Traits, 1>, BlockTile<Traits, 2>, BlockTile<Traits, 3>,
                                                      BlockTile<Traits, 4>};
  const char* const w = static_cast<const char*>(o.weight) + panel * o.num_supers * Layout::kSuperBytes;
  const int64_t rows = row_end - row_begin;
  const int64_t tiles = (rows + kBlockTileRows - 1) / kBlockTileRows;
  constexpr int64_t kFit = kSmallBlockBytes / Layout::kSuperBytes;
  const int64_t block = tiles == 1 ? o.num_supers : kFit > 0 ? kFit : 1;
  alignas(64) float sums[kMaxLinearRows * kPanelRows];
  for (int64_t super = 0; super < o.num_supers; super += block) {
    const int64_t here = o.num_supers - super < block ? o.num_supers - super : block;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t first = rows * t / tiles, last = rows * (t + 1) / tiles;
      kTiles[last - first - 1]({&o, w, super, here, row_begin + first, super == 0, sums + first * kPanelRows});
    }
  }
  const int64_t column = panel * kPanelRows;
  Finish(o, column, o.n - column < kPanelRows ? o.n - column : kPanelRows, row_begin, rows, sums);
}

inline Vector::F LoadX(const float* x) { return Vector::Load(x); }
inline Vector::F LoadX(const BFloat16Bits* x) { return Vector::LoadBf16(&x->bits); }
inline Vector::F LoadX(const Float16Bits* x) { return Vector::LoadF16(&x->bits); }

// scale = max |x| / 127, q = round(x / scale), ties to even. A block below 2^-100 becomes zeroes: its scale's inverse
// would be infinite.
template <class In>
void QuantizeRowOfX(const void* x_row, int64_t k, const QuantizedRows& to, int64_t row) {
  using F = Vector::F;
  constexpr int kLen = 32;
  const In* const x = static_cast<const In*>(x_row);
  for (int64_t begin = 0; begin < to.stride; begin += kLen) {
    In rest[kLen] = {};  // the last block, filled up with zeroes
    const In* from = x + begin;
    if (begin + kLen > k) {
      for (int64_t i = begin; i < k; ++i) rest[i - begin] = x[i];
      from = rest;
    }
    F largest = Vector::Set1(0);
    for (int i = 0; i < kLen; i += Vector::kWidth) {
      const F value = LoadX(from + i);
      largest = Vector::Max(Vector::Max(value, Vector::Sub(Vector::Set1(0), value)), largest);
    }
    float lanes[Vector::kWidth];
    Vector::Store(lanes, largest);
    float max = 0;
    for (const float lane : lanes) max = lane > max ? lane : max;
    const bool is_zero = !(max >= 0x1p-100f);
    const F inverse = Vector::Set1(is_zero ? 0 : 127 / max);
    const F magic = Vector::Set1(0x1.8p23f);  // added, it leaves the nearest integer in the low bits
    alignas(64) float rounded[kLen];
    for (int i = 0; i < kLen; i += Vector::kWidth)
      Vector::Store(rounded + i, Vector::Add(Vector::Mul(LoadX(from + i), inverse), magic));
    uint32_t bits[kLen];
    __builtin_memcpy(bits, rounded, sizeof bits);
    int8_t* const q = to.q + row * to.stride + begin;
    for (int i = 0; i < kLen; ++i) q[i] = static_cast<int8_t>(bits[i]);
    int32_t low = 0, high = 0;
    for (int i = 0; i < kLen / 2; ++i) {
      low += q[i];
      high += q[i + kLen / 2];
    }
    to.scales[(row * to.stride + begin) / kLen] = is_zero ? 0 : max / 127;
    to.sums[(row * to.stride + begin) / 16] = low;
    to.sums[(row * to.stride + begin) / 16 + 1] = high;
  }
}

// By BlockFormat, by DType.
constexpr BlockKernels kBlockTable = {
    {nullptr, BlockPanel<BlockTraits<BlockFormat::kQ8_0>>, BlockPanel<BlockTraits<BlockFormat::kQ4_0>>,
     BlockPanel<BlockTraits<BlockFormat::kQ4_1>>, BlockPanel<BlockTraits<BlockFormat::kQ5_0>>,
     BlockPanel<BlockTraits<BlockFormat::kQ5_1>>, BlockPanel<BlockTraits<BlockFormat::kQ2_K>>,
     BlockPanel<BlockTraits<BlockFormat::kQ3_K>>, BlockPanel<BlockTraits<BlockFormat::kQ4_K>>,
     BlockPanel<BlockTraits<BlockFormat::kQ5_K>>, BlockPanel<BlockTraits<BlockFormat::kQ6_K>>,
     BlockPanel<BlockTraits<BlockFormat::kMxfp4>>},
    {QuantizeRowOfX<float>, QuantizeRowOfX<BFloat16Bits>, QuantizeRowOfX<Float16Bits>}};

}  // namespace
}  // namespace quire

#endif  // QUIRE_KERNELS_LINEAR_BLOCK_PANEL_H_
