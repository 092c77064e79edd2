#include "tests/kernels/cuda/emulation.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "kernels/check.h"
#include "tests/kernels/cuda/warpgroup_products.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace quire::cuda {
namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr size_t kStackBytes = size_t{256} << 10;
#else
constexpr size_t kStackBytes = size_t{64} << 10;
#endif

constexpr size_t kSharedAlignment = 1024;  // of a CTA's shared memory: CudaThread's
constexpr char kPoison = '\xff';           // four of them are a NaN

}  // namespace

#ifdef __x86_64__

// quire_switch_fiber(from, to): keeps what a function must preserve on the stack of `from`, goes on where `to` stopped.
// quire_start_fiber: where a new fiber begins, its function in rbx and the argument in r12.
extern "C" void quire_switch_fiber(void** from_stack, void* to_stack);
extern "C" void quire_start_fiber();
asm(R"(
.text
.type quire_switch_fiber,@function
quire_switch_fiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.type quire_start_fiber,@function
quire_start_fiber:
  movq %r12, %rdi
  callq *%rbx
  ud2
)");

struct Context {
  void* stack = nullptr;

  void Prepare(char* memory, void (*function)(void*), void* argument) {
    void** top = reinterpret_cast<void**>(memory + kStackBytes) - 9;  // after the return of the switch, aligned to 16
    *top++ = nullptr;                                                 // r15
    *top++ = nullptr;                                                 // r14
    *top++ = nullptr;                                                 // r13
    *top++ = argument;                                                // r12
    *top++ = reinterpret_cast<void*>(function);                       // rbx
    *top++ = nullptr;                                                 // rbp
    *top = reinterpret_cast<void*>(&quire_start_fiber);
    stack = top - 6;
  }
  static void Switch(Context& from, Context& to) { quire_switch_fiber(&from.stack, to.stack); }
};

#else

struct Context {
  ucontext_t context;
  void (*function)(void*) = nullptr;
  void* argument = nullptr;

  static void Start(unsigned high, unsigned low) {
    auto* self = reinterpret_cast<Context*>(uint64_t{high} << 32 | low);
    self->function(self->argument);
  }
  void Prepare(char* memory, void (*f)(void*), void* a) {
    function = f;
    argument = a;
    getcontext(&context);
    context.uc_stack.ss_sp = memory;
    context.uc_stack.ss_size = kStackBytes;
    context.uc_link = nullptr;
    const auto self = reinterpret_cast<uint64_t>(this);
    makecontext(&context, reinterpret_cast<void (*)()>(&Start), 2, static_cast<unsigned>(self >> 32),
                static_cast<unsigned>(self));
  }
  static void Switch(Context& from, Context& to) { swapcontext(&from.context, &to.context); }
};

#endif

constexpr uint32_t kSharedAddress = 1024;  // where an emulated CTA's shared memory begins

// The CTA that runs: its fibers and whom they wait for. A fiber that waits names a generation; it can go on when that
// has moved.
class EmulatedCta {
 public:
  explicit EmulatedCta(const EmulationOptions& options) : options_(options) {}
  ~EmulatedCta() { FreeStacks(); }

  void Run(int cta, int num_ctas, int num_threads, size_t shared_bytes,
           const std::function<void(const EmulatedThread&)>& kernel) {
    Check(num_threads > 0 && num_threads % kWarpSize == 0, "emulation: whole warps only");
    cta_ = cta;
    num_ctas_ = num_ctas;
    kernel_ = &kernel;
    shared_.assign(shared_bytes + 2 * kSharedAlignment, kPoison);
    shared_bytes_ = shared_bytes;
    MakeStacks(num_threads);
    fibers_.assign(num_threads, {});
    warps_.assign(num_threads / kWarpSize, {});
    warpgroups_.assign(num_threads / kWarpgroupSize, {});
    visible_.clear();
    num_fenced_ = 0;
    barrier_ = {};
    num_live_ = num_threads;
    for (int t = 0; t < num_threads; ++t) {
      fibers_[t].cta = this;
      fibers_[t].index = t;
      fibers_[t].context.Prepare(stacks_ + size_t(t) * kStackBytes, &Main, &fibers_[t]);
    }
    current_ = options_.reversed ? num_threads - 1 : 0;
    SwitchFrom(host_, nullptr, fibers_[current_]);
    Check(num_live_ == 0, "emulation: threads wait for a barrier that others have passed by");
    CheckPoison();
    Check(std::all_of(warpgroups_.begin(), warpgroups_.end(), [](const auto& w) { return w.products.idle(); }),
          "emulation: nobody waited for a warpgroup's products");
  }

