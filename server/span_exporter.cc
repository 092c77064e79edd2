#include "server/span_exporter.h"

#include <curl/curl.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/check.h"
#include "server/otlp_json.h"
#include "server/random_number.h"

namespace quire {
namespace {

constexpr char kPath[] = "/v1/traces";
constexpr size_t kMaxReply = size_t{64} << 10;            // bytes that are read of an answer
constexpr absl::Duration kLook = absl::Milliseconds(50);  // how often a request under way looks whether to give up

// 16 digits, not all of them zero.
std::string RandomId() { return absl::StrCat(absl::Hex(RandomNumber() | 1, absl::kZeroPad16)); }

size_t KeepReply(char* data, size_t size, size_t count, void* reply) {
  std::string& kept = *static_cast<std::string*>(reply);
  kept.append(data, std::min(size * count, kMaxReply - kept.size()));
  return size * count;
}

// How many spans the collector says that it has thrown away (ExportTracePartialSuccess).
size_t NumRejected(const std::string& reply) {
  const auto json = nlohmann::json::parse(reply, nullptr, /*allow_exceptions=*/false);
  const auto pointer = nlohmann::json::json_pointer("/partialSuccess/rejectedSpans");
  if (!json.is_object() || !json.contains(pointer)) return 0;
  const auto& number = json[pointer];
  if (number.is_number_unsigned()) return number.get<size_t>();
  size_t value = 0;
  return number.is_string() && absl::SimpleAtoi(number.get_ref<const std::string&>(), &value) ? value : 0;
}

}  // namespace

// Posts to one address, over a connection that is kept.
class SpanExporter::Poster {
 public:
  struct Reply {
    Outcome outcome;
    std::string why;  // it failed
    size_t num_rejected = 0;
  };

  Poster(const std::string& url, absl::Duration timeout) : easy_(curl_easy_init()), multi_(curl_multi_init()) {
    Check(easy_ != nullptr && multi_ != nullptr, "libcurl starts");
    for (const char* header : {"Content-Type: application/json", "Expect:"}) {
      headers_ = curl_slist_append(headers_, header);
    }
    curl_easy_setopt(easy_, CURLOPT_URL, url.c_str());
    curl_easy_setopt(easy_, CURLOPT_HTTPHEADER, headers_);
    curl_easy_setopt(easy_, CURLOPT_USERAGENT, "quired/" QUIRE_VERSION);
    curl_easy_setopt(easy_, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy_, CURLOPT_PROXY, "");  // the environment of a daemon decides nothing
    curl_easy_setopt(easy_, CURLOPT_TIMEOUT_MS, static_cast<long>(absl::ToInt64Milliseconds(timeout)));
    curl_easy_setopt(easy_, CURLOPT_WRITEFUNCTION, KeepReply);
    curl_easy_setopt(easy_, CURLOPT_WRITEDATA, &reply_);
  }
  ~Poster() {
    curl_multi_cleanup(multi_);
    curl_easy_cleanup(easy_);
    curl_slist_free_all(headers_);
  }
  Poster(const Poster&) = delete;
  Poster& operator=(const Poster&) = delete;

