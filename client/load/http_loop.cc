#include "client/load/http_loop.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace quire::client {
namespace {

// Answers that are awaited whole: model lists, token ids, metrics.
constexpr size_t kMaxFetchBytes = 64 << 20;
constexpr size_t kEventsAtOnce = 256;

void SetIfGiven(CURL* easy, CURLoption option, const std::string& value) {
  if (!value.empty()) {
    curl_easy_setopt(easy, option, value.c_str());
  }
}

}  // namespace

HttpExchange::HttpExchange(const HttpOptions& options, HttpRequest request)
    : request_(std::move(request)), easy_(curl_easy_init()) {
  curl_easy_setopt(easy_, CURLOPT_URL, request_.url.c_str());
  curl_easy_setopt(easy_, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy_, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
  curl_easy_setopt(easy_, CURLOPT_NOPROXY, "*");  // a proxy would be measured along
  curl_easy_setopt(easy_, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy_, CURLOPT_DNS_CACHE_TIMEOUT, -1L);
  curl_easy_setopt(easy_, CURLOPT_ERRORBUFFER, error_);
  curl_easy_setopt(easy_, CURLOPT_PRIVATE, this);
  curl_easy_setopt(easy_, CURLOPT_WRITEFUNCTION, Write);
  curl_easy_setopt(easy_, CURLOPT_WRITEDATA, this);
  SetIfGiven(easy_, CURLOPT_CAINFO, options.tls_ca);
  SetIfGiven(easy_, CURLOPT_SSLCERT, options.tls_cert);
  SetIfGiven(easy_, CURLOPT_SSLKEY, options.tls_key);
  if (request_.timeout.has_value()) {
    curl_easy_setopt(easy_, CURLOPT_TIMEOUT_MS,
                     std::max<long>(1, static_cast<long>(absl::ToInt64Milliseconds(*request_.timeout))));
  }
  for (const std::string& header : options.headers) {
    headers_ = curl_slist_append(headers_, header.c_str());
  }
  if (request_.body.has_value()) {
    headers_ = curl_slist_append(headers_, "Content-Type: application/json");
    headers_ = curl_slist_append(headers_, "Expect:");  // no round trip before a long body
    curl_easy_setopt(easy_, CURLOPT_POST, 1L);
    curl_easy_setopt(easy_, CURLOPT_POSTFIELDS, request_.body->data());
    curl_easy_setopt(easy_, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request_.body->size()));
  }
  curl_easy_setopt(easy_, CURLOPT_HTTPHEADER, headers_);
}

HttpExchange::~HttpExchange() {
  curl_easy_cleanup(easy_);
  curl_slist_free_all(headers_);
}

int HttpExchange::status() const {
  long status = 0;
  curl_easy_getinfo(easy_, CURLINFO_RESPONSE_CODE, &status);
  return static_cast<int>(status);
}

std::string HttpExchange::content_type() const {
  const char* type = nullptr;
  curl_easy_getinfo(easy_, CURLINFO_CONTENT_TYPE, &type);
  const absl::string_view text = type == nullptr ? "" : type;
  return absl::AsciiStrToLower(absl::StripAsciiWhitespace(text.substr(0, text.find(';'))));
}

// libcurl's write callback; a short return ends the transfer.
size_t HttpExchange::Write(char* data, size_t size, size_t count, void* self) {
  auto& exchange = *static_cast<HttpExchange*>(self);
  if (!exchange.OnBody({data, size * count})) {
    exchange.unwanted_ = true;
    return 0;
  }
  if (exchange.read_delay_ > absl::ZeroDuration()) {
    exchange.loop_->Pause(exchange);
  }
  return size * count;
}

absl::StatusOr<std::unique_ptr<HttpLoop>> HttpLoop::Create() {
  const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  const int wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  epoll_event event = {EPOLLIN, {.fd = wake_fd}};
  if (epoll_fd < 0 || wake_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, wake_fd, &event) != 0 ||
      curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
    return absl::InternalError(absl::StrCat("cannot start the HTTP client: ", strerror(errno)));
  }
  return std::unique_ptr<HttpLoop>(new HttpLoop(epoll_fd, wake_fd));
}

