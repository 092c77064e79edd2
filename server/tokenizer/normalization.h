// Unicode's normalisation forms (Unicode 15, section 3.11; UAX #15) and lower case, as the `tokenizers` library has
// them.
//
// Bytes that are no UTF-8 stay as they are, and nothing is reordered across them. n log n in the text.
//
// Thread: functions of their arguments; any thread.

#ifndef QUIRE_SERVER_TOKENIZER_NORMALIZATION_H_
#define QUIRE_SERVER_TOKENIZER_NORMALIZATION_H_

#include <string>

#include "absl/strings/string_view.h"

namespace quire {

enum class NormalizationForm { kNfc, kNfd, kNfkc, kNfkd };

std::string Normalize(NormalizationForm form, absl::string_view text);

// Each character's lower case, whatever stands beside it.
std::string LowerCase(absl::string_view text);

}  // namespace quire

#endif  // QUIRE_SERVER_TOKENIZER_NORMALIZATION_H_
