// ShutdownSignal: SIGTERM and SIGINT as events that a thread waits for, beside a bell that other threads ring. No work
// is done in signal handlers.

#ifndef QUIRE_SERVER_SHUTDOWN_SIGNAL_H_
#define QUIRE_SERVER_SHUTDOWN_SIGNAL_H_

#include "absl/time/time.h"

namespace quire {

class ShutdownSignal {
 public:
  enum class Event { kSignal, kBell, kTimeout };

  // Blocks both signals, and ignores SIGPIPE, in this thread and those it starts. To be made before any other thread.
  ShutdownSignal();
  ~ShutdownSignal();
  ShutdownSignal(const ShutdownSignal&) = delete;
  ShutdownSignal& operator=(const ShutdownSignal&) = delete;

  // Waits for what comes first; a signal goes before a bell. Thread: one.
  Event Wait(absl::Time deadline);

  // Wakes Wait, now or when it is next called. Thread: any.
  void Ring();

 private:
  int signals_;  // a signalfd
  int bell_;     // an eventfd
};

}  // namespace quire

#endif  // QUIRE_SERVER_SHUTDOWN_SIGNAL_H_
