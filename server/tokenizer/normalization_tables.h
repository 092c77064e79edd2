// The tables of Unicode normalisation and of lower case, as make_unicode_tables.py writes them.

#ifndef QUIRE_SERVER_TOKENIZER_NORMALIZATION_TABLES_H_
#define QUIRE_SERVER_TOKENIZER_NORMALIZATION_TABLES_H_

#include <cstdint>

#include "absl/types/span.h"

namespace quire {

// What one code point becomes: arena[begin .. begin + size).
struct Expansion {
  uint32_t code_point;
  uint16_t begin;
  uint16_t size;
};

// Code points `first` to `last` have the canonical combining class `ccc`, which is not 0.
struct CombiningRange {
  uint32_t first;
  uint32_t last;
  uint8_t ccc;
};

// `first` and `second` together are `composed`.
struct Composition {
  uint32_t first;
  uint32_t second;
  uint32_t composed;
};

// Each ascending by code point, compositions by (first, second). Hangul syllables are arithmetic and in none of them.
struct NormalizationTables {
  absl::Span<const Expansion> canonical;   // full canonical decompositions
  absl::Span<const Expansion> compatible;  // full compatibility decompositions that are not the canonical ones
  absl::Span<const Expansion> lower;       // lower case without context
  absl::Span<const CombiningRange> combining;
  absl::Span<const Composition> compositions;
  absl::Span<const char32_t> arena;
};

const NormalizationTables& GetNormalizationTables();

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_NORMALIZATION_TABLES_H_
