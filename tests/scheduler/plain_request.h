// A request in one line, for hand-worked schedules.

#ifndef QUIRE_TESTS_SCHEDULER_PLAIN_REQUEST_H_
#define QUIRE_TESTS_SCHEDULER_PLAIN_REQUEST_H_

#include <cstdint>
#include <memory>

#include "scheduler/request.h"

namespace quire {

// A prompt 0, 1, 2, ... of which nothing is shared, for an output of `max_tokens`.
inline std::shared_ptr<Request> PlainRequest(RequestId id, uint32_t num_prompt, uint32_t max_tokens) {
  auto request = std::make_shared<Request>();
  request->id = id;
  for (uint32_t i = 0; i < num_prompt; ++i) request->prompt.push_back(i);
  request->use_prefix_cache = false;
  request->sampling.seed = id << 8;
  request->max_tokens = max_tokens;
  return request;
}

}  // namespace quire

#endif  // QUIRE_TESTS_SCHEDULER_PLAIN_REQUEST_H_
