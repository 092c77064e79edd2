#include "kernels/linear/linear.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/cpu/host_memory.h"
#include "kernels/linear/impl.h"
#include "tests/kernels/cpu_problem.h"

namespace quire {
namespace {

using testing::ElementsAre;

std::vector<MatrixSource> Sources(const std::vector<Tensor>& parts) {
  std::vector<MatrixSource> sources;
  for (const Tensor& part : parts) sources.push_back(SourceOf(part));
  return sources;
}

LinearWeight RefWeight(const std::vector<Tensor>& parts, DType dtype) {
  LinearWeight w;
  w.k = parts[0].cols;
  w.dtype = dtype;
  for (const Tensor& part : parts) w.n += part.rows;
  w.data = *AllocateHostMemory(static_cast<size_t>(w.n * w.k) * DTypeBytes(dtype));
  RefPackLinear(Sources(parts), dtype, w.data.data());
  return w;
}

LinearWeight CpuWeight(const std::vector<Tensor>& parts, DType dtype, ThreadPool& pool) {
  LinearWeight w;
  w.k = parts[0].cols;
  w.dtype = dtype;
  for (const Tensor& part : parts) w.n += part.rows;
  w.data = *AllocateHostMemory(static_cast<size_t>(NumPanels(w.n) * PanelElements(w.k, dtype)) * DTypeBytes(dtype));
  CpuPackLinear(Sources(parts), dtype, pool, w.data.data());
  return w;
}

TEST(LinearRefTest, HandWorkedCase) {
  Matrix weight(DType::kFloat32, 3, 2), x(DType::kFloat32, 2, 2), y(DType::kFloat32, 2, 3, 1);
  weight.Fill({{1, 0}, {3, 4}, {0, -1}});
  x.Fill({{1, 2}, {-1, 0.5}});
  const LinearWeight w = RefWeight({weight.tensor()}, DType::kFloat32);
  RefLinear({x.tensor(), &w, nullptr, false, y.tensor()});
  EXPECT_THAT(y.Row(0), ElementsAre(1, 11, -2));
  EXPECT_THAT(y.Row(1), ElementsAre(-1, -1, -0.5));
  const float bias[] = {10, 20, 30};
  RefLinear({x.tensor(), &w, bias, true, y.tensor()});  // y += x W^T + bias
  EXPECT_THAT(y.Row(0), ElementsAre(12, 42, 26));
  EXPECT_THAT(y.Row(1), ElementsAre(8, 18, 29));
}

TEST(LinearRefTest, PartsAreStackedAndRounded) {
  Matrix a(DType::kFloat32, 1, 2, 3), b(DType::kFloat16, 2, 2);
  a.Fill({{0x1.01p0f, 2}});  // the first lies half way between two bfloat16
  b.Fill({{3, 4}, {5, 6}});
  const LinearWeight w = RefWeight({a.tensor(), b.tensor()}, DType::kBFloat16);
  ASSERT_EQ(w.n, 3);
  const float expected[] = {1, 2, 3, 4, 5, 6};
  for (int i = 0; i < 6; ++i) EXPECT_EQ(LoadFloat(w.data.data(), DType::kBFloat16, i), expected[i]);
}

class LinearTest : public EachIsa {};

struct Shape {
  int64_t n, k, rows;
};

// The largest error that float32 sums in any order may have, and vdpbf16ps, which takes subnormals as zero.
float Tolerance(int64_t k) { return 1e-6f * std::sqrt(static_cast<float>(k)) + 1e-6f; }

TEST_P(LinearTest, AgreesWithTheDefinition) {
  const std::unique_ptr<ThreadPool> pool = MakePool(3);
  uint32_t seed = 0;
  for (const Shape& s : {Shape{1, 1, 1},
                         {1, 2, 7},
                         {3, 5, 2},
                         {63, 33, 4},
                         {64, 64, 3},
                         {65, 31, 5},
                         {130, 129, 6},
                         {200, 199, 13},
                         {96, 200, 70},
                         {17, 1025, 8},
                         {70, 700, 97},
                         {256, 64, 40},
                         {192, 2050, 1}}) {
    for (DType dtype : kAllDTypes) {
      for (bool accumulate : {false, true}) {
        const std::string label =
            ::testing::PrintToString(std::vector<int64_t>{s.n, s.k, s.rows}) + std::string(DTypeName(dtype));
        ++seed;
        Matrix weight(DType::kFloat32, s.n, s.k, 1), x(dtype, s.rows, s.k, seed % 3), bias(DType::kFloat32, 1, s.n);
        weight.FillRandom(seed);
        x.FillRandom(seed + 1000);
        bias.FillRandom(seed + 2000);
        Matrix want(DType::kFloat32, s.rows, s.n, 5), got(DType::kFloat32, s.rows, s.n, 5);
        if (accumulate) want.FillRandom(seed + 3000), got.FillRandom(seed + 3000);
        const float* b = seed % 4 < 2 ? bias.tensor().Row<float>(0) : nullptr;
        const LinearWeight ref = RefWeight({weight.tensor()}, dtype), cpu = CpuWeight({weight.tensor()}, dtype, *pool);
        RefLinear({x.tensor(), &ref, b, accumulate, want.tensor()});
        CpuLinear({x.tensor(), &cpu, b, accumulate, got.tensor()}, kernels(), *pool);
        for (int64_t r = 0; r < s.rows; ++r) {
          for (int64_t j = 0; j < s.n; ++j) {
            ASSERT_NEAR(got.At(r, j), want.At(r, j), Tolerance(s.k)) << label << " at " << r << "," << j;
          }
          for (int64_t j = s.n; j < s.n + 5 && r < s.rows; ++j)
            ASSERT_TRUE(std::isnan(got.At(r, j))) << label << " wrote past a row";
        }
      }
    }
  }
}

// ARCHITECTURE law 5. A row has the same bits alone, in any company, for any number of workers.
TEST_P(LinearTest, CompanyAndWorkersAreInvisible) {
  std::vector<std::unique_ptr<ThreadPool>> pools;
  for (int threads : {1, 2, 3, 5}) pools.push_back(MakePool(threads));
  for (DType dtype : kAllDTypes) {
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{192, 1031}, {70, 260}, {320, 300}}) {
      constexpr int64_t kRows = 113;
      Matrix weight(DType::kFloat32, n, k), x(dtype, kRows, k, 2);
      weight.FillRandom(1);
      x.FillRandom(2);
      const LinearWeight w = CpuWeight({weight.tensor()}, dtype, *pools[1]);
      Matrix alone(DType::kFloat32, kRows, n);
      alone.FillRandom(3);
      for (int64_t r = 0; r < kRows; ++r) {
        CpuLinear({x.tensor().Rows(r, 1), &w, nullptr, true, alone.tensor().Rows(r, 1)}, kernels(), *pools[0]);
      }
      for (const std::unique_ptr<ThreadPool>& pool : pools) {
        for (int64_t rows : {2, 6, 7, 37, 97, 113}) {
          Matrix together(DType::kFloat32, kRows, n);
          together.FillRandom(3);
          for (int64_t r = 0; r < kRows; r += rows) {
            const int64_t count = std::min(rows, kRows - r);
            CpuLinear({x.tensor().Rows(r, count), &w, nullptr, true, together.tensor().Rows(r, count)}, kernels(),
                      *pool);
          }
          ASSERT_TRUE(SameBits(alone, together))
              << DTypeName(dtype) << " n " << n << " rows " << rows << " threads " << pool->num_threads();
        }
      }
    }
  }
}

