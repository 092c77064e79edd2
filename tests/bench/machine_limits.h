// What this machine can do at best, measured: the yardsticks that benchmarks quote fractions of. Machines are shared
// and differ, so limits are read in the same run as what is compared with them.

#ifndef QUIRE_TESTS_BENCH_MACHINE_LIMITS_H_
#define QUIRE_TESTS_BENCH_MACHINE_LIMITS_H_

namespace quire {

// Bytes per second that `num_threads` threads, pinned one to a CPU, read from DRAM (1 GiB in all, best of `rounds`).
double MeasureDramReadBandwidth(int num_threads, int rounds = 3);

// Float operations per second (a multiply and an add are two) of float32 FMA at the widest vectors this CPU has.
double MeasureFmaRate(int num_threads, int rounds = 3);

// The same of vdpbf16ps (bfloat16 pairs, float32 sums); 0 where the CPU lacks it.
double MeasureBf16DotRate(int num_threads, int rounds = 3);

}  // namespace quire

#endif  // QUIRE_TESTS_BENCH_MACHINE_LIMITS_H_
