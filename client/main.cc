// quire: the client of quired.

#include <unistd.h>

#include <iostream>

#include "client/cli.h"

int main(int argc, char** argv) {
  quire::client::Io io{std::cin, std::cout, std::cerr, isatty(STDOUT_FILENO) == 1, isatty(STDERR_FILENO) == 1};
  return quire::client::RunCli(argc, argv, io);
}
