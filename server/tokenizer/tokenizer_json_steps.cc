#include "server/tokenizer/tokenizer_json_steps.h"

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "server/tokenizer/byte_alphabet.h"

namespace quire {
namespace {

using Behavior = PreTokenizerStep::Behavior;
using Prefix = PreTokenizerStep::Prefix;

const Json& TypeOf(const Json& value) { return value.is_object() ? ValueAt(value, "type") : value; }

// A boolean that may be missing.
absl::StatusOr<bool> BoolOr(const Json& object, const std::string& path, const char* key, bool missing) {
  return ValueAt(object, key).is_null() ? missing : BoolAt(object, path, key);
}

// Reads value[key], an array, as steps of its own. Sequences may hold sequences; the reader of JSON bounds the depth.
template <typename Out>
absl::Status ReadSequence(const Json& value, const std::string& path, const char* key, Out& out,
                          absl::Status (*read)(const Json&, const std::string&, Out&)) {
  if (absl::Status status = CheckKeys(value, path, {"type", key}); !status.ok()) {
    return status;
  }
  const Json& steps = ValueAt(value, key);
  if (!steps.is_array()) {
    return Refused(absl::StrCat(path, ".", key), steps, "an array");
  }
  for (size_t i = 0; i < steps.size(); ++i) {
    if (absl::Status status = read(steps[i], absl::StrCat(path, ".", key, "[", i, "]"), out); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

// {"Regex": EXPRESSION} or {"String": TEXT}.
absl::StatusOr<Regex> ReadPattern(const Json& value, const std::string& path) {
  if (absl::Status status = CheckKeys(value, path, {"Regex", "String"}); !status.ok()) {
    return status;
  }
  const bool is_regex = value.contains("Regex");
  if (value.size() != 1) {
    return Refused(path, value, "one of Regex, String");
  }
  const char* const key = is_regex ? "Regex" : "String";
  const absl::StatusOr<absl::string_view> text = StringAt(value, path, key);
  if (!text.ok()) {
    return text.status();
  }
  const std::string at = absl::StrCat(path, ".", key);
  if (text->empty()) {
    return Refused(at, "", "a text that is not empty");
  }
  absl::StatusOr<Regex> regex = is_regex ? Regex::Compile(*text) : Regex::Literal(*text);
  if (!regex.ok()) {
    return Refused(
        at, value[key],
        absl::StrCat("expressions of the kind in server/tokenizer/regex.h; this one ", regex.status().message()));
  }
  return regex;
}

// ---- normalizer ----

using NormalizerSteps = std::vector<NormalizerStep>;

absl::Status ReadNormalizerStep(const Json& value, const std::string& path, NormalizerSteps& out);

absl::Status ReadReplace(const Json& value, const std::string& path, NormalizerSteps& out) {
  if (absl::Status status = CheckKeys(value, path, {"type", "pattern", "content"}); !status.ok()) {
    return status;
  }
  absl::StatusOr<Regex> pattern = ReadPattern(ValueAt(value, "pattern"), path + ".pattern");
  if (!pattern.ok()) {
    return pattern.status();
  }
  const absl::StatusOr<absl::string_view> content = StringAt(value, path, "content");
  if (!content.ok()) {
    return content.status();
  }
  out.push_back(Replace{*std::move(pattern), std::string(*content)});
  return absl::OkStatus();
}

absl::Status ReadStrip(const Json& value, const std::string& path, NormalizerSteps& out) {
  if (absl::Status status = CheckKeys(value, path, {"type", "strip_left", "strip_right"}); !status.ok()) {
    return status;
  }
  const absl::StatusOr<bool> left = BoolAt(value, path, "strip_left"), right = BoolAt(value, path, "strip_right");
  if (!left.ok() || !right.ok()) {
    return left.ok() ? right.status() : left.status();
  }
  out.push_back(StripSpaces{*left, *right});
  return absl::OkStatus();
}

absl::Status ReadNormalizerStep(const Json& value, const std::string& path, NormalizerSteps& out) {
  const Json& type = TypeOf(value);
  const std::pair<const char*, NormalizerStep> plain[] = {{"NFC", ToForm{NormalizationForm::kNfc}},
                                                          {"NFD", ToForm{NormalizationForm::kNfd}},
                                                          {"NFKC", ToForm{NormalizationForm::kNfkc}},
                                                          {"NFKD", ToForm{NormalizationForm::kNfkd}},
                                                          {"Lowercase", ToLowerCase{}},
                                                          {"StripAccents", StripAccents{}}};
  for (const auto& [name, step] : plain) {
    if (value.is_object() && type == name) {
      out.push_back(step);
      return CheckKeys(value, path, {"type"});
    }
  }
  if (!value.is_object()) {
    return Refused(path, value, "an object");
  }
  if (type == "Sequence") {
    return ReadSequence(value, path, "normalizers", out, &ReadNormalizerStep);
  }
  if (type == "Replace") {
    return ReadReplace(value, path, out);
  }
  if (type == "Strip") {
    return ReadStrip(value, path, out);
  }
  if (type == "Prepend") {
    const absl::StatusOr<absl::string_view> text = StringAt(value, path, "prepend");
    if (!text.ok()) {
      return text.status();
    }
    out.push_back(Prepend{std::string(*text)});
    return CheckKeys(value, path, {"type", "prepend"});
  }
  return Refused(path + ".type", type,
                 "NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Strip, Replace, Prepend, Sequence of these");
}

// ---- pre-tokenizer ----

CodePointSet PropertySet(uint8_t property) {
  return CodePointSet::Where([=](const CodePointRange& range) { return (range.properties & property) != 0; });
}

// Appends a step that works on what the steps before it left.
void AddStep(PreTokenizerStep step, PreTokenizerSteps& out) {
  step.alphabet = out.byte_level ? Regex::Alphabet::kSpelledBytes : Regex::Alphabet::kUtf8;
  out.steps.push_back(std::move(step));
}

void AddSplit(Regex splitter, Behavior behavior, bool invert, PreTokenizerSteps& out) {
  AddStep({.splitter = std::move(splitter), .behavior = behavior, .invert = invert}, out);
}

absl::StatusOr<Behavior> ReadBehavior(const Json& value, const std::string& path) {
  const std::pair<const char*, Behavior> known[] = {{"Isolated", Behavior::kIsolated},
                                                    {"Removed", Behavior::kRemoved},
                                                    {"MergedWithPrevious", Behavior::kMergedWithPrevious},
                                                    {"MergedWithNext", Behavior::kMergedWithNext},
                                                    {"Contiguous", Behavior::kContiguous}};
  for (const auto& [name, behavior] : known) {
    if (value == name) {
      return behavior;
    }
  }
  return Refused(path, value, "Isolated, Removed, MergedWithPrevious, MergedWithNext, Contiguous");
}

absl::Status ReadSplit(const Json& value, const std::string& path, PreTokenizerSteps& out) {
  if (absl::Status status = CheckKeys(value, path, {"type", "pattern", "behavior", "invert"}); !status.ok()) {
    return status;
  }
  absl::StatusOr<Regex> pattern = ReadPattern(ValueAt(value, "pattern"), path + ".pattern");
  if (!pattern.ok()) {
    return pattern.status();
  }
  const absl::StatusOr<Behavior> behavior = ReadBehavior(ValueAt(value, "behavior"), path + ".behavior");
  if (!behavior.ok()) {
    return behavior.status();
  }
  const absl::StatusOr<bool> invert = BoolOr(value, path, "invert", false);
  if (!invert.ok()) {
    return invert.status();
  }
  AddSplit(*std::move(pattern), *behavior, *invert, out);
  return absl::OkStatus();
}

absl::Status ReadByteLevel(const Json& value, const std::string& path, PreTokenizerSteps& out) {
  if (absl::Status status = CheckKeys(value, path, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
      !status.ok()) {
    return status;
  }
  const absl::StatusOr<bool> prefix = BoolOr(value, path, "add_prefix_space", true);
  const absl::StatusOr<bool> use_regex = BoolOr(value, path, "use_regex", true);
  if (!prefix.ok() || !use_regex.ok()) {
    return prefix.ok() ? use_regex.status() : prefix.status();
  }
  if (out.byte_level) {
    return Refused(path + ".type", "ByteLevel", "ByteLevel once");
  }
  if (*prefix) {
    AddStep({.prefix = Prefix::kEveryPiece, .prefix_text = " "}, out);
  }
  if (*use_regex) {
    AddSplit(*Regex::Compile(kGpt2Pattern), Behavior::kIsolated, false, out);
  }
  out.byte_level = true;
  return absl::OkStatus();
}

absl::Status ReadMetaspace(const Json& value, const std::string& path, PreTokenizerSteps& out) {
  if (absl::Status status =
          CheckKeys(value, path, {"type", "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep"});
      !status.ok()) {
    return status;
  }
  const absl::StatusOr<absl::string_view> replacement = StringAt(value, path, "replacement");
  const absl::StatusOr<bool> split = BoolOr(value, path, "split", true);
  // Older files have add_prefix_space for prepend_scheme.
  const absl::StatusOr<bool> add_prefix = BoolOr(value, path, "add_prefix_space", true);
  if (!replacement.ok() || !split.ok() || !add_prefix.ok()) {
    return !replacement.ok() ? replacement.status() : split.ok() ? add_prefix.status() : split.status();
  }
  if (replacement->empty() || out.byte_level) {
    return out.byte_level ? Refused(path + ".type", "Metaspace", "Metaspace before ByteLevel")
                          : Refused(path + ".replacement", "", "one character");
  }
  const Json& scheme = ValueAt(value, "prepend_scheme");
  if (!scheme.is_null() && scheme != "always" && scheme != "first" && scheme != "never") {
    return Refused(path + ".prepend_scheme", scheme, "always, first, never");
  }
  PreTokenizerStep step;
  step.space = step.prefix_text = std::string(*replacement);
  step.prefix = scheme == "never" || (scheme.is_null() && !*add_prefix) ? Prefix::kNone
                : scheme == "first"                                     ? Prefix::kFirstPiece
                                                                        : Prefix::kEveryPiece;
  if (*split) {
    absl::StatusOr<Regex> splitter = Regex::Literal(*replacement);
    if (!splitter.ok()) {
      return Refused(path + ".replacement", value["replacement"], "one character");
    }
    step.splitter = *std::move(splitter);
    step.behavior = Behavior::kMergedWithNext;
  }
  AddStep(std::move(step), out);
  return absl::OkStatus();
}

absl::Status ReadDigits(const Json& value, const std::string& path, PreTokenizerSteps& out) {
  const absl::StatusOr<bool> individual = BoolOr(value, path, "individual_digits", false);
  if (!individual.ok()) {
    return individual.status();
  }
  AddSplit(Regex::OneOf(PropertySet(kDigits), /*repeated=*/false),
           *individual ? Behavior::kIsolated : Behavior::kContiguous, false, out);
  return CheckKeys(value, path, {"type", "individual_digits"});
}

absl::Status ReadPunctuation(const Json& value, const std::string& path, PreTokenizerSteps& out) {
  const Json& behavior = ValueAt(value, "behavior");
  const absl::StatusOr<Behavior> known =
      behavior.is_null() ? Behavior::kIsolated : ReadBehavior(behavior, path + ".behavior");
  if (!known.ok()) {
    return known.status();
  }
  AddSplit(Regex::OneOf(PropertySet(kPunctuation), /*repeated=*/false), *known, false, out);
  return CheckKeys(value, path, {"type", "behavior"});
}

absl::Status ReadPreTokenizerStep(const Json& value, const std::string& path, PreTokenizerSteps& out) {
  const Json& type = TypeOf(value);
  if (!value.is_object()) {
    return Refused(path, value, "an object");
  }
  if (type == "Sequence") {
    return ReadSequence(value, path, "pretokenizers", out, &ReadPreTokenizerStep);
  }
  if (type == "Whitespace" || type == "WhitespaceSplit") {
    AddSplit(Regex::OneOf(PropertySet(kSpace), /*repeated=*/true), Behavior::kRemoved, false, out);
    if (type == "Whitespace") {  // words, and what is between them
      AddSplit(Regex::OneOf(PropertySet(kWord), /*repeated=*/true), Behavior::kIsolated, false, out);
    }
    return CheckKeys(value, path, {"type"});
  }
  const std::pair<const char*, decltype(&ReadSplit)> known[] = {{"Split", &ReadSplit},
                                                                {"ByteLevel", &ReadByteLevel},
                                                                {"Metaspace", &ReadMetaspace},
                                                                {"Digits", &ReadDigits},
                                                                {"Punctuation", &ReadPunctuation}};
  for (const auto& [name, read] : known) {
    if (type == name) {
      return read(value, path, out);
    }
  }
  return Refused(path + ".type", type,
                 "Split, ByteLevel, Metaspace, Digits, Punctuation, Whitespace, WhitespaceSplit, Sequence of these");
}

// ---- decoder ----

struct DecoderReader {
  Decoder decoder;
  bool fused = false;  // what follows sees the whole text
  bool over = false;   // nothing may follow
};

absl::Status ReadDecoderReplace(const Json& value, const std::string& path, Decoder& decoder) {
  const Json& pattern = ValueAt(value, "pattern");
  if (absl::Status status = CheckKeys(pattern, path + ".pattern", {"String"}); !status.ok()) {
    return status;
  }
  const absl::StatusOr<absl::string_view> from = StringAt(pattern, path + ".pattern", "String");
  const absl::StatusOr<absl::string_view> to = StringAt(value, path, "content");
  if (!from.ok() || !to.ok()) {
    return from.ok() ? to.status() : from.status();
  }
  if (from->empty()) {
    return Refused(path + ".pattern.String", "", "a text that is not empty");
  }
  decoder.replaced.emplace_back(std::string(*from), std::string(*to));
  return CheckKeys(value, path, {"type", "pattern", "content"});
}

// Only what undoes a space in front is known: blanks, at the beginning.
absl::Status ReadDecoderStrip(const Json& value, const std::string& path, Decoder& decoder) {
  if (absl::Status status = CheckKeys(value, path, {"type", "content", "start", "stop"}); !status.ok()) {
    return status;
  }
  const Json& start = ValueAt(value, "start");
  if (ValueAt(value, "content") != " ") {
    return Refused(path + ".content", ValueAt(value, "content"), "a space");
  }
  if (ValueAt(value, "stop") != 0 || !start.is_number_unsigned()) {
    return Refused(path, value, "a count for start and 0 for stop");
  }
  decoder.leading_spaces = {.max = start.get<size_t>(), .of = LeadingSpaces::Of::kText};
  return absl::OkStatus();
}

absl::Status ReadDecoderMetaspace(const Json& value, const std::string& path, Decoder& decoder) {
  PreTokenizerSteps steps;
  if (absl::Status status = ReadMetaspace(value, path, steps); !status.ok()) {
    return status;
  }
  decoder.replaced.emplace_back(steps.steps[0].space, " ");
  if (steps.steps[0].prefix != Prefix::kNone) {
    decoder.leading_spaces = {.max = SIZE_MAX, .of = LeadingSpaces::Of::kFirstToken};
    decoder.hidden_at_beginning = steps.steps[0].space;
  }
  return absl::OkStatus();
}

absl::Status ReadDecoderStep(const Json& value, const std::string& path, DecoderReader& out) {
  const Json& type = TypeOf(value);
  if (!value.is_object()) {
    return Refused(path, value, "an object of type ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip, Sequence");
  }
  if (type == "Sequence") {
    return ReadSequence(value, path, "decoders", out, &ReadDecoderStep);
  }
  if (type == "Fuse") {
    out.fused = true;
    return CheckKeys(value, path, {"type"});
  }
  if (type == "Strip" && out.fused && !out.over) {
    out.over = true;
    return ReadDecoderStrip(value, path, out.decoder);
  }
  if (type == "Replace" && !out.fused && !out.over && !out.decoder.byte_fallback) {
    return ReadDecoderReplace(value, path, out.decoder);
  }
  if (type == "ByteFallback" && !out.fused && !out.over && !out.decoder.byte_fallback) {
    out.decoder.byte_fallback = true;
    return CheckKeys(value, path, {"type"});
  }
  const bool is_first = !out.fused && !out.over && !out.decoder.byte_fallback && out.decoder.replaced.empty();
  if (type == "Metaspace" && is_first) {
    out.over = true;
    return ReadDecoderMetaspace(value, path, out.decoder);
  }
  if (type == "ByteLevel" && is_first) {
    out.over = out.decoder.byte_level = true;
    return CheckKeys(value, path, {"type", "add_prefix_space", "trim_offsets", "use_regex"});
  }
  return Refused(path + ".type", type,
                 "ByteLevel, Metaspace, or a Sequence of Replace, ByteFallback, Fuse, Strip in this order");
}

}  // namespace

absl::StatusOr<Normalizer> ReadNormalizer(const Json& value) {
  NormalizerSteps steps;
  if (!value.is_null()) {
    if (absl::Status status = ReadNormalizerStep(value, "normalizer", steps); !status.ok()) {
      return status;
    }
  }
  return Normalizer(std::move(steps));
}

absl::StatusOr<PreTokenizerSteps> ReadPreTokenizer(const Json& value) {
  PreTokenizerSteps steps;
  if (!value.is_null()) {
    if (absl::Status status = ReadPreTokenizerStep(value, "pre_tokenizer", steps); !status.ok()) {
      return status;
    }
  }
  return steps;
}

absl::StatusOr<Decoder> ReadDecoder(const Json& value) {
  DecoderReader reader;
  if (absl::Status status = ReadDecoderStep(value, "decoder", reader); !status.ok()) {
    return status;
  }
  return reader.decoder;
}

std::optional<uint8_t> Decoder::Byte(absl::string_view name) const {
  return byte_fallback ? ByteOfHexName(name) : std::nullopt;
}

std::string Decoder::BytesAtBeginning(absl::string_view name) const {
  return hidden_at_beginning.empty() ? Bytes(name) : absl::StrReplaceAll(name, {{hidden_at_beginning, ""}});
}

std::string Decoder::Bytes(absl::string_view name) const {
  if (byte_level) {
    return BytesOfName(name).value_or(std::string(name));
  }
  std::string text(name);
  for (const auto& [from, to] : replaced) {
    text = absl::StrReplaceAll(text, {{from, to}});
  }
  if (const std::optional<uint8_t> byte = Byte(text)) {
    return std::string(1, static_cast<char>(*byte));
  }
  return text;
}

}  // namespace quire
