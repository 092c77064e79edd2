// Acceptor: connections are handed over, and descriptors that run out close it to nobody for good.

#include "server/acceptor.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "server/listen_socket.h"

namespace quire {
namespace {

int NewSocket() { return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); }

void Connect(int fd, uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
}

// What comes back: the letter that the test's sink writes, or 0 where the connection was closed.
char Answer(int fd) {
  char letter = 0;
  return recv(fd, &letter, 1, 0) == 1 ? letter : char{0};
}

class AcceptorTest : public testing::Test {
 protected:
  AcceptorTest() {
    getrlimit(RLIMIT_NOFILE, &limit_);
    auto sockets = ListenSocket::OpenAll({"127.0.0.1", 0}, "--listen");
    EXPECT_TRUE(sockets.ok()) << sockets.status();
    port_ = (*sockets)[0].port();
    acceptor_ = std::make_unique<Acceptor>(*std::move(sockets), [](int /*listener_fd*/, int fd) {
      EXPECT_EQ(send(fd, "a", 1, MSG_NOSIGNAL), 1);
      close(fd);
    });
  }
  ~AcceptorTest() override { setrlimit(RLIMIT_NOFILE, &limit_); }

  // From now on the process may have `count` descriptors more than it has.
  void LeaveDescriptors(rlim_t count) const {
    const int lowest_free = dup(STDIN_FILENO);
    close(lowest_free);
    const rlimit limit = {.rlim_cur = static_cast<rlim_t>(lowest_free) + count, .rlim_max = limit_.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  }

  rlimit limit_{};
  uint16_t port_ = 0;
  std::unique_ptr<Acceptor> acceptor_;
};

TEST_F(AcceptorTest, HandsConnectionsOver) {
  for (int i = 0; i < 100; ++i) {
    const int client = NewSocket();
    Connect(client, port_);
    EXPECT_EQ(Answer(client), 'a');
    close(client);
  }
}

TEST_F(AcceptorTest, RefusesWhatWouldTakeAReservedDescriptorAndGoesOn) {
  const int refused = NewSocket(), served = NewSocket();
  LeaveDescriptors(1);  // an eighth of all is kept: this one is
  Connect(refused, port_);
  EXPECT_EQ(Answer(refused), 0);
  setrlimit(RLIMIT_NOFILE, &limit_);
  Connect(served, port_);
  EXPECT_EQ(Answer(served), 'a');
  close(refused);
  close(served);
}

TEST_F(AcceptorTest, TriesAgainWhenNoDescriptorWasLeft) {
  const int client = NewSocket();
  LeaveDescriptors(0);
  Connect(client, port_);  // the system takes it; accept fails
  setrlimit(RLIMIT_NOFILE, &limit_);
  EXPECT_EQ(Answer(client), 'a');
  close(client);
}

TEST_F(AcceptorTest, ClosesItsSocketsWhenItStops) {
  acceptor_->Stop();
  acceptor_->Stop();
  EXPECT_TRUE(ListenSocket::Open({"127.0.0.1", port_}, "--listen").ok());
}

TEST(ListenSocketTest, AnyAddressIsThatOfBothFamilies) {
  for (const char* any : {"0.0.0.0", "::"}) {
    const auto listening = ListenSocket::Open({any, 0}, "--listen");
    ASSERT_TRUE(listening.ok()) << listening.status();
    const int ipv4 = NewSocket();
    Connect(ipv4, listening->port());
    close(ipv4);
    const int ipv6 = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(listening->port());
    address.sin6_addr = in6addr_loopback;
    const bool connected = connect(ipv6, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    EXPECT_TRUE(connected || errno == EADDRNOTAVAIL || errno == EAFNOSUPPORT || errno == ENETUNREACH || errno == EBADF)
        << errno;  // the machine may have no IPv6
    if (ipv6 >= 0) close(ipv6);
    EXPECT_FALSE(ListenSocket::Open({"0.0.0.0", listening->port()}, "--listen").ok());
    EXPECT_FALSE(ListenSocket::Open({"127.0.0.1", listening->port()}, "--listen").ok());
  }
}

TEST(ListenSocketTest, AllAddressesOfAHostHaveOnePort) {
  const auto sockets = ListenSocket::OpenAll({"localhost", 0}, "--listen");
  ASSERT_TRUE(sockets.ok()) << sockets.status();
  for (const ListenSocket& socket : *sockets) EXPECT_EQ(socket.port(), (*sockets)[0].port());
  const auto taken = ListenSocket::OpenAll({"localhost", (*sockets)[0].port()}, "--listen");
  EXPECT_EQ(taken.status().message().substr(0, 18), "--listen localhost");
}

}  // namespace
}  // namespace quire
