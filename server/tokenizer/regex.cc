#include "server/tokenizer/regex.h"

#include <algorithm>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/tokenizer/byte_alphabet.h"
#include "server/tokenizer/regex_program.h"
#include "server/tokenizer/unicode.h"

namespace quire {
namespace {

// The patterns in use need some 30 states and 20 classes.
constexpr size_t kMaxStates = 4096;
constexpr size_t kMaxClasses = 250;

// An attempt that reads this much in vain is not remembered: reading it again costs less.
constexpr size_t kMaxForgottenBytes = 64;

}  // namespace

// The subset construction, with states as lists of instructions in the order of preference.
struct RegexCompiler {
  using Instruction = RegexProgram::Instruction;
  using State = std::vector<uint32_t>;  // instructions to go on with before the next character, the preferred first

  explicit RegexCompiler(const RegexProgram& program) : program(program) {}

  // Splits the code points into classes that all sets treat alike.
  absl::Status MakeClasses() {
    std::vector<uint32_t> borders = {0};
    for (const CodePointSet& set : program.sets) {
      for (const CodePointSet::Range& range : set.ranges()) {
        borders.push_back(range.first);
        borders.push_back(range.last + 1);
      }
    }
    std::sort(borders.begin(), borders.end());
    borders.erase(std::unique(borders.begin(), borders.end()), borders.end());
    if (borders.back() > CodePointSet::kLast) {
      borders.pop_back();
    }
    std::map<std::vector<bool>, uint8_t> class_of_members;
    std::vector<uint8_t> class_of(CodePointSet::kLast + 1);
    for (size_t i = 0; i < borders.size(); ++i) {
      std::vector<bool> members;  // [set] whether it holds these code points
      for (const CodePointSet& set : program.sets) {
        members.push_back(set.Contains(borders[i]));
      }
      const auto [entry, is_new] = class_of_members.try_emplace(members, static_cast<uint8_t>(sets_of_class.size()));
      if (is_new) {
        sets_of_class.push_back(members);
        if (sets_of_class.size() > kMaxClasses) {
          return absl::InvalidArgumentError(absl::StrCat("has more than ", kMaxClasses, " kinds of characters"));
        }
      }
      const uint32_t end = i + 1 < borders.size() ? borders[i + 1] : CodePointSet::kLast + 1;
      std::fill(class_of.begin() + borders[i], class_of.begin() + end, entry->second);
    }
    regex.end_class_ = static_cast<uint8_t>(sets_of_class.size());
    FillLookUps(class_of);
    return absl::OkStatus();
  }

  void FillLookUps(const std::vector<uint8_t>& class_of) {
    std::copy(class_of.begin(), class_of.begin() + 128, regex.class_of_ascii_.begin());
    for (int byte = 0; byte < 256; ++byte) {
      regex.class_of_spelled_byte_[byte] = class_of[NextUtf8(NameOfByte(static_cast<uint8_t>(byte))).code_point];
    }
    std::map<std::vector<uint8_t>, uint16_t> blocks;
    for (auto begin = class_of.begin(); begin != class_of.end(); begin += Regex::kBlockLen) {
      std::vector<uint8_t> block(begin, begin + Regex::kBlockLen);
      const auto [entry, is_new] = blocks.try_emplace(block, static_cast<uint16_t>(blocks.size()));
      if (is_new) {
        regex.class_of_.insert(regex.class_of_.end(), block.begin(), block.end());
      }
      regex.block_of_.push_back(entry->second);
    }
  }

  // Whether instruction `at` goes on before a character of class `c`.
  bool Holds(const Instruction& at, uint8_t c) const {
    return c == regex.end_class_ ? at.kind == Instruction::kAhead && at.at_end : sets_of_class[c][at.set];
  }

  // Where `state` goes with a character of class `c`; `matched` tells whether a match ends before it.
  State Follow(const State& state, uint8_t c, bool& matched) {
    State next;
    std::vector<bool> seen(program.instructions.size()), taken(program.instructions.size() + 1);
    std::vector<uint32_t> stack(state.rbegin(), state.rend());
    while (!stack.empty()) {
      const uint32_t at = stack.back();
      stack.pop_back();
      if (seen[at]) {
        continue;
      }
      seen[at] = true;
      const Instruction& instruction = program.instructions[at];
      switch (instruction.kind) {
        case Instruction::kMatch:  // what is preferred less can no longer win
          matched = true;
          return next;
        case Instruction::kSplit:
          stack.push_back(instruction.second);
          stack.push_back(instruction.first);
          break;
        case Instruction::kAhead:
          if (Holds(instruction, c)) {
            stack.push_back(at + 1);
          }
          break;
        case Instruction::kTake:
          if (Holds(instruction, c) && !taken[at + 1]) {
            taken[at + 1] = true;
            next.push_back(at + 1);
          }
          break;
      }
    }
    return next;
  }

  absl::Status MakeStates() {
    std::map<State, uint16_t> number_of = {{{}, Regex::kDead}, {{0}, Regex::kStart}};
    std::vector<State> states = {{}, {0}};
    const size_t num_classes = size_t{regex.end_class_} + 1;
    for (size_t i = 0; i < states.size(); ++i) {
      const State state = states[i];
      for (size_t c = 0; c < num_classes; ++c) {
        bool matched = false;
        State next = Follow(state, static_cast<uint8_t>(c), matched);
        if (matched && i == Regex::kStart) {
          return absl::InvalidArgumentError("matches the empty text");
        }
        const auto [entry, is_new] = number_of.try_emplace(std::move(next), static_cast<uint16_t>(states.size()));
        if (is_new) {
          states.push_back(entry->first);
          if (states.size() > kMaxStates) {
            return absl::InvalidArgumentError(absl::StrCat("needs more than ", kMaxStates, " states"));
          }
        }
        regex.next_.push_back(static_cast<uint16_t>(entry->second | (matched ? Regex::kMatched : 0)));
      }
    }
    return absl::OkStatus();
  }

