// simulate [EVENTS [FIRST_SEED]]: random lives of a scheduler (simulation.h), all stresses in turn, until EVENTS events
// have passed (100,000,000 by default). Prints what happened; a broken law with its seed and its smallest life: exit 1.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "tests/scheduler/simulation.h"

int main(int argc, char** argv) {
  using namespace quire;  // a program of one page
  const uint64_t num_events = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 100'000'000;
  uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 0;
  const auto begin = std::chrono::steady_clock::now();
  Tally tally;
  uint64_t num_lives = 0;
  for (; tally.events < num_events; ++seed) {
    for (int stress = 0; stress < kNumStresses; ++stress, ++num_lives) {
      const Life life = {.seed = seed,
                         .stress = static_cast<Stress>(stress),
                         .run_ahead = static_cast<int32_t>((seed + static_cast<uint64_t>(stress)) % 2),
                         .no_requests = {},
                         .no_acts = {}};
      Simulation simulation(life);
      const bool held = simulation.Run().empty();
      tally += simulation.tally();
      if (held) continue;
      std::printf("%s\n", Shrunk(life).c_str());
      return 1;
    }
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const auto count = [](const char* what, uint64_t number) {
    std::printf("%14llu %s\n", static_cast<unsigned long long>(number), what);
  };
  count("events", tally.events);
  count("lives", num_lives);
  count("requests", tally.accepted + tally.refused);
  count("finished", tally.finished);
  count("ended in flight", tally.ended_in_flight);
  count("refused", tally.refused);
  count("deadlines unreachable", tally.unreachable);
  count("queue times exceeded", tally.queue_times);
  count("time limits", tally.time_limits);
  count("pauses", tally.pauses);
  count("endings of all", tally.engine_ends);
  count("runner errors", tally.runner_errors);
  count("block faults", tally.block_faults);
  count("slow steps", tally.slow_steps);
  count("rows not finite", tally.failed_rows);
  count("preemptions", tally.preemptions);
  count("cached tokens", tally.cached_tokens);
  std::printf("all laws held, in %.1f s\n", seconds);
  return 0;
}
