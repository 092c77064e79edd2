// Inbox: what other threads want of the engine, in the order in which they said so; and who waits.
//
// A request waits from Submit until the engine reports that it was admitted or is over. Submit refuses when too many
// wait, or more tokens than the queue may have lie here unseen by the engine; what it sees it judges by its own state
// (scheduler/admission.h). Cancel, Stop and EndAll always get in. Nobody holds the mutex for longer than a swap of
// vectors, so nobody waits for a step.
//
// Thread: any, except where said.

#ifndef QUIRE_ENGINE_INBOX_H_
#define QUIRE_ENGINE_INBOX_H_

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "scheduler/request.h"
#include "scheduler/token_event.h"

namespace quire {

enum class CommandKind : uint8_t { kAdd, kCancel, kStop, kPause, kResume, kEndAll };

struct Command {
  CommandKind kind = CommandKind::kAdd;
  Ending ending = Ending::kNone;                     // kCancel, kEndAll
  RequestId id = 0;                                  // all but kAdd, kEndAll
  uint32_t index = 0;                                // kStop: of the output
  std::shared_ptr<const Request> request = nullptr;  // kAdd
};

class Inbox {
 public:
  Inbox(int32_t max_waiting_requests, int64_t max_waiting_tokens)
      : max_requests_(max_waiting_requests), max_tokens_(max_waiting_tokens) {}

  // RESOURCE_EXHAUSTED when as many wait as may, or too many tokens were not taken yet (one request is always, however
  // long); what Close said when closed.
  absl::Status Submit(std::shared_ptr<const Request> request);

  // REQUIRES: command.kind is not kAdd. Does nothing when closed.
  void Put(Command command);

  // From now on Submit returns `why` (not OK) and a thread in Take wakes up. The first reason stays.
  void Close(absl::Status why);

  // Swaps all commands into `commands`, whose contents are lost. Waits until `deadline` for the first one. False, with
  // nothing taken, when closed. Thread: the engine thread.
  bool Take(absl::Time deadline, std::vector<Command>& commands);

  // As Take, without waiting, and when closed too.
  void TakeRest(std::vector<Command>& commands);

  // So many wait no longer. Thread: the engine thread.
  void OnLeft(int32_t num_requests);

  int32_t num_waiting() const;
  // There are commands that the engine has not taken.
  bool has_commands() const;

 private:
  const int32_t max_requests_;
  const int64_t max_tokens_;

  mutable std::mutex mutex_;  // guards all below
  std::condition_variable not_empty_or_closed_;
  std::vector<Command> commands_;
  absl::Status closed_;  // OK: open
  int32_t waiting_requests_ = 0;
  int64_t new_tokens_ = 0;  // of the prompts of requests in commands_
};

}  // namespace quire

#endif  // QUIRE_ENGINE_INBOX_H_
