#include "server/tokenizer/regex_program.h"

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "server/tokenizer/unicode.h"

namespace quire {
namespace {

using Instruction = RegexProgram::Instruction;

constexpr size_t kMaxPatternBytes = 1 << 16;
constexpr size_t kMaxInstructions = 1 << 13;
constexpr int kMaxDepth = 32;
constexpr uint32_t kUnbounded = UINT32_MAX;
constexpr uint32_t kMaxRepeats = 1000;

// One part of an expression; its children are parts of it.
struct Node {
  enum Kind { kSet, kAhead, kSequence, kAlternatives, kRepeat };
  Kind kind = kSequence;
  CodePointSet set = {};  // kSet, kAhead
  bool at_end = false;    // kAhead: holds at the text's end
  std::vector<Node> children = {};
  uint32_t min = 0, max = 0;  // kRepeat of children[0]
  bool lazy = false;
};

Node SetNode(CodePointSet set) { return {.kind = Node::kSet, .set = std::move(set)}; }

CodePointSet Single(uint32_t c) { return CodePointSet({{c, c}}); }

// [name] the categories that \p{name} stands for.
constexpr std::pair<absl::string_view, GeneralCategory> kCategories[] = {
    {"Lu", GeneralCategory::Lu}, {"Ll", GeneralCategory::Ll}, {"Lt", GeneralCategory::Lt}, {"Lm", GeneralCategory::Lm},
    {"Lo", GeneralCategory::Lo}, {"Mn", GeneralCategory::Mn}, {"Mc", GeneralCategory::Mc}, {"Me", GeneralCategory::Me},
    {"Nd", GeneralCategory::Nd}, {"Nl", GeneralCategory::Nl}, {"No", GeneralCategory::No}, {"Pc", GeneralCategory::Pc},
    {"Pd", GeneralCategory::Pd}, {"Ps", GeneralCategory::Ps}, {"Pe", GeneralCategory::Pe}, {"Pi", GeneralCategory::Pi},
    {"Pf", GeneralCategory::Pf}, {"Po", GeneralCategory::Po}, {"Sm", GeneralCategory::Sm}, {"Sc", GeneralCategory::Sc},
    {"Sk", GeneralCategory::Sk}, {"So", GeneralCategory::So}, {"Zs", GeneralCategory::Zs}, {"Zl", GeneralCategory::Zl},
    {"Zp", GeneralCategory::Zp}, {"Cc", GeneralCategory::Cc}, {"Cf", GeneralCategory::Cf}, {"Co", GeneralCategory::Co}};

// The code points of \p{name}: one category ("Lu"), or all that begin with a letter ("L", but not "C", which has
// unassigned ones). Nothing if the name is not known.
std::optional<CodePointSet> CategorySet(absl::string_view name) {
  std::vector<GeneralCategory> chosen;
  for (const auto& [known, category] : kCategories) {
    if (known == name || (name.size() == 1 && name != "C" && known[0] == name[0])) {
      chosen.push_back(category);
    }
  }
  if (chosen.empty()) {
    return std::nullopt;
  }
  return CodePointSet::Where([&](const CodePointRange& range) {
    return std::find(chosen.begin(), chosen.end(), range.category) != chosen.end();
  });
}

CodePointSet PropertySet(uint8_t property) {
  return CodePointSet::Where([&](const CodePointRange& range) { return (range.properties & property) != 0; });
}

// What (?i: ) makes of a set: the other case of its ASCII letters, and the two characters beyond ASCII that fold to
// one.
CodePointSet IgnoringCase(const CodePointSet& set) {
  std::vector<CodePointSet::Range> more;
  for (uint32_t lower = 'a'; lower <= 'z'; ++lower) {
    const uint32_t upper = absl::ascii_toupper(static_cast<unsigned char>(lower));
    if (set.Contains(lower) || set.Contains(upper)) {
      more.push_back({lower, lower});
      more.push_back({upper, upper});
      if (lower == 's') {
        more.push_back({0x17F, 0x17F});
      }
      if (lower == 'k') {
        more.push_back({0x212A, 0x212A});
      }
    }
  }
  return set.Union(CodePointSet(std::move(more)));
}

class Parser {
 public:
  explicit Parser(absl::string_view pattern) : pattern_(pattern) {}