TEST_P(LinearTest,
       ReadsNothingBesideItsRows) {  // x's padding is NaN, k is odd: a NaN read would show, even times a weight of zero
  const std::unique_ptr<ThreadPool> pool = MakePool(1);
  for (DType dtype : kAllDTypes) {
    Matrix weight(DType::kFloat32, 5, 7), x(dtype, 9, 7, 1), y(DType::kFloat32, 9, 5);
    weight.FillRandom(1);
    x.FillRandom(2);
    const LinearWeight w = CpuWeight({weight.tensor()}, dtype, *pool);
    CpuLinear({x.tensor(), &w, nullptr, false, y.tensor()}, kernels(), *pool);
    for (int64_t r = 0; r < 9; ++r) {
      for (float value : y.Row(r)) EXPECT_FALSE(std::isnan(value)) << DTypeName(dtype);
    }
  }
}

TEST_P(LinearTest, NanAndInfinityReachTheirRowOnly) {
  const std::unique_ptr<ThreadPool> pool = MakePool(1);
  for (DType dtype : kAllDTypes) {
    Matrix weight(DType::kFloat32, 64, 16), x(dtype, 6, 16), y(DType::kFloat32, 6, 64);
    weight.FillRandom(1);
    x.FillRandom(2);
    x.Set(2, 3, std::numeric_limits<float>::quiet_NaN());
    x.Set(4, 0, std::numeric_limits<float>::infinity());
    const LinearWeight w = CpuWeight({weight.tensor()}, dtype, *pool);
    CpuLinear({x.tensor(), &w, nullptr, false, y.tensor()}, kernels(), *pool);
    for (int64_t r = 0; r < 6; ++r) {
      for (float value : y.Row(r))
        EXPECT_EQ(std::isfinite(value), r != 2 && r != 4) << DTypeName(dtype) << " row " << r;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, LinearTest, testing::ValuesIn(SupportedCpuIsas()), IsaTestName);

TEST(LinearPackTest, EveryElementIsWhereItsPanelSays) {
  const std::unique_ptr<ThreadPool> pool = MakePool(3);
  Matrix a(DType::kBFloat16, 70, 133, 2), b(DType::kFloat32, 60, 133), c(DType::kFloat16, 1, 133);
  a.FillRandom(1);
  b.FillRandom(2);
  c.FillRandom(3);
  for (DType dtype : kAllDTypes) {
    const LinearWeight w = CpuWeight({a.tensor(), b.tensor(), c.tensor()}, dtype, *pool);
    ASSERT_EQ(w.n, 131);
    Matrix rounded(dtype, 1, 1);
    for (int64_t j = 0; j < NumPanels(w.n) * kPanelRows; ++j) {
      for (int64_t i = 0; i < w.k; ++i) {
        rounded.Set(0, 0,
                    j < 70    ? a.At(j, i)
                    : j < 130 ? b.At(j - 70, i)
                    : j < 131 ? c.At(0, i)
                              : 0.0f);  // padded with zeroes
        const int64_t at = j / kPanelRows * PanelElements(w.k, dtype) + PanelIndex(j % kPanelRows, i, dtype);
        ASSERT_EQ(LoadFloat(w.data.data(), dtype, at), rounded.At(0, 0)) << DTypeName(dtype) << " " << j << "," << i;
      }
    }
  }
}

}  // namespace
}  // namespace quire
