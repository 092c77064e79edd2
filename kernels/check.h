// Check: an invariant of our own code, always on. A failed one names the place and aborts the process.
//
// It is for our mistakes only (a double free of a block, a shape that the caller must have checked). Nothing that a
// client sends and nothing that stands in a model file may reach a Check: those are absl::Status.

#ifndef QUIRE_KERNELS_CHECK_H_
#define QUIRE_KERNELS_CHECK_H_

namespace quire {

[[noreturn]] void CheckFailed(const char* what, const char* file, int line);

// Aborts with `what` and the caller's place unless `condition` holds.
inline void Check(bool condition, const char* what, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (!condition) [[unlikely]] {
    CheckFailed(what, file, line);
  }
}

}  // namespace quire

#endif  // QUIRE_KERNELS_CHECK_H_
