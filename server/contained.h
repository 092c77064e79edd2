// Contained: the edge of a call, where an exception ends that call and nothing else.
//
// Our own code throws nothing; the standard library throws std::bad_alloc for a request larger than the memory that is
// left, and other libraries may throw. Thread: a function of its arguments.

#ifndef QUIRE_SERVER_CONTAINED_H_
#define QUIRE_SERVER_CONTAINED_H_

#include <exception>
#include <new>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/errors.h"

namespace quire {

// What `work()` returns; RESOURCE_EXHAUSTED with a retry delay when memory lacks, INTERNAL for any other exception.
template <typename Work>
absl::Status Contained(Work&& work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return TryLater(absl::StatusCode::kResourceExhausted, "the server has not enough memory for this request now",
                    absl::Seconds(1));
  } catch (const std::exception&) {
    return absl::InternalError("the request met a fault of the server");
  }
}

}  // namespace quire

#endif  // QUIRE_SERVER_CONTAINED_H_
