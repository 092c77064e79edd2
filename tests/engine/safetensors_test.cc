// The safetensors reader on good files and on every kind of broken one.

#include "engine/safetensors.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

#include "engine/mapped_file.h"
#include "engine/read_ahead.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace quire {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// A file of this header and `data_bytes` of data.
std::string File(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file + header + std::string(data_bytes, '\x01');
}

absl::StatusOr<std::vector<StoredTensor>> Parse(const std::string& file) {
  return ParseSafetensors({reinterpret_cast<const std::byte*>(file.data()), file.size()}, "m.safetensors");
}

TEST(Safetensors, ReadsTensorsInOrderOfTheirData) {
  const std::string file = File(
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,3],"data_offsets":[4,28]},)"
      R"("a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"c":{"dtype":"F16","shape":[],"data_offsets":[28,30]}}  )",
      30);
  const auto tensors = Parse(file);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 3);
  EXPECT_EQ((*tensors)[0].name, "a");
  EXPECT_EQ((*tensors)[1].name, "b");
  EXPECT_EQ((*tensors)[1].dtype, DType::kFloat32);
  EXPECT_EQ((*tensors)[1].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ((*tensors)[1].bytes, 24);
  EXPECT_EQ((*tensors)[1].data - (*tensors)[0].data, 4);
  EXPECT_EQ((*tensors)[2].bytes, 2);  // a scalar
}

TEST(Safetensors, AcceptsAFileWithoutTensors) {
  const auto tensors = Parse(File("{}", 0));
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_TRUE(tensors->empty());
}

struct Broken {
  const char* name;
  std::string file;
  const char* says;  // in the error, beside the file's name
};

class SafetensorsHostile : public testing::TestWithParam<Broken> {};

TEST_P(SafetensorsHostile, IsRefusedInOneLineThatNamesFileAndFault) {
  const auto tensors = Parse(GetParam().file);
  ASSERT_FALSE(tensors.ok());
  const std::string message(tensors.status().message());
  EXPECT_THAT(message, AllOf(HasSubstr("m.safetensors: "), HasSubstr(GetParam().says)));
  EXPECT_EQ(message.find('\n'), std::string::npos);
  EXPECT_LT(message.size(), 400);
}

const char kGood[] = R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";

