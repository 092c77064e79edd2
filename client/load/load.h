// `quire load`: a load test of one daemon.

#ifndef QUIRE_CLIENT_LOAD_LOAD_H_
#define QUIRE_CLIENT_LOAD_LOAD_H_

#include "client/io.h"
#include "client/load/options.h"

namespace quire::client {

// The table on io.out, progress on io.err. kExitOk if at least one request completed and every --assert holds: failures
// are reported, not fatal. kExitAssertionMissed if one does not.
int RunLoad(const LoadOptions& options, Io& io);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_LOAD_LOAD_H_
