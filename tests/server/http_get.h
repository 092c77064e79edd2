// The admin listener's pages, for tests.

#ifndef QUIRE_TESTS_SERVER_HTTP_GET_H_
#define QUIRE_TESTS_SERVER_HTTP_GET_H_

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <sstream>
#include <string>

namespace quire {

// A connection to 127.0.0.1:port, or a negative number.
inline int ConnectTo(uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return fd;
  close(fd);
  return -1;
}

// The reply of 127.0.0.1:port, its status line and headers before the body; empty if there is none.
inline std::string HttpGet(uint16_t port, const std::string& path) {
  const int fd = ConnectTo(port);
  const std::string request = "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
  std::string reply;
  if (fd >= 0 && send(fd, request.data(), request.size(), MSG_NOSIGNAL) > 0) {
    char buffer[4096];
    for (ssize_t n; (n = recv(fd, buffer, sizeof buffer, 0)) > 0;) reply.append(buffer, static_cast<size_t>(n));
  }
  if (fd >= 0) close(fd);
  return reply;
}

// The value of the first series that begins so, in a page of metrics.
inline double SeriesIn(const std::string& page, const std::string& series) {
  std::istringstream lines(page);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind(series, 0) == 0) return std::stod(line.substr(line.rfind(' ') + 1));
  }
  ADD_FAILURE() << "no series " << series;
  return -1;
}

}  // namespace quire

#endif  // QUIRE_TESTS_SERVER_HTTP_GET_H_
