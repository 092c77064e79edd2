// BlockHash: what a full block of tokens is called in the prefix index.
//
//   hash[i] = SHA-256(hash[i-1] || tokens of block i as little-endian uint32),   hash[-1] = SHA-256("quire.v1" || salt)
//
// A hash names the whole prefix up to and including its block, so equal hashes mean equal prefixes under the same salt
// (SHA-256: a client cannot forge a collision, CVE-2025-25183). The salt separates tenants (CVE-2025-46570).
//
// Each group of layers has blocks of its own for the same tokens; InGroup tells their names apart.
//
// Thread: functions of their arguments; any thread. Hashing a prompt is done where it is tokenized, not on the engine
// thread.

#ifndef QUIRE_KVCACHE_BLOCK_HASH_H_
#define QUIRE_KVCACHE_BLOCK_HASH_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace quire {

using BlockHash = std::array<uint8_t, 32>;

// The hash before the first block.
BlockHash RootHash(absl::string_view salt);

// The hash of a full block after `parent`.
BlockHash NextHash(const BlockHash& parent, absl::Span<const uint32_t> block_tokens);

// The hashes of all full blocks of `tokens`, in order: floor(tokens.size() / block_size) of them.
std::vector<BlockHash> HashBlocks(absl::string_view salt, absl::Span<const uint32_t> tokens, int32_t block_size);

// The name, in the index, of the block of a group. Of the group 0 it is the hash itself. Two names are equal only where
// two hashes differ in nothing but the bits of the groups, which nobody can find, no more than a collision.
inline BlockHash InGroup(BlockHash hash, int32_t group) {
  hash[0] ^= static_cast<uint8_t>(group);
  hash[1] ^= static_cast<uint8_t>(group >> 8);
  return hash;
}

}  // namespace quire

#endif  // QUIRE_KVCACHE_BLOCK_HASH_H_