  // Gives up when `overdue` says so.
  Reply Post(const std::string& body, const std::function<bool()>& overdue) {
    reply_.clear();
    curl_easy_setopt(easy_, CURLOPT_POSTFIELDS, body.data());
    curl_easy_setopt(easy_, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
    curl_multi_add_handle(multi_, easy_);
    CURLcode result = CURLE_OPERATION_TIMEDOUT;
    for (int running = 1; running > 0 && !overdue();) {
      if (curl_multi_perform(multi_, &running) != CURLM_OK) break;
      if (running > 0) curl_multi_poll(multi_, nullptr, 0, static_cast<int>(absl::ToInt64Milliseconds(kLook)), nullptr);
    }
    int left = 0;
    if (const CURLMsg* message = curl_multi_info_read(multi_, &left)) result = message->data.result;
    curl_multi_remove_handle(multi_, easy_);
    if (result != CURLE_OK) return {Outcome::kTryAgain, curl_easy_strerror(result)};
    return Judge();
  }

 private:
  // Of an answer: which codes may be tried again is OTLP's own list.
  Reply Judge() const {
    long code = 0;
    curl_easy_getinfo(easy_, CURLINFO_RESPONSE_CODE, &code);
    if (code >= 200 && code < 300) return {Outcome::kTaken, "", NumRejected(reply_)};
    const bool again = code == 429 || code == 502 || code == 503 || code == 504;
    return {again ? Outcome::kTryAgain : Outcome::kRefused, absl::StrCat("HTTP status ", code)};
  }

  CURL* const easy_;
  CURLM* const multi_;
  curl_slist* headers_ = nullptr;
  std::string reply_;
};

SpanExporter::SpanExporter(SpanExporterOptions options, Metrics& metrics)
    : options_(std::move(options)), metrics_(metrics) {
  curl_global_init(CURL_GLOBAL_DEFAULT);  // once for a process or many times: the same
  poster_ = std::make_unique<Poster>(options_.url, options_.timeout);
  thread_ = std::thread([this] { Loop(); });
}

SpanExporter::~SpanExporter() { Shutdown(); }

TraceContext SpanExporter::Begin(std::optional<TraceContext> parent) const {
  TraceContext context;
  if (parent) {
    context = *std::move(parent);
  } else {
    context.trace_id = RandomId() + RandomId();
    // 53 random bits, as many as a double has.
    context.sampled = static_cast<double>(RandomNumber() >> 11) < options_.sampling_ratio * (uint64_t{1} << 53);
  }
  if (context.sampled) context.span_id = RandomId();
  return context;
}

void SpanExporter::Ended(const RequestRecord& record) {
  if (!record.call.trace.sampled) return;
  {
    const std::lock_guard lock(mutex_);
    if (queue_.size() < options_.max_queued && give_up_ == absl::InfiniteFuture()) {
      queue_.push_back(record);
      if (queue_.size() > 1 && queue_.size() < options_.max_batch) return;  // the thread is awake, or not needed yet
    } else {
      metrics_.SpansDropped(1);
      return;
    }
  }
  wake_.notify_one();
}

void SpanExporter::Shutdown() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    give_up_ = absl::Now() + options_.farewell;
  }
  wake_.notify_one();
  thread_.join();
}

// ---- The thread ----

void SpanExporter::Loop() {
  std::vector<RequestRecord> batch;
  while (Take(batch)) Send(batch);
}

bool SpanExporter::Take(std::vector<RequestRecord>& batch) {
  batch.clear();
  std::unique_lock lock(mutex_);
  const auto stops = [this] { return give_up_ != absl::InfiniteFuture(); };
  wake_.wait(lock, [&] { return !queue_.empty() || stops(); });
  wake_.wait_for(lock, absl::ToChronoNanoseconds(options_.max_delay),
                 [&] { return queue_.size() >= options_.max_batch || stops(); });
  const size_t count = std::min(queue_.size(), options_.max_batch);
  std::move(queue_.begin(), queue_.begin() + static_cast<ptrdiff_t>(count), std::back_inserter(batch));
  queue_.erase(queue_.begin(), queue_.begin() + static_cast<ptrdiff_t>(count));
  return !batch.empty();
}

void SpanExporter::Send(const std::vector<RequestRecord>& batch) {
  const std::string body = OtlpTraces(batch, options_.model_name);
  const auto overdue = [this] {
    const std::lock_guard lock(mutex_);
    return absl::Now() >= give_up_;
  };
  absl::Duration pause = options_.first_pause;
  for (int attempt = 1;; ++attempt, pause *= 2) {
    const Poster::Reply reply = poster_->Post(body, overdue);
    TellOfChange(reply.outcome == Outcome::kTaken, reply.why);
    if (reply.outcome == Outcome::kTaken) {
      const size_t num_rejected = std::min(reply.num_rejected, batch.size());
      metrics_.SpansExported(batch.size() - num_rejected);
      metrics_.SpansDropped(num_rejected);
      return;
    }
    if (reply.outcome == Outcome::kRefused || attempt >= options_.max_attempts || !Pause(pause)) break;
  }
  metrics_.SpansDropped(batch.size());
}

bool SpanExporter::Pause(absl::Duration pause) {
  std::unique_lock lock(mutex_);
  return !wake_.wait_for(lock, absl::ToChronoNanoseconds(pause), [this] { return give_up_ != absl::InfiniteFuture(); });
}

void SpanExporter::TellOfChange(bool works, const std::string& why) {
  if (works == std::exchange(works_, works)) return;
  if (works) {
    spdlog::info("spans are exported again");
  } else {
    spdlog::warn("spans cannot be exported to --otlp-endpoint: {}", why);
  }
}

}  // namespace quire