 private:
  friend class EmulatedThread;

  struct Copy {
    void* to;
    const void* from;
    bool valid;
  };
  struct Meeting {
    int num_arrived = 0;
    uint64_t generation = 0;
  };
  struct Warp {
    Meeting meeting;
    EmulatedThread::WarpFunction function = nullptr;
    void* lanes[kWarpSize];
  };
  struct Warpgroup {
    Meeting meeting;
    int operation = 0;
    WarpgroupProducts::Lanes lanes;
    WarpgroupProducts products;
  };
  struct Fiber {
    Context context;
    EmulatedCta* cta = nullptr;
    int index = 0;
    bool is_over = false;
    const uint64_t* awaited = nullptr;  // the generation that it waits to move from `seen`; nullptr: it can run
    uint64_t seen = 0;
    std::vector<std::vector<Copy>> groups;  // committed copies, the oldest first
    std::vector<Copy> copies;               // not committed
    void* fake_stack = nullptr;             // the address sanitizer's
  };

  void MakeStacks(int num_threads) {
    if (num_stacks_ >= num_threads) return;
    FreeStacks();
    num_stacks_ = num_threads;
    void* memory = mmap(nullptr, num_stacks_ * kStackBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    Check(memory != MAP_FAILED, "emulation: no memory for stacks");
    stacks_ = static_cast<char*>(memory);
  }

  void FreeStacks() {
    if (stacks_ == nullptr) return;
#ifdef __SANITIZE_ADDRESS__
    // Fibers never return: what it holds against their last frames must not fall on who has these addresses next.
    __asan_unpoison_memory_region(stacks_, num_stacks_ * kStackBytes);
#endif
    munmap(stacks_, num_stacks_ * kStackBytes);
  }

  static void Main(void* argument) {
    auto& fiber = *static_cast<Fiber*>(argument);
    EmulatedCta& cta = *fiber.cta;
#ifdef __SANITIZE_ADDRESS__
    if (cta.host_stack_ == nullptr) {
      __sanitizer_finish_switch_fiber(nullptr, &cta.host_stack_, &cta.host_stack_bytes_);
    } else {
      __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
    }
#endif
    (*cta.kernel_)(EmulatedThread(&cta, fiber.index));
    fiber.is_over = true;
    if (--cta.num_live_ == 0) {
      cta.SwitchFrom(fiber.context, nullptr, cta.host_);
    } else {
      cta.Yield();
    }
    Check(false, "emulation: an ended thread goes on");
  }

  char* shared() {
    const auto begin = reinterpret_cast<uintptr_t>(shared_.data());
    return shared_.data() + (RoundUp<uintptr_t>(begin, kSharedAlignment) - begin);
  }
  // What instructions that take 16 bytes of shared memory require of their address.
  void CheckShared16(const void* address) {
    const auto* at = static_cast<const char*>(address);
    Check(reinterpret_cast<uintptr_t>(at) % 16 == 0, "emulation: 16 bytes of shared memory are not aligned");
    Check(shared() <= at && at + 16 <= shared() + shared_bytes_, "emulation: 16 bytes outside the CTA's shared memory");
  }
  // The same bytes for products of warpgroups: what the last fence made visible, and what must lie there still.
  const char* Visible16(uint32_t address) {
    const size_t at = address - kSharedAddress;
    Check(address >= kSharedAddress && at + 16 <= shared_bytes_,
          "emulation: a product reads outside the shared memory");
    Check(!visible_.empty() && std::memcmp(shared() + at, &visible_[at], 16) == 0,
          "emulation: a product reads what was written without FenceAsyncProxy, or too soon");
    return &visible_[at];
  }
  // At least an alignment's worth of bytes lies behind the CTA's shared memory; some may lie before it.
  void CheckPoison() {
    const auto is_poison = [](char c) { return c == kPoison; };
    Check(std::all_of(shared_.data(), shared(), is_poison) &&
              std::all_of(shared() + shared_bytes_, shared_.data() + shared_.size(), is_poison),
          "emulation: a thread wrote beyond the CTA's shared memory");
  }

  bool CanRun(const Fiber& fiber) const {
    return !fiber.is_over && (fiber.awaited == nullptr || *fiber.awaited != fiber.seen);
  }

  // Goes on with the next thread that can run: of the same warp, else of another; the host if there is none.
  void Yield() {
    const int num_threads = static_cast<int>(fibers_.size()), step = options_.reversed ? kWarpSize - 1 : 1;
    Fiber& from = fibers_[current_];
    const int warp_begin = current_ / kWarpSize * kWarpSize;
    for (int i = 1; i <= kWarpSize; ++i) {
      const int candidate = warp_begin + (current_ + i * step) % kWarpSize;
      if (CanRun(fibers_[candidate])) return GoTo(from, candidate);
    }
    for (int i = 1; i < num_threads; ++i) {
      const int candidate = (current_ + (options_.reversed ? num_threads - i : i)) % num_threads;
      if (CanRun(fibers_[candidate])) return GoTo(from, candidate);
    }
    SwitchFrom(from.context, &from.fake_stack, host_);
  }
  void GoTo(Fiber& from, int to) {
    current_ = to;
    if (&from == &fibers_[to]) return;
    SwitchFrom(from.context, from.is_over ? nullptr : &from.fake_stack, fibers_[to]);
  }
  void SwitchFrom(Context& from, void** fake_stack, Fiber& to) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&from == &host_ ? &host_fake_stack_ : fake_stack,
                                   stacks_ + size_t(to.index) * kStackBytes, kStackBytes);
#endif
    Context::Switch(from, to.context);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(&from == &host_ ? host_fake_stack_ : *fake_stack, nullptr, nullptr);
#endif
  }
  void SwitchFrom(Context& from, void** fake_stack, Context& host) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(fake_stack, host_stack_, host_stack_bytes_);
