// A child process for tests: its output by line or whole, its exit code, signals to it. Killed when the object dies.

#ifndef QUIRE_TESTS_SERVER_PROCESS_H_
#define QUIRE_TESTS_SERVER_PROCESS_H_

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace quire {

class Process {
 public:
  // Starts `arguments`[0]. Its stdin is empty; its stderr goes to a file that ReadErrors reads.
  explicit Process(std::vector<std::string> arguments) {
    int out[2];
    if (pipe2(out, O_CLOEXEC) != 0) abort();
    errors_ = tmpfile();
    const int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(nothing, STDIN_FILENO);
      dup2(out[1], STDOUT_FILENO);
      dup2(fileno(errors_), STDERR_FILENO);
      execv(argv[0], argv.data());
      _exit(127);
    }
    close(nothing);
    close(out[1]);
    out_ = fdopen(out[0], "r");
  }
  ~Process() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      Wait();
    }
    fclose(out_);
    fclose(errors_);
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // The next line of stdout, without its end; empty at the end of the output.
  std::string ReadLine() {
    std::string line;
    for (int c; (c = fgetc(out_)) != EOF && c != '\n';) line.push_back(static_cast<char>(c));
    return line;
  }
  std::string ReadAll() {
    std::string text;
    for (int c; (c = fgetc(out_)) != EOF;) text.push_back(static_cast<char>(c));
    return text;
  }
  std::string ReadErrors() {
    std::string text;
    rewind(errors_);
    for (int c; (c = fgetc(errors_)) != EOF;) text.push_back(static_cast<char>(c));
    return text;
  }

  // Whether it takes this signal when it wants to, rather than being ended by it.
  bool Blocks(int number) const {
    std::ifstream status("/proc/" + std::to_string(pid_) + "/status");
    for (std::string line; std::getline(status, line);) {
      if (line.rfind("SigBlk:", 0) == 0) return (std::stoull(line.substr(7), nullptr, 16) >> (number - 1) & 1) != 0;
    }
    return false;
  }
  void Signal(int number) const { kill(pid_, number); }

  // The exit code, or 128 + the signal that ended it.
  int Wait() {
    int status = 0;
    waitpid(std::exchange(pid_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  pid_t pid_ = -1;
  FILE* out_ = nullptr;
  FILE* errors_ = nullptr;
};

}  // namespace quire

#endif  // QUIRE_TESTS_SERVER_PROCESS_H_
