// Flags that several commands share. They write into the options, or straight into the request's fields, so that a
// field which no flag names stays absent and takes the server's default.

#ifndef QUIRE_CLIENT_FLAGS_H_
#define QUIRE_CLIENT_FLAGS_H_

#include <string>

#include "client/channel.h"
#include "quire/v1/generation.pb.h"

namespace CLI {
class App;
}

namespace quire::client {

// Whether `text` is a seed: what CLI11 shows if not, else empty. (Its own conversion takes -1 and cuts what is too
// large.)
std::string CheckSeed(const std::string& text);

void AddConnectionFlags(CLI::App& app, ConnectionOptions& options);
void AddSamplingFlags(CLI::App& app, v1::SamplingParams& sampling);
void AddStoppingFlags(CLI::App& app, v1::StoppingCriteria& stopping);
void AddSchedulingFlags(CLI::App& app, v1::GenerateRequest& request);

}  // namespace quire::client

#endif  // QUIRE_CLIENT_FLAGS_H_
