#include "client/load/dataset.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/load/trace.h"
#include "client/parse.h"

namespace quire::client {
namespace {

using Random = std::mt19937_64;

// Words that are one token, with the blank before them, in the vocabularies of the day.
constexpr std::array<const char*, 64> kWords = {
    "time",  "year",   "people", "way",     "day",     "man",     "thing",    "woman",   "life",       "child",
    "world", "school", "state",  "family",  "student", "group",   "country",  "problem", "hand",       "part",
    "place", "case",   "week",   "company", "system",  "program", "question", "work",    "government", "number",
    "night", "point",  "home",   "water",   "room",    "mother",  "area",     "money",   "story",      "fact",
    "month", "lot",    "right",  "study",   "book",    "eye",     "job",      "word",    "business",   "issue",
    "side",  "kind",   "head",   "house",   "service", "friend",  "father",   "power",   "hour",       "game",
    "line",  "end",    "member", "law"};

std::uniform_int_distribution<uint32_t> LengthsAround(uint32_t len, double range_ratio) {
  const auto low = static_cast<uint32_t>(std::floor(len * (1 - range_ratio)));
  const auto high = static_cast<uint32_t>(std::ceil(len * (1 + range_ratio)));
  return std::uniform_int_distribution<uint32_t>(std::max(1u, low), std::max(1u, high));
}

std::vector<Prompt> RandomPrompts(const DatasetOptions& options, size_t count, uint32_t vocab_size, Random& random) {
  std::uniform_int_distribution<uint32_t> id(0, vocab_size - 1);
  auto input_len = LengthsAround(options.input_len, options.range_ratio);
  auto output_len = LengthsAround(options.output_len, options.range_ratio);
  std::vector<uint32_t> prefix(options.prefix_len);
  std::generate(prefix.begin(), prefix.end(), [&] { return id(random); });
  std::vector<Prompt> prompts(count);
  for (Prompt& prompt : prompts) {
    prompt.ids = prefix;
    prompt.ids.resize(prefix.size() + input_len(random));
    std::generate(prompt.ids.begin() + options.prefix_len, prompt.ids.end(), [&] { return id(random); });
    prompt.output_len = output_len(random);
  }
  return prompts;
}

// The first character boundary at or after `at`.
size_t NextCharacter(const std::string& text, size_t at) {
  while (at < text.size() && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) {
    ++at;
  }
  return std::min(at, text.size());
}

// Bytes of text that hold `len` tokens for any usual vocabulary and language: they average 4 to 5 bytes.
size_t ExcerptBytes(uint32_t len) { return size_t{8} * len + 16; }

// The first `len` tokens of `text`: as ids if the server takes and makes them, else as a text that is cut to about
// them.
absl::StatusOr<Prompt> CutTo(uint32_t len, const std::string& text, const PromptForm& form) {
  Prompt prompt;
  if (form.tokenize == nullptr) {
    prompt.text = text.substr(0, NextCharacter(text, std::min(text.size(), kBytesPerToken * len)));
    return prompt;
  }
  absl::StatusOr<std::vector<uint32_t>> ids = form.tokenize(text);
  if (!ids.ok()) {
    return ids.status();
  }
  if (form.ids) {
    prompt.ids = *std::move(ids);
    prompt.ids.resize(std::min<size_t>(prompt.ids.size(), len));
  } else {
    const double share =
        std::min(1.0, static_cast<double>(len) / static_cast<double>(std::max<size_t>(1, ids->size())));
    prompt.text = text.substr(0, NextCharacter(text, static_cast<size_t>(share * static_cast<double>(text.size()))));
  }
  return prompt;
}

absl::StatusOr<std::vector<Prompt>> CorpusPrompts(const DatasetOptions& options, size_t count, Random& random,
                                                  const PromptForm& form) {
  absl::StatusOr<std::string> corpus = ReadFile(options.path);
  if (!corpus.ok()) {
    return corpus.status();
  }
  if (corpus->empty()) {
    return absl::InvalidArgumentError(absl::StrCat(options.path, " is empty; want text"));
  }
  if (absl::Status checked = CheckUtf8(options.path, *corpus); !checked.ok()) {
    return checked;
  }
  auto input_len = LengthsAround(options.input_len, options.range_ratio);
  auto output_len = LengthsAround(options.output_len, options.range_ratio);
  std::vector<Prompt> prompts(count);
  for (Prompt& prompt : prompts) {
    const uint32_t len = input_len(random);
    const size_t bytes = std::min(ExcerptBytes(len), corpus->size());
    const size_t begin =
        NextCharacter(*corpus, std::uniform_int_distribution<size_t>(0, corpus->size() - bytes)(random));
    const size_t end = NextCharacter(*corpus, begin + bytes);
    absl::StatusOr<Prompt> cut = CutTo(len, corpus->substr(begin, end - begin), form);
    if (!cut.ok()) {
      return cut.status();
    }
    prompt = *std::move(cut);
    prompt.output_len = output_len(random);
  }
  return prompts;
}

absl::StatusOr<Prompt> ParseCustomLine(absl::string_view line) {
  const auto json = nlohmann::json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("prompt") || !json["prompt"].is_string()) {
    return absl::InvalidArgumentError("want {\"prompt\": \"...\"}");
  }
  Prompt prompt;
  prompt.text = json["prompt"].get<std::string>();
  if (json.contains("output_tokens")) {
    if (!json["output_tokens"].is_number_unsigned()) {
      return absl::InvalidArgumentError("output_tokens is no count");
    }
    prompt.output_len = json["output_tokens"].get<uint32_t>();
  }
  return prompt;
}

absl::StatusOr<std::vector<Prompt>> CustomPrompts(const DatasetOptions& options, size_t count, Random& random) {
  absl::StatusOr<std::string> file = ReadFile(options.path);
  if (!file.ok()) {
    return file.status();
  }
  auto output_len = LengthsAround(options.output_len, options.range_ratio);
  std::vector<Prompt> lines;
  size_t number = 0;
  for (absl::string_view line : absl::StrSplit(*file, '\n')) {
    ++number;
    if (absl::StripAsciiWhitespace(line).empty()) {
      continue;
    }
    absl::StatusOr<Prompt> prompt = ParseCustomLine(line);
    if (!prompt.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(options.path, ":", number, ": ", prompt.status().message()));
    }
    if (prompt->output_len == 0) {
      prompt->output_len = output_len(random);
    }
    lines.push_back(*std::move(prompt));
  }
  if (lines.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(options.path, " is empty; want one {\"prompt\": \"...\"} a line"));
  }
  std::vector<Prompt> prompts(count);
  for (size_t i = 0; i < count; ++i) {
    prompts[i] = lines[i % lines.size()];
  }
  return prompts;
}

