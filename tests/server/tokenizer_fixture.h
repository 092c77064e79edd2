// The tokenizers of tests/server/fixtures, and what the `tokenizers` library makes of texts with them.

#ifndef QUIRE_TESTS_SERVER_TOKENIZER_FIXTURE_H_
#define QUIRE_TESTS_SERVER_TOKENIZER_FIXTURE_H_

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>

#include "nlohmann/json.hpp"
#include "server/tokenizer/tokenizer.h"

namespace quire {

inline std::string ReadText(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline std::string FixturePath(const std::string& name) {
  return std::string(QUIRE_SOURCE_DIR) + "/tests/server/fixtures/" + name;
}

// The text of the tokenizer.json `name`: one of the fixtures, or the bundled model's.
inline std::string TokenizerText(const std::string& name) {
  return ReadText(name == "tales-5m" ? std::string(QUIRE_SOURCE_DIR) + "/deploy/models/tales-5m/tokenizer.json"
                                     : FixturePath(name + ".tokenizer.json"));
}

inline std::unique_ptr<Tokenizer> ParseOrDie(const std::string& json) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Parse(json, "tokenizer.json");
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status() << std::endl;
    std::abort();
  }
  return *std::move(tokenizer);
}

inline std::unique_ptr<Tokenizer> FixtureTokenizer(const std::string& name) { return ParseOrDie(TokenizerText(name)); }

}  // namespace quire

#endif  // QUIRE_TESTS_SERVER_TOKENIZER_FIXTURE_H_
