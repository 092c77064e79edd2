// CodePointSet: a set of code points as ascending ranges that do not touch.

#ifndef QUIRE_SERVER_TOKENIZER_CODE_POINT_SET_H_
#define QUIRE_SERVER_TOKENIZER_CODE_POINT_SET_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/types/span.h"
#include "server/tokenizer/unicode.h"

namespace quire {

class CodePointSet {
 public:
  static constexpr uint32_t kLast = 0x10FFFF;
  struct Range {
    uint32_t first;
    uint32_t last;
  };

  CodePointSet() = default;
  explicit CodePointSet(std::vector<Range> ranges);  // in any order; they may overlap

  // The code points of CodePointRanges() that `chosen` takes.
  static CodePointSet Where(const std::function<bool(const CodePointRange&)>& chosen);

  CodePointSet Complement() const;
  CodePointSet Union(const CodePointSet& other) const;
  bool Contains(uint32_t code_point) const;
  bool empty() const { return ranges_.empty(); }
  absl::Span<const Range> ranges() const { return ranges_; }

 private:
  std::vector<Range> ranges_;
};

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_CODE_POINT_SET_H_
