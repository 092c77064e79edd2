#include "kernels/cpu/isa.h"

#include <algorithm>
#include <chrono>
#include <iterator>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "kernels/check.h"
#include "kernels/cpu/kernels.h"
#include "kernels/linear/block_kernels.h"

namespace quire {
namespace {

constexpr CpuIsa kAll[] = {CpuIsa::kPortable, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16};

#if defined(__x86_64__)
// __builtin_cpu_supports of clang 14 does not know this one.
bool HasF16c() {
  unsigned int eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

// __builtin_cpu_supports also asks whether the operating system saves the registers.
bool Supported(CpuIsa isa) {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && HasF16c();
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  switch (isa) {
    case CpuIsa::kPortable:
      return true;
    case CpuIsa::kAvx2:
      return avx2;
    case CpuIsa::kAvx512:
      return avx512;
    case CpuIsa::kAvx512Bf16:
      return avx512 && __builtin_cpu_supports("avx512bf16");
  }
#endif
  return isa == CpuIsa::kPortable;
}

// Floating-point operations per nanosecond of a tile of bfloat16 weights in L1. The best of several short rounds: an
// interrupt, or a clock that has yet to rise, spoils some of them.
double Bf16Rate(const CpuKernels& kernels) {
  using Clock = std::chrono::steady_clock;
  double best = 0;
  for (int round = 0; round < 12; ++round) {
    const Clock::time_point start = Clock::now();
    const int64_t operations = kernels.multiply_adds(/*iterations=*/32);
    const double ns = std::chrono::duration<double, std::nano>(Clock::now() - start).count();
    best = std::max(best, static_cast<double>(operations) / std::max(ns, 1.0));
  }
  return best;
}

}  // namespace

std::string_view CpuIsaName(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kPortable:
      return "portable";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvx512:
      return "avx512";
    case CpuIsa::kAvx512Bf16:
      return "avx512_bf16";
  }
  return "";
}

std::optional<CpuIsa> ParseCpuIsa(std::string_view name) {
  for (CpuIsa isa : kAll) {
    if (CpuIsaName(isa) == name) return isa;
  }
  return std::nullopt;
}

std::vector<CpuIsa> SupportedCpuIsas() {
  std::vector<CpuIsa> isas;
  std::copy_if(std::begin(kAll), std::end(kAll), std::back_inserter(isas), Supported);
  return isas;
}

CpuIsa ChooseCpuIsa() {
  const CpuIsa best = SupportedCpuIsas().back();
  if (best != CpuIsa::kAvx512Bf16) return best;
  return Bf16Rate(KernelsFor(CpuIsa::kAvx512Bf16)) > Bf16Rate(KernelsFor(CpuIsa::kAvx512)) ? best : CpuIsa::kAvx512;
}

const CpuKernels& KernelsFor(CpuIsa isa) {
  Check(Supported(isa), "the CPU lacks this instruction set");
#if defined(__x86_64__)
  switch (isa) {
    case CpuIsa::kPortable:
      break;
    case CpuIsa::kAvx2:
      return Avx2Kernels();
    case CpuIsa::kAvx512:
      return Avx512Kernels();
    case CpuIsa::kAvx512Bf16:
      return Avx512Bf16Kernels();
  }
#endif
  return PortableKernels();
}

const BlockKernels& BlockKernelsFor(CpuIsa isa) {
  Check(Supported(isa), "the CPU lacks this instruction set");
#if defined(__x86_64__)
  const bool is_avx512 = isa == CpuIsa::kAvx512 || isa == CpuIsa::kAvx512Bf16;
  if (is_avx512 && __builtin_cpu_supports("avx512vnni")) return Avx512VnniBlockKernels();
  if (isa != CpuIsa::kPortable) return Avx2BlockKernels();
#endif
  return PortableBlockKernels();
}

}  // namespace quire