  absl::StatusOr<Node> Parse() {
    Node node = Alternatives(0);
    if (error_.ok() && at_ < pattern_.size()) {
      Fail("has a ) without its (");
    }
    if (!error_.ok()) {
      return error_;
    }
    return node;
  }

 private:
  // The first error counts; parsing then runs to the end of the pattern.
  void Fail(std::string what) {
    if (error_.ok()) {
      error_ = absl::InvalidArgumentError(std::move(what));
    }
    at_ = pattern_.size();
  }

  bool AtEnd() const { return at_ >= pattern_.size(); }
  bool Peek(absl::string_view text) const { return pattern_.substr(std::min(at_, pattern_.size())).find(text) == 0; }
  bool Skip(absl::string_view text) {
    const bool found = Peek(text);
    at_ += found ? text.size() : 0;
    return found;
  }
  uint32_t NextCharacter() {
    if (AtEnd()) {
      Fail("ends too early");
      return 0;
    }
    const Utf8Sequence next = NextUtf8(pattern_.substr(at_));
    at_ += next.num_bytes;
    return next.code_point;
  }

  Node Alternatives(int depth) {
    if (depth > kMaxDepth) {
      Fail(absl::StrCat("has groups more than ", kMaxDepth, " deep"));
    }
    Node node = {.kind = Node::kAlternatives};
    do {
      Node sequence = {.kind = Node::kSequence};
      while (!AtEnd() && !Peek("|") && !Peek(")")) {
        sequence.children.push_back(Quantified(Atom(depth)));
      }
      node.children.push_back(std::move(sequence));
    } while (Skip("|"));
    return node;
  }

  Node Quantified(Node atom) {
    while (!AtEnd()) {
      uint32_t min = 0, max = kUnbounded;
      bool counted = false;
      if (Skip("?")) {
        max = 1;
      } else if (Skip("+")) {
        min = 1;
      } else if (!Skip("*")) {
        if (!Counts(min, max)) {
          break;
        }
        counted = true;
      }
      if (atom.kind == Node::kAhead) {
        Fail("repeats a lookahead");
      }
      const bool lazy = Skip("?"), is_set = atom.kind == Node::kSet;
      const CodePointSet set = atom.set;
      Node repeat = {.kind = Node::kRepeat, .min = min, .max = max, .lazy = lazy};
      repeat.children.push_back(std::move(atom));
      // A second + after a count is a repetition of the repetition, as in Ruby.
      if (!lazy && !counted && Skip("+")) {
        if (!is_set) {
          Fail("has a possessive quantifier behind more than one character");
        }
        repeat = Possessive(std::move(repeat), set);
      }
      atom = std::move(repeat);
    }
    return atom;
  }

  // What a possessive repetition of one set is: once it has stopped, no character of the set may follow, unless it
  // has stopped because it may not take more.
  static Node Possessive(Node repeat, const CodePointSet& set) {
    const Node stop = {.kind = Node::kAhead, .set = set.Complement(), .at_end = true};
    Node node;
    if (repeat.max == kUnbounded) {
      node = {.kind = Node::kSequence};
      node.children = {std::move(repeat), stop};
    } else {  // x?+
      node = {.kind = Node::kAlternatives};
      node.children = {SetNode(set), stop};
    }
    return node;
  }

