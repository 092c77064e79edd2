// Logs of requests to serving systems, for replay: when each came and how long its prompt and its output were.

#ifndef QUIRE_CLIENT_LOAD_TRACE_H_
#define QUIRE_CLIENT_LOAD_TRACE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace quire::client {

// Tokens that one hash of a Mooncake trace stands for.
inline constexpr size_t kTraceBlock = 512;

struct TraceRow {
  double time_s = 0;  // since whatever the log counts from
  uint32_t input_len = 0;
  uint32_t output_len = 0;
  // Mooncake: one for each started kTraceBlock tokens of the prompt; equal hashes are equal tokens behind equal tokens.
  std::vector<uint64_t> block_hashes;
};

// The rows of a file in the order of time. The format is told by the columns or keys:
// - Azure LLM inference traces: CSV with TIMESTAMP (2023-11-16 18:15:46.6805900), ContextTokens, GeneratedTokens;
// - BurstGPT: CSV with Timestamp (seconds), Request tokens, Response tokens;
// - Mooncake: a JSON object a line with timestamp (ms), input_length, output_length and hash_ids.
// A request without prompt or output, which BurstGPT has where the service failed, is left out. Errors name the line.
absl::StatusOr<std::vector<TraceRow>> ReadTrace(const std::string& path);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_TRACE_H_
