// When the requests of an open loop are due.

#ifndef QUIRE_CLIENT_LOAD_ARRIVALS_H_
#define QUIRE_CLIENT_LOAD_ARRIVALS_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace quire::client {

struct ArrivalOptions {
  // Requests a second; infinity: none is awaited.
  double request_rate = std::numeric_limits<double>::infinity();
  // Shape of the gamma distribution of the gaps: 1 is a Poisson process, below it burstier, above it more even.
  double burstiness = 1;
};

// Due times of `count` requests in seconds from the start, ascending; all 0 for an infinite rate. The gaps have mean 1
// / request_rate and variance mean^2 / burstiness, and depend on `seed` alone. REQUIRES: both options > 0, burstiness
// finite.
std::vector<double> ArrivalTimes(size_t count, const ArrivalOptions& options, uint64_t seed);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_ARRIVALS_H_
