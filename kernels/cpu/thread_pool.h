// ThreadPool: the workers of the CPU backend.
//
// Run(task) calls task(share) once for every share 0 .. num_threads - 1 and returns when all are done. The caller takes
// share 0, each worker its own; what a worker has not begun when the caller is done with its share, because another
// process has its CPU or because it is still waking up, the caller does too. So a step never waits for a thread that
// does not run, only for one that stopped in the middle, and a share must not wait for another.
//
// Between two Runs workers spin for a bounded time and then park, so that the phases of a step follow each other within
// a microsecond and an idle daemon costs nothing. Workers do not spin when there are more of them than CPUs to run on.
//
// Thread: one caller at a time. A task must not call Run. Run allocates nothing.

#ifndef QUIRE_KERNELS_CPU_THREAD_POOL_H_
#define QUIRE_KERNELS_CPU_THREAD_POOL_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

namespace quire {

struct ThreadPoolOptions {
  int num_threads = 0;        // 0: AllowedCpus(); at most kMaxThreads
  std::vector<int> cpu_bind;  // CPU of each worker in turn, the caller included; empty: see BackendOptions::cpu_bind
};

class ThreadPool {
 public:
  static constexpr int kMaxThreads = 1024;

  // INVALID_ARGUMENT for a CPU outside the affinity mask or a number of threads out of range.
  //
  // Where workers are pinned, so is a thread that calls Run, at its first Run, except for the thread that called
  // Create: that one loads the model and goes on to start other threads, which would inherit its mask.
  static absl::StatusOr<std::unique_ptr<ThreadPool>> Create(const ThreadPoolOptions& options);
  ~ThreadPool();

  int num_threads() const { return num_threads_; }
  bool spins() const { return spin_iterations_ > 0; }
  const std::vector<int>& bind() const { return bind_; }  // the CPU of each worker; empty: not pinned

  void Run(absl::FunctionRef<void(int share)> task);

  // CPUs that the affinity mask and the cgroup's quota (cpu.max, rounded down, at least 1) allow.
  static int AllowedCpus();

 private:
  ThreadPool() = default;
  absl::Status Start();
  void WorkerLoop(int worker);
  // The present generation, when it is no longer `seen`: spins, then parks.
  uint64_t AwaitGeneration(uint64_t seen);
  // Returns when running_ is 0: spins, then parks.
  void AwaitWorkers();
  // Whether the share of that generation is the calling thread's to do: true for the first that asks.
  bool Claim(int share, uint64_t generation);
  void BeginGeneration();

  int num_threads_ = 1;
  int spin_iterations_ = 0;
  std::vector<int> bind_;
  std::thread::id creator_;
  std::thread::id pinned_caller_;                       // the last caller that was pinned, or found to be creator_
  const absl::FunctionRef<void(int)>* task_ = nullptr;  // of the present Run; published by generation_

  // A thread that parks first says so and then looks once more at what it waits for, under mutex_; whoever changes that
  // changes it first and then asks whether anybody parked. All four are sequentially consistent, so one of the two sees
  // the other.
  alignas(64) std::atomic<uint64_t> generation_{0};  // Runs begun so far; workers wait for it to move
  std::atomic<int> parked_{0};                       // workers parked
  std::atomic<bool> stop_{false};
  struct alignas(64) LastClaim {
    std::atomic<uint64_t> generation{0};
  };
  std::vector<LastClaim> claims_;            // by share: the last generation in which somebody took it
  alignas(64) std::atomic<int> running_{0};  // shares of the present Run that are not finished, but the caller's own
  std::atomic<bool> caller_parked_{false};
  alignas(64) std::mutex mutex_;
  std::condition_variable wake_;  // workers
  std::condition_variable done_;  // the caller
  std::vector<std::thread> workers_;
};

}  // namespace quire

#endif  // QUIRE_KERNELS_CPU_THREAD_POOL_H_
