#include "tests/bench/machine_limits.h"

#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace quire {
namespace {

using Clock = std::chrono::steady_clock;

// Pins the calling thread to the n-th CPU of the process's affinity mask.
void PinToAllowedCpu(int n) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed) && n-- == 0) {
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(cpu, &one);
      pthread_setaffinity_np(pthread_self(), sizeof(one), &one);
      return;
    }
  }
}

// Seconds that `work(thread)` takes on all threads at once: the best of `rounds`.
double BestSeconds(int num_threads, int rounds, const std::function<void(int)>& work) {
  double best = 1e30;
  for (int round = 0; round < rounds; ++round) {
    std::atomic<int> ready{0};
    std::atomic<bool> go{false};
    std::vector<std::thread> threads;
    for (int t = 0; t < num_threads; ++t) {
      threads.emplace_back([&, t] {
        PinToAllowedCpu(t);
        ++ready;
        while (!go.load(std::memory_order_acquire)) _mm_pause();
        work(t);
      });
    }
    while (ready.load() < num_threads) std::this_thread::yield();
    const auto begin = Clock::now();
    go.store(true, std::memory_order_release);
    for (std::thread& thread : threads) thread.join();
    best = std::min(best, std::chrono::duration<double>(Clock::now() - begin).count());
  }
  return best;
}

// Keeps a computed value alive without storing it anywhere that matters.
template <typename T>
void KeepAlive(T value) {
  asm volatile("" : : "x"(value) : "memory");
}

__attribute__((target("avx512f"))) void ReadAvx512(const char* data, size_t bytes) {
  __m512i sums[8] = {};
  for (size_t i = 0; i + 512 <= bytes; i += 512) {
    for (int k = 0; k < 8; ++k) sums[k] = _mm512_xor_si512(sums[k], _mm512_load_si512(data + i + 64 * k));
  }
  for (int k = 1; k < 8; ++k) sums[0] = _mm512_xor_si512(sums[0], sums[k]);
  asm volatile("" : : "v"(sums[0]) : "memory");
}

__attribute__((target("avx2"))) void ReadAvx2(const char* data, size_t bytes) {
  __m256i sums[8] = {};
  for (size_t i = 0; i + 256 <= bytes; i += 256) {
    for (int k = 0; k < 8; ++k) {
      sums[k] = _mm256_xor_si256(sums[k], _mm256_load_si256(reinterpret_cast<const __m256i*>(data + i + 32 * k)));
    }
  }
  for (int k = 1; k < 8; ++k) sums[0] = _mm256_xor_si256(sums[0], sums[k]);
  KeepAlive(sums[0]);
}

// Independent chains: enough to cover a latency of 4 to 6 cycles at two per cycle.
constexpr int kChains = 12;
constexpr int64_t kIterations = 4'000'000;

__attribute__((target("avx512f"))) void FmaAvx512() {
  __m512 acc[kChains], a = _mm512_set1_ps(1.0001f), b = _mm512_set1_ps(0.9999f);
  for (auto& x : acc) x = _mm512_set1_ps(1.0f);
  for (int64_t i = 0; i < kIterations; ++i) {
    for (auto& x : acc) x = _mm512_fmadd_ps(x, b, a);
    asm volatile("" : "+v"(a), "+v"(b));
  }
  for (auto& x : acc) asm volatile("" : : "v"(x));
}

__attribute__((target("avx2,fma"))) void FmaAvx2() {
  __m256 acc[kChains], a = _mm256_set1_ps(1.0001f), b = _mm256_set1_ps(0.9999f);
  for (auto& x : acc) x = _mm256_set1_ps(1.0f);
  for (int64_t i = 0; i < kIterations; ++i) {
    for (auto& x : acc) x = _mm256_fmadd_ps(x, b, a);
    asm volatile("" : "+x"(a), "+x"(b));
  }
  for (auto& x : acc) KeepAlive(x);
}

__attribute__((target("avx512f,avx512bf16"))) void DotBf16() {
  __m512 acc[kChains];
  for (auto& x : acc) x = _mm512_set1_ps(1.0f);
  __m512bh a = _mm512_cvtne2ps_pbh(acc[0], acc[1]), b = a;
  for (int64_t i = 0; i < kIterations; ++i) {
    for (auto& x : acc) x = _mm512_dpbf16_ps(x, a, b);
    asm volatile("" : "+v"(a), "+v"(b));
  }
  for (auto& x : acc) asm volatile("" : : "v"(x));
}

}  // namespace

double MeasureDramReadBandwidth(int num_threads, int rounds) {
  const size_t total = size_t{1} << 30;
  const size_t share = total / num_threads / 4096 * 4096;
  void* memory = mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 0;
  madvise(memory, total, MADV_HUGEPAGE);
  char* data = static_cast<char*>(memory);
  for (size_t i = 0; i < total; i += 4096) data[i] = 1;
  const bool wide = __builtin_cpu_supports("avx512f");
  const double seconds = BestSeconds(num_threads, rounds, [&](int t) {
    wide ? ReadAvx512(data + t * share, share) : ReadAvx2(data + t * share, share);
  });
  munmap(memory, total);
  return static_cast<double>(share) * num_threads / seconds;
}

double MeasureFmaRate(int num_threads, int rounds) {
  const bool wide = __builtin_cpu_supports("avx512f");
  const double seconds = BestSeconds(num_threads, rounds, [&](int) { wide ? FmaAvx512() : FmaAvx2(); });
  return 2.0 * (wide ? 16 : 8) * kChains * kIterations * num_threads / seconds;
}

double MeasureBf16DotRate(int num_threads, int rounds) {
  if (!__builtin_cpu_supports("avx512bf16")) return 0;
  const double seconds = BestSeconds(num_threads, rounds, [&](int) { DotBf16(); });
  return 2.0 * 32 * kChains * kIterations * num_threads / seconds;
}

}  // namespace quire
