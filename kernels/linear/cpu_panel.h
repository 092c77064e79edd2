// Linear over one panel of weights, for whatever Vector is: included by the kernels_*.cc alone, after their vector_*.h.
//
// The unit of work is a tile: up to 6 rows of x times some vectors of weight rows, whose sums stay in registers while k
// runs. A block of the panel meets all tiles of the rows before the next block is read, so that the weights pass once
// through the memory bus however many rows there are; the sums wait in L1 meanwhile. The tiles of a block prefetch the
// next one, so that reading and multiplying overlap.

#ifndef QUIRE_KERNELS_LINEAR_CPU_PANEL_H_
#define QUIRE_KERNELS_LINEAR_CPU_PANEL_H_

#include <cstdint>

#include "kernels/cpu/kernels.h"

namespace quire {
namespace {

constexpr int kTileRows = 6;

// Bytes of weights in a block. With few tiles reading is the bottleneck and the block stays in L1 from the first to the
// last tile; with many it is multiplying, and longer blocks load and store the sums less often.
constexpr int64_t kSmallBlockBytes = int64_t{16} << 10;
constexpr int64_t kLargeBlockBytes = int64_t{32} << 10;
constexpr int64_t kFewTiles = 6;

// The element types of weights. A step is the smallest part of k that the layout keeps together: kStep elements of x,
// which meet it in kParts multiply-adds. x comes to a tile as an array of X.

struct Float32Weight {
  using Element = float;
  using X = float;
  using W = Vector::F;
  using XVector = Vector::F;
  static constexpr int kStep = 1;
  static constexpr int kParts = 1;
  static constexpr int64_t kStepBytes = kPanelRows * 4;
  static constexpr bool kConvertsX = false;
  static W Load(const char* step, int64_t lane, int part) {
    return Vector::Load(reinterpret_cast<const float*>(step) + lane);
  }
  static XVector Broadcast(const X* x) { return Vector::Set1(*x); }
  static Vector::F MultiplyAdd(W w, XVector x, Vector::F sum) { return Vector::Fma(w, x, sum); }
};

struct Float16Weight : Float32Weight {
  using Element = uint16_t;
  static constexpr int64_t kStepBytes = kPanelRows * 2;
  static constexpr bool kConvertsX = true;
  static W Load(const char* step, int64_t lane, int part) {
    return Vector::LoadF16(reinterpret_cast<const uint16_t*>(step) + lane);
  }
  static Vector::F LoadX(const uint16_t* x) { return Vector::LoadF16(x); }
};

// A bfloat16 is the upper half of a float32: the pair of a step becomes two float32 by a shift and by a mask.
struct BFloat16Weight : Float32Weight {
  using Element = uint16_t;
  static constexpr int kStep = 2;
  static constexpr int kParts = 2;
  static constexpr int64_t kStepBytes = kPanelRows * 4;
  static constexpr bool kConvertsX = true;
  static W Load(const char* step, int64_t lane, int part) {
    const uint16_t* pairs = reinterpret_cast<const uint16_t*>(step) + 2 * lane;
    return part == 0 ? Vector::LoadBf16Even(pairs) : Vector::LoadBf16Odd(pairs);
  }
  static Vector::F LoadX(const uint16_t* x) { return Vector::LoadBf16(x); }
};

// Vectors of weight rows in a tile of `rows` rows: as many as leave registers for the weights and x, and enough
// independent sums (8 or more) to cover the latency of an FMA where there is only one row.
constexpr int TileVectors(int rows) {
  constexpr int kAll = static_cast<int>(kPanelRows) / Vector::kWidth;
  const int fit = Vector::kRegisters == 32 ? 4 : rows == 1 ? 8 : rows <= 3 ? 4 : 2;
  return fit < kAll ? fit : kAll;
}

// What a tile works on: `steps` steps of a panel and of its rows of x.
template <class X>
struct TileOperands {
  const char* w;
  const X* x;  // rows x_stride elements apart
  int64_t x_stride;
  int64_t steps;
  bool first;   // sums start at zero
  float* sums;  // [rows][kPanelRows], in and out
  // Prefetched on the way: the rows of the tile that follows, and two lines of weights with each step. May point
  // anywhere.
  const X* next_x;
  const char* next_w;
};

template <class Weight, int R>
void Tile(const TileOperands<typename Weight::X>& o) {
  using F = typename Vector::F;
  using X = typename Weight::X;
  constexpr int V = TileVectors(R);
  constexpr int64_t kLineSteps = 64 / static_cast<int64_t>(sizeof(X)) / Weight::kStep;  // steps of a cache line of x
  for (int64_t lane = 0; lane < kPanelRows; lane += V * Vector::kWidth) {
    float* const sums = o.sums + lane;
    F c[R][V];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v)
        c[r][v] = o.first ? Vector::Set1(0) : Vector::Load(sums + r * kPanelRows + v * Vector::kWidth);
    }
    const char* w = o.w;
    const char* next_w = o.next_w;
    const X* x = o.x;
    for (int64_t line = 0; line < o.steps; line += kLineSteps) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) __builtin_prefetch(o.next_x + r * o.x_stride + line * Weight::kStep, 0, 3);
      const int64_t steps = o.steps - line < kLineSteps ? o.steps - line : kLineSteps;
      for (int64_t s = 0; s < steps; ++s, w += Weight::kStepBytes, next_w += Weight::kStepBytes, x += Weight::kStep) {
        __builtin_prefetch(next_w, 0, 3);
        __builtin_prefetch(next_w + 64, 0, 3);
#pragma GCC unroll 2
        for (int part = 0; part < Weight::kParts; ++part) {
          const char* step = w;
          asm("" : "+r"(step));  // each part loads anew: to keep the first one's loads would cost a sum its register
          typename Weight::W wv[V];
#pragma GCC unroll 8
          for (int v = 0; v < V; ++v) wv[v] = Weight::Load(step, lane + v * Vector::kWidth, part);
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) {
            const typename Weight::XVector xv = Weight::Broadcast(x + r * o.x_stride + part);
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) c[r][v] = Weight::MultiplyAdd(wv[v], xv, c[r][v]);
          }
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) Vector::Store(sums + r * kPanelRows + v * Vector::kWidth, c[r][v]);
    }
  }
}

