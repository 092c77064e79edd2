// FP8 checkpoints: what the bytes stand for, the scales beside them, and which scales are refused.

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "engine/checkpoint.h"
#include "engine/stored_tensor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace quire {
namespace {

using nlohmann::json;
using testing::HasSubstr;

// A directory with one FP8 matrix [130, 200] named "w.weight" and its scales.
class Fp8Test : public testing::Test {
 protected:
  static constexpr int64_t kRows = 130, kCols = 200;

  void SetUp() override {
    directory_ = testing::TempDir() + "quire_fp8_" + testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  void Write(const std::string& scales_name, const std::vector<int64_t>& shape, const std::vector<float>& scales) {
    json header;
    const size_t bytes = kRows * kCols, scale_bytes = scales.size() * sizeof(float);
    header["w.weight"] = {{"dtype", "F8_E4M3"}, {"shape", {kRows, kCols}}, {"data_offsets", {0, bytes}}};
    header[scales_name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {bytes, bytes + scale_bytes}}};
    const std::string text = header.dump();
    const uint64_t length = text.size();
    std::ofstream file(directory_ + "/model.safetensors", std::ios::binary);
    file.write(reinterpret_cast<const char*>(&length), 8);
    file << text;
    for (size_t i = 0; i < bytes; ++i) file.put(static_cast<char>(i % 251));
    file.write(reinterpret_cast<const char*>(scales.data()), static_cast<std::streamsize>(scale_bytes));
  }

  absl::StatusOr<Checkpoint> Open() const { return Checkpoint::Open(directory_); }

  std::string directory_;
};

TEST_F(Fp8Test, BytesAreE4M3TimesTheScaleOfTheirBlock) {
  Write("w.weight_scale_inv", {2, 2}, {1, 2, 4, 8});
  const absl::StatusOr<Checkpoint> checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ASSERT_EQ(checkpoint->tensors().size(), 1);  // the scales are no tensor of their own
  const StoredTensor& tensor = checkpoint->tensors().at("w.weight").tensor;
  EXPECT_EQ(Fp8Value(tensor, 0), 0);
  EXPECT_EQ(Fp8Value(tensor, 1), 0x1p-9f);          // the smallest subnormal
  EXPECT_EQ(Fp8Value(tensor, 0x38), 1);             // exponent 7, the bias
  EXPECT_EQ(Fp8Value(tensor, 0x7e), 448);           // the largest
  EXPECT_TRUE(std::isnan(Fp8Value(tensor, 0x7f)));  // there is no infinity
  EXPECT_EQ(Fp8Value(tensor, 0xb8), 2 * -1);        // column 184: the second block
  const int64_t index = 129 * kCols;  // row 129: the third block; the byte there is 198, as in column 198 of row 0
  EXPECT_EQ(Fp8Value(tensor, index) / 4, Fp8Value(tensor, index % 251) / 2);
}

TEST_F(Fp8Test, OneScaleMayServeAll) {
  Write("w.weight_scale", {}, {0.5f});
  const absl::StatusOr<Checkpoint> checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(Fp8Value(checkpoint->tensors().at("w.weight").tensor, 0x38), 0.5f);
}

TEST_F(Fp8Test, RefusesScalesThatAreNotFiniteOrOfAnotherShape) {
  const auto error = [&] { return std::string(Open().status().message()); };
  Write("w.weight_scale_inv", {2, 2}, {1, 2, std::numeric_limits<float>::infinity(), 8});
  EXPECT_THAT(error(), HasSubstr("tensor \"w.weight_scale_inv\": found inf at index 2, allowed: finite"));
  Write("w.weight_scale_inv", {1, 2}, {1, 2});
  EXPECT_THAT(error(), HasSubstr("found shape [1, 2], allowed: one number, or one for each block of 128 x 128"));
}

}  // namespace
}  // namespace quire
