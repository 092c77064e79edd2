// Philox4x32-10, a counter-based random number generator (Salmon et al. 2011, "Parallel random numbers: as easy as 1,
// 2, 3", §3.3): ten rounds of a keyed bijection of 128-bit counters. No state: the number is a function of (key,
// counter).

#ifndef QUIRE_KERNELS_SAMPLING_PHILOX_H_
#define QUIRE_KERNELS_SAMPLING_PHILOX_H_

#include <array>
#include <cstdint>

namespace quire {

constexpr std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9;  // the golden ratio
    key[1] += 0xBB67AE85;  // sqrt(3) - 1
  }
  return counter;
}

// The 64 random bits that draw the token at `position` of a sequence with this seed.
constexpr uint64_t RandomBits(uint64_t seed, uint64_t position) {
  const std::array<uint32_t, 4> words =
      Philox4x32({static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0, 0},
                 {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return uint64_t{words[1]} << 32 | words[0];
}

__extension__ typedef unsigned __int128 Uint128;

// A number uniform in [0, bound): the upper half of bits * bound. Bias below bound / 2^64.
constexpr uint64_t RandomBelow(uint64_t bits, uint64_t bound) {
  return static_cast<uint64_t>((static_cast<Uint128>(bits) * bound) >> 64);
}

}  // namespace quire

#endif  // QUIRE_KERNELS_SAMPLING_PHILOX_H_
