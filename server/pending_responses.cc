#include "server/pending_responses.h"

#include <utility>

#include "kernels/check.h"

namespace quire {

PendingResponses::Entry* PendingResponses::OpenDelta(uint32_t index) {
  for (auto entry = entries_.rbegin(); entry != entries_.rend() && entry->response.has_delta(); ++entry) {
    if (entry->response.delta().index() == index) return &*entry;
  }
  return nullptr;
}

void PendingResponses::Push(v1::GenerateResponse response, uint32_t num_tokens) {
  Entry* const open = response.has_delta() ? OpenDelta(response.delta().index()) : nullptr;
  if (open == nullptr || open->num_tokens + num_tokens > kMaxTokensPerDelta) {
    entries_.push_back({std::move(response), num_tokens});
    num_tokens_ += num_tokens;
    return;
  }
  Entry& last = *open;
  v1::Delta& delta = *last.response.mutable_delta();
  delta.mutable_text()->append(response.delta().text());
  delta.mutable_token_ids()->MergeFrom(response.delta().token_ids());
  for (v1::TokenLogprobs& logprobs : *response.mutable_delta()->mutable_logprobs()) {
    *delta.add_logprobs() = std::move(logprobs);
  }
  last.num_tokens += num_tokens;
  num_tokens_ += num_tokens;
}

PendingResponses::Entry PendingResponses::Take() {
  Check(!entries_.empty(), "Take from no pending responses");
  Entry entry = std::move(entries_.front());
  entries_.pop_front();
  num_tokens_ -= entry.num_tokens;
  return entry;
}

uint64_t PendingResponses::Clear() {
  entries_.clear();
  return std::exchange(num_tokens_, 0);
}

}  // namespace quire
