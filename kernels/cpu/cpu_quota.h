// How many CPUs a process may use: its affinity mask and the quota of its cgroups.

#ifndef QUIRE_KERNELS_CPU_CPU_QUOTA_H_
#define QUIRE_KERNELS_CPU_CPU_QUOTA_H_

#include <optional>
#include <string>
#include <vector>

namespace quire {

// CPU time per wall time that the cgroup and its parents allow, the smallest of them; nullopt: no limit. Reads cgroup
// v2's cpu.max and v1's cpu.cfs_quota_us. `proc_self_cgroup` is the text of /proc/self/cgroup, `root` is where the
// hierarchies are mounted (/sys/fs/cgroup). A container that sees its own cgroup as the root of the mount is handled:
// directories that are not there are skipped.
std::optional<double> CgroupCpuQuota(const std::string& proc_self_cgroup, const std::string& root);

// The CPUs of the calling thread's affinity mask, rising.
std::vector<int> AffinityCpus();

}  // namespace quire

#endif  // QUIRE_KERNELS_CPU_CPU_QUOTA_H_
