#include "kernels/cpu/host_memory.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <utility>
#include <vector>

namespace quire {
namespace {

constexpr size_t kBytes = size_t{40} << 20;

size_t PagesPresent(const Buffer& memory) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> present((memory.bytes() + page - 1) / page);
  EXPECT_EQ(mincore(memory.data(), memory.bytes(), present.data()), 0);
  size_t count = 0;
  for (const unsigned char p : present) count += p & 1;
  return count;
}

TEST(HostMemory, PagesComeWhenTheyAreWrittenOrAskedFor) {
  const auto memory = AllocateHostMemory(kBytes);
  ASSERT_TRUE(memory.ok());
  EXPECT_EQ(PagesPresent(*memory), 0u);
#ifdef MADV_POPULATE_WRITE
  if (madvise(memory->data(), 1, MADV_POPULATE_WRITE) != 0) GTEST_SKIP() << "the kernel cannot populate pages";
  FaultIn(memory->data(), kBytes);
  EXPECT_EQ(PagesPresent(*memory), kBytes / static_cast<size_t>(sysconf(_SC_PAGESIZE)));
#endif
}

TEST(HostMemory, TheBackgroundFaultsItInWhileItIsUsed) {
  auto memory = AllocateHostMemory(kBytes);
  ASSERT_TRUE(memory.ok());
#ifdef MADV_POPULATE_WRITE
  if (madvise(memory->data(), 1, MADV_POPULATE_WRITE) != 0) GTEST_SKIP() << "the kernel cannot populate pages";
  const Buffer used = FaultInBackground(*std::move(memory));
  char* const bytes = static_cast<char*>(used.data());
  for (size_t i = 0; i < kBytes; i += 4096) bytes[i] = static_cast<char>(i >> 12);
  while (PagesPresent(used) < kBytes / static_cast<size_t>(sysconf(_SC_PAGESIZE))) sched_yield();
  for (size_t i = 0; i < kBytes; i += 4096) ASSERT_EQ(bytes[i], static_cast<char>(i >> 12)) << i;
  const auto gone = FaultInBackground(*AllocateHostMemory(kBytes));  // ends before it is done
#endif
}

}  // namespace
}  // namespace quire