#endif
    Context::Switch(from, host);
  }

  // The current thread waits until `num_expected` threads have come to `meeting`; the last one runs `work` first.
  template <typename Work>
  void Meet(Meeting& meeting, int num_expected, const Work& work) {
    if (++meeting.num_arrived == num_expected) {
      work();
      meeting.num_arrived = 0;
      ++meeting.generation;
      return;
    }
    Fiber& fiber = fibers_[current_];
    fiber.awaited = &meeting.generation;
    fiber.seen = meeting.generation;
    Yield();
    fiber.awaited = nullptr;
  }

  const EmulationOptions options_;
  int cta_ = 0, num_ctas_ = 0;
  const std::function<void(const EmulatedThread&)>* kernel_ = nullptr;
  std::vector<char> shared_;  // with poison around it
  size_t shared_bytes_ = 0;
  char* stacks_ = nullptr;
  int num_stacks_ = 0;
  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  std::vector<Warpgroup> warpgroups_;
  std::vector<char> visible_;  // the shared memory as all threads' last FenceAsyncProxy found it
  int num_fenced_ = 0;
  Meeting barrier_;
  int num_live_ = 0;
  int current_ = 0;
  Context host_;
  const void* host_stack_ = nullptr;
  size_t host_stack_bytes_ = 0;
  void* host_fake_stack_ = nullptr;
};

// ----------------------------------------------------------------------------------------------------------------------

int EmulatedThread::num_threads() const { return static_cast<int>(cta_->fibers_.size()); }
int EmulatedThread::cta() const { return cta_->cta_; }
int EmulatedThread::num_ctas() const { return cta_->num_ctas_; }
char* EmulatedThread::shared() const { return cta_->shared(); }

