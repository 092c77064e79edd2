// The record of a request that has run to its end, for tests.

#ifndef QUIRE_TESTS_SERVER_FINISHED_REQUEST_H_
#define QUIRE_TESTS_SERVER_FINISHED_REQUEST_H_

#include "server/request_record.h"

namespace quire {

// Six tokens in, three out, after 0.1 s in the queue, 0.3 s of prefill and 0.6 s of decoding.
inline RequestRecord FinishedRequest(const char* reason = "stop") {
  RequestRecord record;
  record.reason = reason;
  record.prompt_tokens = 6;
  record.completion_tokens = 3;
  record.max_tokens = 5;
  record.queued = absl::Milliseconds(100);
  record.prefill = absl::Milliseconds(300);
  record.decode = absl::Milliseconds(600);
  record.total = absl::Seconds(1);
  return record;
}

}  // namespace quire

#endif  // QUIRE_TESTS_SERVER_FINISHED_REQUEST_H_
