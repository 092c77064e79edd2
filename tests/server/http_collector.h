// An HTTP server for tests that takes POSTs, keeps them and answers as it was told.

#ifndef QUIRE_TESTS_SERVER_HTTP_COLLECTOR_H_
#define QUIRE_TESTS_SERVER_HTTP_COLLECTOR_H_

#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "tests/fake_http_server.h"

namespace quire {

class HttpCollector {
 public:
  using Post = FakeHttpServer::Request;

  HttpCollector() : server_([this](const Post& post, FakeHttpServer::Reply& reply) { Take(post, reply); }) {}
  ~HttpCollector() { Release(); }

  std::string url() const { return server_.url() + "/v1/traces"; }

  // The next answers, one for each POST; then all are 200 with an empty object.
  void Answer(int status, std::string body = "{}") {
    const std::lock_guard lock(mutex_);
    answers_.emplace_back(status, std::move(body));
  }

  // Until Release no POST is answered.
  void Hold() {
    const std::lock_guard lock(mutex_);
    held_ = true;
  }
  void Release() {
    const std::lock_guard lock(mutex_);
    held_ = false;
    changed_.notify_all();
  }

  // Waits until there were so many POSTs.
  std::vector<Post> Await(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return posts_.size() >= count; });
    return posts_;
  }

 private:
  void Take(const Post& post, FakeHttpServer::Reply& reply) {
    std::pair<int, std::string> answer{200, "{}"};
    {
      std::unique_lock lock(mutex_);
      posts_.push_back(post);
      changed_.notify_all();
      changed_.wait(lock, [this] { return !held_; });
      if (!answers_.empty()) {
        answer = std::move(answers_.front());
        answers_.pop_front();
      }
    }
    reply.Full(answer.first, "application/json", answer.second);
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<int, std::string>> answers_;  // guarded by mutex_
  std::vector<Post> posts_;                          // guarded by mutex_
  bool held_ = false;                                // guarded by mutex_
  FakeHttpServer server_;                            // its threads use the others
};

}  // namespace quire

#endif  // QUIRE_TESTS_SERVER_HTTP_COLLECTOR_H_
