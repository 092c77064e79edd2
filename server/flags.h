// Flags of `quired`: the one place that knows every option's name, meaning, unit, effect and default. They become the
// option structs of engine and server. Where a value comes from (command line, environment, file) is
// server/option_sources.h.
//
// An option that this build knows and cannot do yet is refused by name, never ignored.

#ifndef QUIRE_SERVER_FLAGS_H_
#define QUIRE_SERVER_FLAGS_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "engine/memory_plan.h"
#include "server/flag_values.h"
#include "server/rpc_server.h"
#include "server/tls.h"

namespace quire {

enum class Subcommand { kServe, kPlan, kTokenize, kHelp, kVersion };
enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

struct Options {
  Subcommand command = Subcommand::kServe;
  EngineOptions engine;
  std::string served_model_name;  // empty: the last part of the model's path
  ListenAddress listen{"127.0.0.1", 50051};
  ListenAddress admin_listen{"127.0.0.1", 9400};
  std::optional<ListenAddress> health_listen;
  TlsFiles tls;                 // cert and key: both or neither
  std::string auth_token_file;  // empty: everybody may call
  bool insecure = false;
  bool kv_events = false;  // may be subscribed to
  bool reflection = true;
  bool use_generation_config = true;  // false: --generation-config none
  std::optional<absl::Duration> default_timeout;
  RpcLimits rpc_limits{.max_connection_age = absl::Minutes(10)};
  int32_t max_call_rate = 5000;
  uint64_t max_unsent_tokens = 4096;
  absl::Duration write_timeout = absl::Seconds(30);
  absl::Duration step_timeout = absl::Minutes(2);
  absl::Duration drain_delay = absl::ZeroDuration();
  absl::Duration drain_timeout = absl::Seconds(110);
  std::string otlp_url;  // empty: no spans are exported
  double otlp_sampling_ratio = 1;
  LogLevel log_level = LogLevel::kInfo;
  LogFormat log_format = LogFormat::kText;
  bool json = false;                      // plan: for machines
  std::optional<uint64_t> device_memory;  // plan: bytes free on a device that need not be there
  bool no_special = false;                // tokenize
  bool decode = false;                    // tokenize
};

struct Flag {
  absl::string_view name;   // without the dashes
  absl::string_view value;  // what --help calls the value; empty: a switch, --name and --no-name
  absl::string_view fallback;
  absl::string_view help;
  // Sets the option. The error is a phrase without the flag's name.
  absl::Status (*set)(Options& options, absl::string_view value);

  bool is_switch() const { return value.empty(); }
};

// In the order in which --help tells them.
absl::Span<const Flag> AllFlags();

// The flag of this name; nullptr if there is none.
const Flag* FindFlag(absl::string_view name);

// What several options must hold together; to be called once all are set.
absl::Status CheckOptions(const Options& options);

std::string HelpText();

}  // namespace quire

#endif  // QUIRE_SERVER_FLAGS_H_
