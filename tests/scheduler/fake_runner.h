// FakeRunner: a model whose token is a function of (request, position), over a KV cache that remembers what was written
// where.
//
// For each slot of each block the fake keeps a fingerprint of all tokens up to the slot's position, of the salt and of
// the group of layers. A chunk first verifies the slots of all earlier positions of its sequence, in a group with a
// window of those that its first row sees, then writes its own. So a stale block, a wrong prefix hit, a block reused
// too early or a wrong num_computed is found in the step in which a real kernel would have read it. A block that the
// window has passed must be gone, or wait for the commit of the batch before. The blocks of a sequence whose row was
// not finite are suspect, from when the host is told until somebody begins to write them or they are scrubbed: whoever
// finds one in the prefix cache is a violation.
//
// With run_ahead a chunk may begin with a token that the host has not seen: as a device does, the fake remembers what
// the batch before drew.

#ifndef QUIRE_TESTS_SCHEDULER_FAKE_RUNNER_H_
#define QUIRE_TESTS_SCHEDULER_FAKE_RUNNER_H_

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/batch.h"
#include "scheduler/request.h"
#include "scheduler/scheduler.h"

namespace quire {

// A small, portable generator for tests (splitmix64, Steele 2014).
class TestRandom {
 public:
  explicit TestRandom(uint64_t seed) : state_(seed) {}
  uint64_t Next() { return Mix(state_ += 0x9e3779b97f4a7c15u); }
  // Uniform in [low, high].
  int32_t Between(int32_t low, int32_t high) { return low + static_cast<int32_t>(Next() % uint64_t(high - low + 1)); }
  bool Percent(int32_t percent) { return Between(0, 99) < percent; }

  static uint64_t Mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }

 private:
  uint64_t state_;
};

class FakeRunner {
 public:
  static constexpr uint32_t kVocabSize = 32;

  explicit FakeRunner(const SchedulerOptions& options);

  // As a device launches it: with what the scheduler knows now, after all batches before. `result` is what Commit is to
  // be given.
  void Run(const Batch& batch, StepResult& result);
  // With run_ahead, before that Commit: the host sees the result of the oldest batch.
  void Collect();

  // The definition: the token of output `index` at `position`, drawn under the request's ban of stop ids; its
  // log-probability; whether its row is finite.
  static uint32_t TokenAt(const Request& request, int32_t position, uint32_t index = 0);
  static float LogprobAt(const Request& request, int32_t position);
  static bool IsFiniteAt(const Request& request, int32_t position, uint32_t index = 0);

  // What output `index` of a request gets when nothing disturbs it: output 0 of a request with `index` added to its
  // seed. With kNone the row after the last token is not finite.
  struct Output {
    std::vector<uint32_t> tokens;
    FinishReason finish = FinishReason::kNone;
  };
  static Output OutputOf(const Request& request, uint32_t index = 0);

  // The seed of a request whose `output`-th token (from 0) comes from a row that is not finite.
  static uint64_t SeedThatFailsAt(uint32_t output) { return (uint64_t{output} << 8) | 0xff; }

  // What was wrong with the batches so far.
  const std::vector<std::string>& violations() const { return violations_; }
  // Positions that ran although they had run, or come from the prefix cache, before.
  uint64_t recomputed_tokens() const { return recomputed_tokens_; }
  uint64_t partial_chunks() const { return partial_chunks_; }
  uint64_t block_copies() const { return block_copies_; }

 private:
  void ScrubBlocks(const Batch& batch);
  void CopyBlocks(const Batch& batch);
  void RunChunk(const Chunk& chunk);
  // Whether the chunk's token is one that the batch before drew for it.
  bool TakesItsOwn(const Chunk& chunk) const;
  void RunChunkInGroup(const Chunk& chunk, int32_t group);
  // The chunk's sequence begins with what it has from the prefix cache.
  void CheckHit(const Chunk& chunk);
  void SuspectBlocks(const Sequence& sequence);
  void Score(const Chunk& chunk, StepResult& result);
  void Violation(const Chunk& chunk, const std::string& what);

  // A chunk of the batch before.
  struct Before {
    const Sequence* sequence;
    int32_t begin;
    std::optional<uint32_t> drawn;
  };

  KvTableLayout layout_;
  const int32_t run_ahead_;
  std::vector<Before> before_;
  std::vector<uint64_t> slots_;  // [num_blocks, block_size]: fingerprints; 0: never written
  // Of each output: the end of what has run.
  std::map<std::pair<RequestId, uint32_t>, int32_t> max_end_;
  std::map<std::pair<RequestId, uint32_t>, int32_t> last_end_;  // of the last chunk that ran
  std::vector<bool> suspect_;                                   // [num_blocks]
  std::deque<std::vector<const Sequence*>> not_finite_;         // of each batch that was not collected
  uint64_t recomputed_tokens_ = 0;
  uint64_t partial_chunks_ = 0;  // chunks that do not sample
  uint64_t block_copies_ = 0;
  std::vector<std::string> violations_;
};

}  // namespace quire

#endif  // QUIRE_TESTS_SCHEDULER_FAKE_RUNNER_H_
