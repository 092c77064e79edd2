// The tokenizers of tests/server/fixtures, and what the `tokenizers` library makes of texts with them.

#ifndef QUIRE_TESTS_SERVER_TOKENIZER_FIXTURE_H_
#define QUIRE_TESTS_SERVER_TOKENIZER_FIXTURE_H_

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
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

// The tokenizer `name`, those of sentencepiece ("sp_...") from a directory that has their tokenizer.model alone.
inline std::unique_ptr<Tokenizer> FixtureTokenizer(const std::string& name) {
  if (name.rfind("sp_", 0) != 0) {
    return ParseOrDie(TokenizerText(name));
  }
  const std::filesystem::path directory =
      std::filesystem::temp_directory_path() / ("quire_tokenizer_" + name + "_" + std::to_string(getpid()));
  std::filesystem::create_directories(directory);
  std::ofstream(directory / "tokenizer.model", std::ios::binary) << ReadText(FixturePath(name + ".tokenizer.model"));
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(directory.string());
  std::filesystem::remove_all(directory);
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status() << std::endl;
    std::abort();
  }
  return *std::move(tokenizer);
}

}  // namespace quire

#endif  // QUIRE_TESTS_SERVER_TOKENIZER_FIXTURE_H_