void EmulatedThread::Sync() const {
  cta_->Meet(cta_->barrier_, static_cast<int>(cta_->fibers_.size()), [] {});
}

void EmulatedThread::Together(void* mine, WarpFunction function) const {
  EmulatedCta::Warp& warp = cta_->warps_[thread_ / kWarpSize];
  if (warp.meeting.num_arrived == 0) warp.function = function;
  Check(warp.function == function, "emulation: the lanes of a warp call different functions");
  warp.lanes[lane()] = mine;
  cta_->Meet(warp.meeting, kWarpSize, [&] { function(warp.lanes); });
}

void EmulatedThread::SyncWarp() const {
  Together(nullptr, [](void* const*) {});
}

uint64_t EmulatedThread::ShuffleBits(uint64_t bits, int from_lane) const {
  struct Lane {
    uint64_t given, taken;
    int from;
  } mine{bits, 0, from_lane};
  Together(&mine, [](void* const lanes[kWarpSize]) {
    for (int l = 0; l < kWarpSize; ++l) {
      auto* lane = static_cast<Lane*>(lanes[l]);
      lane->taken = static_cast<const Lane*>(lanes[lane->from % kWarpSize])->given;
    }
  });
  return mine.taken;
}

uint32_t EmulatedThread::Ballot(bool value) const {
  struct Lane {
    bool given;
    uint32_t taken;
  } mine{value, 0};
  Together(&mine, [](void* const lanes[kWarpSize]) {
    uint32_t bits = 0;
    for (int l = 0; l < kWarpSize; ++l) bits |= uint32_t{static_cast<const Lane*>(lanes[l])->given} << l;
    for (int l = 0; l < kWarpSize; ++l) static_cast<Lane*>(lanes[l])->taken = bits;
  });
  return mine.taken;
}

void EmulatedThread::CopyAsync16(void* shared, const void* global, bool valid) const {
  cta_->CheckShared16(shared);
  Check(!valid || reinterpret_cast<uintptr_t>(global) % 16 == 0, "emulation: a copy of 16 bytes is not aligned");
  if (cta_->options_.late_copies) {
    cta_->fibers_[thread_].copies.push_back({shared, global, valid});
  } else if (valid) {
    std::memcpy(shared, global, 16);
  } else {
    std::memset(shared, 0, 16);
  }
}

void EmulatedThread::CommitCopies() const {
  EmulatedCta::Fiber& fiber = cta_->fibers_[thread_];
  fiber.groups.push_back(std::move(fiber.copies));
  fiber.copies.clear();
}

void EmulatedThread::WaitForCopies(int num_pending) const {
  auto& groups = cta_->fibers_[thread_].groups;
  while (static_cast<int>(groups.size()) > num_pending) {
    for (const auto& copy : groups.front()) {
      if (copy.valid) {
        std::memcpy(copy.to, copy.from, 16);
      } else {
        std::memset(copy.to, 0, 16);
      }
    }
    groups.erase(groups.begin());
  }
}

namespace {

struct MatrixLane {
  const void* row;
  uint32_t* r;
};

template <bool kTransposed>
void LoadMatricesWarp(void* const lanes[kWarpSize]) {
  for (int matrix = 0; matrix < 4; ++matrix) {
    uint16_t m[8][8];
    for (int row = 0; row < 8; ++row) {
      std::memcpy(m[row], static_cast<const MatrixLane*>(lanes[matrix * 8 + row])->row, 16);
    }
    for (int l = 0; l < kWarpSize; ++l) {
      const int i = l / 4, j = l % 4 * 2;
      const uint16_t low = kTransposed ? m[j][i] : m[i][j], high = kTransposed ? m[j + 1][i] : m[i][j + 1];
      static_cast<MatrixLane*>(lanes[l])->r[matrix] = uint32_t{low} | uint32_t{high} << 16;
    }
  }
}

}  // namespace

