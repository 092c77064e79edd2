// The GGUF reader on good files and on every kind of broken one.

#include "engine/gguf.h"

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/gguf_bytes.h"

namespace quire {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

using namespace gguf_bytes;  // NOLINT(google-build-using-namespace): its few words are the language of this test

absl::StatusOr<Gguf> Parse(const std::string& file) {
  return ParseGguf({reinterpret_cast<const std::byte*>(file.data()), file.size()}, "m.gguf");
}

TEST(Gguf, ReadsTypedMetadata) {
  const std::string file =
      File({Pair("u", kUint32, Le<uint32_t>(7)), Pair("i", kInt32, Le<int32_t>(-7)), Pair("f", kFloat32, Le(1.5f)),
            Pair("d", kFloat64, Le(2.5)), Pair("b", kBool, "\1"), Pair("t", kText, Text("llama")),
            Pair("texts", kArray, Array(kText, 2, Text("a") + Text(""))),
            Pair("ints", kArray, Array(kInt32, 2, Le<int32_t>(3) + Le<int32_t>(-1))),
            Pair("bools", kArray, Array(kBool, 3, std::string("\1\0\1", 3))),
            Pair("floats", kArray, Array(kFloat32, 1, Le(0.25f)))},
           {}, 0);
  const auto gguf = Parse(file);
  ASSERT_TRUE(gguf.ok()) << gguf.status();
  const GgufMetadata& m = gguf->metadata;
  EXPECT_EQ(*m.Integer("u", 0, 10), 7);
  EXPECT_EQ(*m.Integer("i", -10, 10), -7);
  EXPECT_EQ(*m.Number("f"), 1.5);
  EXPECT_EQ(*m.Number("d"), 2.5);
  EXPECT_EQ(*m.Number("u"), 7);
  EXPECT_TRUE(*m.Bool("b"));
  EXPECT_EQ(*m.Text("t"), "llama");
  EXPECT_THAT(*m.Texts("texts"), ElementsAre("a", ""));
  EXPECT_THAT(*m.Integers("ints", -1, 3), ElementsAre(3, -1));
  EXPECT_THAT(*m.Integers("bools", 0, 1), ElementsAre(1, 0, 1));
  EXPECT_THAT(*m.Numbers("floats"), ElementsAre(0.25f));
  EXPECT_THAT(*m.Numbers("ints"), ElementsAre(3.0f, -1.0f));
  EXPECT_TRUE(m.Has("u"));
  EXPECT_FALSE(m.Has("v"));
  EXPECT_EQ(m.Integer("v", 0, 1).status().code(), absl::StatusCode::kNotFound);
}

TEST(Gguf, ReadsTensorsWithTheSlowestDimensionFirst) {
  for (const uint32_t version : {2u, 3u}) {
    const std::string file =
        File({}, {Info("w", {4, 3}, 0, 0), Info("q", {64, 2}, 8, 64), Info("v", {5}, 1, 224)}, 234, version);
    const auto gguf = Parse(file);
    ASSERT_TRUE(gguf.ok()) << gguf.status();
    ASSERT_EQ(gguf->tensors.size(), 3);
    EXPECT_EQ(gguf->version, version);
    EXPECT_EQ(gguf->tensors[0].name, "w");
    EXPECT_THAT(gguf->tensors[0].shape, ElementsAre(3, 4));
    EXPECT_EQ(gguf->tensors[0].bytes, 48);
    EXPECT_EQ(gguf->tensors[1].type->type, GgmlType::kQ8_0);
    EXPECT_THAT(gguf->tensors[1].shape, ElementsAre(2, 64));
    EXPECT_EQ(gguf->tensors[1].bytes, 136);
    EXPECT_EQ(gguf->tensors[1].data - gguf->tensors[0].data, 64);
    EXPECT_EQ(gguf->tensors[2].bytes, 10);
  }
}

TEST(Gguf, HonoursItsAlignment) {
  const std::string alignment = Pair("general.alignment", kUint32, Le<uint32_t>(64));
  const std::string file = File({alignment}, {Info("a", {1}, 0, 0), Info("b", {1}, 0, 64)}, 128, 3, 64);
  const auto gguf = Parse(file);
  ASSERT_TRUE(gguf.ok()) << gguf.status();
  EXPECT_EQ(gguf->tensors[1].data - gguf->tensors[0].data, 64);
}

struct Broken {
  const char* name;
  std::string file;
  const char* says;  // in the error, beside the file's name
};

class GgufHostile : public testing::TestWithParam<Broken> {};

TEST_P(GgufHostile, IsRefusedInOneLineThatNamesFileAndFault) {
  const auto gguf = Parse(GetParam().file);
  ASSERT_FALSE(gguf.ok());
  const std::string message(gguf.status().message());
  EXPECT_THAT(message, AllOf(HasSubstr("m.gguf: "), HasSubstr(GetParam().says)));
  EXPECT_EQ(message.find('\n'), std::string::npos);
  EXPECT_LT(message.size(), 400);
}

std::string Header(uint32_t version, uint64_t tensors, uint64_t pairs) {
  return "GGUF" + Le(version) + Le(tensors) + Le(pairs);
}

INSTANTIATE_TEST_SUITE_P(
    Files, GgufHostile,
    testing::ValuesIn(std::vector<Broken>{
        {"Empty", "", "truncated"},
        {"NoMagic", "GGML" + std::string(40, '\0'), "allowed \"GGUF\""},
        {"NoVersion", "GGUF", "truncated"},
        {"Version1", Header(1, 0, 0), "found version 1, allowed 2 and 3"},
        {"BigEndian", Header(0x03000000, 0, 0), "little-endian"},
        {"HeaderCut", Header(3, 0, 0).substr(0, 20), "truncated"},
        {"PairsBeyondFile", Header(3, 0, UINT64_MAX), "found 18446744073709551615 metadata pairs"},
        {"TensorsBeyondFile", Header(3, UINT64_MAX, 0), "found 18446744073709551615 tensors"},
        {"KeyBeyondFile", Header(3, 0, 1) + Le<uint64_t>(UINT64_MAX) + std::string(16, 'k'), "truncated"},
        {"KeyEmpty", File({Pair("", kUint32, Le<uint32_t>(1))}, {}, 0), "a name of 0 bytes"},
        {"KeyHuge", File({Pair(std::string(70000, 'k'), kUint32, Le<uint32_t>(1))}, {}, 0), "a name of 70000 bytes"},
        {"KeyTwice", File({Pair("k", kUint32, Le<uint32_t>(1)), Pair("k", kUint32, Le<uint32_t>(1))}, {}, 0),
         "key \"k\": found twice"},
        {"ValueType", File({Pair("k", 13, Le<uint64_t>(1))}, {}, 0), "key \"k\": found type 13"},
        {"ValueCut", File({Pair("k", kUint64, "abc")}, {}, 0), "key \"k\": found a number of 8 bytes"},
        {"TextBeyondFile", File({Pair("k", kText, Le<uint64_t>(uint64_t{1} << 60))}, {}, 0), "key \"k\": found a text"},
        {"ArrayBeyondFile", File({Pair("k", kArray, Array(kUint32, uint64_t{1} << 62, ""))}, {}, 0),
         "key \"k\": found an array of 4611686018427387904 elements"},
        {"TextsBeyondFile", File({Pair("k", kArray, Array(kText, 1000, std::string(64, '\0')))}, {}, 0),
         "key \"k\": found an array of 1000 elements"},
        {"TextOfArrayCut", File({Pair("k", kArray, Array(kText, 2, Text("abc") + Le<uint64_t>(9)))}, {}, 0),
         "key \"k\": found a text of an array"},
        {"Nested", File({Pair("k", kArray, Array(kArray, 1, Array(kArray, 1, "")))}, {}, 0),
         "key \"k\": found an array of elements of type 9"},
        {"ElementType", File({Pair("k", kArray, Array(99, 1, "abcdefgh"))}, {}, 0), "elements of type 99"},
        {"AlignmentNotPower", File({Pair("general.alignment", kUint32, Le<uint32_t>(24))}, {Info("w", {1}, 0, 0)}, 4),
         "key \"general.alignment\": found 24, allowed: powers of two"},
        {"AlignmentZero", File({Pair("general.alignment", kUint32, Le<uint32_t>(0))}, {Info("w", {1}, 0, 0)}, 4),
         "key \"general.alignment\": found 0"},
        {"AlignmentText", File({Pair("general.alignment", kText, Text("x"))}, {Info("w", {1}, 0, 0)}, 4),
         "key \"general.alignment\": found \"x\""},
        {"TensorTwice", File({}, {Info("w", {8}, 0, 0), Info("w", {8}, 0, 32)}, 64), "tensor \"w\": found twice"},
        {"NoDimension", File({}, {Info("w", {}, 0, 0)}, 32), "tensor \"w\": found 0 dimensions"},
        {"FiveDimensions", File({}, {Info("w", {1, 1, 1, 1, 1}, 0, 0)}, 32), "tensor \"w\": found 5 dimensions"},
        {"DimensionZero", File({}, {Info("w", {0}, 0, 0)}, 32), "tensor \"w\": found a dimension of 0"},
        {"DimensionNegative", File({}, {Info("w", {UINT64_MAX}, 0, 0)}, 32), "tensor \"w\": found a dimension of"},
        {"ShapeOverflows", File({}, {Info("w", {uint64_t{1} << 40, uint64_t{1} << 40}, 0, 0)}, 32), "more than 2^64"},
        {"ShapeBeyondFile", File({}, {Info("w", {1000, 1000}, 0, 0)}, 32), "found a shape of 4000000 bytes"},
        {"TypeUnknown", File({}, {Info("w", {32}, 4, 0)}, 32), "tensor \"w\": found type 4"},
        {"RowNotWholeBlocks", File({}, {Info("w", {33}, 8, 0)}, 64), "found rows of 33 elements of type Q8_0"},
        {"Overlap", File({}, {Info("a", {16}, 0, 0), Info("b", {8}, 0, 32)}, 96), "tensor \"b\": found offset 32"},
        {"Hole", File({}, {Info("a", {8}, 0, 0), Info("b", {8}, 0, 64)}, 96), "there is a hole before it"},
        {"Unaligned", File({}, {Info("a", {2}, 0, 0), Info("b", {2}, 0, 8)}, 40), "tensor \"b\": found offset 8"},
        {"DataCut", File({}, {Info("w", {8}, 0, 0)}, 31), "tensor \"w\": found 32 bytes from byte"},
        {"NoData", File({}, {Info("w", {1}, 0, 0)}, 0), "tensor \"w\": found 4 bytes from byte"},
        {"DataAfterTheLast", File({}, {Info("w", {8}, 0, 0)}, 64), "found 32 bytes after the last tensor"},
        {"InfoCut", File({}, {Info("w", {8}, 0, 0).substr(0, 24)}, 0), "truncated"},
    }),
    [](const auto& info) { return info.param.name; });

TEST(GgufMetadata, NamesKeyAndFaultOfAWrongValue) {
  const std::string file = File({Pair("u", kUint32, Le<uint32_t>(7)), Pair("big", kUint64, Le(UINT64_MAX)),
                                 Pair("nan", kFloat32, Le(std::nanf(""))), Pair("t", kText, Text("a\nb")),
                                 Pair("nums", kArray, Array(kFloat32, 2, Le(1.0f) + Le(INFINITY)))},
                                {}, 0);
  const auto gguf = Parse(file);
  ASSERT_TRUE(gguf.ok()) << gguf.status();
  const GgufMetadata& m = gguf->metadata;
  const auto says = [](const auto& result) { return std::string(result.status().message()); };
  EXPECT_EQ(says(m.Integer("u", 8, 9)), "m.gguf: key \"u\": found 7, allowed: an integer from 8 to 9");
  EXPECT_THAT(says(m.Integer("big", 0, 9)), HasSubstr("found 18446744073709551615"));
  EXPECT_THAT(says(m.Number("nan")), HasSubstr("found nan, allowed: a finite number"));
  EXPECT_THAT(says(m.Bool("t")), HasSubstr("found \"a\\nb\", allowed: a bool"));
  EXPECT_THAT(says(m.Texts("nums")), HasSubstr("found an array of 2 numbers, allowed: an array of texts"));
  EXPECT_THAT(says(m.Numbers("nums")), HasSubstr("found inf at index 1"));
  EXPECT_THAT(says(m.Integers("nums", 0, 1)), HasSubstr("found 1 at index 0, allowed: an integer from 0 to 1"));
  EXPECT_THAT(says(m.Text("none")), HasSubstr("key \"none\": found none"));
}

// Whatever prefix of a good file there is, the reader ends with an error, not beyond the prefix.
TEST(Gguf, EveryPrefixIsRefused) {
  const std::string file = File({Pair("texts", kArray, Array(kText, 2, Text("a") + Text("bc"))),
                                 Pair("ints", kArray, Array(kInt32, 2, Le<int32_t>(3) + Le<int32_t>(-1)))},
                                {Info("w", {4, 3}, 0, 0), Info("q", {32}, 8, 64)}, 98);
  ASSERT_TRUE(Parse(file).ok());
  for (size_t size = 0; size < file.size(); ++size) {
    const std::vector<char> prefix(file.begin(), file.begin() + static_cast<ptrdiff_t>(size));  // ends where ASan sees
    EXPECT_FALSE(ParseGguf({reinterpret_cast<const std::byte*>(prefix.data()), size}, "m.gguf").ok()) << size;
  }
}

}  // namespace
}  // namespace quire
