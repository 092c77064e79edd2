#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/scheduler/simulation.h"

namespace quire {

std::string Shrunk(const Life& life) {
  // A life ends at its first violation: how many requests and acts there are depends on what is left out.
  struct Broken {
    Life life;
    int32_t num_requests, num_acts;
    std::vector<std::string> violations;
  };
  const auto live = [](const Life& of) {
    Simulation simulation(of);
    std::vector<std::string> violations = simulation.Run();
    return Broken{of, simulation.num_requests(), simulation.num_acts(), std::move(violations)};
  };
  Broken smallest = live(life);
  if (smallest.violations.empty()) return "no violation";
  std::string text = absl::StrCat("seed ", life.seed, ", stress ", static_cast<int>(life.stress), ", run-ahead ",
                                  life.run_ahead, ":\n", absl::StrJoin(smallest.violations, "\n"));
  const auto leave_out = [&](std::set<int32_t> Life::*what, int32_t Broken::*count) {
    for (int32_t size = std::max(1, smallest.*count / 2); size >= 1; size /= 2) {
      for (int32_t begin = 0; begin < smallest.*count; begin += size) {
        Life smaller = smallest.life;
        for (int32_t i = begin; i < begin + size; ++i) (smaller.*what).insert(i);
        if (smaller.*what == smallest.life.*what) continue;
        Broken remaining = live(smaller);
        if (!remaining.violations.empty()) smallest = std::move(remaining);
      }
    }
  };
  leave_out(&Life::no_requests, &Broken::num_requests);
  leave_out(&Life::no_acts, &Broken::num_acts);
  int32_t num_left = 0;
  for (int32_t i = 0; i < smallest.num_requests; ++i) num_left += smallest.life.no_requests.contains(i) ? 0 : 1;
  return absl::StrCat(text, "\nalso without the requests {", absl::StrJoin(smallest.life.no_requests, ", "),
                      "} and the acts {", absl::StrJoin(smallest.life.no_acts, ", "),
                      "}; requests that are left: ", num_left, "\n", absl::StrJoin(smallest.violations, "\n"));
}

}  // namespace quire
