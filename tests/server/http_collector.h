// An HTTP server for tests: takes POSTs one after the other, keeps their bodies and answers as it was told.

#ifndef QUIRE_TESTS_SERVER_HTTP_COLLECTOR_H_
#define QUIRE_TESTS_SERVER_HTTP_COLLECTOR_H_

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace quire {

class HttpCollector {
 public:
  struct Post {
    std::string head;  // request line and headers
    std::string body;
  };

  HttpCollector() : listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener_, 16) != 0) abort();
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Serve(); });
  }
  ~HttpCollector() {
    Release();
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
  }
  HttpCollector(const HttpCollector&) = delete;
  HttpCollector& operator=(const HttpCollector&) = delete;

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_) + "/v1/traces"; }

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
  void Serve() {
    for (int fd; (fd = accept(listener_, nullptr, nullptr)) >= 0;) {
      Converse(fd);
      close(fd);
    }
  }

  // One request on each connection.
  void Converse(int fd) {
    std::string bytes;
    size_t head_size = std::string::npos, body_size = 0;
    while (head_size == std::string::npos || bytes.size() < head_size + body_size) {
      char buffer[16384];
      const ssize_t n = recv(fd, buffer, sizeof buffer, 0);
      if (n <= 0) return;
      bytes.append(buffer, static_cast<size_t>(n));
      if (head_size == std::string::npos && (head_size = bytes.find("\r\n\r\n")) != std::string::npos) {
        head_size += 4;
        const size_t length = bytes.find("Content-Length: ");
        body_size = length < head_size ? std::stoul(bytes.substr(length + 16)) : 0;
      }
    }
    std::pair<int, std::string> answer{200, "{}"};
    {
      std::unique_lock lock(mutex_);
      posts_.push_back({bytes.substr(0, head_size), bytes.substr(head_size)});
      changed_.notify_all();
      changed_.wait(lock, [this] { return !held_; });
      if (!answers_.empty()) {
        answer = std::move(answers_.front());
        answers_.pop_front();
      }
    }
    const std::string reply = "HTTP/1.1 " + std::to_string(answer.first) +
                              " So\r\nConnection: close\r\nContent-Length: " + std::to_string(answer.second.size()) +
                              "\r\n\r\n" + answer.second;
    send(fd, reply.data(), reply.size(), MSG_NOSIGNAL);
  }

  const int listener_;
  int port_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<int, std::string>> answers_;
  std::vector<Post> posts_;
  bool held_ = false;
  std::thread thread_;
};

}  // namespace quire

#endif  // QUIRE_TESTS_SERVER_HTTP_COLLECTOR_H_