  // {n}, {n,}, {,m} or {n,m}; without digits it is text.
  bool Counts(uint32_t& min, uint32_t& max) {
    const size_t begin = at_;
    if (!Skip("{")) {
      return false;
    }
    const std::optional<uint32_t> low = Number();
    std::optional<uint32_t> high = low;
    const bool range = Skip(",");
    if (range) {
      high = Number();
    }
    if (!Skip("}") || (!low && !high)) {
      at_ = begin;
      return false;
    }
    min = low.value_or(0);
    max = high.value_or(kUnbounded);
    if (min > kMaxRepeats || (max != kUnbounded && max > kMaxRepeats) || min > max) {
      Fail(absl::StrCat("repeats by {", min, ",", max, "}; allowed: up to ", kMaxRepeats));
    }
    return true;
  }

  std::optional<uint32_t> Number() {
    std::optional<uint32_t> number;
    while (!AtEnd() && absl::ascii_isdigit(static_cast<unsigned char>(pattern_[at_]))) {
      number = std::min<uint32_t>(number.value_or(0) * 10 + static_cast<uint32_t>(pattern_[at_++] - '0'), 1 << 20);
    }
    return number;
  }

  Node Atom(int depth) {
    if (Skip("(")) {
      return Group(depth);
    }
    if (Skip("[")) {
      return SetNode(Folded(Class(depth)));
    }
    if (Skip(".")) {
      return SetNode(Single('\n').Complement());
    }
    if (Skip("$")) {
      return {.kind = Node::kAhead, .set = Single('\n'), .at_end = true};
    }
    if (Peek("^") || Peek("*") || Peek("+") || Peek("?")) {
      Fail(absl::StrCat("has ", pattern_.substr(at_, 1), " where a character belongs"));
      return {};
    }
    if (Skip("\\")) {
      return SetNode(Escape());
    }
    const uint32_t c = NextCharacter();
    if (ignore_case_ && c >= 128) {
      Fail("ignores the case of a letter beyond ASCII");
    }
    return SetNode(Folded(Single(c)));
  }

  CodePointSet Folded(const CodePointSet& set) const { return ignore_case_ ? IgnoringCase(set) : set; }

  // Behind "(".
  Node Group(int depth) {
    const bool ahead = Skip("?="), not_ahead = !ahead && Skip("?!");
    const bool outer_ignore_case = ignore_case_;
    if (!ahead && !not_ahead && Peek("?")) {
      if (Skip("?i:")) {
        ignore_case_ = true;
      } else if (!Skip("?:")) {
        Fail(absl::StrCat("has the group (", pattern_.substr(at_, 2), "; allowed: (?: (?i: (?= (?!"));
      }
    }
    Node node = Alternatives(depth + 1);
    ignore_case_ = outer_ignore_case;
    if (!Skip(")")) {
      Fail("has a ( without its )");
    }
    if (ahead || not_ahead) {
      const Node* inner = &node;
      while (inner->kind != Node::kSet && inner->children.size() == 1 && inner->kind != Node::kRepeat) {
        inner = &inner->children[0];
      }
      if (inner->kind != Node::kSet) {
        Fail("has a lookahead for more than one character");
      }
      const CodePointSet set = inner->set;
      return {.kind = Node::kAhead, .set = ahead ? set : set.Complement(), .at_end = not_ahead};
    }
    return node;
  }

  // Behind "\".
  CodePointSet Escape() {
    const uint32_t c = NextCharacter();
    switch (c) {
      case 's':
        return PropertySet(kSpace);
      case 'S':
        return PropertySet(kSpace).Complement();
      case 'd':
        return *CategorySet("Nd");
      case 'D':
        return CategorySet("Nd")->Complement();
      case 'w':
        return PropertySet(kRegexWord);
      case 'W':
        return PropertySet(kRegexWord).Complement();
      case 'p':
      case 'P':
        return Category(/*negated=*/c == 'P');
      default:
        return Folded(Single(EscapedCharacter(c)));
    }
  }

