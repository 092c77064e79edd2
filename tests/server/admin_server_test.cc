// AdminServer: its pages, and what is refused.

#include "server/admin_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

namespace quire {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

AdminServer::Pages Pages(bool live, bool ready) {
  return {[] { return std::string("a_metric 1\n"); }, [live] { return live; }, [ready] { return ready; }};
}

TEST(AdminServerTest, AnswersByPath) {
  const AdminServer::Pages draining = Pages(true, false);
  EXPECT_EQ(AdminServer::Answer(draining, "GET", "/livez").status, 200u);
  EXPECT_EQ(AdminServer::Answer(draining, "GET", "/readyz").status, 503u);
  EXPECT_EQ(AdminServer::Answer(draining, "GET", "/health").status, 503u);
  EXPECT_EQ(AdminServer::Answer(draining, "GET", "/metrics").body, "a_metric 1\n");
  EXPECT_EQ(AdminServer::Answer(draining, "GET", "/").status, 404u);
  EXPECT_EQ(AdminServer::Answer(draining, "POST", "/metrics").status, 405u);
  EXPECT_EQ(AdminServer::Answer(Pages(false, true), "HEAD", "/livez").status, 503u);
}

// A connection to a port of this machine.
int Connect(uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  return fd;
}

// Sends bytes to a port of this machine and returns all that comes back.
std::string Exchange(uint16_t port, const std::string& request) {
  const int fd = Connect(port);
  EXPECT_EQ(send(fd, request.data(), request.size(), MSG_NOSIGNAL), static_cast<ssize_t>(request.size()));
  std::string reply;
  char buffer[4096];
  for (ssize_t n; (n = recv(fd, buffer, sizeof buffer, 0)) > 0;) reply.append(buffer, static_cast<size_t>(n));
  close(fd);
  return reply;
}

TEST(AdminServerTest, ServesOverHttp) {
  const auto server = AdminServer::Start({"127.0.0.1", 0}, Pages(true, true));
  ASSERT_TRUE(server.ok()) << server.status();
  const uint16_t port = (*server)->port();
  const std::string end = " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
  EXPECT_THAT(Exchange(port, "GET /metrics" + end + "\r\n"),
              ::testing::AllOf(StartsWith("HTTP/1.1 200"), HasSubstr("a_metric 1\n")));
  EXPECT_THAT(Exchange(port, "GET /nothing" + end + "\r\n"), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(Exchange(port, "POST /metrics" + end + "Content-Length: 3\r\n\r\nabc"), StartsWith("HTTP/1.1 405"));
}

TEST(AdminServerTest, AProbeIsAnsweredBesideConnectionsThatSayNothing) {
  const auto server = AdminServer::Start({"127.0.0.1", 0}, Pages(true, true));
  ASSERT_TRUE(server.ok()) << server.status();
  std::vector<int> silent;
  for (int i = 0; i < 200; ++i) {
    silent.push_back(Connect((*server)->port()));
    if (i % 2 == 0) {
      EXPECT_EQ(send(silent.back(), "GET /metr", 9, MSG_NOSIGNAL), 9);
    }
  }
  EXPECT_THAT(Exchange((*server)->port(), "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
              StartsWith("HTTP/1.1 200"));
  for (const int fd : silent) close(fd);
}

TEST(AdminServerTest, ATakenPortIsNamed) {
  const auto first = AdminServer::Start({"127.0.0.1", 0}, Pages(true, true));
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = AdminServer::Start({"127.0.0.1", (*first)->port()}, Pages(true, true));
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr("--admin-listen 127.0.0.1:" + std::to_string((*first)->port())));
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("in use"));
}

}  // namespace
}  // namespace quire
