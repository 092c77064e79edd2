#include "kernels/check.h"

#include <cstdio>
#include <cstdlib>

namespace quire {

void CheckFailed(const char* what, const char* file, int line) {
  std::fprintf(stderr, "quire: check failed: %s (%s:%d)\n", what, file, line);
  std::abort();
}

}  // namespace quire
