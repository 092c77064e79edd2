// HTTP/1.1 exchanges, thousands at once, on one thread: libcurl's multi-socket interface over epoll.
//
// Connections are kept alive and used again. Everything that an exchange hears comes on the loop's thread.

#ifndef QUIRE_CLIENT_LOAD_HTTP_LOOP_H_
#define QUIRE_CLIENT_LOAD_HTTP_LOOP_H_

#include <curl/curl.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace quire::client {

// What every exchange of one server shares.
struct HttpOptions {
  std::string tls_ca, tls_cert, tls_key;  // files; empty: the system's authorities, no certificate
  std::vector<std::string> headers;       // "Name: value"
};

struct HttpRequest {
  std::string url;
  std::optional<std::string> body;  // posted as JSON; absent: GET
  std::optional<absl::Duration> timeout;
};

struct HttpEnd {
  int status = 0;     // 0: no answer began
  std::string error;  // of the transport, one line; empty: the whole answer came
  bool timed_out = false;
  bool cancelled = false;
  std::optional<absl::Duration> retry_after;
};

class HttpLoop;

// One request and its answer. Derive from it and give it to HttpLoop::Start; destroy it after OnEnd.
class HttpExchange {
 public:
  HttpExchange(const HttpOptions& options, HttpRequest request);
  virtual ~HttpExchange();
  HttpExchange(const HttpExchange&) = delete;
  HttpExchange& operator=(const HttpExchange&) = delete;

 protected:
  virtual void OnStart() {}                           // as it goes out
  virtual bool OnBody(absl::string_view bytes) = 0;   // false: cancel the rest
  virtual void OnEnd(const HttpEnd& end) = 0;         // last and once; it may be destroyed from its begin on
  int status() const;                                 // of the answer, when OnBody is called
  std::string content_type() const;                   // the same; without parameters
  absl::Duration read_delay_ = absl::ZeroDuration();  // reading pauses so long behind each OnBody

 private:
  friend class HttpLoop;
  static size_t Write(char* data, size_t size, size_t count, void* self);

  const HttpRequest request_;
  CURL* const easy_;
  curl_slist* headers_ = nullptr;
  char error_[CURL_ERROR_SIZE] = "";
  HttpLoop* loop_ = nullptr;  // null before Start
  uint64_t id_ = 0;           // of this exchange in its loop
  bool unwanted_ = false;     // OnBody said so
};

class HttpLoop {
 public:
  static absl::StatusOr<std::unique_ptr<HttpLoop>> Create();
  ~HttpLoop();  // REQUIRES: every exchange has ended
  HttpLoop(const HttpLoop&) = delete;
  HttpLoop& operator=(const HttpLoop&) = delete;

  // Any thread.
  void Start(HttpExchange& exchange);

  // Ends it soon, if it has not ended; OnEnd comes all the same. Any thread.
  void Cancel(HttpExchange& exchange);

 private:
  friend class HttpExchange;
  using Clock = std::chrono::steady_clock;

  struct Order {
    uint64_t id;
    HttpExchange* start;  // null: cancel
  };

  HttpLoop(int epoll_fd, int wake_fd);
  static int OnSocket(CURL* easy, curl_socket_t socket, int what, void* self, void* known);
  static int OnTimer(CURLM* multi, long timeout_ms, void* self);

  void Run();
  void Wake();
  int WaitMs() const;
  bool TakeOrders();  // false: stop
  void ResumeDue();
  void ReapDone();
  void End(HttpExchange& exchange, CURLcode code, bool cancelled);
  void Pause(HttpExchange& exchange);

  const int epoll_fd_;
  const int wake_fd_;  // an eventfd
  CURLM* const multi_;
  std::optional<Clock::time_point> timer_;                   // when libcurl wants to be called
  std::unordered_map<uint64_t, HttpExchange*> live_;         // of the loop's thread, by id
  std::multimap<Clock::time_point, uint64_t> paused_until_;  // of the loop's thread
  std::mutex mutex_;
  std::vector<Order> orders_;  // guarded by mutex_
  uint64_t next_id_ = 1;       // guarded by mutex_
  bool stop_ = false;          // guarded by mutex_
  std::thread thread_;
};

// One exchange, awaited. OK: the body of an answer of status 200; else UNAVAILABLE, or NOT_FOUND for status 404.
absl::StatusOr<std::string> HttpFetch(HttpLoop& loop, const HttpOptions& options, HttpRequest request);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_HTTP_LOOP_H_
