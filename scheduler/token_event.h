// TokenEvent: what the scheduler tells the outside of a request, in order. Exactly one event of each request is an
// ending (law 3).

#ifndef QUIRE_SCHEDULER_TOKEN_EVENT_H_
#define QUIRE_SCHEDULER_TOKEN_EVENT_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kernels/sampling/sampling.h"
#include "scheduler/request.h"

namespace quire {

enum class EventKind : uint8_t {
  kStarted,         // its first chunk is scheduled: `time`, `cached_tokens`
  kPromptLogprobs,  // `logprobs` (and `top`) of prompt positions first_position ..., in order, before the first kToken
  kToken,           // one token of output `index`; `finish` says whether it is the last
  kStopped,         // output `index` is complete with the tokens that it has: `finish` says why
  kEnded,           // the request is over without (all of) its Finished: `ending` says why
};

// Why an output is complete.
enum class FinishReason : uint8_t { kNone, kStop, kLength, kTimeLimit };

// Why a request ended before it was complete.
enum class Ending : uint8_t {
  kNone,
  kCancelled,
  kExpired,              // its deadline has passed
  kQueueTimeExceeded,    // its queue_deadline has passed
  kDeadlineUnreachable,  // refused: it would not be done by its deadline
  kRefused,              // refused: too much waits; `retry_delay` says when to come again
  kFailed,               // a fault of this request alone
  kEngineFailed,
  kShutdown,
};

// A step makes a thousand of them: one has the size of a cache line, and what few bring lies elsewhere.
struct TokenEvent {
  struct Detail {
    // num_logprobs of the token, or num_prompt_logprobs of each prompt position.
    absl::InlinedVector<TokenLogprob, 8> top = {};
    std::vector<float> logprobs = {};  // kPromptLogprobs
    absl::Duration retry_delay = {};   // kRefused
  };

  TokenEvent() = default;
  // This writes each field once, and no zeros below them first.
  TokenEvent(EventKind kind, RequestId request_id, uint32_t index, absl::Time time)
      : request_id(request_id), time(time), index(index), kind(kind) {}

  RequestId request_id = 0;
  // When the step that brought it was scheduled (kStarted) or committed; unset if no step did (kEnded).
  absl::Time time;
  uint32_t index = 0;  // output, 0 .. n - 1
  uint32_t token_id = 0;
  float logprob = 0;  // of token_id, if the request asked
  EventKind kind = EventKind::kToken;
  FinishReason finish = FinishReason::kNone;
  Ending ending = Ending::kNone;
  uint32_t cached_tokens = 0;            // prompt tokens taken from the prefix cache
  uint32_t first_position = 0;           // kPromptLogprobs
  std::shared_ptr<const Detail> detail;  // nullptr: nothing of it

  absl::Span<const TokenLogprob> top() const {
    return detail ? absl::MakeConstSpan(detail->top) : absl::Span<const TokenLogprob>();
  }
  absl::Span<const float> logprobs() const {
    return detail ? absl::MakeConstSpan(detail->logprobs) : absl::Span<const float>();
  }
  absl::Duration retry_delay() const { return detail ? detail->retry_delay : absl::ZeroDuration(); }
};
static_assert(sizeof(TokenEvent) <= 64);

}  // namespace quire

#endif  // QUIRE_SCHEDULER_TOKEN_EVENT_H_
