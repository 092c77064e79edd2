#include "server/option_sources.h"

#include <toml++/toml.h>

#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "engine/json_text.h"

namespace quire {
namespace {

// One option as a source gives it.
struct Setting {
  const Flag* flag = nullptr;
  std::string value;
  std::string origin;  // for messages: "", " (from QUIRE_BLOCK_SIZE)", " (from FILE)"
};

absl::Status Apply(const std::vector<Setting>& settings, Options& options) {
  for (const Setting& setting : settings) {
    const absl::Status status = setting.flag->set(options, setting.value);
    if (!status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("--", setting.flag->name, setting.origin, ": ", status.message()));
    }
  }
  return absl::OkStatus();
}

// "no-enable-prefix-caching" clears the switch "enable-prefix-caching".
const Flag* FindNegated(absl::string_view name) {
  if (!absl::ConsumePrefix(&name, "no-")) return nullptr;
  const Flag* flag = FindFlag(name);
  return flag != nullptr && flag->is_switch() ? flag : nullptr;
}

bool IsSwitchValue(absl::string_view text) { return text == "true" || text == "false"; }

// Reads the word after --name, if it is needed, and returns the setting.
absl::StatusOr<Setting> ReadArgument(absl::Span<const std::string> arguments, size_t& i) {
  absl::string_view word = arguments[i];
  if (!absl::ConsumePrefix(&word, "--") || word.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(Quoted(arguments[i]), " is no option; quired --help lists them"));
  }
  const size_t equals = word.find('=');
  const absl::string_view name = word.substr(0, equals);
  std::optional<std::string> value;
  if (equals != absl::string_view::npos) value = std::string(word.substr(equals + 1));

  const Flag* flag = FindFlag(name);
  if (flag == nullptr && !value) {
    if (const Flag* negated = FindNegated(name)) return Setting{negated, "false", ""};
  }
  if (flag == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("--", absl::CHexEscape(name), " is no option; quired --help lists them"));
  }
  if (!value && i + 1 < arguments.size() && (!flag->is_switch() || IsSwitchValue(arguments[i + 1])))
    value = arguments[++i];
  if (!value && !flag->is_switch()) {
    return absl::InvalidArgumentError(absl::StrCat("--", name, " needs a value: --", name, " ", flag->value));
  }
  return Setting{flag, value.value_or("true"), ""};
}

absl::StatusOr<std::vector<Setting>> FromArguments(absl::Span<const std::string> arguments, Options& options) {
  std::vector<Setting> settings;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& word = arguments[i];
    if (i == 0 && !absl::StartsWith(word, "-")) {
      if (word == "serve")
        options.command = Subcommand::kServe;
      else if (word == "plan")
        options.command = Subcommand::kPlan;
      else if (word == "tokenize")
        options.command = Subcommand::kTokenize;
      else if (word == "help")
        options.command = Subcommand::kHelp;
      else
        return absl::InvalidArgumentError(
            absl::StrCat(Quoted(word), " is not one of the commands serve, plan, tokenize"));
    } else if (word == "--help" || word == "-h") {
      options.command = Subcommand::kHelp;
      return std::vector<Setting>{};
    } else if (word == "--version") {
      options.command = Subcommand::kVersion;
      return std::vector<Setting>{};
    } else {
      absl::StatusOr<Setting> setting = ReadArgument(arguments, i);
      if (!setting.ok()) return setting.status();
      settings.push_back(*std::move(setting));
    }
  }
  return settings;
}

std::string VariableName(absl::string_view flag) {
  return absl::StrCat("QUIRE_", absl::AsciiStrToUpper(absl::StrReplaceAll(flag, {{"-", "_"}})));
}

std::vector<Setting> FromEnvironment(absl::Span<const std::string> environment, std::vector<std::string>& unknown) {
  std::vector<Setting> settings;
  for (const std::string& entry : environment) {
    if (!absl::StartsWith(entry, "QUIRE_")) continue;
    const size_t equals = entry.find('=');
    const std::string name = entry.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : entry.substr(equals + 1);
    const Flag* flag = nullptr;
    for (const Flag& candidate : AllFlags()) {
      if (VariableName(candidate.name) == name) flag = &candidate;
    }
    if (flag == nullptr) {
      unknown.push_back(name);
    } else if (!value.empty()) {  // an empty variable is as good as none
      settings.push_back({flag, value, absl::StrCat(" (from ", name, ")")});
    }
  }
  return settings;
}

// A TOML value as the text that the command line would have; nullopt for tables, arrays and dates.
std::optional<std::string> ValueText(const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* number = node.as_integer()) return absl::StrCat(number->get());
  if (const auto* number = node.as_floating_point()) return absl::StrCat(number->get());
  if (const auto* truth = node.as_boolean()) return truth->get() ? "true" : "false";
  return std::nullopt;
}

absl::StatusOr<std::vector<Setting>> FromFile(const std::string& path) {
  toml::table table;
  try {
    table = toml::parse_file(path);
  } catch (const toml::parse_error& error) {
    const auto line = error.source().begin.line;  // 0: of no line, but of the file
    return absl::InvalidArgumentError(absl::StrCat("--config ", path, line > 0 ? absl::StrCat(", line ", line) : "",
                                                   ": ", std::string(error.description())));
  }
  std::vector<Setting> settings;
  for (const auto& [key, node] : table) {
    const std::string name(key.str());
    const Flag* flag = FindFlag(name);
    if (flag == nullptr || name == "config") {
      return absl::InvalidArgumentError(
          absl::StrCat("--config ", path, ": key ", Quoted(name), " is no option; quired --help lists them"));
    }
    const std::optional<std::string> value = ValueText(node);
    if (!value) {
      return absl::InvalidArgumentError(
          absl::StrCat("--config ", path, ": ", name, " is neither text, number nor true or false"));
    }
    settings.push_back({flag, *value, absl::StrCat(" (from ", path, ")")});
  }
  return settings;
}

// The last --config of these settings.
std::optional<std::string> ConfigPath(const std::vector<Setting>& settings) {
  std::optional<std::string> path;
  for (const Setting& setting : settings) {
    if (setting.flag->name == "config") path = setting.value;
  }
  return path;
}

}  // namespace

absl::Status ReadOptions(absl::Span<const std::string> arguments, absl::Span<const std::string> environment,
                         Options& options, std::vector<std::string>& unknown_variables) {
  const absl::StatusOr<std::vector<Setting>> given = FromArguments(arguments, options);
  if (!given.ok()) return given.status();
  if (options.command == Subcommand::kHelp || options.command == Subcommand::kVersion) return absl::OkStatus();
  for (const Setting& setting :
       *given) {  // first, so that an error elsewhere is logged in the format that was asked for
    if (setting.flag->name == "log-format") (void)setting.flag->set(options, setting.value);
  }
  const std::vector<Setting> inherited = FromEnvironment(environment, unknown_variables);

  std::optional<std::string> path = ConfigPath(*given);
  if (!path) path = ConfigPath(inherited);
  if (path) {
    const absl::StatusOr<std::vector<Setting>> stored = FromFile(*path);
    if (!stored.ok()) return stored.status();
    if (const absl::Status status = Apply(*stored, options); !status.ok()) return status;
  }
  if (const absl::Status status = Apply(inherited, options); !status.ok()) return status;
  if (const absl::Status status = Apply(*given, options); !status.ok()) return status;
  return CheckOptions(options);
}

}  // namespace quire
