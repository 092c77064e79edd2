// Packing of weights for `cpu`: rows come one by one, sixteen are staged in cache and leave transposed, a SIMD lane
// each.

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "kernels/cpu/parallel.h"
#include "kernels/linear/impl.h"

namespace quire {
namespace {

constexpr int64_t kStagedRows = 16;  // lanes of one cache line of float32, or of pairs of bfloat16

typedef uint32_t Words __attribute__((vector_size(16)));
typedef uint16_t Halves __attribute__((vector_size(16)));

Words LoadWords(const std::byte* p) {
  Words words;
  std::memcpy(&words, p, sizeof words);
  return words;
}

// Rows 0 .. 3 become columns: out[j][i] = in[i][j].
void Transpose4(const Words in[4], Words out[4]) {
  const Words ab_low = __builtin_shufflevector(in[0], in[1], 0, 4, 1, 5);
  const Words ab_high = __builtin_shufflevector(in[0], in[1], 2, 6, 3, 7);
  const Words cd_low = __builtin_shufflevector(in[2], in[3], 0, 4, 1, 5);
  const Words cd_high = __builtin_shufflevector(in[2], in[3], 2, 6, 3, 7);
  out[0] = __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5);
  out[1] = __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7);
  out[2] = __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5);
  out[3] = __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7);
}

// The staged rows' words (4 bytes of a row) [begin, begin + 4), by word: out[j][g] has rows 4g .. 4g + 3.
struct Square {
  Words at[4][kStagedRows / 4];

  Square(const std::byte* staged, int64_t stride, int64_t begin) {
    for (int64_t g = 0; g < kStagedRows / 4; ++g) {
      Words in[4], out[4];
      for (int64_t i = 0; i < 4; ++i) in[i] = LoadWords(staged + (4 * g + i) * stride + begin * 4);
      Transpose4(in, out);
      for (int64_t j = 0; j < 4; ++j) at[j][g] = out[j];
    }
  }
};

// Rows that wait to be transposed. Each is followed by zeroes up to a multiple of 16 bytes.
class Staging {
 public:
  explicit Staging(int64_t row_bytes)
      // A line more than needed: strides of a power of two would put all rows in the same few sets of the cache.
      : row_bytes_(row_bytes), stride_((row_bytes + 63) / 64 * 64 + 64), rows_(stride_ * kStagedRows + 64) {}

  std::byte* row(int64_t lane) { return data() + lane * stride_; }
  void Clear(int64_t lane) { std::memset(row(lane), 0, static_cast<size_t>(stride_)); }
  void ClearTail(int64_t lane) { std::memset(row(lane) + row_bytes_, 0, static_cast<size_t>(stride_ - row_bytes_)); }

  // Lanes [lane, lane + 16) of a panel: its words, or its halves two by two, from the staged rows'.
  void StoreWords(int64_t num_words, uint32_t* panel, int64_t lane) {
    for (int64_t word = 0; word < num_words; word += 4) {
      const Square square(data(), stride_, word);
      for (int64_t j = 0; j < std::min<int64_t>(4, num_words - word); ++j)
        std::memcpy(panel + (word + j) * kPanelRows + lane, square.at[j], sizeof square.at[j]);
    }
  }
  void StoreHalves(int64_t num_halves, uint16_t* panel, int64_t lane) {
    for (int64_t word = 0; word * 2 < num_halves; word += 4) {
      const Square square(data(), stride_, word);
      for (int64_t j = 0; j < std::min<int64_t>(8, num_halves - word * 2); ++j) {
        uint16_t* const to = panel + (word * 2 + j) * kPanelRows + lane;
        for (int64_t g = 0; g < kStagedRows / 4; g += 2) {
          const auto a = reinterpret_cast<Halves>(square.at[j / 2][g]);
          const auto b = reinterpret_cast<Halves>(square.at[j / 2][g + 1]);
          const Halves half = j % 2 == 0 ? __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14)
                                         : __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
          std::memcpy(to + 4 * g, &half, sizeof half);
        }
      }
    }
  }

 private:
  std::byte* data() { return rows_.data() + (64 - reinterpret_cast<uintptr_t>(rows_.data()) % 64) % 64; }

  const int64_t row_bytes_, stride_;
  std::vector<std::byte> rows_;
};

