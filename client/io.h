// The standard streams of one command, so that a test can give its own.

#ifndef QUIRE_CLIENT_IO_H_
#define QUIRE_CLIENT_IO_H_

#include <istream>
#include <ostream>

namespace quire::client {

struct Io {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  // Whether a person reads `out` and `err`: prompts, screens that refresh and progress lines are for them only.
  bool out_is_terminal = false;
  bool err_is_terminal = false;
};

// What every command returns to the shell.
enum ExitCode : int {
  kExitOk = 0,
  kExitUsage = 1,
  kExitRpcFailed = 2,
  kExitAssertionMissed = 3,  // of `quire load`
  kExitInterrupted = 130,    // 128 + SIGINT, as shells have it
};

}  // namespace quire::client

#endif  // QUIRE_CLIENT_IO_H_
