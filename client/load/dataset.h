// The prompts of a load test.

#ifndef QUIRE_CLIENT_LOAD_DATASET_H_
#define QUIRE_CLIENT_LOAD_DATASET_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace quire::client {

struct DatasetOptions {
  // "random": token ids drawn below the vocabulary's size; "corpus": excerpts of a text file at random places;
  // "custom": one JSON object {"prompt": "...", "output_tokens": n} a line, the latter optional, used in order and
  // again from the start; "sharegpt": the first two turns of conversations of a JSON array, in an order that the seed
  // draws; "trace": random ids of the lengths that a log of requests has (trace.h), first to last.
  std::string name = "random";
  std::string path;          // of all but random
  double trace_speedup = 1;  // divides the times of a trace
  // Tokens. Each prompt draws its lengths evenly from [len * (1 - range_ratio), len * (1 + range_ratio)].
  uint32_t input_len = 1024;
  uint32_t output_len = 128;
  double range_ratio = 0;  // [0, 1)
  // random: tokens that all prompts share, before the input_len of their own.
  uint32_t prefix_len = 0;
};

struct Prompt {
  // One of the two: ids, or text if they are empty.
  std::vector<uint32_t> ids;
  std::string text;
  uint32_t output_len = 0;
  double arrival_s = 0;  // of a trace: since its first request
};

// The ids of a text as the server makes them, without special tokens.
using TokenizeText = std::function<absl::StatusOr<std::vector<uint32_t>>(const std::string&)>;

// What prompts the server takes.
struct PromptForm {
  bool ids = true;  // as token ids; else only as text
  // Random ids are below it. Absent, or if only text is taken: random words stand for ids, each about one token.
  std::optional<uint32_t> vocab_size;
  TokenizeText tokenize;  // null: a token of text is taken to be kBytesPerToken
};

// Of English in usual vocabularies.
inline constexpr size_t kBytesPerToken = 4;

// `count` prompts, a function of the arguments alone (corpus: and of the server's tokenizer). Errors: the file.
absl::StatusOr<std::vector<Prompt>> MakePrompts(const DatasetOptions& options, size_t count, uint64_t seed,
                                                const PromptForm& form);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_DATASET_H_
