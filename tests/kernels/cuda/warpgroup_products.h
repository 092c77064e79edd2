// What the emulation means by a warpgroup's products (wgmma): what is asked for, and what has become of it when
// somebody waits.

#ifndef QUIRE_TESTS_KERNELS_CUDA_WARPGROUP_PRODUCTS_H_
#define QUIRE_TESTS_KERNELS_CUDA_WARPGROUP_PRODUCTS_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/check.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/shared_matrix.h"
#include "tests/kernels/cuda/emulation.h"

namespace quire::cuda {

constexpr int kWarpgroupSize = 4 * kWarpSize;

// Products of a warpgroup that were asked for and not waited for, the oldest group first.
class WarpgroupProducts {
 public:
  using Lane = EmulatedThread::WarpgroupLane;
  using Lanes = std::array<Lane, kWarpgroupSize>;
  // 16 bytes at an address, as products see them.
  using Read = absl::FunctionRef<const char*(uint32_t address)>;

  void Fence() { is_fenced_ = true; }
  void Issue(const Lanes& lanes, Read read) {
    Check(is_fenced_, "emulation: a warpgroup's product without WarpgroupFence");
    for (const Lane& lane : lanes) {
      Check(lane.b == lanes[0].b && lane.transposed == lanes[0].transposed && lane.accumulates == lanes[0].accumulates,
            "emulation: the lanes of a warpgroup ask for different products");
      const auto [sum, is_new] = sums_.try_emplace(lane.d);
      ++sum->second.num_products;
      if (!is_new) continue;
      std::copy_n(lane.d, 32, sum->second.d.begin());
      std::fill_n(lane.d, 32, kNaN);
    }
    float unused[16][64];
    LoadB(lanes[0], read, unused);
    issued_.push_back(lanes);
  }
  void Commit() {
    groups_.push_back(std::move(issued_));
    issued_.clear();
  }
  void Wait(int num_pending, Read read) {
    for (; static_cast<int>(groups_.size()) > num_pending; groups_.pop_front()) {
      for (const Lanes& lanes : groups_.front()) Do(lanes, read);
    }
    is_fenced_ = false;
  }
  bool idle() const { return groups_.empty() && issued_.empty(); }

 private:
  struct Sum {
    std::array<float, 32> d;
    int num_products = 0;  // that are not done
  };

  // b[k][n] of the matrix that a descriptor names; the PTX ISA's canonical layouts for swizzling by 128 bytes. Its rows
  // are B's columns, 16 elements each, or, transposed, B's rows, 64 elements each.
  static void LoadB(const Lane& lane, Read read, float (&b)[16][64]) {
    const auto field = [&](int shift, int bits) {
      return static_cast<uint32_t>(lane.b >> shift & ((uint64_t{1} << bits) - 1));
    };
    Check(field(SharedMatrix::kSwizzleShift, 2) == 1 && field(SharedMatrix::kBaseShift, 3) == 0 &&
              field(SharedMatrix::kLeadingShift, 14) == 1,
          "emulation: a descriptor of another layout than that which is emulated");
    const uint32_t begin = field(0, 14) * 16, stride = field(SharedMatrix::kStrideShift, 14) * 16;
    const int num_rows = lane.transposed ? 16 : 64, num_units = lane.transposed ? 8 : 2;
    for (int row = 0; row < num_rows; ++row) {
      for (int unit = 0; unit < num_units; ++unit) {
        const uint32_t plain =
            begin + static_cast<uint32_t>(row / 8 * static_cast<int>(stride) + row % 8 * 128 + unit * 16);
        uint16_t elements[8];
        std::memcpy(elements, read(plain ^ (plain >> 7 & 7) << 4), 16);
        for (int i = 0; i < 8; ++i) {
          float& to = lane.transposed ? b[row][unit * 8 + i] : b[unit * 8 + i][row];
          to = lane.to_float(elements[i]);
        }
      }
    }
  }

  void Do(const Lanes& lanes, Read read) {
    float a[64][16], b[16][64];
    LoadB(lanes[0], read, b);
    for (int l = 0; l < kWarpgroupSize; ++l) {
      const int row = l / kWarpSize * 16 + l % kWarpSize / 4, col = l % 4 * 2;
      for (int r = 0; r < 4; ++r) {
        float* const to = &a[row + r % 2 * 8][col + r / 2 * 8];
        to[0] = lanes[0].to_float(static_cast<uint16_t>(lanes[l].a[r]));
        to[1] = lanes[0].to_float(static_cast<uint16_t>(lanes[l].a[r] >> 16));
      }
    }
    for (int row = 0; row < 64; ++row) {
      float sums[64] = {};
      for (int k = 0; k < 16; ++k) {
        for (int n = 0; n < 64; ++n) sums[n] += a[row][k] * b[k][n];
      }
      for (int quad = 0; quad < 4; ++quad) {
        Sum& sum = sums_.at(lanes[row / 16 * kWarpSize + row % 8 * 4 + quad].d);
        for (int n = 0; n < 16; ++n) {
          float& d = sum.d[n / 2 * 4 + row % 16 / 8 * 2 + n % 2];
          const float product = sums[n / 2 * 8 + quad * 2 + n % 2];
          d = lanes[0].accumulates ? d + product : product;
        }
      }
    }
    for (const Lane& lane : lanes) {
      const auto sum = sums_.find(lane.d);
      if (--sum->second.num_products > 0) continue;
      std::copy_n(sum->second.d.begin(), 32, lane.d);
      sums_.erase(sum);
    }
  }

  bool is_fenced_ = false;
  std::vector<Lanes> issued_;  // not committed
  std::deque<std::vector<Lanes>> groups_;
  std::map<float*, Sum> sums_;  // by where a lane has its accumulators
};

}  // namespace quire::cuda

#endif  // QUIRE_TESTS_KERNELS_CUDA_WARPGROUP_PRODUCTS_H_
