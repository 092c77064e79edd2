#include "kernels/cpu/cpu_quota.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>

namespace quire {
namespace {

std::optional<double> Smaller(std::optional<double> a, std::optional<double> b) {
  if (!a) return b;
  if (!b) return a;
  return std::min(*a, *b);
}

// v2: "max 100000" or "150000 100000" (microseconds of CPU time, of the period).
std::optional<double> ReadV2(const std::string& directory) {
  std::ifstream file(directory + "/cpu.max");
  double quota = 0, period = 0;
  if (file >> quota >> period && quota > 0 && period > 0) return quota / period;
  return std::nullopt;
}

// v1: a quota of -1 is none.
std::optional<double> ReadV1(const std::string& directory) {
  std::ifstream quota_file(directory + "/cpu.cfs_quota_us");
  std::ifstream period_file(directory + "/cpu.cfs_period_us");
  double quota = 0, period = 0;
  if (quota_file >> quota && period_file >> period && quota > 0 && period > 0) return quota / period;
  return std::nullopt;
}

// The smallest limit of `path` below `mount` and of all its parents, `mount` itself included.
template <typename Read>
std::optional<double> WalkUp(const std::string& mount, std::string path, Read read) {
  std::optional<double> least = read(mount);
  while (!path.empty() && path != "/") {
    least = Smaller(least, read(mount + path));
    path.resize(path.find_last_of('/') == std::string::npos ? 0 : path.find_last_of('/'));
  }
  return least;
}

bool HasController(const std::string& controllers, const std::string& name) {
  return ("," + controllers + ",").find("," + name + ",") != std::string::npos;
}

}  // namespace

std::optional<double> CgroupCpuQuota(const std::string& proc_self_cgroup, const std::string& root) {
  std::optional<double> least;
  std::istringstream lines(proc_self_cgroup);
  for (std::string line; std::getline(lines, line);) {  // "hierarchy:controllers:path"
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (controllers.empty()) {
      least = Smaller(least, WalkUp(root, path, ReadV2));
    } else if (HasController(controllers, "cpu")) {
      // v1 mounts the hierarchy under the joint name of its controllers; distributions add a link "cpu".
      least = Smaller(least, WalkUp(root + "/" + controllers, path, ReadV1));
      least = Smaller(least, WalkUp(root + "/cpu", path, ReadV1));
    }
  }
  return least;
}

std::vector<int> AffinityCpus() {
  for (int capacity = 1024; capacity <= 1 << 20; capacity *= 2) {  // the mask must hold every CPU that the kernel knows
    cpu_set_t* const set = CPU_ALLOC(capacity);
    if (set == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(capacity);
    std::vector<int> cpus;
    const bool ok = sched_getaffinity(0, bytes, set) == 0;
    for (int cpu = 0; ok && cpu < capacity; ++cpu) {
      if (CPU_ISSET_S(cpu, bytes, set)) cpus.push_back(cpu);
    }
    CPU_FREE(set);
    if (!cpus.empty()) return cpus;
  }
  return {0};
}

}  // namespace quire
