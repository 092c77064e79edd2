// How a warpgroup's product (wgmma) is told where in shared memory a matrix of 16-bit elements lies: the matrix
// descriptor of the PTX ISA ("Asynchronous Warpgroup Level Matrix Shared Memory Layout"). Plain C++: the emulation of
// the tests decodes the same bits.
//
// One layout is enough for us, swizzled by 128 bytes: rows of 64 elements, 128 bytes each, one behind the other, eight
// to an atom of 1024 bytes, of which the unit of 16 bytes u of row r lies where unit u ^ (r % 8) would. Atoms begin at
// multiples of 1024. Read along its rows (B's columns are the matrix's rows: K-major) or across them (transposed, the
// rows are B's rows: MN-major), eight rows are followed by the next eight at the stride; a column of atoms is a matrix
// of its own, so the leading dimension's offset is not used.

#ifndef QUIRE_KERNELS_CUDA_SHARED_MATRIX_H_
#define QUIRE_KERNELS_CUDA_SHARED_MATRIX_H_

#include <cstdint>

#include "kernels/cuda/numbers.h"

namespace quire::cuda {

struct SharedMatrix {
  static constexpr int kRowBytes = 128;
  static constexpr int kAtomBytes = 8 * kRowBytes;

  static constexpr int kLeadingShift = 16, kStrideShift = 32, kBaseShift = 49, kSwizzleShift = 62;
  static constexpr uint64_t kSwizzle128 = 1;

  // Bits 0..13: address / 16. 16..29: leading dimension's offset / 16, 1 by convention where it is not used. 32..45:
  // from one atom to the next, / 16. 49..51: 0, for atoms are aligned. 62..63: the swizzle.
  uint64_t bits;

  static QUIRE_DEVICE SharedMatrix At(uint32_t address) {
    return {kSwizzle128 << kSwizzleShift | uint64_t{kAtomBytes / 16} << kStrideShift | uint64_t{1} << kLeadingShift |
            uint64_t{(address & 0x3ffff) / 16}};
  }
  // What begins `bytes` behind it: other rows, at multiples of atoms, or other columns of its rows. The swizzle is of
  // addresses, so that it stays right.
  QUIRE_DEVICE SharedMatrix From(int bytes) const { return {bits + static_cast<uint64_t>(bytes / 16)}; }
};

}  // namespace quire::cuda

#endif  // QUIRE_KERNELS_CUDA_SHARED_MATRIX_H_
