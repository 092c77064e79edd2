// TokenizerPool: a few threads that tokenize and hash prompts, so that gRPC's threads never do. What waits for them is
// bounded in number and in bytes; a full pool refuses at once.
//
// Thread: any.

#ifndef QUIRE_SERVER_TOKENIZER_POOL_H_
#define QUIRE_SERVER_TOKENIZER_POOL_H_

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"

namespace quire {

class TokenizerPool {
 public:
  struct Options {
    int num_threads = 2;
    size_t max_jobs = 1024;               // that wait
    size_t max_bytes = size_t{64} << 20;  // of text that waits
  };
  explicit TokenizerPool(const Options& options);
  ~TokenizerPool();  // Shutdown

  // Runs `job` on a worker. RESOURCE_EXHAUSTED with a retry delay when too much waits; `job` is then not run. `bytes`:
  // what it keeps alive.
  absl::Status Submit(size_t bytes, absl::AnyInvocable<void()> job);

  // Runs what waits and joins the workers; Submit then refuses. Idempotent.
  void Shutdown();

 private:
  struct Job {
    size_t bytes;
    absl::AnyInvocable<void()> run;
  };

  void Work();

  const Options options_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> waiting_;
  size_t waiting_bytes_ = 0;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_POOL_H_
