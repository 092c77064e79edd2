// README.md's table of families says what the code supports, row by row.

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/config/registry.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace quire {
namespace {

TEST(FamiliesInReadme, AreTheOnesInTheRegistry) {
  std::ifstream file(QUIRE_SOURCE_DIR "/README.md");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  std::vector<std::string> rows, wanted;
  bool is_inside = false;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (absl::StartsWith(line, "### ")) is_inside = line == "### Families";
    const std::vector<std::string> cells = absl::StrSplit(line, '|');
    if (is_inside && cells.size() == 5 && absl::StartsWith(cells[2], " `") && cells[2] != " `architectures` ")
      rows.push_back(absl::StrCat(cells[1], "|", cells[2]));
  }
  for (const Family& family : Families())
    wanted.push_back(absl::StrCat(" ", family.name, " | `", family.architecture, "` "));
  EXPECT_THAT(rows, testing::UnorderedElementsAreArray(wanted));
}

}  // namespace
}  // namespace quire
