#include "kernels/cpu/thread_pool.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "kernels/cpu/cpu_quota.h"

namespace quire {
namespace {

// How long a thread spins before it parks. The host's part of a step is 10 to 50 us, waking a parked thread costs about
// as much; twice that covers both, and is what an idle daemon pays once.
constexpr std::chrono::microseconds kSpinTime{100};

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Iterations of the spin loop that take kSpinTime: a pause is 4 to 140 cycles, depending on the CPU.
int CalibrateSpin() {
  using Clock = std::chrono::steady_clock;
  constexpr int kProbe = 256;
  Clock::duration best = Clock::duration::max();
  for (int round = 0; round < 4; ++round) {  // the shortest: the others were interrupted
    const Clock::time_point start = Clock::now();
    for (int i = 0; i < kProbe; ++i) Pause();
    best = std::min(best, Clock::now() - start);
  }
  const int64_t each_ns = std::max<int64_t>(1, std::chrono::nanoseconds(best).count());
  return static_cast<int>(std::max<int64_t>(1, kProbe * std::chrono::nanoseconds(kSpinTime).count() / each_ns));
}

void PinThisThread(int cpu) {
  cpu_set_t* const set = CPU_ALLOC(cpu + 1);
  if (set == nullptr) return;
  const size_t bytes = CPU_ALLOC_SIZE(cpu + 1);
  CPU_ZERO_S(bytes, set);
  CPU_SET_S(cpu, bytes, set);
  // May fail if the mask has shrunk since it was read: the thread then floats, which is slower, not wrong.
  pthread_setaffinity_np(pthread_self(), bytes, set);
  CPU_FREE(set);
}

// The CPU of each worker, or none: what the operator asked for, else the affinity mask where that is narrower than the
// machine.
absl::StatusOr<std::vector<int>> ResolveBind(const std::vector<int>& asked, int num_threads) {
  const std::vector<int> allowed = AffinityCpus();
  for (int cpu : asked) {
    if (!std::binary_search(allowed.begin(), allowed.end(), cpu)) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "cpu_bind: CPU %d is not in this process's affinity mask, which has %s", cpu, absl::StrJoin(allowed, ",")));
    }
  }
  std::vector<int> bind;
  if (asked.empty()) {
    const bool narrow = static_cast<long>(allowed.size()) < sysconf(_SC_NPROCESSORS_ONLN);
    if (!narrow || num_threads > static_cast<int>(allowed.size())) return bind;
  }
  const std::vector<int>& from = asked.empty() ? allowed : asked;
  for (int worker = 0; worker < num_threads; ++worker) bind.push_back(from[worker % from.size()]);
  return bind;
}

}  // namespace

int ThreadPool::AllowedCpus() {
  const int in_mask = static_cast<int>(AffinityCpus().size());
  std::ostringstream text;
  text << std::ifstream("/proc/self/cgroup").rdbuf();
  const std::optional<double> quota = CgroupCpuQuota(text.str(), "/sys/fs/cgroup");
  if (!quota || *quota >= in_mask) return in_mask;
  return std::max(1, static_cast<int>(std::floor(*quota)));
}

absl::StatusOr<std::unique_ptr<ThreadPool>> ThreadPool::Create(const ThreadPoolOptions& options) {
  if (options.num_threads < 0 || options.num_threads > kMaxThreads) {
    return absl::InvalidArgumentError(
        absl::StrFormat("num_threads is %d; allowed are 1 to %d, and 0 for as many as there are CPUs allowed",
                        options.num_threads, kMaxThreads));
  }
  const int allowed = AllowedCpus();
  std::unique_ptr<ThreadPool> pool(new ThreadPool());
  pool->num_threads_ = options.num_threads > 0 ? options.num_threads : std::min(allowed, kMaxThreads);
  absl::StatusOr<std::vector<int>> bind = ResolveBind(options.cpu_bind, pool->num_threads_);
  if (!bind.ok()) return bind.status();
  pool->bind_ = *std::move(bind);
  const bool own_cpu_each =
      pool->bind_.empty() || std::set<int>(pool->bind_.begin(), pool->bind_.end()).size() == pool->bind_.size();
  if (pool->num_threads_ > 1 && pool->num_threads_ <= allowed && own_cpu_each) pool->spin_iterations_ = CalibrateSpin();
  pool->claims_ = std::vector<LastClaim>(pool->num_threads_);
  pool->creator_ = std::this_thread::get_id();
  if (absl::Status status = pool->Start(); !status.ok()) return status;
  return pool;
}

