// What `quire generate` shows: the outputs' text on one stream, and the summary line.

#ifndef QUIRE_CLIENT_OUTPUT_H_
#define QUIRE_CLIENT_OUTPUT_H_

#include <cstdint>
#include <map>
#include <optional>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "quire/v1/generation.pb.h"

namespace quire::client {

// Writes the text of a request's outputs as it comes. One output: its text alone. Several (`labelled`): in the order of
// their index, each after "[index] "; the first unfinished one streams, the later ones wait for their turn. Text that
// does not end in a newline gets one.
class TextPrinter {
 public:
  TextPrinter(bool labelled, std::ostream& out) : labelled_(labelled), out_(out) {}

  void Print(const v1::GenerateResponse& response);

  // After the stream: what an output that never finished held back, and the last newline.
  void Finish();

 private:
  void PrintTurn(const std::string& text);
  void EndTurn();
  void Write(const std::string& text);

  const bool labelled_;
  std::ostream& out_;
  std::map<uint32_t, std::string> held_;  // texts of outputs after the one in turn, by index
  std::set<uint32_t> finished_;           // of those after the one in turn
  uint32_t turn_ = 0;                     // the output that streams
  bool turn_begun_ = false;               // its label is written
  bool in_line_ = false;                  // the last byte written was not a newline
};

// Adds up what the responses of one request say, and when they came.
class Summary {
 public:
  explicit Summary(absl::Time sent) : sent_(sent) {}

  void Add(const v1::GenerateResponse& response, absl::Time now);

  // e.g. "17 prompt tokens (16 cached), 24 tokens in 0.51s, 47.2 tok/s, TTFT 21.3 ms, length, seed 7". tok/s is that of
  // the tokens after the first message with any; TTFT is taken here, from sending on.
  std::string Line() const;

 private:
  absl::Time sent_;
  std::optional<absl::Time> first_, last_;  // messages with tokens
  uint64_t num_tokens_ = 0;
  uint64_t num_first_tokens_ = 0;  // of the first message
  uint32_t prompt_tokens_ = 0;
  uint32_t cached_tokens_ = 0;
  std::optional<uint64_t> seed_;
  std::vector<std::string> endings_;  // one for each Finished
};

}  // namespace quire::client

#endif  // QUIRE_CLIENT_OUTPUT_H_
