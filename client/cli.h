// The command line of `quire`: its subcommands and their flags.

#ifndef QUIRE_CLIENT_CLI_H_
#define QUIRE_CLIENT_CLI_H_

#include "client/io.h"

namespace quire::client {

// Parses and runs one command; the exit code. A usage error is one line on io.err and kExitUsage.
int RunCli(int argc, const char* const* argv, Io& io);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_CLI_H_
