// `quire status`: model, health and load of a daemon in one screen.

#ifndef QUIRE_CLIENT_STATUS_H_
#define QUIRE_CLIENT_STATUS_H_

#include <string>

#include "client/channel.h"
#include "client/io.h"

namespace quire::client {

struct StatusOptions {
  ConnectionOptions connection;
  // HOST:PORT of the admin listener; empty: port 9400 of the target's host. If nobody answers there, the load is not
  // available.
  std::string admin;
  bool json = false;
  bool watch = false;  // again every second, until interrupted
};

int RunStatus(const StatusOptions& options, Io& io);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_STATUS_H_