// What serving benchmarks take of ShareGPT: 4 to 1024 tokens of prompt, at least 4 of answer, 2048 together.
constexpr size_t kShareGptMinTokens = 4;
constexpr size_t kShareGptMaxPrompt = 1024;
constexpr size_t kShareGptMaxTotal = 2048;

// The text of turn `index` of a conversation; null if there is none.
const std::string* Turn(const nlohmann::json& conversation, size_t index) {
  if (!conversation.is_object() || !conversation.contains("conversations")) {
    return nullptr;
  }
  const nlohmann::json& turns = conversation["conversations"];
  if (!turns.is_array() || turns.size() < 2 || !turns[index].is_object() || !turns[index].contains("value")) {
    return nullptr;
  }
  return turns[index]["value"].get_ptr<const std::string*>();
}

absl::StatusOr<size_t> CountTokens(const std::string& text, const PromptForm& form) {
  if (form.tokenize == nullptr) {
    return text.size() / kBytesPerToken;
  }
  absl::StatusOr<std::vector<uint32_t>> ids = form.tokenize(text);
  return ids.ok() ? absl::StatusOr<size_t>(ids->size()) : ids.status();
}

absl::StatusOr<std::vector<Prompt>> ShareGptPrompts(const DatasetOptions& options, size_t count, Random& random,
                                                    const PromptForm& form) {
  absl::StatusOr<std::string> file = ReadFile(options.path);
  if (!file.ok()) {
    return file.status();
  }
  nlohmann::json conversations = nlohmann::json::parse(*file, nullptr, /*allow_exceptions=*/false);
  if (!conversations.is_array()) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.path, ": want a JSON array of {\"conversations\": [{\"value\": \"...\"}, ...]}"));
  }
  std::shuffle(conversations.begin(), conversations.end(), random);
  std::vector<Prompt> prompts;
  for (auto it = conversations.begin(); it != conversations.end() && prompts.size() < count; ++it) {
    const std::string *asked = Turn(*it, 0), *answered = Turn(*it, 1);
    if (asked == nullptr || answered == nullptr) {
      continue;
    }
    const absl::StatusOr<size_t> prompt = CountTokens(*asked, form);
    const absl::StatusOr<size_t> answer = prompt.ok() ? CountTokens(*answered, form) : prompt;
    if (!answer.ok()) {
      return answer.status();
    }
    if (std::min(*prompt, *answer) >= kShareGptMinTokens && *prompt <= kShareGptMaxPrompt &&
        *prompt + *answer <= kShareGptMaxTotal) {
      prompts.push_back({{}, *asked, static_cast<uint32_t>(*answer)});
    }
  }
  if (prompts.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.path, " has no conversation of two turns and 4 to ", kShareGptMaxTotal, " tokens"));
  }
  for (size_t i = 0; prompts.size() < count; ++i) {
    prompts.push_back(Prompt(prompts[i]));
  }
  return prompts;
}

