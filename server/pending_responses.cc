#include "server/pending_responses.h"

#include <utility>

#include "kernels/check.h"

namespace quire {

void PendingResponses::Push(v1::GenerateResponse response, uint32_t num_tokens) {
  const bool joins = response.has_delta() && !entries_.empty() && entries_.back().response.has_delta() &&
                     entries_.back().response.delta().index() == response.delta().index() &&
                     entries_.back().num_tokens + num_tokens <= kMaxTokensPerDelta;
  if (!joins) {
    entries_.push_back({std::move(response), num_tokens});
    return;
  }
  Entry& last = entries_.back();
  v1::Delta& delta = *last.response.mutable_delta();
  delta.mutable_text()->append(response.delta().text());
  delta.mutable_token_ids()->MergeFrom(response.delta().token_ids());
  for (v1::TokenLogprobs& logprobs : *response.mutable_delta()->mutable_logprobs()) {
    *delta.add_logprobs() = std::move(logprobs);
  }
  last.num_tokens += num_tokens;
}

PendingResponses::Entry PendingResponses::Take() {
  Check(!entries_.empty(), "Take from no pending responses");
  Entry entry = std::move(entries_.front());
  entries_.pop_front();
  return entry;
}

uint64_t PendingResponses::Clear() {
  uint64_t tokens = 0;
  for (const Entry& entry : entries_) tokens += entry.num_tokens;
  entries_.clear();
  return tokens;
}

}  // namespace quire
