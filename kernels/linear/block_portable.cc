#include "kernels/cpu/vector_portable.h"
// The vector comes first: the kernels are written in terms of it.
namespace quire {
namespace {

struct Int {
  typedef uint32_t U __attribute__((vector_size(16)));
  typedef int32_t V __attribute__((vector_size(16)));
  struct X {
    int32_t at[4];
  };
  static constexpr int kDot8Offset = 128;

  static V Set1(int32_t a) { return V{a, a, a, a}; }
  static V Load(const uint32_t* p) {
    V a;
    __builtin_memcpy(&a, p, sizeof a);
    return a;
  }
  static V Bits(V a, int shift, uint32_t mask) { return (V)(((U)a >> static_cast<uint32_t>(shift)) & mask); }
  static V ShiftLeft(V a, int shift) { return (V)((U)a << static_cast<uint32_t>(shift)); }
  static V Or(V a, V b) { return a | b; }
  static V Lookup(const uint8_t* table, V codes) {
    uint8_t bytes[16];
    __builtin_memcpy(bytes, &codes, sizeof bytes);
    for (uint8_t& byte : bytes) byte = table[byte];
    __builtin_memcpy(&codes, bytes, sizeof bytes);
    return codes;
  }
  static X Broadcast(const int8_t* x) { return {{x[0], x[1], x[2], x[3]}}; }
  static V Dot(V sum, V codes, const X& x) {
    for (uint32_t j = 0; j < 4; ++j) sum += (V)(((U)codes >> (8 * j)) & 0xffu) * x.at[j];
    return sum;
  }
  static V Dot8(V sum, V codes, const X& x) { return Dot(sum, codes, x); }
  static Vector::F ToFloat(V a) { return __builtin_convertvector(a, Vector::F); }
  static Vector::F LoadInt8(const int8_t* p) { return ToFloat(V{p[0], p[1], p[2], p[3]}); }
};

}  // namespace
}  // namespace quire

#include "kernels/linear/block_panel.h"

namespace quire {

const BlockKernels& PortableBlockKernels() { return kBlockTable; }

}  // namespace quire