// The ids that stand for block `hash` of a trace's prompt: of equal hashes, equal ids.
void AppendBlock(uint64_t hash, uint64_t seed, uint32_t vocab_size, size_t count, std::vector<uint32_t>& ids) {
  Random random(seed + 0x9E3779B97F4A7C15 * (hash + 1));
  std::uniform_int_distribution<uint32_t> id(0, vocab_size - 1);
  std::generate_n(std::back_inserter(ids), count, [&] { return id(random); });
}

absl::StatusOr<std::vector<Prompt>> TracePrompts(const DatasetOptions& options, size_t count, uint32_t vocab_size,
                                                 uint64_t seed) {
  absl::StatusOr<std::vector<TraceRow>> rows = ReadTrace(options.path);
  if (!rows.ok()) {
    return rows.status();
  }
  if (rows->size() < count) {
    return absl::InvalidArgumentError(absl::StrCat(options.path, " has ", rows->size(), " requests; --num-prompts and ",
                                                   "--num-warmups want ", count));
  }
  std::vector<Prompt> prompts(count);
  for (size_t i = 0; i < count; ++i) {
    const TraceRow& row = (*rows)[i];
    Prompt& prompt = prompts[i];
    for (uint64_t hash : row.block_hashes) {
      AppendBlock(hash, seed, vocab_size, std::min<size_t>(kTraceBlock, row.input_len - prompt.ids.size()), prompt.ids);
    }
    AppendBlock(~i, seed, vocab_size, row.input_len - prompt.ids.size(), prompt.ids);  // of its own
    prompt.output_len = row.output_len;
    prompt.arrival_s = (row.time_s - rows->front().time_s) / options.trace_speedup;
  }
  return prompts;
}

}  // namespace

absl::StatusOr<std::vector<Prompt>> MakePrompts(const DatasetOptions& options, size_t count, uint64_t seed,
                                                const PromptForm& form) {
  Random random(seed);
  if (options.name == "corpus") {
    return CorpusPrompts(options, count, random, form);
  }
  if (options.name == "custom") {
    return CustomPrompts(options, count, random);
  }
  if (options.name == "sharegpt") {
    return ShareGptPrompts(options, count, random, form);
  }
  const bool as_words = !form.ids || !form.vocab_size.has_value();
  const uint32_t vocab_size = as_words ? kWords.size() : *form.vocab_size;
  if (vocab_size == 0) {
    return absl::FailedPreconditionError("the server's vocab_size is 0: there is no token id to draw");
  }
  absl::StatusOr<std::vector<Prompt>> prompts = options.name == "trace"
                                                    ? TracePrompts(options, count, vocab_size, seed)
                                                    : RandomPrompts(options, count, vocab_size, random);
  if (prompts.ok() && as_words) {
    for (Prompt& prompt : *prompts) {
      prompt.text = absl::StrJoin(prompt.ids, " ", [](std::string* out, uint32_t id) { out->append(kWords[id]); });
      prompt.ids.clear();
    }
  }
  return prompts;
}

}  // namespace quire::client
