// The instruction sets that the CPU kernels are compiled for, one of which is chosen once per process.

#ifndef QUIRE_KERNELS_CPU_ISA_H_
#define QUIRE_KERNELS_CPU_ISA_H_

#include <optional>
#include <string_view>
#include <vector>

namespace quire {

struct BlockKernels;
struct CpuKernels;

enum class CpuIsa { kPortable, kAvx2, kAvx512, kAvx512Bf16 };

// "portable", "avx2", "avx512", "avx512_bf16".
std::string_view CpuIsaName(CpuIsa isa);
std::optional<CpuIsa> ParseCpuIsa(std::string_view name);

// Those that this CPU and operating system run, from the plainest on; kPortable is always among them.
std::vector<CpuIsa> SupportedCpuIsas();

// What "auto" takes: the best supported one, where kAvx512Bf16 is better than kAvx512 only if a measurement of a few
// microseconds says that vdpbf16ps has the higher multiply rate here (it is twice as slow as float32 FMA on some Intel
// cores, twice as fast on Zen 4).
CpuIsa ChooseCpuIsa();

// The inner loops compiled for it. REQUIRES: `isa` is supported.
const CpuKernels& KernelsFor(CpuIsa isa);

// Those of quantised weights: integer dot products of AVX-512 VNNI for either AVX-512 where the CPU has it, else of
// AVX2.
const BlockKernels& BlockKernelsFor(CpuIsa isa);

}  // namespace quire

#endif  // QUIRE_KERNELS_CPU_ISA_H_
