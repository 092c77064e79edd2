// What a load test wants of a server, whatever protocol it speaks: one request goes out; deltas come back, then one
// ending.

#ifndef QUIRE_CLIENT_LOAD_BACKEND_H_
#define QUIRE_CLIENT_LOAD_BACKEND_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "quire/v1/generation.pb.h"

namespace quire::client {

// One message with output. Without ids, `num_tokens` is what the server says of it, or 1 if it does not say.
struct TokenDelta {
  absl::string_view text;
  absl::Span<const uint32_t> token_ids;
  uint32_t num_tokens = 0;
};

struct Usage {
  uint32_t prompt_tokens = 0;
  uint32_t completion_tokens = 0;
  uint32_t cached_tokens = 0;
};

struct Ending {
  std::string error;           // one line; empty: the whole answer came and is in order
  bool cancelled = false;      // ended by Cancel or by OnTokens' false
  std::string grpc_code;       // "OK", "UNAVAILABLE"; empty over HTTP
  int http_status = 0;         // 0 over gRPC, or if no answer began
  std::string finish_reason;   // "STOP", "LENGTH", ...
  std::optional<Usage> usage;  // absent: the server did not say
  std::optional<absl::Duration> retry_after;
};

// Who listens to one stream. The calls are serial, on a thread of the backend, and quick: other streams wait meanwhile.
class StreamEvents {
 public:
  virtual ~StreamEvents() = default;
  virtual void OnSent() = 0;  // first, as the request is handed to the transport
  // False: the rest is not wanted, and the stream is cancelled.
  virtual bool OnTokens(const TokenDelta& delta) = 0;
  virtual void OnEnd(const Ending& ending) = 0;  // last and once; the stream may be destroyed from its begin on
};

struct StreamOptions {
  std::optional<absl::Duration> deadline;  // in place of the connection's
  // Wait so long before each next read, so that the server's messages pile up.
  absl::Duration read_delay = absl::ZeroDuration();
};

struct ServedModel {
  std::string name;
  std::optional<uint32_t> vocab_size;  // absent: the server does not tell
};

class Backend {
 public:
  class Stream {
   public:
    virtual ~Stream() = default;
    virtual void Cancel() = 0;  // any thread, until OnEnd
  };

  virtual ~Backend() = default;

  // What is served; within `ready_timeout` the server may still be starting.
  virtual absl::StatusOr<ServedModel> Describe(absl::Duration ready_timeout) = 0;

  // Whether prompts may be token ids.
  virtual bool takes_ids() const = 0;

  // The ids of a text without special tokens. UNIMPLEMENTED: the protocol or the server has no such call.
  virtual absl::StatusOr<std::vector<uint32_t>> Tokenize(const std::string& text) = 0;

  // Sends `request` and reports to `events`; both outlive the stream. Any one thread.
  virtual std::unique_ptr<Stream> Open(const v1::GenerateRequest& request, const StreamOptions& options,
                                       StreamEvents& events) = 0;
};

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_BACKEND_H_
