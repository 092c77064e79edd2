// Encoding's speed on one core: prose, and the runs of one character that trap tokenizers.
//
//   quire_tokenizer_bench PROSE.txt MODEL...    each a directory with tokenizer.json or tokenizer.model, or a .gguf
//   file
//
// Figures are of this thread's own processor time, the best of three, so that a busy machine shows in them little.

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <iterator>
#include <string>

#include "server/tokenizer/tokenizer.h"

namespace quire {
namespace {

constexpr size_t kRunBytes = 1 << 20;

double ThreadSeconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double SecondsToEncode(const Tokenizer& tokenizer, const std::string& text) {
  double best = 1e9;
  for (int i = 0; i < 3; ++i) {
    const double begin = ThreadSeconds();
    tokenizer.Encode(text, false);
    best = std::min(best, ThreadSeconds() - begin);
  }
  return best;
}

std::string Run(const char* unit) {
  std::string text;
  while (text.size() < kRunBytes) {
    text += unit;
  }
  return text;
}

int Main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: quire_tokenizer_bench PROSE.txt MODEL...\n");
    return 1;
  }
  std::ifstream file(argv[1], std::ios::binary);
  const std::string prose{std::istreambuf_iterator<char>(file), {}};
  std::printf("%-44s %10s %9s %9s %9s %9s\n", "model; MB/s of prose, ms for 1 MiB of", "prose", "letters", "spaces",
              "newlines", "marks");
  for (int i = 2; i < argc; ++i) {
    const auto tokenizer = Tokenizer::Load(argv[i]);
    if (!tokenizer.ok()) {
      std::fprintf(stderr, "%s\n", std::string(tokenizer.status().message()).c_str());
      return 1;
    }
    std::printf("%-44s %10.1f", argv[i],
                1e-6 * static_cast<double>(prose.size()) / SecondsToEncode(**tokenizer, prose));
    for (const char* unit : {"a", " ", "\n", "\u0301"}) {
      std::printf(" %9.0f", 1e3 * SecondsToEncode(**tokenizer, Run(unit)));
    }
    std::printf("\n");
  }
  return 0;
}

}  // namespace
}  // namespace quire

int main(int argc, char** argv) { return quire::Main(argc, argv); }