absl::Status ThreadPool::Start() {
  for (int worker = 1; worker < num_threads_; ++worker) {
    try {
      workers_.emplace_back([this, worker] { WorkerLoop(worker); });
    } catch (const std::system_error& error) {  // the destructor ends those that were started
      return absl::ResourceExhaustedError(
          absl::StrFormat("cannot start thread %d of %d: %s", worker + 1, num_threads_, error.what()));
    }
  }
  return absl::OkStatus();
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  BeginGeneration();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::BeginGeneration() {
  generation_.fetch_add(1);
  if (parked_.load() > 0) {
    { std::lock_guard<std::mutex> lock(mutex_); }  // whoever is between its last look and its wait has begun to wait
    wake_.notify_all();
  }
}

void ThreadPool::Run(absl::FunctionRef<void(int share)> task) {
  if (!bind_.empty() && pinned_caller_ != std::this_thread::get_id()) {
    pinned_caller_ = std::this_thread::get_id();
    if (pinned_caller_ != creator_) PinThisThread(bind_[0]);
  }
  if (num_threads_ == 1) {
    task(0);
    return;
  }
  task_ = &task;
  running_.store(num_threads_ - 1, std::memory_order_relaxed);
  BeginGeneration();
  task(0);
  const uint64_t generation = generation_.load(std::memory_order_relaxed);
  for (int share = 1; share < num_threads_; ++share) {
    if (!Claim(share, generation)) continue;
    task(share);
    running_.fetch_sub(1, std::memory_order_relaxed);
  }
  AwaitWorkers();
}

bool ThreadPool::Claim(int share, uint64_t generation) {
  std::atomic<uint64_t>& last = claims_[share].generation;
  uint64_t before = generation - 1;  // each share of a Run is claimed before the next Run begins
  return last.load(std::memory_order_relaxed) == before &&
         last.compare_exchange_strong(before, generation, std::memory_order_relaxed);
}

void ThreadPool::AwaitWorkers() {
  for (int i = 0; i < spin_iterations_; ++i) {
    if (running_.load(std::memory_order_acquire) == 0) return;
    Pause();
  }
  if (running_.load() == 0) return;
  std::unique_lock<std::mutex> lock(mutex_);
  caller_parked_.store(true);
  done_.wait(lock, [this] { return running_.load() == 0; });
  caller_parked_.store(false);
}

uint64_t ThreadPool::AwaitGeneration(uint64_t seen) {
  for (int i = 0; i < spin_iterations_; ++i) {
    if (const uint64_t now = generation_.load(std::memory_order_acquire); now != seen) return now;
    Pause();
  }
  std::unique_lock<std::mutex> lock(mutex_);
  parked_.fetch_add(1);
  wake_.wait(lock, [this, seen] { return generation_.load() != seen; });
  parked_.fetch_sub(1);
  return generation_.load();
}

void ThreadPool::WorkerLoop(int worker) {
  pthread_setname_np(pthread_self(), absl::StrFormat("quire-cpu-%d", worker).c_str());
  if (!bind_.empty()) PinThisThread(bind_[worker]);
  for (uint64_t seen = 0;;) {
    seen = AwaitGeneration(seen);
    if (stop_.load()) return;
    if (!Claim(worker, seen)) continue;
    (*task_)(worker);  // that of `seen`: its Run does not return before this share is done
    if (running_.fetch_sub(1) == 1 && caller_parked_.load()) {
      { std::lock_guard<std::mutex> lock(mutex_); }
      done_.notify_one();
    }
  }
}

}  // namespace quire