HttpLoop::HttpLoop(int epoll_fd, int wake_fd) : epoll_fd_(epoll_fd), wake_fd_(wake_fd), multi_(curl_multi_init()) {
  curl_multi_setopt(multi_, CURLMOPT_SOCKETFUNCTION, OnSocket);
  curl_multi_setopt(multi_, CURLMOPT_SOCKETDATA, this);
  curl_multi_setopt(multi_, CURLMOPT_TIMERFUNCTION, OnTimer);
  curl_multi_setopt(multi_, CURLMOPT_TIMERDATA, this);
  curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS, 65536L);  // keep all: the load decides how many there are
  thread_ = std::thread([this] { Run(); });
}

HttpLoop::~HttpLoop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  Wake();
  thread_.join();
  curl_multi_cleanup(multi_);
  curl_global_cleanup();
  close(wake_fd_);
  close(epoll_fd_);
}

void HttpLoop::Start(HttpExchange& exchange) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    exchange.loop_ = this;
    exchange.id_ = next_id_++;
    orders_.push_back({exchange.id_, &exchange});
  }
  Wake();
}

void HttpLoop::Cancel(HttpExchange& exchange) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    orders_.push_back({exchange.id_, nullptr});
  }
  Wake();
}

void HttpLoop::Wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_fd_, &one, sizeof one);  // full: it is awake anyway
}

// libcurl tells which sockets it waits for.
int HttpLoop::OnSocket(CURL*, curl_socket_t socket, int what, void* self, void* known) {
  auto& loop = *static_cast<HttpLoop*>(self);
  if (what == CURL_POLL_REMOVE) {
    epoll_ctl(loop.epoll_fd_, EPOLL_CTL_DEL, socket, nullptr);
    return 0;
  }
  epoll_event event = {};
  event.events = (what & CURL_POLL_IN) != 0 ? EPOLLIN : 0U;
  event.events |= (what & CURL_POLL_OUT) != 0 ? EPOLLOUT : 0U;
  event.data.fd = socket;
  epoll_ctl(loop.epoll_fd_, known == nullptr ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, socket, &event);
  curl_multi_assign(loop.multi_, socket, &loop);  // known from now on
  return 0;
}

int HttpLoop::OnTimer(CURLM*, long timeout_ms, void* self) {
  auto& loop = *static_cast<HttpLoop*>(self);
  loop.timer_.reset();
  if (timeout_ms >= 0) {
    loop.timer_ = Clock::now() + std::chrono::milliseconds(timeout_ms);
  }
  return 0;
}

int HttpLoop::WaitMs() const {
  std::optional<Clock::time_point> next = timer_;
  if (!paused_until_.empty()) {
    next = std::min(next.value_or(Clock::time_point::max()), paused_until_.begin()->first);
  }
  if (!next.has_value()) {
    return -1;
  }
  const auto wait = std::chrono::ceil<std::chrono::milliseconds>(*next - Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(wait, 0, 60'000));
}

void HttpLoop::Run() {
  std::array<epoll_event, kEventsAtOnce> events;
  while (true) {
    const int count = epoll_wait(epoll_fd_, events.data(), events.size(), WaitMs());
    int running = 0;
    for (int i = 0; i < count; ++i) {
      if (events[i].data.fd == wake_fd_) {
        uint64_t drained;
        [[maybe_unused]] const ssize_t got = read(wake_fd_, &drained, sizeof drained);
        if (!TakeOrders()) {
          return;
        }
        continue;
      }
      const uint32_t seen = events[i].events;
      curl_multi_socket_action(multi_, events[i].data.fd,
                               ((seen & EPOLLIN) != 0 ? CURL_CSELECT_IN : 0) |
                                   ((seen & EPOLLOUT) != 0 ? CURL_CSELECT_OUT : 0) |
                                   ((seen & (EPOLLERR | EPOLLHUP)) != 0 ? CURL_CSELECT_ERR : 0),
                               &running);
    }
    if (timer_.has_value() && Clock::now() >= *timer_) {
      timer_.reset();
      curl_multi_socket_action(multi_, CURL_SOCKET_TIMEOUT, 0, &running);
    }
    ResumeDue();
    ReapDone();
  }
}

bool HttpLoop::TakeOrders() {
  std::vector<Order> orders;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stop_) {
      return false;
    }
    orders.swap(orders_);
  }
  for (const Order& order : orders) {
    if (order.start != nullptr) {
      live_[order.id] = order.start;
      order.start->OnStart();
      curl_multi_add_handle(multi_, order.start->easy_);
    } else if (const auto found = live_.find(order.id); found != live_.end()) {
      End(*found->second, CURLE_OK, /*cancelled=*/true);
    }
  }
  return true;
}

