// The search for the highest rate at which a server still keeps its objectives.

#ifndef QUIRE_CLIENT_LOAD_SWEEP_H_
#define QUIRE_CLIENT_LOAD_SWEEP_H_

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "client/load/options.h"
#include "client/load/report.h"
#include "client/load/result.h"

namespace quire::client {

// Which rates to try: twice the last while they hold (or half while none does), then the geometric middle between the
// highest that held and the lowest that did not.
class RateSearch {
 public:
  RateSearch(double start_rps, double precision) : start_rps_(start_rps), precision_(precision) {}

  // Absent: the search is over.
  std::optional<double> Next() const;
  void Tell(double rate, bool holds);

  // The highest rate that held; absent: none.
  std::optional<double> best() const { return low_; }

 private:
  const double start_rps_;
  const double precision_;
  std::optional<double> low_;   // the highest that held
  std::optional<double> high_;  // the lowest that did not
};

// Requests of a stage: rate x seconds, and enough that one of them does not decide.
size_t StageRequests(const SweepOptions& options, double rate);

// How many requests of `planned` may miss an objective before the stage has failed.
size_t MissesAllowed(const SweepOptions& options, size_t planned);

// What a stage came to. A request that did not complete has met nothing.
SweepStage Summarize(const SweepOptions& options, double rate, size_t planned, const RunResult& run,
                     const Report& report);

// One stage in a line, and what stands where in it.
std::string StageHeader();
std::string StageLine(const SweepStage& stage);

// The stages by rate, as a table, and the answer in words.
std::string SweepTable(const SweepOptions& options, const std::vector<SweepStage>& stages);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_SWEEP_H_
