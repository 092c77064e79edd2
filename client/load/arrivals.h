// When the requests of an open loop are due.

#ifndef QUIRE_CLIENT_LOAD_ARRIVALS_H_
#define QUIRE_CLIENT_LOAD_ARRIVALS_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

namespace quire::client {

// The rate goes from start to end over the requests of a run: evenly, or by the same factor from each to the next.
struct Ramp {
  bool exponential = false;
  double start_rps = 0;
  double end_rps = 0;
};

struct ArrivalOptions {
  // Requests a second; infinity: none is awaited.
  double request_rate = std::numeric_limits<double>::infinity();
  // Shape of the gamma distribution of the gaps: 1 is a Poisson process, below it burstier, above it more even,
  // infinity: constant.
  double burstiness = 1;
  std::optional<Ramp> ramp = std::nullopt;  // in place of request_rate

  bool open_loop() const { return ramp.has_value() || request_rate < std::numeric_limits<double>::infinity(); }
};

// Due times of `count` requests in seconds from the start, ascending; all 0 if it is no open loop. A gap has mean 1 /
// rate and variance mean^2 / burstiness, and all depend on `seed` alone. REQUIRES: rates and burstiness > 0.
std::vector<double> ArrivalTimes(size_t count, const ArrivalOptions& options, uint64_t seed);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_ARRIVALS_H_