template <class Weight>
void AnyTile(int rows, const TileOperands<typename Weight::X>& operands) {
  using Function = void (*)(const TileOperands<typename Weight::X>&);
  static constexpr Function kTiles[kTileRows] = {Tile<Weight, 1>, Tile<Weight, 2>, Tile<Weight, 3>,
                                                 Tile<Weight, 4>, Tile<Weight, 5>, Tile<Weight, 6>};
  kTiles[rows - 1](operands);
}

// One tile over the steps [step, step + steps) of k: `rows` rows of x from `row` on, weights w.
template <class Weight>
void TileBlock(const LinearOperands& o, const char* w, const char* next_w, int64_t row, int rows, int64_t step,
               int64_t steps, float* sums) {
  using Element = typename Weight::Element;
  using Operands = TileOperands<typename Weight::X>;
  constexpr int64_t kStep = Weight::kStep;
  const bool first = step == 0;
  const Element* x = static_cast<const Element*>(o.x) + row * o.x_stride + step * kStep;
  const int64_t count = o.k - step * kStep < steps * kStep ? o.k - step * kStep : steps * kStep;  // elements of x
  if constexpr (Weight::kConvertsX) {
    constexpr int64_t kMaxCount = kLargeBlockBytes / Weight::kStepBytes * kStep;
    alignas(64) float converted[kTileRows * kMaxCount];
    for (int r = 0; r < rows; ++r) {
      const Element* from = x + r * o.x_stride;
      float* to = converted + r * kMaxCount;
      int64_t i = 0;
      for (; i + Vector::kWidth <= count; i += Vector::kWidth) Vector::Store(to + i, Weight::LoadX(from + i));
      if (i < steps * kStep) {  // the end of the row, and a zero where k ends within a step
        Element rest[Vector::kWidth] = {};
        for (int64_t j = i; j < count; ++j) rest[j - i] = from[j];
        Vector::Store(to + i, Weight::LoadX(rest));
      }
    }
    AnyTile<Weight>(rows, Operands{w, converted, kMaxCount, steps, first, sums, converted, next_w});
  } else {  // x is taken where it lies, but for a last pair that the row does not fill
    const int64_t whole = count / kStep;
    if (whole > 0) AnyTile<Weight>(rows, Operands{w, x, o.x_stride, whole, first, sums, x + rows * o.x_stride, next_w});
    if (whole < steps) {
      Element rest[kTileRows * kStep] = {};
      for (int r = 0; r < rows; ++r) rest[r * kStep] = x[r * o.x_stride + whole * kStep];
      const char* const last_w = w + whole * Weight::kStepBytes;
      AnyTile<Weight>(rows, Operands{last_w, rest, kStep, 1, first && whole == 0, sums, rest, last_w});
    }
  }
}

