// ResponseSink: where the responses of one Generate call go. GenerateStream is the one that speaks gRPC; tests have a
// plain one.

#ifndef QUIRE_SERVER_RESPONSE_SINK_H_
#define QUIRE_SERVER_RESPONSE_SINK_H_

#include <cstdint>

#include "absl/status/status.h"
#include "quire/v1/generation.pb.h"

namespace quire {

class ResponseSink {
 public:
  virtual ~ResponseSink() = default;

  // Takes the next response; never waits for the client. `num_tokens` generated tokens count as delivered once it is
  // written.
  virtual void Push(v1::GenerateResponse response, uint32_t num_tokens) = 0;

  // The call ends with this status after all that was pushed. Once, last.
  virtual void End(const absl::Status& status) = 0;
};

}  // namespace quire

#endif  // QUIRE_SERVER_RESPONSE_SINK_H_
