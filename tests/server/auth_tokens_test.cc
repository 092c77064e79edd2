#include "server/auth_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace quire {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// SHA-256 of "abc" (FIPS 180-4, appendix B.1).
constexpr char kAbcLine[] = "sha256:BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";

TEST(AuthTokens, KnowsTokensByThemselvesAndByTheirHashes) {
  const auto tokens = AuthTokens::Parse(absl::StrCat("# a comment\n\n  plain-token \n", kAbcLine, "\r\n"), "file");
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_TRUE((*tokens)->Find("plain-token").has_value());
  EXPECT_TRUE((*tokens)->Find("abc").has_value());
  for (const char* unknown : {"", "plain-toke", "plain-token ", "abcd", "ABC", kAbcLine}) {
    EXPECT_FALSE((*tokens)->Find(unknown).has_value()) << unknown;
  }
  EXPECT_FALSE((*tokens)->Find(std::string(5000, 'a')).has_value());
}

TEST(AuthTokens, ATokenMayNameItsTenantAndHighestPriority) {
  const auto tokens = AuthTokens::Parse("one tenant=blue max-priority=-3\ntwo max-priority=5\nthree\n", "file");
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  const Principal one = (*tokens)->Find("one").value(), two = (*tokens)->Find("two").value();
  EXPECT_EQ(one.tenant, "blue");
  EXPECT_EQ(one.max_priority, -3);
  EXPECT_EQ(two.tenant, std::nullopt);
  EXPECT_EQ(two.max_priority, 5);
  EXPECT_EQ((*tokens)->Find("three")->max_priority, std::nullopt);
}

TEST(AuthTokens, ABadLineIsNamedByItsNumberAndNeverShown) {
  const struct {
    const char* text;
    const char* why;
  } cases[] = {
      {"good-one\nsha256:00\n", "line 2: sha256: wants 64 hex digits"},
      {"secret-word owner=me\n", "line 1: word 2 is neither tenant=NAME nor max-priority=N"},
      {"secret-word tenant=\n", "line 1: tenant= wants 1 to 128"},
      {"secret-word max-priority=high\n", "line 1: max-priority= wants a number"},
      {"secret-word\nsecret-word\n", "line 2: this token stands in the file twice"},
      {"secret\x01word\n", "printable ASCII"},
      {"# nothing\n", "has no token"},
  };
  for (const auto& c : cases) {
    const auto tokens = AuthTokens::Parse(c.text, "file");
    ASSERT_FALSE(tokens.ok()) << c.text;
    EXPECT_THAT(std::string(tokens.status().message()),
                AllOf(HasSubstr("file"), HasSubstr(c.why), Not(HasSubstr("secret"))));
  }
}

class TokenFile {
 public:
  TokenFile() : path_(std::filesystem::temp_directory_path() / absl::StrCat("auth_tokens_test.", getpid())) {}
  ~TokenFile() { std::filesystem::remove(path_); }
  // As an editor and Kubernetes do: another file takes the name.
  void Write(const std::string& text) {
    std::ofstream(path_ + ".new") << text;
    std::filesystem::rename(path_ + ".new", path_);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST(AuthTokens, AFileWithoutTokensAndADirectoryAreNamed) {
  TokenFile file;
  file.Write("");
  EXPECT_THAT(std::string(AuthTokens::Load(file.path()).status().message()), HasSubstr("has no token"));
  const std::string folder = std::filesystem::temp_directory_path();
  EXPECT_THAT(std::string(AuthTokens::Load(folder).status().message()), HasSubstr("Is a directory"));
  file.Write(std::string(2 << 20, '#'));
  EXPECT_THAT(std::string(AuthTokens::Load(file.path()).status().message()), HasSubstr("more than 1048576 bytes"));
}

TEST(AuthTokens, TheFileIsReadAgainWhenItChangesAndABadOneChangesNothing) {
  TokenFile file;
  EXPECT_THAT(std::string(AuthTokens::Load(file.path()).status().message()),
              AllOf(HasSubstr(file.path()), HasSubstr("No such file")));
  file.Write("first\n");
  const auto tokens = AuthTokens::Load(file.path());
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  absl::Time now = absl::Now();
  const auto knows = [&](const char* token) { return (*tokens)->Find(token, now).has_value(); };
  EXPECT_TRUE(knows("first"));
  file.Write("second\n");
  now += absl::Seconds(2);
  EXPECT_TRUE(knows("second"));
  EXPECT_FALSE(knows("first"));
  file.Write("sha256:broken\n");
  now += absl::Seconds(2);
  EXPECT_TRUE(knows("second"));
  file.Write("third\n");
  EXPECT_TRUE(knows("second")) << "the file is looked at once a second at most";
  now += absl::Seconds(2);
  EXPECT_TRUE(knows("third"));
}

}  // namespace
}  // namespace quire