// As ToFloat(Float16), in a form that compilers turn into vectors.
float WidenFloat16(uint16_t bits) {
  const uint32_t magnitude = bits & 0x7fffu;
  const uint32_t special = magnitude >= 0x7c00u ? 0x7f800000u : 0u;  // infinity, NaN
  const float scaled = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(scaled) | special | (bits & 0x8000u) << 16);
}

// Reads rows of the stacked parts as `dtype`.
class RowReader {
 public:
  RowReader(absl::Span<const MatrixSource> parts, DType dtype)
      : parts_(parts), dtype_(dtype), stored_(MaxRowBytes(parts)), values_(parts[0].cols) {}

  void Read(int64_t row, std::byte* to) {
    const MatrixSource* part = parts_.data();
    while (row >= part->rows) row -= (part++)->rows;
    if (part->format == WeightFormat(dtype_)) return part->read_row(row, to);
    part->read_row(row, stored_.data());
    const auto* halves = reinterpret_cast<const uint16_t*>(stored_.data());
    const int64_t cols = part->cols;
    switch (part->format.dtype) {
      case DType::kFloat32:
        std::memcpy(values_.data(), stored_.data(), static_cast<size_t>(cols) * sizeof(float));
        break;
      case DType::kBFloat16:
        for (int64_t i = 0; i < cols; ++i) values_[i] = ToFloat(BFloat16{halves[i]});
        break;
      case DType::kFloat16:
        for (int64_t i = 0; i < cols; ++i) values_[i] = WidenFloat16(halves[i]);
        break;
    }
    Narrow(to);
  }

 private:
  static int64_t MaxRowBytes(absl::Span<const MatrixSource> parts) {
    int64_t bytes = 0;
    for (const MatrixSource& part : parts) bytes = std::max(bytes, RowBytes(part.format, part.cols));
    return bytes;
  }

  void Narrow(std::byte* to) const {
    const int64_t cols = static_cast<int64_t>(values_.size());
    switch (dtype_) {
      case DType::kFloat32:
        std::memcpy(to, values_.data(), values_.size() * sizeof(float));
        break;
      case DType::kBFloat16:
        for (int64_t i = 0; i < cols; ++i) reinterpret_cast<BFloat16*>(to)[i] = ToBFloat16(values_[i]);
        break;
      case DType::kFloat16:
        for (int64_t i = 0; i < cols; ++i) reinterpret_cast<Float16*>(to)[i] = ToFloat16(values_[i]);
        break;
    }
  }

  const absl::Span<const MatrixSource> parts_;
  const DType dtype_;
  std::vector<std::byte> stored_;
  std::vector<float> values_;
};

// Packs the panels [begin, end) of a weight [n, k].
void PackPanels(absl::Span<const MatrixSource> parts, DType dtype, int64_t n, int64_t begin, int64_t end,
                std::byte* packed) {
  const int64_t k = parts[0].cols;
  const int64_t row_bytes = k * static_cast<int64_t>(DTypeBytes(dtype));
  const int64_t panel_bytes = PanelElements(k, dtype) * static_cast<int64_t>(DTypeBytes(dtype));
  Staging staging(row_bytes);
  RowReader reader(parts, dtype);
  for (int64_t row = begin * kPanelRows; row < std::min(n, end * kPanelRows); row += kStagedRows) {
    for (int64_t lane = 0; lane < kStagedRows; ++lane) {
      if (row + lane >= n) {
        staging.Clear(lane);
        continue;
      }
      reader.Read(row + lane, staging.row(lane));
      staging.ClearTail(lane);
    }
    std::byte* const panel = packed + row / kPanelRows * panel_bytes;
    const int64_t lane = row % kPanelRows;
    if (dtype == DType::kFloat16) {
      staging.StoreHalves(k, reinterpret_cast<uint16_t*>(panel), lane);
    } else {
      staging.StoreWords((row_bytes + 3) / 4, reinterpret_cast<uint32_t*>(panel), lane);
    }
  }
}

}  // namespace

void CpuPackLinear(absl::Span<const MatrixSource> parts, WeightFormat format, ThreadPool& pool, void* packed) {
  int64_t n = 0;
  for (const MatrixSource& part : parts) n += part.rows;
  // The split of CpuLinear: pages lie in the memory of the worker that will read them.
  pool.Run([&](int worker) {
    const Share share = ShareOf(NumPanels(n), worker, pool.num_threads());
    PackPanels(parts, format.dtype, n, share.begin, share.end, static_cast<std::byte*>(packed));
  });
}

}  // namespace quire
