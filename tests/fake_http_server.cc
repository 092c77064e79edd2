#include "tests/fake_http_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace quire {

bool FakeHttpServer::Reply::Raw(const std::string& bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t sent = send(fd_, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
    if (sent <= 0) {
      return false;
    }
    done += static_cast<size_t>(sent);
  }
  return true;
}

void FakeHttpServer::Reply::Full(int status, const std::string& type, const std::string& body,
                                 const std::string& headers) {
  Raw(absl::StrCat("HTTP/1.1 ", status, " X\r\nContent-Type: ", type, "\r\nContent-Length: ", body.size(), "\r\n",
                   headers, "\r\n", body));
}

void FakeHttpServer::Reply::BeginEvents() {
  Raw("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n");
}

bool FakeHttpServer::Reply::Piece(const std::string& bytes) {
  return Raw(absl::StrFormat("%x\r\n%s\r\n", bytes.size(), bytes));
}

void FakeHttpServer::Reply::Close() { shutdown(fd_, SHUT_RDWR); }

FakeHttpServer::FakeHttpServer(Handler handler) : handler_(std::move(handler)) {
  listen_fd_ = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(listen_fd_, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listen_fd_, 128) != 0 ||
      getsockname(listen_fd_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    std::abort();
  }
  port_ = ntohs(address.sin_port);
  accepting_ = std::thread([this] { Accept(); });
}

FakeHttpServer::~FakeHttpServer() {
  shutdown(listen_fd_, SHUT_RDWR);
  accepting_.join();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (int fd : fds_) {
      shutdown(fd, SHUT_RDWR);
    }
  }
  for (std::thread& thread : threads_) {
    thread.join();
  }
  for (int fd : fds_) {
    close(fd);
  }
  close(listen_fd_);
}

std::string FakeHttpServer::url() const { return absl::StrCat("http://127.0.0.1:", port_); }

size_t FakeHttpServer::num_connections() {
  std::lock_guard<std::mutex> lock(mutex_);
  return fds_.size();
}

std::vector<FakeHttpServer::Request> FakeHttpServer::requests() {
  std::lock_guard<std::mutex> lock(mutex_);
  return requests_;
}

void FakeHttpServer::Accept() {
  for (int fd; (fd = accept(listen_fd_, nullptr, nullptr)) >= 0;) {
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // its pieces are small, and none waits for another
    {
      std::lock_guard<std::mutex> lock(mutex_);
      fds_.push_back(fd);
    }
    threads_.emplace_back([this, fd] { Serve(fd); });
  }
}

void FakeHttpServer::Serve(int fd) {
  std::string bytes;
  while (true) {
    size_t head_end, body_size = 0;
    while ((head_end = bytes.find("\r\n\r\n")) == std::string::npos ||
           bytes.size() < head_end + 4 +
                              (body_size = bytes.find("Content-Length: ") < head_end
                                               ? std::strtoul(&bytes[bytes.find("Content-Length: ") + 16], nullptr, 10)
                                               : 0)) {
      char piece[4096];
      const ssize_t got = recv(fd, piece, sizeof piece, 0);
      if (got <= 0) {
        return;
      }
      bytes.append(piece, static_cast<size_t>(got));
    }
    Request request;
    const size_t space = bytes.find(' '), second = bytes.find(' ', space + 1);
    request.method = bytes.substr(0, space);
    request.path = bytes.substr(space + 1, second - space - 1);
    request.head = bytes.substr(0, head_end + 2);
    request.body = bytes.substr(head_end + 4, body_size);
    bytes.erase(0, head_end + 4 + body_size);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      requests_.push_back(request);
    }
    Reply reply(fd);
    handler_(request, reply);
  }
}

}  // namespace quire
