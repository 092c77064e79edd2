#include "client/load/arrivals.h"

#include <cmath>
#include <random>

namespace quire::client {

std::vector<double> ArrivalTimes(size_t count, const ArrivalOptions& options, uint64_t seed) {
  std::vector<double> times(count, 0.0);
  if (std::isinf(options.request_rate)) {
    return times;
  }
  std::mt19937_64 random(seed);
  // The mean of a gamma distribution is shape * scale.
  std::gamma_distribution<double> gap(options.burstiness, 1 / (options.request_rate * options.burstiness));
  double now = 0;
  for (double& time : times) {
    now += gap(random);
    time = now;
  }
  return times;
}

}  // namespace quire::client