  CodePointSet Category(bool negated) {
    const size_t end = pattern_.find('}', at_);
    if (ignore_case_ || !Skip("{") || end == pattern_.npos) {
      Fail(ignore_case_ ? "ignores the case of a \\p{..}" : "has a \\p without its {..}");
      return {};
    }
    negated ^= Skip("^");
    const absl::string_view name = pattern_.substr(at_, end - at_);
    const std::optional<CodePointSet> set = CategorySet(name);
    if (!set) {
      Fail(absl::StrCat("has \\p{", name.substr(0, 20), "}; allowed: general categories"));
      return {};
    }
    at_ = end + 1;
    return negated ? set->Complement() : *set;
  }

  // The character that "\" and `c` stand for.
  uint32_t EscapedCharacter(uint32_t c) {
    switch (c) {
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case 'f':
        return '\f';
      case 'v':
        return '\v';
      case 'u':
        return Hexadecimal(4, 4);
      case 'x': {
        if (!Skip("{")) {
          return Hexadecimal(1, 2);
        }
        const uint32_t code_point = Hexadecimal(1, 6);
        if (!Skip("}")) {
          Fail("has a \\x{ without its }");
        }
        return code_point;
      }
      default:
        if (c < 128 && absl::ascii_isalnum(static_cast<unsigned char>(c))) {
          Fail(absl::StrCat("has \\", std::string(1, static_cast<char>(c)),
                            "; allowed: \\s \\S \\d \\D \\w \\W \\p \\P \\n \\r \\t \\f \\v \\u \\x"));
        }
        return c;
    }
  }

