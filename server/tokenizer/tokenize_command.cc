#include "server/tokenizer/tokenize_command.h"

#include <algorithm>
#include <istream>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/json_text.h"
#include "nlohmann/json.hpp"

namespace quire {
namespace {

using nlohmann::json;

// Encode() takes texts below 2^31 bytes.
constexpr size_t kMaxLineBytes = size_t{1} << 30;

// A line's value in an error.
std::string Found(const json& value) { return value.is_discarded() ? "not JSON" : Shown(value); }

absl::StatusOr<std::string> TokenizeLine(const Tokenizer& tokenizer, bool add_special_tokens, const std::string& line) {
  const json text = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!text.is_string()) {
    return absl::InvalidArgumentError(absl::StrCat("is ", Found(text), "; allowed: a JSON string"));
  }
  const std::vector<uint32_t> ids = tokenizer.Encode(text.get_ref<const std::string&>(), add_special_tokens);
  return absl::StrCat("[", absl::StrJoin(ids, ","), "]");
}

absl::StatusOr<std::string> DetokenizeLine(const Tokenizer& tokenizer, const std::string& line) {
  const json list = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!list.is_array()) {
    return absl::InvalidArgumentError(absl::StrCat("is ", Found(list), "; allowed: a JSON array of token ids"));
  }
  std::vector<uint32_t> ids;
  ids.reserve(list.size());
  for (const json& id : list) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= tokenizer.vocab_size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("has ", Shown(id), "; allowed: token ids below ", tokenizer.vocab_size()));
    }
    ids.push_back(id.get<uint32_t>());
  }
  // As ASCII: U+2028 and the like, which JSON allows in a string, are line ends to some readers.
  return json(tokenizer.DecodeLikeLibrary(ids, /*skip_special_tokens=*/false)).dump(-1, ' ', /*ensure_ascii=*/true);
}

}  // namespace

int RunTokenizeCommand(const Tokenizer& tokenizer, bool no_special, bool decode, std::istream& in, std::ostream& out,
                       std::ostream& err) {
  std::string line;
  for (size_t number = 1; std::getline(in, line); ++number) {
    absl::StatusOr<std::string> result =
        absl::InvalidArgumentError(absl::StrCat("has ", line.size(), " bytes; allowed: up to ", kMaxLineBytes));
    if (line.size() <= kMaxLineBytes) {
      result = decode ? DetokenizeLine(tokenizer, line) : TokenizeLine(tokenizer, !no_special, line);
    }
    if (!result.ok()) {
      out.flush();
      err << "tokenize: line " << number << " " << result.status().message() << "\n";
      return 1;
    }
    out << *result << "\n";
  }
  out.flush();
  return out.good() ? 0 : 1;
}

}  // namespace quire
