#include "client/load/arrivals.h"

#include <cmath>
#include <random>

namespace quire::client {
namespace {

// The rate at `progress` of the requests, from 0 to 1.
double RateAt(const ArrivalOptions& options, double progress) {
  if (!options.ramp.has_value()) {
    return options.request_rate;
  }
  const Ramp& ramp = *options.ramp;
  return ramp.exponential ? ramp.start_rps * std::pow(ramp.end_rps / ramp.start_rps, progress)
                          : ramp.start_rps + (ramp.end_rps - ramp.start_rps) * progress;
}

}  // namespace

std::vector<double> ArrivalTimes(size_t count, const ArrivalOptions& options, uint64_t seed) {
  std::vector<double> times(count, 0.0);
  if (!options.open_loop()) {
    return times;
  }
  std::mt19937_64 random(seed);
  // The mean of a gamma distribution is shape * scale.
  const bool constant = std::isinf(options.burstiness);
  std::gamma_distribution<double> unit_gap(constant ? 1 : options.burstiness, constant ? 1 : 1 / options.burstiness);
  double now = 0;
  for (size_t i = 0; i < count; ++i) {
    const double progress = count > 1 ? static_cast<double>(i) / static_cast<double>(count - 1) : 0;
    now += (constant ? 1 : unit_gap(random)) / RateAt(options, progress);
    times[i] = now;
  }
  return times;
}

}  // namespace quire::client
