#include "client/load/trace.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "client/parse.h"

namespace quire::client {
namespace {

// More tokens than any model takes: a longer one is a broken file, not a request.
constexpr uint32_t kMaxLen = 1 << 24;

// Where a CSV keeps the time, the prompt's length and the output's.
struct Columns {
  size_t time, input_len, output_len;
};

std::optional<size_t> Find(const std::vector<absl::string_view>& header, absl::string_view name) {
  const auto found = std::find(header.begin(), header.end(), name);
  return found == header.end() ? std::nullopt : std::optional<size_t>(found - header.begin());
}

std::optional<Columns> FindColumns(absl::string_view line) {
  const std::vector<absl::string_view> header = absl::StrSplit(line, ',');
  const struct {
    const char *time, *input_len, *output_len;
  } kFormats[] = {{"TIMESTAMP", "ContextTokens", "GeneratedTokens"},
                  {"Timestamp", "Request tokens", "Response tokens"}};
  for (const auto& format : kFormats) {
    const auto time = Find(header, format.time), input_len = Find(header, format.input_len),
               output_len = Find(header, format.output_len);
    if (time.has_value() && input_len.has_value() && output_len.has_value()) {
      return Columns{*time, *input_len, *output_len};
    }
  }
  return std::nullopt;
}

// Seconds, or a date with the time of day.
bool ParseTime(absl::string_view text, double& time_s) {
  absl::Time time;
  std::string error;
  if (absl::SimpleAtod(text, &time_s)) {
    return true;
  }
  if (!absl::ParseTime("%Y-%m-%d%ET%H:%M:%E*S%Ez", text, &time, &error) &&
      !absl::ParseTime("%Y-%m-%d %H:%M:%E*S%Ez", text, &time, &error) &&
      !absl::ParseTime("%Y-%m-%d %H:%M:%E*S", text, &time, &error)) {
    return false;
  }
  time_s = absl::ToDoubleSeconds(time - absl::UnixEpoch());
  return true;
}

bool ParseCsvRow(absl::string_view line, const Columns& columns, TraceRow& row) {
  const std::vector<absl::string_view> cells = absl::StrSplit(line, ',');
  return cells.size() > std::max({columns.time, columns.input_len, columns.output_len}) &&
         ParseTime(cells[columns.time], row.time_s) && absl::SimpleAtoi(cells[columns.input_len], &row.input_len) &&
         absl::SimpleAtoi(cells[columns.output_len], &row.output_len);
}

bool ParseJsonRow(absl::string_view line, TraceRow& row) {
  const auto json = nlohmann::json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
  const auto is_count = [&](const char* key) {
    return json.contains(key) && json[key].is_number_unsigned() && json[key].get<uint64_t>() <= kMaxLen;
  };
  if (!json.is_object() || !json.contains("timestamp") || !json["timestamp"].is_number() || !is_count("input_length") ||
      !is_count("output_length")) {
    return false;
  }
  row.time_s = json["timestamp"].get<double>() / 1e3;
  row.input_len = json["input_length"].get<uint32_t>();
  row.output_len = json["output_length"].get<uint32_t>();
  const size_t num_blocks = (row.input_len + kTraceBlock - 1) / kTraceBlock;
  for (const nlohmann::json& hash : json.value("hash_ids", nlohmann::json::array())) {
    if (!hash.is_number_integer()) {
      return false;
    }
    if (row.block_hashes.size() < num_blocks) {
      row.block_hashes.push_back(hash.get<uint64_t>());
    }
  }
  return true;
}

}  // namespace

absl::StatusOr<std::vector<TraceRow>> ReadTrace(const std::string& path) {
  absl::StatusOr<std::string> file = ReadFile(path);
  if (!file.ok()) {
    return file.status();
  }
  std::vector<TraceRow> rows;
  std::optional<Columns> columns;
  size_t number = 0;
  for (absl::string_view line : absl::StrSplit(*file, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line);
    if (number == 1 && (columns = FindColumns(line)).has_value()) {
      continue;
    }
    if (line.empty()) {
      continue;
    }
    TraceRow row;
    const bool parsed = columns.has_value() ? ParseCsvRow(line, *columns, row) : ParseJsonRow(line, row);
    if (!parsed || row.input_len > kMaxLen || row.output_len > kMaxLen) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ":", number,
          columns.has_value()
              ? ": want the header's columns"
              : ": want a first line with TIMESTAMP,ContextTokens,GeneratedTokens (Azure) or Timestamp,Request "
                "tokens,Response tokens (BurstGPT), or {\"timestamp\": ms, \"input_length\": n, \"output_length\": n} "
                "on each (Mooncake)"));
    }
    if (row.input_len > 0 && row.output_len > 0) {
      rows.push_back(std::move(row));
    }
  }
  std::stable_sort(rows.begin(), rows.end(), [](const TraceRow& a, const TraceRow& b) { return a.time_s < b.time_s; });
  return rows;
}

}  // namespace quire::client