void EmulatedThread::LoadMatrices(const void* shared_row, uint32_t (&r)[4]) const {
  cta_->CheckShared16(shared_row);
  MatrixLane mine{shared_row, r};
  Together(&mine, &LoadMatricesWarp<false>);
}
void EmulatedThread::LoadMatricesTransposed(const void* shared_row, uint32_t (&r)[4]) const {
  cta_->CheckShared16(shared_row);
  MatrixLane mine{shared_row, r};
  Together(&mine, &LoadMatricesWarp<true>);
}

uint32_t EmulatedThread::Transpose(uint32_t pair) const {
  struct Lane {
    uint32_t given, taken;
  } mine{pair, 0};
  Together(&mine, [](void* const lanes[kWarpSize]) {
    const auto element = [&](int row, int col) {
      const uint32_t given = static_cast<const Lane*>(lanes[row * 4 + col / 2])->given;
      return col % 2 == 0 ? given & 0xffffu : given >> 16;
    };
    for (int l = 0; l < kWarpSize; ++l) {
      const int i = l / 4, j = l % 4 * 2;
      static_cast<Lane*>(lanes[l])->taken = element(j, i) | element(j + 1, i) << 16;
    }
  });
  return mine.taken;
}

SharedMatrix EmulatedThread::Matrix(const void* shared) const {
  cta_->CheckShared16(shared);
  const auto at = static_cast<const char*>(shared) - cta_->shared();
  Check(at % SharedMatrix::kAtomBytes == 0, "emulation: a product's matrix is not aligned");
  return SharedMatrix::At(kSharedAddress + static_cast<uint32_t>(at));
}

// Bytes that the last thread writes after its fence are not seen: the others' might be, which is as bad.
void EmulatedThread::FenceAsyncProxy() const {
  if (++cta_->num_fenced_ < num_threads()) return;
  cta_->num_fenced_ = 0;
  cta_->visible_.assign(cta_->shared(), cta_->shared() + cta_->shared_bytes_);
}

// When all threads of the warpgroup have come: `work`, over what each of them gave.
template <typename Work>
void EmulatedThread::WarpgroupTogether(int operation, const Work& work) const {
  Check(thread_ / kWarpgroupSize < static_cast<int>(cta_->warpgroups_.size()), "emulation: whole warpgroups only");
  EmulatedCta::Warpgroup& warpgroup = cta_->warpgroups_[thread_ / kWarpgroupSize];
  if (warpgroup.meeting.num_arrived == 0) warpgroup.operation = operation;
  Check(warpgroup.operation == operation, "emulation: the threads of a warpgroup call different functions");
  cta_->Meet(warpgroup.meeting, kWarpgroupSize, [&] { work(warpgroup); });
}

void EmulatedThread::WarpgroupFence() const {
  WarpgroupTogether(-1, [](auto& warpgroup) { warpgroup.products.Fence(); });
}
void EmulatedThread::Issue(const WarpgroupLane& lane) const {
  cta_->warpgroups_[thread_ / kWarpgroupSize].lanes[thread_ % kWarpgroupSize] = lane;
  WarpgroupTogether(-2, [&](auto& warpgroup) {
    warpgroup.products.Issue(warpgroup.lanes, [&](uint32_t address) { return cta_->Visible16(address); });
  });
}
void EmulatedThread::WarpgroupCommit() const {
  WarpgroupTogether(-3, [](auto& warpgroup) { warpgroup.products.Commit(); });
}
void EmulatedThread::WarpgroupWait(int num_pending) const {
  WarpgroupTogether(num_pending, [&](auto& warpgroup) {
    warpgroup.products.Wait(num_pending, [&](uint32_t address) { return cta_->Visible16(address); });
  });
}

EmulatedGrid::EmulatedGrid(const EmulationOptions& options)
    : options_(options), cta_(std::make_unique<EmulatedCta>(options)) {}
EmulatedGrid::~EmulatedGrid() = default;

void EmulatedGrid::Run(int num_ctas, int num_threads, size_t shared_bytes,
                       const std::function<void(const EmulatedThread&)>& kernel) {
  for (int i = 0; i < num_ctas; ++i)
    cta_->Run(options_.reversed ? num_ctas - 1 - i : i, num_ctas, num_threads, shared_bytes, kernel);
}

}  // namespace quire::cuda