  static absl::StatusOr<Regex> Run(const RegexProgram& program) {
    RegexCompiler compiler(program);
    absl::Status status = compiler.MakeClasses();
    if (status.ok()) {
      status = compiler.MakeStates();
    }
    if (!status.ok()) {
      return status;
    }
    return std::move(compiler.regex);
  }

  const RegexProgram& program;
  std::vector<std::vector<bool>> sets_of_class;  // [class][set]
  Regex regex;
};

absl::StatusOr<Regex> Regex::Compile(absl::string_view pattern) {
  const absl::StatusOr<RegexProgram> program = ParseRegex(pattern);
  return program.ok() ? RegexCompiler::Run(*program) : program.status();
}

absl::StatusOr<Regex> Regex::Literal(absl::string_view text) {
  RegexProgram program;
  for (size_t at = 0; at < text.size();) {
    const Utf8Sequence next = NextUtf8(text.substr(at));
    program.instructions.push_back({.kind = RegexProgram::Instruction::kTake, .set = uint32_t(program.sets.size())});
    program.sets.push_back(CodePointSet({{next.code_point, next.code_point}}));
    at += next.num_bytes;
  }
  program.instructions.push_back({.kind = RegexProgram::Instruction::kMatch});
  return RegexCompiler::Run(program);
}

Regex Regex::OneOf(const CodePointSet& set, bool repeated) {
  using Instruction = RegexProgram::Instruction;
  RegexProgram program;
  program.sets = {set};
  program.instructions = {{.kind = Instruction::kTake}};
  if (repeated) {
    program.instructions.push_back({.kind = Instruction::kSplit, .first = 0, .second = 2});
  }
  program.instructions.push_back({.kind = Instruction::kMatch});
  return *RegexCompiler::Run(program);
}

template <Regex::Alphabet alphabet>
std::pair<uint8_t, uint8_t> Regex::ClassAt(absl::string_view text, size_t at) const {
  const uint8_t byte = static_cast<uint8_t>(text[at]);
  if constexpr (alphabet == Alphabet::kSpelledBytes) {
    return {class_of_spelled_byte_[byte], 1};
  }
  if (byte < 128) {
    return {class_of_ascii_[byte], 1};
  }
  const Utf8Sequence next = NextUtf8(text.substr(at));
  const uint8_t bytes = next.kind == Utf8Sequence::kCharacter ? static_cast<uint8_t>(next.num_bytes) : 1;
  return {class_of_[size_t{block_of_[next.code_point / kBlockLen]} * kBlockLen + next.code_point % kBlockLen], bytes};
}

std::optional<Regex::Match> Regex::Matcher::Next(size_t begin) {
  return alphabet_ == Alphabet::kUtf8 ? NextIn<Alphabet::kUtf8>(begin) : NextIn<Alphabet::kSpelledBytes>(begin);
}

template <Regex::Alphabet alphabet>
std::optional<Regex::Match> Regex::Matcher::NextIn(size_t begin) {
  // Most expressions of a list of them begin with few characters: the others are passed over here.
  const uint16_t* const from_start = regex_.next_.data() + kStart * (size_t{regex_.end_class_} + 1);
  while (begin < text_.size()) {
    const auto [c, bytes] = regex_.ClassAt<alphabet>(text_, begin);
    if ((from_start[c] & ~kMatched) != kDead) {
      if (const size_t end = EndOfMatchAt<alphabet>(begin); end > begin) {
        return Match{begin, end};
      }
    }
    begin += bytes;
  }
  return std::nullopt;
}

// The end of the match at `begin`; `begin` if there is none.
template <Regex::Alphabet alphabet>
size_t Regex::Matcher::EndOfMatchAt(size_t begin) {
  const size_t stride = size_t{regex_.end_class_} + 1;
  const uint16_t* const table = regex_.next_.data();
  size_t matched_end = begin, at = begin;
  uint16_t state = kStart;
  while (state != kDead) {
    const bool may_have_failed = at < failed_end_ && at >= failed_begin_;
    if (may_have_failed && failed_.contains({at, state})) {
      break;
    }
    const auto [c, bytes] =
        at < text_.size() ? regex_.ClassAt<alphabet>(text_, at) : std::pair<uint8_t, uint8_t>(regex_.end_class_, 0);
    const uint16_t transition = table[state * stride + c];
    if ((transition & kMatched) != 0) {
      matched_end = at;
    }
    state = transition & ~kMatched;
    at += bytes;
  }
  if (at - matched_end > kMaxForgottenBytes) {
    RememberFailure<alphabet>(begin, matched_end, at);
  }
  return matched_end;
}

// Notes the states of the attempt at `begin` behind its match, up to `end`.
template <Regex::Alphabet alphabet>
void Regex::Matcher::RememberFailure(size_t begin, size_t matched_end, size_t end) {
  const size_t stride = size_t{regex_.end_class_} + 1;
  uint16_t state = kStart;
  for (size_t at = begin; at < end && state != kDead;) {
    if (at > matched_end) {
      failed_.insert({at, state});
      failed_begin_ = std::min(failed_begin_, at);
      failed_end_ = std::max(failed_end_, at + 1);
    }
    const auto [c, bytes] = regex_.ClassAt<alphabet>(text_, at);
    state = regex_.next_[state * stride + c] & ~kMatched;
    at += bytes;
  }
}

}  // namespace quire
