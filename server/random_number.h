// Numbers that nobody can guess from earlier ones: seeds, names of requests, ids of spans.

#ifndef QUIRE_SERVER_RANDOM_NUMBER_H_
#define QUIRE_SERVER_RANDOM_NUMBER_H_

#include <cstdint>

namespace quire {

// 64 bits from the kernel. Thread: any.
uint64_t RandomNumber();

}  // namespace quire

#endif  // QUIRE_SERVER_RANDOM_NUMBER_H_
