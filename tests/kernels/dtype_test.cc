#include "kernels/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/kernels/cpu_problem.h"

namespace quire {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(DTypeTest, NamesAreParsedBack) {
  for (DType dtype : kAllDTypes) EXPECT_EQ(ParseDType(DTypeName(dtype)), dtype);
  EXPECT_EQ(ParseDType("bf16"), std::nullopt);
  EXPECT_EQ(DTypeBytes(DType::kFloat32), 4u);
  EXPECT_EQ(DTypeBytes(DType::kBFloat16), 2u);
}

TEST(DTypeTest, BFloat16RoundsToNearestTiesToEven) {
  EXPECT_EQ(ToBFloat16(1.0f).bits, 0x3f80);
  EXPECT_EQ(ToBFloat16(0x1.01p0f).bits, 0x3f80);      // half way between 1 and 1 + 2^-7: the even one is below
  EXPECT_EQ(ToBFloat16(0x1.03p0f).bits, 0x3f82);      // half way, the even one is above
  EXPECT_EQ(ToBFloat16(0x1.010002p0f).bits, 0x3f81);  // a little more than half
  EXPECT_EQ(ToBFloat16(-0.0f).bits, 0x8000);
  EXPECT_EQ(ToBFloat16(0x1.fffffep127f).bits, 0x7f80);  // rounds up to infinity
  EXPECT_EQ(ToBFloat16(0x1p-149f).bits, 0x0000);        // subnormals round too
  EXPECT_EQ(ToBFloat16(0x1.8p-133f).bits, 0x0002);      // a tie between 1 and 2 units of 2^-133
  EXPECT_EQ(ToBFloat16(-kInfinity).bits, 0xff80);
  EXPECT_TRUE(std::isnan(ToFloat(ToBFloat16(kNan))));
  // All of this NaN's bits are in the half that is cut off: it must not become infinity.
  EXPECT_TRUE(std::isnan(ToFloat(ToBFloat16(std::bit_cast<float>(0x7f800001u)))));
}

TEST(DTypeTest, Float16RoundsToNearestTiesToEven) {
  EXPECT_EQ(ToFloat16(1.0f).bits, 0x3c00);
  EXPECT_EQ(ToFloat16(0x1.002p0f).bits, 0x3c00);  // half way, even below
  EXPECT_EQ(ToFloat16(0x1.006p0f).bits, 0x3c02);  // half way, even above
  EXPECT_EQ(ToFloat16(0x1.002002p0f).bits, 0x3c01);
  EXPECT_EQ(ToFloat16(65504.0f).bits, 0x7bff);
  EXPECT_EQ(ToFloat16(65519.99f).bits, 0x7bff);
  EXPECT_EQ(ToFloat16(65520.0f).bits, 0x7c00);  // infinity
  EXPECT_EQ(ToFloat16(-1e30f).bits, 0xfc00);
  EXPECT_EQ(ToFloat16(0x1p-24f).bits, 0x0001);      // the least subnormal
  EXPECT_EQ(ToFloat16(0x1p-25f).bits, 0x0000);      // a tie with zero
  EXPECT_EQ(ToFloat16(0x1.8p-24f).bits, 0x0002);    // a tie
  EXPECT_EQ(ToFloat16(0x1.ff8p-15f).bits, 0x03ff);  // the greatest subnormal
  EXPECT_EQ(ToFloat16(0x1.ffcp-15f).bits, 0x0400);  // half way to the least normal, which is even
  EXPECT_EQ(ToFloat16(-0.0f).bits, 0x8000);
  EXPECT_TRUE(std::isnan(ToFloat(ToFloat16(kNan))));
  EXPECT_TRUE(std::isnan(ToFloat(ToFloat16(std::bit_cast<float>(0x7f800001u)))));
}

TEST(DTypeTest, EveryFloat16AndBFloat16SurvivesTheWayThroughFloat32) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const Float16 half{static_cast<uint16_t>(bits)};
    ASSERT_TRUE(std::isnan(ToFloat(half)) || ToFloat16(ToFloat(half)).bits == half.bits) << bits;
    const BFloat16 brain{static_cast<uint16_t>(bits)};
    ASSERT_TRUE(std::isnan(ToFloat(brain)) || ToBFloat16(ToFloat(brain)).bits == brain.bits) << bits;
  }
  EXPECT_EQ(ToFloat(Float16{0x0001}), 0x1p-24f);
  EXPECT_EQ(ToFloat(Float16{0xc500}), -5.0f);
  EXPECT_TRUE(std::isnan(ToFloat(Float16{0x7c01})));
}

class ConvertTest : public EachIsa {};

TEST_P(ConvertTest, RoundsAsTheScalarFunctionsDo) {
  std::vector<float> values = {0.0f,      -0.0f,    kInfinity,       -kInfinity, kNan,
                               65519.99f, 65520.0f, 0x1.fffffep127f, 0x1p-149f};
  std::minstd_rand random(7);
  for (int i = 0; i < 4000; ++i) values.push_back(std::bit_cast<float>(static_cast<uint32_t>(random() * 2654435761u)));
  // Ties of every exponent, in both types, and their neighbours.
  for (uint32_t exponent = 0; exponent < 255; ++exponent) {
    for (uint32_t mantissa : {0x8000u, 0x18000u, 0x1000u, 0x3000u, 0x7fffffu}) {
      for (int step : {-1, 0, 1}) values.push_back(std::bit_cast<float>((exponent << 23 | mantissa) + step));
    }
  }
  const int64_t n = static_cast<int64_t>(values.size());
  for (DType dtype : kAllDTypes) {
    Matrix expected(dtype, 1, n), got(dtype, 1, n, 3);
    const Matrix untouched(dtype, 1, 3);
    for (int64_t i = 0; i < n; ++i) expected.Set(0, i, values[i]);
    kernels().convert[static_cast<int>(dtype)](values.data(), n, got.tensor().data);
    for (int64_t i = 0; i < n; ++i) {
      const float want = expected.At(0, i), have = got.At(0, i);
      if (std::isnan(want)) {
        ASSERT_TRUE(std::isnan(have)) << values[i];
      } else {
        ASSERT_EQ(std::bit_cast<uint32_t>(have), std::bit_cast<uint32_t>(want)) << std::hexfloat << values[i];
      }
    }
    for (int64_t i = n; i < n + 3; ++i) EXPECT_TRUE(std::isnan(got.At(0, i)));  // nothing behind the end was written
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, ConvertTest, testing::ValuesIn(SupportedCpuIsas()), IsaTestName);

}  // namespace
}  // namespace quire
