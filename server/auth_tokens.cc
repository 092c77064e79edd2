#include "server/auth_tokens.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"

namespace quire {
namespace {

constexpr absl::Duration kLookInterval = absl::Seconds(1);
constexpr size_t kMaxTenantBytes = 128;  // of scheduling.tenant too
constexpr size_t kMaxFileBytes = size_t{1} << 20;
constexpr size_t kMaxTokenBytes = 4096;

bool IsPrintable(absl::string_view text) {
  for (const char c : text) {
    if (c < 0x20 || c > 0x7e) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<std::unique_ptr<AuthTokens>> AuthTokens::Parse(absl::string_view text, absl::string_view name) {
  absl::StatusOr<Entries> entries = ParseEntries(text, name);
  if (!entries.ok()) return entries.status();
  auto tokens = std::make_unique<AuthTokens>();
  tokens->entries_ = std::make_shared<Entries>(*std::move(entries));
  return tokens;
}

absl::StatusOr<std::unique_ptr<AuthTokens>> AuthTokens::Load(const std::string& path) {
  auto tokens = std::make_unique<AuthTokens>();
  tokens->path_ = path;
  tokens->state_ = StateOf(path);  // before it is read: a change meanwhile is seen later
  tokens->looked_at_ = absl::Now();
  absl::StatusOr<Entries> entries = ReadEntries(path);
  if (!entries.ok()) return entries.status();
  tokens->entries_ = std::make_shared<Entries>(*std::move(entries));
  return tokens;
}

std::optional<Principal> AuthTokens::Find(absl::string_view token, absl::Time now) {
  if (token.size() > kMaxTokenBytes) return std::nullopt;
  const std::shared_ptr<const Entries> entries = Current(now);
  const Digest digest = Hash(token);
  const Entry* found = nullptr;
  for (const Entry& entry : *entries) {  // all of them: the time must not tell where a token stands
    if (CRYPTO_memcmp(entry.digest.data(), digest.data(), digest.size()) == 0) found = &entry;
  }
  if (found == nullptr) return std::nullopt;
  return found->principal;
}

std::shared_ptr<const AuthTokens::Entries> AuthTokens::Current(absl::Time now) {
  const std::lock_guard lock(mutex_);
  if (path_.empty() || now < looked_at_ + kLookInterval) return entries_;
  looked_at_ = now;
  const std::optional<FileState> state = StateOf(path_);
  if (state == state_) return entries_;
  state_ = state;
  absl::StatusOr<Entries> entries = ReadEntries(path_);
  if (entries.ok()) {
    entries_ = std::make_shared<Entries>(*std::move(entries));
    spdlog::info("--auth-token-file was read again: {} tokens", entries_->size());
  } else {
    spdlog::warn("the tokens stay as they are: {}", std::string(entries.status().message()));
  }
  return entries_;
}

AuthTokens::Digest AuthTokens::Hash(absl::string_view token) {
  Digest digest;
  SHA256(reinterpret_cast<const uint8_t*>(token.data()), token.size(), digest.data());
  return digest;
}

std::optional<AuthTokens::FileState> AuthTokens::StateOf(const std::string& path) {
  struct stat status;
  if (stat(path.c_str(), &status) != 0) return std::nullopt;
  return FileState{static_cast<int64_t>(status.st_ino), status.st_size, status.st_mtim.tv_sec, status.st_mtim.tv_nsec};
}

absl::StatusOr<AuthTokens::Entries> AuthTokens::ReadEntries(const std::string& path) {
  const std::string name = absl::StrCat("--auth-token-file ", path);
  std::ifstream file(path, std::ios::binary);
  std::string text(kMaxFileBytes + 1, '\0');
  if (file.is_open()) file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!file.is_open() || file.bad()) {  // it is bad when it is a directory
    return absl::InvalidArgumentError(absl::StrCat(name, ": ", std::strerror(errno)));
  }
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxFileBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " has more than ", kMaxFileBytes, " bytes; allowed: at most so many"));
  }
  return ParseEntries(text, name);
}

absl::StatusOr<AuthTokens::Entries> AuthTokens::ParseEntries(absl::string_view text, absl::string_view name) {
  Entries entries;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line[0] == '#') continue;
    absl::StatusOr<Entry> entry = ParseLine(line);
    if (!entry.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(name, ", line ", number, ": ", entry.status().message()));
    }
    for (const Entry& other : entries) {
      if (other.digest == entry->digest) {
        return absl::InvalidArgumentError(
            absl::StrCat(name, ", line ", number, ": this token stands in the file twice"));
      }
    }
    entries.push_back(*std::move(entry));
  }
  if (entries.empty()) return absl::InvalidArgumentError(absl::StrCat(name, " has no token; want one on a line"));
  return entries;
}

absl::StatusOr<AuthTokens::Entry> AuthTokens::ParseLine(absl::string_view line) {
  const std::vector<absl::string_view> words = absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
  Entry entry;
  absl::string_view token = words[0];
  if (absl::ConsumePrefix(&token, "sha256:")) {
    if (token.size() != 2 * entry.digest.size() || !std::all_of(token.begin(), token.end(), absl::ascii_isxdigit)) {
      return absl::InvalidArgumentError("sha256: wants 64 hex digits behind it");
    }
    const std::string bytes = absl::HexStringToBytes(token);
    std::copy(bytes.begin(), bytes.end(), entry.digest.begin());
  } else if (token.size() > kMaxTokenBytes || !IsPrintable(token)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the token has ", token.size(), " bytes; allowed: at most ", kMaxTokenBytes, ", printable ASCII"));
  } else {
    entry.digest = Hash(token);
  }
  for (size_t i = 1; i < words.size(); ++i) {
    absl::string_view value = words[i];
    int32_t priority = 0;
    if (absl::ConsumePrefix(&value, "tenant=")) {
      if (value.empty() || value.size() > kMaxTenantBytes || !IsPrintable(value)) {
        return absl::InvalidArgumentError(
            absl::StrCat("tenant= wants 1 to ", kMaxTenantBytes, " printable characters"));
      }
      entry.principal.tenant = std::string(value);
    } else if (absl::ConsumePrefix(&value, "max-priority=")) {
      if (!absl::SimpleAtoi(value, &priority)) return absl::InvalidArgumentError("max-priority= wants a number");
      entry.principal.max_priority = priority;
    } else {
      return absl::InvalidArgumentError(absl::StrCat("word ", i + 1, " is neither tenant=NAME nor max-priority=N"));
    }
  }
  return entry;
}

}  // namespace quire