INSTANTIATE_TEST_SUITE_P(
    Files, SafetensorsHostile,
    testing::ValuesIn(std::vector<Broken>{
        {"Empty", "", "truncated"},
        {"SevenBytes", std::string(7, '\0'), "truncated"},
        {"HeaderLongerThanFile", File(kGood, 8).substr(0, 20), "header: found a length of"},
        {"HeaderLengthHuge", std::string(7, '\xff') + "\x7f{}", "header: found a length of"},
        {"HeaderLengthWraps", std::string(8, '\xff') + "{}", "header: found a length of"},
        {"HeaderEmpty", File("", 0), "'{'"},
        {"HeaderBeginsWithSpace", File(" {}", 0), "'{'"},
        {"HeaderCutShort", File(R"({"t":{"dtype":"F32",)", 0), "no JSON"},
        {"HeaderTrailingGarbage", File("{}x", 0), "no JSON"},
        {"HeaderNotUtf8", File("{\"\xff\xfe\":{}}", 0), "no JSON"},
        {"DeepNesting", File("{\"t\":" + std::string(200'000, '['), 0), "an array"},
        {"DeepObjects", File("{\"t\":{\"dtype\":{\"dtype\":{}}}}", 0), "an object"},
        {"TensorIsNumber", File(R"({"t":3})", 0), "a number"},
        {"TensorIsNull", File(R"({"t":null})", 0), "null"},
        {"MetadataNested", File(R"({"__metadata__":{"a":{"b":"c"}}})", 0), "an object"},
        {"MetadataTwice", File(R"({"__metadata__":{},"__metadata__":{}})", 0), "twice"},
        {"MetadataIsText", File(R"({"__metadata__":"x"})", 0), "a text"},
        {"NameTwice",
         File(
             R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"t":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
             8),
         "tensor \"t\": found twice"},
        {"KeyTwice", File(R"({"t":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8), "twice"},
        {"KeyUnknown", File(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}})", 8), "found key \"x\""},
        {"DTypeMissing", File(R"({"t":{"shape":[2],"data_offsets":[0,8]}})", 8), "found no dtype"},
        {"ShapeMissing", File(R"({"t":{"dtype":"F32","data_offsets":[0,8]}})", 8), "found no shape"},
        {"OffsetsMissing", File(R"({"t":{"dtype":"F32","shape":[2]}})", 8), "found no data_offsets"},
        {"DTypeUnknown", File(R"({"t":{"dtype":"Q7_X","shape":[2],"data_offsets":[0,8]}})", 8),
         "found dtype \"Q7_X\", allowed: F32, BF16, F16, F8_E4M3"},
        {"DTypeUnsupported", File(R"({"t":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}})", 8), "F64"},
        {"DTypeIsNumber", File(R"({"t":{"dtype":3,"shape":[2],"data_offsets":[0,8]}})", 8), "a number"},
        {"ShapeNegative", File(R"({"t":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8), "found -2 in shape"},
        {"ShapeFraction", File(R"({"t":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", 8), "a fraction"},
        {"ShapeNested", File(R"({"t":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}})", 8), "an array"},
        {"ShapeOverflows", File(R"({"t":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}})", 8),
         "overflow"},
        {"ShapeOverflowsToZero",
         File(R"({"t":{"dtype":"F32","shape":[9223372036854775808,2],"data_offsets":[0,0]}})", 0), "overflow"},
        {"ShapeManyDims", File(R"({"t":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8]}})", 8),
         "more than 8"},
        {"NumberBeyond64Bits", File(R"({"t":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,8]}})", 8),
         "a fraction"},
        {"SizeTooSmall", File(R"({"t":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8), "found 8 bytes"},
        {"OffsetsOutside",
         File(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[1125899906842624,1125899906842632]}})", 8),
         "data_offsets [1125899906842624"},
        {"OffsetsReversed", File(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8),
         "data_offsets [8, 0]"},
        {"OffsetsNegative", File(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}})", 8),
         "found -8 in data_offsets"},
        {"OffsetsThree", File(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}})", 8),
         "found 3 data_offsets"},
        {"DataCutShort", File(kGood, 7), "truncated"},
        {"DataTooLong", File(kGood, 9), "found 1 bytes of data after"},
        {"DataWithoutTensors", File("{}", 4), "found 4 bytes of data after"},
        {"Hole", File(R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8), "hole"},
        {"Overlap",
         File(
             R"({"s":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"t":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
             12),
         "overlap"},
        {"SamePlace",
         File(
             R"({"s":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
             8),
         "overlap"},
        {"NameWithNewline", File(R"({"a\nb":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}})", 8), "a\\nb"},
        {"NameLong",
         File("{\"" + std::string(100'000, 'a') + R"(":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}})", 8),
         "aaa..."},
    }),
    [](const auto& info) { return info.param.name; });

// Every prefix of a good file, and every byte of its header replaced, is either refused or read; none crashes.
TEST(Safetensors, SurvivesEveryCutAndEveryChangedByte) {
  const std::string good = File(kGood, 8);
  ASSERT_TRUE(Parse(good).ok());
  for (size_t length = 0; length < good.size(); ++length) EXPECT_FALSE(Parse(good.substr(0, length)).ok()) << length;
  for (size_t at = 0; at < good.size(); ++at) {
    for (const char byte : {'\0', '\xff', '"', '{', '}', '[', '9', '-', '\\'}) {
      std::string changed = good;
      changed[at] = byte;
      (void)Parse(changed);
    }
  }
}

TEST(MappedFile, SaysWhatIsWrongWithAPath) {
  EXPECT_THAT(std::string(MappedFile::Open("/nonexistent/m.safetensors").status().message()),
              HasSubstr("/nonexistent/m.safetensors"));
  EXPECT_THAT(std::string(MappedFile::Open("/").status().message()), HasSubstr("no regular file"));
  const std::string pipe = testing::TempDir() + "quire_pipe_" + std::to_string(getpid());
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);  // that nobody writes to: nothing waits for it
  EXPECT_THAT(std::string(MappedFile::Open(pipe).status().message()), HasSubstr("no regular file"));
  unlink(pipe.c_str());
}

// Whoever reads may stop anywhere, read in another order, or be faster.
TEST(ReadAhead, EndsWithItsReader) {
  const std::vector<std::byte> bytes(size_t{3} << 20);
  const absl::Span<const std::byte> all(bytes);
  const std::vector<absl::Span<const std::byte>> regions = {all.subspan(1, 1 << 20), {}, all.subspan(1 << 20)};
  { const ReadAhead unused(regions); }
  ReadAhead read_ahead(regions);
  for (const size_t region : {2, 0, 1}) read_ahead.Reached(region);
}

}  // namespace
}  // namespace quire
