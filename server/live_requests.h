// LiveRequests: the Generate calls that are under way, by name, and whether new ones are taken.
//
// A name is an id of the client's and a tenant: each tenant has ids of its own. A call has its name until it finishes,
// and is live until gRPC has let go of it. A thread of its own, asleep while
// nothing is live, cuts streams whose clients have not read for too long (a gateway may hold a dead stream for minutes,
// grpc#41492).
//
// Thread: any.

#ifndef QUIRE_SERVER_LIVE_REQUESTS_H_
#define QUIRE_SERVER_LIVE_REQUESTS_H_

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/generate_stream.h"

namespace quire {

class LiveRequests {
 public:
  // `write_deadline`: the longest that a client may leave a write untaken.
  explicit LiveRequests(absl::Duration write_deadline);
  ~LiveRequests();

  // Takes a call in. UNAVAILABLE after Close; ALREADY_EXISTS when a call of the tenant under way has the id.
  absl::Status Add(const std::string& id, const std::string& tenant, std::shared_ptr<GenerateStream> stream);
  // The call finishes: its name is free.
  void ReleaseName(GenerateStream* stream);
  // gRPC has let go of the call.
  void Remove(GenerateStream* stream);

  // Asks the calls of this id to end, of whatever tenant: `id` says already which of them the caller may end
  // (ScopedRequestId). Unknown ids are ignored.
  void Cancel(const std::string& id);

  // No new calls from now on. `empty` is called once, from any thread, when none is live: perhaps at once.
  void Close(std::function<void()> empty);
  size_t size() const;

 private:
  using Name = std::pair<std::string, std::string>;  // id, tenant
  struct Entry {
    std::shared_ptr<GenerateStream> stream;
    Name name;
    bool has_name = true;
  };

  void CutStalled();

  const absl::Duration write_deadline_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::unordered_map<GenerateStream*, Entry> streams_;
  std::map<Name, GenerateStream*> names_;
  bool closed_ = false;
  std::function<void()> empty_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace quire

#endif  // QUIRE_SERVER_LIVE_REQUESTS_H_