// y = sums + bias, or y += sums + bias, of the first `lanes` rows of W of a panel.
template <class Operands>
void Finish(const Operands& o, int64_t column, int64_t lanes, int64_t row, int64_t rows, const float* sums) {
  const float* bias = o.bias != nullptr ? o.bias + column : nullptr;
  for (int64_t r = 0; r < rows; ++r, sums += kPanelRows) {
    float* y = o.y + (row + r) * o.y_stride + column;
    int64_t j = 0;
    for (; j + Vector::kWidth <= lanes; j += Vector::kWidth) {
      Vector::F value = Vector::Load(sums + j);
      if (bias != nullptr) value = Vector::Add(value, Vector::Load(bias + j));
      if (o.accumulate) value = Vector::Add(Vector::Load(y + j), value);
      Vector::Store(y + j, value);
    }
    for (; j < lanes; ++j) {
      const float value = bias != nullptr ? sums[j] + bias[j] : sums[j];
      y[j] = o.accumulate ? y[j] + value : value;
    }
  }
}

// What tile `t` of `tiles` prefetches, two lines of each step of 256 bytes, while it works on the block at w: two tiles
// share the block that follows, whether in this panel or the next. A tile that is alone reads so fast that it is enough
// to help the hardware along.
inline const char* NextBlock(const char* w, int64_t block_bytes, int64_t t, int64_t tiles) {
  constexpr int64_t kAhead = 2048, kShare = 128;
  if (tiles == 1) return w + kAhead;
  return t < 2 ? w + block_bytes + t * kShare : w;
}

template <class Weight>
void LinearPanel(const LinearOperands& o, int64_t panel, int64_t row_begin, int64_t row_end) {
  const int64_t steps = (o.k + Weight::kStep - 1) / Weight::kStep;
  const char* w = static_cast<const char*>(o.weight) + panel * steps * Weight::kStepBytes;
  const int64_t rows = row_end - row_begin;
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  const bool one_block = tiles == 1 && !Weight::kConvertsX;
  const int64_t block =
      one_block ? steps : (tiles <= kFewTiles ? kSmallBlockBytes : kLargeBlockBytes) / Weight::kStepBytes;
  alignas(64) float sums[kMaxLinearRows * kPanelRows];
  for (int64_t step = 0; step < steps; step += block) {
    const int64_t here = steps - step < block ? steps - step : block;
    const char* const block_w = w + step * Weight::kStepBytes;
    for (int64_t t = 0; t < tiles; ++t) {  // rows are shared out evenly: 7 are 4 and 3
      const int64_t first = rows * t / tiles, last = rows * (t + 1) / tiles;
      TileBlock<Weight>(o, block_w, NextBlock(block_w, here * Weight::kStepBytes, t, tiles), row_begin + first,
                        static_cast<int>(last - first), step, here, sums + first * kPanelRows);
    }
  }
  const int64_t column = panel * kPanelRows;
  Finish(o, column, o.n - column < kPanelRows ? o.n - column : kPanelRows, row_begin, rows, sums);
}

}  // namespace
}  // namespace quire

#endif  // QUIRE_KERNELS_LINEAR_CPU_PANEL_H_
