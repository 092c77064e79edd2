// README.md's tables of families and formats say what the code supports, row by row.

#include <cstring>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/config/registry.h"
#include "engine/gguf_family.h"
#include "engine/gguf_model.h"
#include "engine/safetensors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/gguf_bytes.h"

namespace quire {
namespace {

// The cells of the rows of "### Families" whose first cell is `first`, or of all its rows.
std::vector<std::vector<std::string>> Rows(absl::string_view first = "") {
  std::ifstream file(QUIRE_SOURCE_DIR "/README.md");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::vector<std::vector<std::string>> rows;
  bool is_inside = false;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (absl::StartsWith(line, "### ")) is_inside = line == "### Families";
    const std::vector<std::string> cells = absl::StrSplit(line, '|');
    if (is_inside && cells.size() > 2 && (first.empty() || cells[1] == absl::StrCat(" ", first, " ")))
      rows.push_back(cells);
  }
  return rows;
}

// What stands between backquotes.
std::set<std::string> Codes(absl::string_view cell) {
  const std::vector<std::string> pieces = absl::StrSplit(cell, '`');
  std::set<std::string> codes;
  for (size_t i = 1; i < pieces.size(); i += 2) codes.insert(pieces[i]);
  return codes;
}

std::vector<std::string> GgufNames(absl::string_view architecture) {
  std::set<std::string> names;
  for (const GgufFamily& family : GgufFamilies()) {
    if (family.architecture == architecture) names.insert(absl::StrCat("`", family.name, "` "));
  }
  return {names.begin(), names.end()};
}

TEST(Readme, FamiliesAreTheOnesInTheRegistry) {
  std::vector<std::string> rows, wanted;
  for (const std::vector<std::string>& cells : Rows()) {
    if (cells.size() == 6 && absl::StartsWith(cells[2], " `") && cells[2] != " `architectures` ")
      rows.push_back(absl::StrCat(cells[1], "|", cells[2], "|", cells[3]));
  }
  for (const Family& family : Families()) {
    const std::vector<std::string> gguf = GgufNames(family.architecture);
    ASSERT_LE(gguf.size(), 1u);
    wanted.push_back(
        absl::StrCat(" ", family.name, " | `", family.architecture, "` | ", gguf.empty() ? "" : gguf.front()));
  }
  EXPECT_THAT(rows, testing::UnorderedElementsAreArray(wanted));
}

TEST(Readme, TypesOfGgufAreTheOnesThatAreRead) {
  using namespace gguf_bytes;  // NOLINT(google-build-using-namespace): its few words are the language of this test
  std::set<std::string> read;
  for (uint32_t number = 0; number < 256; ++number) {
    const GgmlTypeInfo* const type = FindGgmlType(number);
    if (type == nullptr) continue;
    const size_t bytes = 256 / type->block_len * type->block_bytes;
    const std::string file = File({Pair("general.architecture", kText, Text("qwen3")),
                                   Pair("qwen3.attention.head_count", kUint32, Le<uint32_t>(1))},
                                  {Info("output.weight", {256, 1}, number, 0)}, bytes);
    const absl::StatusOr<Gguf> gguf = ParseGguf({reinterpret_cast<const std::byte*>(file.data()), file.size()}, "m");
    ASSERT_TRUE(gguf.ok()) << gguf.status();
    if (GgufTensors(*gguf).ok()) read.insert(type->name);
  }
  ASSERT_EQ(Rows("GGUF").size(), 1u);
  EXPECT_EQ(Codes(Rows("GGUF")[0][2]), read);
}

TEST(Readme, TypesOfSafetensorsAreTheOnesThatAreRead) {
  std::set<std::string> read;
  const struct {
    const char* name;
    int bits;
  } types[] = {{"BOOL", 8}, {"U8", 8},   {"I8", 8},    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"I16", 16},
               {"U16", 16}, {"F16", 16}, {"BF16", 16}, {"I32", 32},    {"U32", 32},    {"F32", 32},    {"F64", 64},
               {"I64", 64}, {"U64", 64}, {"C64", 64},  {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}};
  for (const auto& type : types) {
    const std::string header =
        absl::StrCat(R"({"w_blocks":{"dtype":")", type.name, R"(","shape":[8],"data_offsets":[0,)", type.bits, "]}}");
    std::string file(8, '\0');
    const uint64_t length = header.size();
    std::memcpy(file.data(), &length, sizeof length);
    file += header + std::string(type.bits, '\0');
    if (ParseSafetensors({reinterpret_cast<const std::byte*>(file.data()), file.size()}, "m").ok())
      read.insert(type.name);
  }
  ASSERT_EQ(Rows("safetensors").size(), 1u);
  EXPECT_EQ(Codes(Rows("safetensors")[0][2]), read);
}

}  // namespace
}  // namespace quire
