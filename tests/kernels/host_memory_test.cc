#include "kernels/cpu/host_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <thread>
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

TEST(HostMemory, PagesComeWithoutBeingTouchedWhereAsked) {
  const auto plain = AllocateHostMemory(kBytes);
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(PagesPresent(*plain), 0u);
#ifdef MADV_POPULATE_WRITE
  if (madvise(plain->data(), 1, MADV_POPULATE_WRITE) != 0) GTEST_SKIP() << "the kernel cannot populate pages";
  const auto faulted = AllocateFaultedHostMemory(kBytes);
  ASSERT_TRUE(faulted.ok());
  while (PagesPresent(*faulted) < kBytes / static_cast<size_t>(sysconf(_SC_PAGESIZE))) std::this_thread::yield();
#endif
}

TEST(HostMemory, MayGoWhileItsPagesStillCome) {
  for (int i = 0; i < 20; ++i) {
    const auto memory = AllocateFaultedHostMemory(kBytes);
    ASSERT_TRUE(memory.ok());
    static_cast<char*>(memory->data())[kBytes - 1] = 1;
  }
}

}  // namespace
}  // namespace quire