  uint32_t Hexadecimal(size_t min_digits, size_t max_digits) {
    uint32_t value = 0;
    size_t digits = 0;
    for (; digits < max_digits && !AtEnd() && absl::ascii_isxdigit(static_cast<unsigned char>(pattern_[at_]));
         ++digits) {
      const char c = absl::ascii_tolower(static_cast<unsigned char>(pattern_[at_++]));
      value = value * 16 + static_cast<uint32_t>(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    if (digits < min_digits || value > CodePointSet::kLast) {
      Fail("has a hexadecimal character that is none");
    }
    return std::min(value, CodePointSet::kLast);
  }

  // Behind "[".
  CodePointSet Class(int depth) {
    if (depth > kMaxDepth) {
      Fail(absl::StrCat("has classes more than ", kMaxDepth, " deep"));
    }
    const bool negated = Skip("^");
    CodePointSet set;
    if (Peek("]")) {
      Fail("has an empty class");
    }
    while (!Skip("]")) {
      if (AtEnd()) {
        Fail("has a [ without its ]");
        break;
      }
      if (Peek("&&") || Peek("[:")) {
        Fail(absl::StrCat("has ", pattern_.substr(at_, 2), " in a class"));
        break;
      }
      set = set.Union(Skip("[") ? Class(depth + 1) : ClassItem());
    }
    return negated ? set.Complement() : set;
  }

  // A character, a range of them, or a set by its escape.
  CodePointSet ClassItem() {
    uint32_t first = NextCharacter();
    if (first == '\\') {
      const bool is_set =
          Peek("s") || Peek("S") || Peek("d") || Peek("D") || Peek("w") || Peek("W") || Peek("p") || Peek("P");
      if (is_set) {
        return Escape();
      }
      first = EscapedCharacter(NextCharacter());
    }
    uint32_t last = first;
    if (Peek("-") && !Peek("-]")) {
      Skip("-");
      last = NextCharacter();
      if (last == '\\') {
        last = EscapedCharacter(NextCharacter());
      }
      if (last < first) {
        Fail("has a range whose end is before its beginning");
        return {};
      }
    }
    return CodePointSet({{first, last}});
  }

  const absl::string_view pattern_;
  size_t at_ = 0;
  bool ignore_case_ = false;
  absl::Status error_;
};

// Writes the instructions of a tree.
class Emitter {
 public:
  explicit Emitter(RegexProgram& program) : program_(program) {}

  // False if there are too many.
  bool Emit(const Node& node) {
    if (program_.instructions.size() > kMaxInstructions) {
      return false;
    }
    switch (node.kind) {
      case Node::kSet:
      case Node::kAhead:
        program_.instructions.push_back({.kind = node.kind == Node::kSet ? Instruction::kTake : Instruction::kAhead,
                                         .set = NumberOf(node.set),
                                         .at_end = node.at_end});
        return true;
      case Node::kSequence:
        return std::all_of(node.children.begin(), node.children.end(), [&](const Node& child) { return Emit(child); });
      case Node::kAlternatives:
        return EmitAlternatives(node);
      case Node::kRepeat:
        return EmitRepeat(node);
    }
    return false;
  }

 private:
  uint32_t Here() const { return static_cast<uint32_t>(program_.instructions.size()); }
  uint32_t EmitSplit() {
    program_.instructions.push_back({.kind = Instruction::kSplit});
    return Here() - 1;
  }

  bool EmitAlternatives(const Node& node) {
    std::vector<uint32_t> jumps;  // splits both of whose ways lead behind the alternatives
    for (size_t i = 0; i < node.children.size(); ++i) {
      const bool is_last = i + 1 == node.children.size();
      const uint32_t split = is_last ? 0 : EmitSplit();
      if (!Emit(node.children[i])) {
        return false;
      }
      if (!is_last) {
        jumps.push_back(EmitSplit());
        program_.instructions[split].first = split + 1;
        program_.instructions[split].second = Here();
      }
    }
    for (const uint32_t jump : jumps) {
      program_.instructions[jump].first = program_.instructions[jump].second = Here();
    }
    return true;
  }

  bool EmitRepeat(const Node& node) {
    const Node& child = node.children[0];
    for (uint32_t i = 0; i < node.min; ++i) {
      if (!Emit(child)) {
        return false;
      }
    }
    std::vector<uint32_t> splits;  // each goes on behind the repetition or into it
    const uint32_t num_optional = node.max == kUnbounded ? 1 : node.max - node.min;
    for (uint32_t i = 0; i < num_optional; ++i) {
      splits.push_back(EmitSplit());
      if (!Emit(child)) {
        return false;
      }
    }
    if (node.max == kUnbounded) {
      const uint32_t back = EmitSplit();
      program_.instructions[back].first = program_.instructions[back].second = splits[0];
    }
    for (const uint32_t split : splits) {
      Instruction& instruction = program_.instructions[split];
      instruction.first = node.lazy ? Here() : split + 1;
      instruction.second = node.lazy ? split + 1 : Here();
    }
    return true;
  }

  uint32_t NumberOf(const CodePointSet& set) {
    const auto same = [&](const CodePointSet& other) {
      return std::equal(set.ranges().begin(), set.ranges().end(), other.ranges().begin(), other.ranges().end(),
                        [](const CodePointSet::Range& a, const CodePointSet::Range& b) {
                          return a.first == b.first && a.last == b.last;
                        });
    };
    const auto found = std::find_if(program_.sets.begin(), program_.sets.end(), same);
    if (found == program_.sets.end()) {
      program_.sets.push_back(set);
      return static_cast<uint32_t>(program_.sets.size()) - 1;
    }
    return static_cast<uint32_t>(found - program_.sets.begin());
  }

  RegexProgram& program_;
};

}  // namespace

absl::StatusOr<RegexProgram> ParseRegex(absl::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(absl::StrCat("has more than ", kMaxPatternBytes, " bytes"));
  }
  const absl::StatusOr<Node> node = Parser(pattern).Parse();
  if (!node.ok()) {
    return node.status();
  }
  RegexProgram program;
  if (!Emitter(program).Emit(*node)) {
    return absl::InvalidArgumentError(absl::StrCat("needs more than ", kMaxInstructions, " instructions"));
  }
  program.instructions.push_back({.kind = Instruction::kMatch});
  return program;
}

}  // namespace quire
