#include "server/logging.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace quire {
namespace {

using Json = nlohmann::ordered_json;

std::string Dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string TimeText(absl::Time time) { return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", time, absl::UTCTimeZone()); }

// One JSON object per line: time, level, message.
class JsonFormatter final : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& line, spdlog::memory_buf_t& out) override {
    const auto level = spdlog::level::to_string_view(line.level);
    const std::string text = Dump({{"time", TimeText(absl::FromChrono(line.time))},
                                   {"level", std::string(level.data(), level.size())},
                                   {"message", std::string(line.payload.data(), line.payload.size())}});
    out.append(text.data(), text.data() + text.size());
    out.push_back('\n');
  }
  std::unique_ptr<spdlog::formatter> clone() const override { return std::make_unique<JsonFormatter>(); }
};

spdlog::level::level_enum SpdlogLevel(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      break;
  }
  return spdlog::level::err;
}

void LogGrpcLine(gpr_log_func_args* line) {
  const auto level = line->severity == GPR_LOG_SEVERITY_ERROR ? spdlog::level::warn : spdlog::level::debug;
  spdlog::log(level, "grpc: {}", absl::CEscape(line->message));
}

// Protobuf complains of every malformed message; its sender is told, and the operator need not be.
void LogProtobufLine(google::protobuf::LogLevel, const char*, int, const std::string& message) {
  spdlog::debug("protobuf: {}", absl::CEscape(message));
}

double Milliseconds(absl::Duration duration) { return absl::ToDoubleMilliseconds(duration); }

}  // namespace

void SetUpLogging(LogLevel level, LogFormat format) {
  auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  auto logger = std::make_shared<spdlog::logger>("", std::move(sink));
  if (format == LogFormat::kJson) {
    logger->set_formatter(std::make_unique<JsonFormatter>());
  } else {
    logger->set_pattern("[%Y-%m-%d %H:%M:%S.%e] [%l] %v");
  }
  logger->set_level(SpdlogLevel(level));
  logger->flush_on(spdlog::level::debug);
  spdlog::set_default_logger(std::move(logger));
  gpr_set_log_function(LogGrpcLine);
  google::protobuf::SetLogHandler(LogProtobufLine);
}

void LogError(absl::string_view message) {
  std::string line;
  for (const char c : message) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) {
      absl::StrAppend(&line, absl::CEscape(absl::string_view(&c, 1)));
    } else {
      line.push_back(c);
    }
  }
  spdlog::error("{}", line);
}

RequestLog::RequestLog(LogFormat format)
    : format_(format),
      lines_(std::make_shared<spdlog::logger>("requests", std::make_shared<spdlog::sinks::stderr_sink_mt>())) {
  lines_->set_pattern(format == LogFormat::kJson ? "%v" : "[%Y-%m-%d %H:%M:%S.%e] [%l] %v");
  lines_->set_level(spdlog::default_logger()->level());
  lines_->flush_on(spdlog::level::debug);
}

RequestLog::~RequestLog() = default;

void RequestLog::Ended(const RequestRecord& record) const {
  if (!lines_->should_log(spdlog::level::info)) return;
  if (format_ == LogFormat::kJson) {
    lines_->info("{}", Dump({{"time", TimeText(absl::Now())},
                             {"level", "info"},
                             {"message", "request ended"},
                             {"request_id", record.request_id},
                             {"prompt_tokens", record.prompt_tokens},
                             {"completion_tokens", record.completion_tokens},
                             {"cached_tokens", record.cached_tokens},
                             {"reason", record.reason},
                             {"trace_id", record.call.trace.trace_id},
                             {"queued_ms", Milliseconds(record.queued)},
                             {"prefill_ms", Milliseconds(record.prefill)},
                             {"decode_ms", Milliseconds(record.decode)},
                             {"total_ms", Milliseconds(record.total)}}));
    return;
  }
  lines_->info(
      "request ended request_id={} prompt_tokens={} completion_tokens={} cached_tokens={} reason={} trace_id={} "
      "queued_ms={:.3f} prefill_ms={:.3f} decode_ms={:.3f} total_ms={:.3f}",
      record.request_id, record.prompt_tokens, record.completion_tokens, record.cached_tokens, record.reason,
      record.call.trace.trace_id.empty() ? "-" : record.call.trace.trace_id, Milliseconds(record.queued),
      Milliseconds(record.prefill), Milliseconds(record.decode), Milliseconds(record.total));
}

}  // namespace quire
