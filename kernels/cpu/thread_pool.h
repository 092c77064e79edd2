// ThreadPool: the workers of the CPU backend.
//
// Run(task) calls task(worker) once for every worker 0 .. num_threads - 1 at the same time; the caller is worker 0; it returns when all
// are done. Between two Runs workers spin for a bounded time and then park, so that the phases of a step follow each other within a
// microsecond and an idle daemon costs nothing. Workers do not spin when there are more of them than CPUs to run on.
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
  int num_threads = 0;        // 0: AllowedCpus()
  std::vector<int> cpu_bind;  // CPU of each worker in turn, the caller included; empty: see BackendOptions::cpu_bind
};

class ThreadPool {
 public:
  // INVALID_ARGUMENT for a CPU outside the affinity mask.
  static absl::StatusOr<std::unique_ptr<ThreadPool>> Create(const ThreadPoolOptions& options);
  ~ThreadPool();

  int num_threads() const { return num_threads_; }

  void Run(absl::FunctionRef<void(int worker)> task);

  // CPUs that the affinity mask and the cgroup's quota (cpu.max, rounded down, at least 1) allow.
  static int AllowedCpus();

 private:
  ThreadPool() = default;
  void WorkerLoop(int worker);

  int num_threads_ = 1;
  int spin_iterations_ = 0;
  std::vector<int> bind_;  // empty, or the CPU of each worker
  const absl::FunctionRef<void(int)>* task_ = nullptr;
  std::atomic<uint64_t> generation_{0};  // Runs begun so far; workers wait for it to move
  std::atomic<int> running_{0};          // workers that have not finished the present Run
  std::atomic<bool> stop_{false};
  std::atomic<int> parked_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
};

}  // namespace quire

#endif  // QUIRE_KERNELS_CPU_THREAD_POOL_H_
