// RegexProgram: a regular expression as instructions of a nondeterministic machine (Thompson 1968; Cox, "Regular
// expression matching: the virtual machine approach", 2009). Inside of Regex.

#ifndef QUIRE_SERVER_TOKENIZER_REGEX_PROGRAM_H_
#define QUIRE_SERVER_TOKENIZER_REGEX_PROGRAM_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/tokenizer/code_point_set.h"

namespace quire {

struct RegexProgram {
  struct Instruction {
    enum Kind {
      kTake,   // a character of sets[set]; then the instruction after this
      kAhead,  // nothing, if the next character is one of sets[set], or if there is none and at_end
      kSplit,  // go on at `first`, or if that comes to nothing at `second`
      kMatch,
    };
    Kind kind;
    uint32_t set = 0;
    bool at_end = false;
    uint32_t first = 0;
    uint32_t second = 0;
  };
  std::vector<Instruction> instructions;  // begins with the first
  std::vector<CodePointSet> sets;
};

// The instructions of `pattern`; an error as Regex::Compile says.
absl::StatusOr<RegexProgram> ParseRegex(absl::string_view pattern);

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_REGEX_PROGRAM_H_
