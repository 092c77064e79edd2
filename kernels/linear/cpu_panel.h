// Linear over one panel of weights, for whatever Vector is: included by the kernels_*.cc alone, after their vector_*.h.
//
// The unit of work is a tile: up to 6 rows of x times kVectors vectors of weight rows, whose sums stay in registers while k runs. A block of
// the panel (kBlockBytes, half of the smallest L2 in use) meets all tiles of the rows before the next block is read, so that the
// weights pass once through the memory bus however many rows there are; the sums wait in L1 meanwhile.

#ifndef QUIRE_KERNELS_LINEAR_CPU_PANEL_H_
#define QUIRE_KERNELS_LINEAR_CPU_PANEL_H_

#include <cstdint>

#include "kernels/cpu/kernels.h"

namespace quire {
namespace {

constexpr int kTileRows = 6;
constexpr int64_t kBlockBytes = int64_t{64} << 10;

// The element types of weights. A step is the smallest part of k that the layout keeps together: kStep elements of x, which meet it in
// kParts multiply-adds. x comes to a tile as an array of X.

struct Float32Weight {
  using Element = float;
  using X = float;
  using W = Vector::F;
  using XVector = Vector::F;
  static constexpr int kStep = 1;
  static constexpr int kParts = 1;
  static constexpr int64_t kStepBytes = kPanelRows * 4;
  static constexpr bool kConvertsX = false;
  static W Load(const char* step, int64_t lane, int part) { return Vector::Load(reinterpret_cast<const float*>(step) + lane); }
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

// Vectors of weight rows in a tile of `rows` rows: as many as leave registers for the weights and x, and enough independent sums (8 or
// more) to cover the latency of an FMA where there is only one row.
constexpr int TileVectors(int rows) {
  constexpr int kAll = static_cast<int>(kPanelRows) / Vector::kWidth;
  const int fit = Vector::kRegisters == 32 ? 4 : rows == 1 ? 8 : rows <= 3 ? 4 : 2;
  return fit < kAll ? fit : kAll;
}

// sums[r][0 .. V lanes) += x[r] * the lanes' rows of W, over `steps` steps; from zero if `first`.
template <class Weight, int R>
void Tile(const char* w, const typename Weight::X* x, int64_t x_stride, int64_t steps, bool first, float* sums) {
  constexpr int V = TileVectors(R);
  using F = typename Vector::F;
  for (int64_t lane = 0; lane < kPanelRows; lane += V * Vector::kWidth) {
    F c[R][V];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) {
        c[r][v] = first ? Vector::Set1(0) : Vector::Load(sums + r * kPanelRows + lane + v * Vector::kWidth);
      }
    }
    const char* step = w;
    for (int64_t s = 0; s < steps; ++s, step += Weight::kStepBytes) {
#pragma GCC unroll 2
      for (int part = 0; part < Weight::kParts; ++part) {
        typename Weight::W wv[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) wv[v] = Weight::Load(step, lane + v * Vector::kWidth, part);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const typename Weight::XVector xv = Weight::Broadcast(x + r * x_stride + s * Weight::kStep + part);
#pragma GCC unroll 8
          for (int v = 0; v < V; ++v) c[r][v] = Weight::MultiplyAdd(wv[v], xv, c[r][v]);
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) Vector::Store(sums + r * kPanelRows + lane + v * Vector::kWidth, c[r][v]);
    }
  }
}

template <class Weight>
void AnyTile(int rows, const char* w, const typename Weight::X* x, int64_t x_stride, int64_t steps, bool first, float* sums) {
  using Function = void (*)(const char*, const typename Weight::X*, int64_t, int64_t, bool, float*);
  static constexpr Function kTiles[kTileRows] = {Tile<Weight, 1>, Tile<Weight, 2>, Tile<Weight, 3>,
                                                 Tile<Weight, 4>, Tile<Weight, 5>, Tile<Weight, 6>};
  kTiles[rows - 1](w, x, x_stride, steps, first, sums);
}

// One tile over the steps [step, step + steps) of k.
template <class Weight>
void TileBlock(const LinearOperands& o, const char* w, int64_t row, int rows, int64_t step, int64_t steps, float* sums) {
  using Element = typename Weight::Element;
  constexpr int64_t kStep = Weight::kStep;
  const bool first = step == 0;
  const Element* x = static_cast<const Element*>(o.x) + row * o.x_stride + step * kStep;
  const int64_t count = o.k - step * kStep < steps * kStep ? o.k - step * kStep : steps * kStep;  // elements of x
  if constexpr (Weight::kConvertsX) {
    constexpr int64_t kMaxCount = kBlockBytes / Weight::kStepBytes * kStep;
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
    AnyTile<Weight>(rows, w, converted, kMaxCount, steps, first, sums);
  } else {  // x is taken where it lies, but for a last pair that the row does not fill
    const int64_t whole = count / kStep;
    if (whole > 0) AnyTile<Weight>(rows, w, x, o.x_stride, whole, first, sums);
    if (whole < steps) {
      Element rest[kTileRows * kStep] = {};
      for (int r = 0; r < rows; ++r) rest[r * kStep] = x[r * o.x_stride + whole * kStep];
      AnyTile<Weight>(rows, w + whole * Weight::kStepBytes, rest, kStep, 1, first && whole == 0, sums);
    }
  }
}

// y = sums + bias, or y += sums + bias, of the first `lanes` rows of W of a panel.
inline void Finish(const LinearOperands& o, int64_t column, int64_t lanes, int64_t row, int64_t rows, const float* sums) {
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

template <class Weight>
void LinearPanel(const LinearOperands& o, int64_t panel, int64_t row_begin, int64_t row_end) {
  const int64_t steps = (o.k + Weight::kStep - 1) / Weight::kStep;
  const char* w = static_cast<const char*>(o.weight) + panel * steps * Weight::kStepBytes;
  const int64_t rows = row_end - row_begin;
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  const bool one_block = tiles == 1 && !Weight::kConvertsX;
  const int64_t block = one_block ? steps : kBlockBytes / Weight::kStepBytes;
  alignas(64) float sums[kMaxLinearRows * kPanelRows];
  for (int64_t step = 0; step < steps; step += block) {
    const int64_t here = steps - step < block ? steps - step : block;
    for (int64_t t = 0; t < tiles; ++t) {  // rows are shared out evenly: 7 are 4 and 3
      const int64_t first = rows * t / tiles, last = rows * (t + 1) / tiles;
      TileBlock<Weight>(o, w + step * Weight::kStepBytes, row_begin + first, static_cast<int>(last - first), step, here,
                        sums + first * kPanelRows);
    }
  }
  const int64_t column = panel * kPanelRows;
  Finish(o, column, o.n - column < kPanelRows ? o.n - column : kPanelRows, row_begin, rows, sums);
}

}  // namespace
}  // namespace quire

#endif  // QUIRE_KERNELS_LINEAR_CPU_PANEL_H_
