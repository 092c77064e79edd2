// AuthTokens: the bearer tokens that clients may show, from the file of --auth-token-file.
//
// A line is a token, or sha256: and the 64 hex digits of its hash; `tenant=NAME` and `max-priority=N` may follow, blank
// lines and lines that begin with # are skipped. Only hashes are kept, and a token that is shown is compared with every
// one of them in constant time. The file is read again when it has changed, looked at once a second at most; one that
// can no longer be read, or has a bad line, changes nothing and is logged.
//
// Thread: any.

#ifndef QUIRE_SERVER_AUTH_TOKENS_H_
#define QUIRE_SERVER_AUTH_TOKENS_H_

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace quire {

// Who calls, as far as his credential says.
struct Principal {
  std::optional<std::string> tenant = std::nullopt;  // every request of his belongs to it
  std::optional<int32_t> max_priority =
      std::nullopt;  // the lowest value of scheduling.priority, which is the highest priority
};

class AuthTokens {
 public:
  // Errors name the file and the line, never a token.
  static absl::StatusOr<std::unique_ptr<AuthTokens>> Load(const std::string& path);

  // Whose token this is.
  std::optional<Principal> Find(absl::string_view token, absl::Time now = absl::Now());

  // The same as Load from the text of a file; `name` is what messages call it.
  static absl::StatusOr<std::unique_ptr<AuthTokens>> Parse(absl::string_view text, absl::string_view name);

 private:
  using Digest = std::array<uint8_t, 32>;  // SHA-256
  struct Entry {
    Digest digest;
    Principal principal;
  };
  using Entries = std::vector<Entry>;

  // What tells one state of a file from another.
  struct FileState {
    int64_t inode = 0, bytes = 0, seconds = 0, nanoseconds = 0;
    bool operator==(const FileState&) const = default;
  };

  static Digest Hash(absl::string_view token);
  static absl::StatusOr<Entry> ParseLine(absl::string_view line);
  static absl::StatusOr<Entries> ParseEntries(absl::string_view text, absl::string_view name);
  static std::optional<FileState> StateOf(const std::string& path);
  static absl::StatusOr<Entries> ReadEntries(const std::string& path);
  // The entries of now; reads the file again if it has changed.
  std::shared_ptr<const Entries> Current(absl::Time now);

  std::string path_;  // empty: from a text
  std::mutex mutex_;
  std::shared_ptr<const Entries> entries_;
  std::optional<FileState> state_;
  absl::Time looked_at_;
};

}  // namespace quire

#endif  // QUIRE_SERVER_AUTH_TOKENS_H_
