#include "engine/inbox.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace quire {

absl::Status Inbox::Submit(std::shared_ptr<const Request> request) {
  const auto num_tokens = static_cast<int64_t>(request->prompt.size());
  {
    const std::lock_guard lock(mutex_);
    if (!closed_.ok()) return closed_;
    if (waiting_requests_ >= max_requests_) {
      return absl::ResourceExhaustedError(
          absl::StrCat(waiting_requests_, " requests wait, allowed at most ", max_requests_));
    }
    if (new_tokens_ > 0 && new_tokens_ + num_tokens > max_tokens_) {
      return absl::ResourceExhaustedError(absl::StrCat(new_tokens_, " prompt tokens have just come, allowed at most ",
                                                       max_tokens_, " with the ", num_tokens, " of this request"));
    }
    ++waiting_requests_;
    new_tokens_ += num_tokens;
    commands_.push_back({.kind = CommandKind::kAdd, .request = std::move(request)});
  }
  not_empty_or_closed_.notify_one();
  return absl::OkStatus();
}

void Inbox::Put(Command command) {
  {
    const std::lock_guard lock(mutex_);
    if (!closed_.ok()) return;
    commands_.push_back(std::move(command));
  }
  not_empty_or_closed_.notify_one();
}

void Inbox::Close(absl::Status why) {
  {
    const std::lock_guard lock(mutex_);
    closed_.Update(why);
  }
  not_empty_or_closed_.notify_one();
}

bool Inbox::Take(absl::Time deadline, std::vector<Command>& commands) {
  commands.clear();
  std::unique_lock lock(mutex_);
  const auto has_news = [&] { return !commands_.empty() || !closed_.ok(); };
  if (deadline == absl::InfiniteFuture()) {
    not_empty_or_closed_.wait(lock, has_news);
  } else if (deadline != absl::InfinitePast()) {
    not_empty_or_closed_.wait_until(lock, absl::ToChronoTime(deadline), has_news);
  }
  if (!closed_.ok()) return false;
  commands.swap(commands_);
  new_tokens_ = 0;
  return true;
}

void Inbox::TakeRest(std::vector<Command>& commands) {
  commands.clear();
  const std::lock_guard lock(mutex_);
  commands.swap(commands_);
  new_tokens_ = 0;
}

void Inbox::OnLeft(int32_t num_requests) {
  const std::lock_guard lock(mutex_);
  waiting_requests_ -= num_requests;
}

int32_t Inbox::num_waiting() const {
  const std::lock_guard lock(mutex_);
  return waiting_requests_;
}

bool Inbox::has_commands() const {
  const std::lock_guard lock(mutex_);
  return !commands_.empty();
}

}  // namespace quire
