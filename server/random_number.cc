#include "server/random_number.h"

#include <sys/random.h>

#include "kernels/check.h"

namespace quire {

uint64_t RandomNumber() {
  uint64_t number = 0;
  Check(getrandom(&number, sizeof number, 0) == sizeof number, "getrandom gives eight bytes");
  return number;
}

}  // namespace quire
