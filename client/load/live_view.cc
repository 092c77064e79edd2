#include "client/load/live_view.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/load/statistics.h"

namespace quire::client {
namespace {

constexpr double kTerminalSeconds = 0.25;
constexpr double kLogSeconds = 10;
constexpr double kRecentSeconds = 5;  // that the latencies are of
constexpr size_t kIntervals = 40;     // that the curve shows
constexpr int kBarWidth = 30;
// A line that is too long is cut: were it wrapped, the lines to take back would be more.
constexpr char kNoWrap[] = "\033[?7l", kWrap[] = "\033[?7h";

std::string Bar(double share) {
  const int full = static_cast<int>(std::lround(std::clamp(share, 0.0, 1.0) * kBarWidth));
  std::string bar;
  for (int i = 0; i < kBarWidth; ++i) {
    bar += i < full ? "█" : "░";
  }
  return bar;
}

std::string Curve(const std::deque<double>& values) {
  static constexpr const char* kLevels[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  const double most = values.empty() ? 0 : *std::max_element(values.begin(), values.end());
  std::string curve;
  for (double value : values) {
    curve += kLevels[most > 0 ? std::min(7, static_cast<int>(8 * value / most)) : 0];
  }
  return curve;
}

std::string Percentiles(const char* name, std::vector<double> values_ms) {
  const Samples samples(std::move(values_ms));
  const auto text = [&](double percent) {
    return samples.Supports(percent) ? absl::StrFormat("%.1f", *samples.Percentile(percent)) : "-";
  };
  return absl::StrFormat("%s p50 %s  p90 %s  p99 %s ms", name, text(50), text(90), text(99));
}

size_t Done(const Tally& tally) { return tally.completed + tally.failed + tally.cancelled; }

}  // namespace

LiveView::LiveView(std::string title, size_t num_requests, Io& io)
    : title_(std::move(title)), num_requests_(num_requests), io_(io) {}

double LiveView::period_s() const { return io_.err_is_terminal ? kTerminalSeconds : kLogSeconds; }

void LiveView::Show(const Tally& now, const std::optional<MetricPoint>& server) {
  const double span_s = now.elapsed_s - last_s_;
  tokens_per_s_.push_back(span_s > 0 ? static_cast<double>(now.output_tokens - last_tokens_) / span_s : 0);
  if (tokens_per_s_.size() > kIntervals) {
    tokens_per_s_.pop_front();
  }
  last_s_ = now.elapsed_s;
  last_tokens_ = now.output_tokens;
  for (const RequestResult* request : now.ended) {
    if (request->ok()) {
      ended_.push_back({now.elapsed_s, TtftMs(*request), TpotMs(*request)});
    }
  }
  while (!ended_.empty() && ended_.front().at_s < now.elapsed_s - kRecentSeconds) {
    ended_.pop_front();
  }
  if (io_.err_is_terminal) {
    Clear();
    const std::string lines = Lines(now, server);
    lines_shown_ = static_cast<int>(std::count(lines.begin(), lines.end(), '\n'));
    io_.err << kNoWrap << lines << kWrap << std::flush;
  } else {
    io_.err << absl::StrFormat("quire load: %d of %d done, %d failed, %d under way, %.0f tok/s, %.1fs\n", Done(now),
                               num_requests_, now.failed, now.sent - Done(now), tokens_per_s_.back(), now.elapsed_s)
            << std::flush;
  }
}

void LiveView::Clear() {
  if (lines_shown_ > 0) {
    io_.err << absl::StrFormat("\033[%dA\r\033[J", lines_shown_) << std::flush;
  }
  lines_shown_ = 0;
}

std::string LiveView::Lines(const Tally& now, const std::optional<MetricPoint>& server) const {
  std::string lines = absl::StrFormat("%s  %.1f s\n", title_, now.elapsed_s);
  absl::StrAppendFormat(
      &lines, "  %s %d of %d done, %d failed, %d cancelled, %d under way\n",
      Bar(num_requests_ > 0 ? static_cast<double>(Done(now)) / static_cast<double>(num_requests_) : 0), Done(now),
      num_requests_, now.failed, now.cancelled, now.sent - Done(now));
  absl::StrAppendFormat(&lines, "  %8.0f tok/s %s\n", tokens_per_s_.back(), Curve(tokens_per_s_));
  std::vector<double> ttft, tpot;
  for (const Ended& ended : ended_) {
    ttft.push_back(ended.ttft_ms);
    if (ended.tpot_ms.has_value()) {
      tpot.push_back(*ended.tpot_ms);
    }
  }
  absl::StrAppendFormat(&lines, "  last %.0f s: %d done; %s; %s\n", kRecentSeconds, ended_.size(),
                        Percentiles("TTFT", std::move(ttft)), Percentiles("TPOT", std::move(tpot)));
  if (server.has_value()) {
    const auto text = [](const std::optional<double>& value) {
      return value.has_value() ? absl::StrFormat("%.0f", *value) : "-";
    };
    absl::StrAppendFormat(&lines, "  server: %s running, %s waiting", text(server->running), text(server->waiting));
    if (server->kv_usage.has_value()) {
      absl::StrAppendFormat(&lines, ", KV cache %s %.0f %%", Bar(*server->kv_usage), 100 * *server->kv_usage);
    }
    lines += '\n';
  }
  return lines;
}

}  // namespace quire::client