void HttpLoop::Pause(HttpExchange& exchange) {
  curl_easy_pause(exchange.easy_, CURLPAUSE_RECV);
  paused_until_.emplace(Clock::now() + absl::ToChronoNanoseconds(exchange.read_delay_), exchange.id_);
}

void HttpLoop::ResumeDue() {
  while (!paused_until_.empty() && paused_until_.begin()->first <= Clock::now()) {
    const uint64_t id = paused_until_.begin()->second;
    paused_until_.erase(paused_until_.begin());
    if (const auto found = live_.find(id); found != live_.end()) {
      curl_easy_pause(found->second->easy_, CURLPAUSE_CONT);
    }
  }
}

void HttpLoop::ReapDone() {
  int left = 0;
  while (const CURLMsg* message = curl_multi_info_read(multi_, &left)) {
    if (message->msg == CURLMSG_DONE) {
      const CURLcode code = message->data.result;
      char* exchange = nullptr;
      curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &exchange);
      End(*reinterpret_cast<HttpExchange*>(exchange), code, /*cancelled=*/false);
    }
  }
}

void HttpLoop::End(HttpExchange& exchange, CURLcode code, bool cancelled) {
  curl_multi_remove_handle(multi_, exchange.easy_);
  live_.erase(exchange.id_);
  HttpEnd end;
  end.status = exchange.status();
  end.cancelled = cancelled || exchange.unwanted_;
  end.timed_out = code == CURLE_OPERATION_TIMEDOUT;
  if (code != CURLE_OK) {
    end.error = exchange.error_[0] != '\0' ? exchange.error_ : curl_easy_strerror(code);
  }
  curl_off_t retry_after_s = 0;
  curl_easy_getinfo(exchange.easy_, CURLINFO_RETRY_AFTER, &retry_after_s);
  if (retry_after_s > 0) {
    end.retry_after = absl::Seconds(retry_after_s);
  }
  exchange.OnEnd(end);
}

namespace {

class Fetch final : public HttpExchange {
 public:
  using HttpExchange::HttpExchange;

  HttpEnd Await() {
    std::unique_lock<std::mutex> lock(mutex_);
    ended_.wait(lock, [this] { return end_.has_value(); });
    return *end_;
  }
  const std::string& body() const { return body_; }

 private:
  bool OnBody(absl::string_view bytes) override {
    body_.append(bytes.data(), bytes.size());
    return body_.size() <= kMaxFetchBytes;
  }
  void OnEnd(const HttpEnd& end) override {
    std::lock_guard<std::mutex> lock(mutex_);
    end_ = end;
    ended_.notify_one();
  }

  std::string body_;
  std::mutex mutex_;
  std::condition_variable ended_;
  std::optional<HttpEnd> end_;  // guarded by mutex_
};

}  // namespace

absl::StatusOr<std::string> HttpFetch(HttpLoop& loop, const HttpOptions& options, HttpRequest request) {
  const std::string url = request.url;
  Fetch fetch(options, std::move(request));
  loop.Start(fetch);
  const HttpEnd end = fetch.Await();
  if (!end.error.empty()) {
    return absl::UnavailableError(absl::StrCat(url, ": ", end.error));
  }
  if (end.status != 200) {
    const std::string message = absl::StrCat(url, ": HTTP ", end.status);
    return end.status == 404 ? absl::NotFoundError(message) : absl::UnavailableError(message);
  }
  return fetch.body();
}

}  // namespace quire::client
