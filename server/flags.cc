#include "server/flags.h"

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/json_text.h"

namespace quire {
namespace {

// Sets `target` to what `value` names.
template <typename Target>
absl::Status Choose(absl::string_view value, std::initializer_list<std::pair<absl::string_view, Target>> choices,
                    Target& target) {
  std::string allowed;
  for (const auto& [name, chosen] : choices) {
    if (value == name) {
      target = chosen;
      return absl::OkStatus();
    }
    absl::StrAppend(&allowed, allowed.empty() ? "" : ", ", name);
  }
  return absl::InvalidArgumentError(absl::StrCat(Quoted(value), " is not one of ", allowed));
}

// Stores what a parser found, or hands its error on.
template <typename Parsed, typename Target>
absl::Status Store(absl::StatusOr<Parsed> parsed, Target& target) {
  if (!parsed.ok()) return parsed.status();
  target = static_cast<Target>(*std::move(parsed));
  return absl::OkStatus();
}

template <typename Target>
absl::Status StoreInteger(absl::string_view value, int64_t min, int64_t max, Target& target) {
  const auto parsed = ParseInteger(value, min, max);
  if (!parsed.ok()) return parsed.status();
  target = static_cast<Target>(*parsed);
  return absl::OkStatus();
}

absl::Status StoreText(absl::string_view value, std::string& target) {
  if (value.empty()) return absl::InvalidArgumentError("is empty");
  target = std::string(value);
  return absl::OkStatus();
}

constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();

absl::Status SetLoadFormat(Options& o, absl::string_view value) {
  return Choose<LoadFormat>(value,
                            {{"auto", LoadFormat::kAuto},
                             {"safetensors", LoadFormat::kSafetensors},
                             {"gguf", LoadFormat::kGguf},
                             {"dummy", LoadFormat::kDummy}},
                            o.engine.load_format);
}

absl::Status SetBackend(Options& o, absl::string_view value) {
  return Choose<BackendKind>(value,
                             {{"auto", BackendKind::kAuto},
                              {"cuda", BackendKind::kCuda},
                              {"cpu", BackendKind::kCpu},
                              {"ref", BackendKind::kRef}},
                             o.engine.backend.kind);
}

absl::Status SetDType(absl::string_view value, std::optional<DType>& target) {
  return Choose<std::optional<DType>>(value,
                                      {{"auto", std::nullopt},
                                       {"float32", DType::kFloat32},
                                       {"bfloat16", DType::kBFloat16},
                                       {"float16", DType::kFloat16}},
                                      target);
}

absl::Status SetKvCacheDType(Options& o, absl::string_view value) {
  struct CacheType {
    std::optional<DType> dtype;
    KvQuantization quantization = KvQuantization::kNone;
  } type;
  const absl::Status status = Choose<CacheType>(value,
                                                {{"auto", {}},
                                                 {"float32", {DType::kFloat32}},
                                                 {"bfloat16", {DType::kBFloat16}},
                                                 {"float16", {DType::kFloat16}},
                                                 {"fp8_e4m3", {{}, KvQuantization::kFp8E4M3}},
                                                 {"int8", {{}, KvQuantization::kInt8}},
                                                 {"int4", {{}, KvQuantization::kInt4}}},
                                                type);
  o.engine.kv_cache_dtype = type.dtype;
  o.engine.kv_quantization = type.quantization;
  return status;
}

absl::Status SetQuantization(Options& o, absl::string_view value) {
  return Choose<BlockFormat>(value,
                             {{"none", BlockFormat::kNone}, {"int8", BlockFormat::kQ8_0}, {"int4", BlockFormat::kQ4_0}},
                             o.engine.quantization);
}

absl::Status SetCpuIsa(Options& o, absl::string_view value) {
  return Choose<std::string>(value,
                             {{"auto", "auto"},
                              {"avx512_bf16", "avx512_bf16"},
                              {"avx512", "avx512"},
                              {"avx2", "avx2"},
                              {"portable", "portable"}},
                             o.engine.backend.cpu_isa);
}

absl::Status SetPrefault(Options& o, absl::string_view value) {
  return Choose<Prefault>(value,
                          {{"background", Prefault::kBackground}, {"start", Prefault::kStart}, {"off", Prefault::kOff}},
                          o.engine.backend.prefault);
}

absl::Status SetPrefillAttention(Options& o, absl::string_view value) {
  return Choose<PrefillAttention>(
      value, {{"auto", PrefillAttention::kAuto}, {"mma", PrefillAttention::kMma}, {"wgmma", PrefillAttention::kWgmma}},
      o.engine.backend.prefill_attention);
}

absl::Status SetDeterministic(Options& o, absl::string_view value) {
  return Store(ParseSwitch(value), o.engine.backend.deterministic);
}

absl::Status SetGpuMemoryUtilization(Options& o, absl::string_view value) {
  double share = 0;
  if (!absl::SimpleAtod(value, &share) || !(share > 0 && share <= 1))
    return absl::InvalidArgumentError(absl::StrCat("found ", value, ", allowed: above 0, at most 1"));
  o.engine.gpu_memory_utilization = share;
  return absl::OkStatus();
}

absl::Status SetOtlpEndpoint(Options& o, absl::string_view value) {
  return Store(ParseHttpUrl(value, "/v1/traces"), o.otlp_url);
}

absl::Status SetOtlpSamplingRatio(Options& o, absl::string_view value) {
  double ratio = 0;
  if (!absl::SimpleAtod(value, &ratio) || !(ratio >= 0 && ratio <= 1)) {
    return absl::InvalidArgumentError(absl::StrCat("found ", value, ", allowed: 0 to 1"));
  }
  o.otlp_sampling_ratio = ratio;
  return absl::OkStatus();
}

absl::Status SetSchedulingPolicy(Options& o, absl::string_view value) {
  return Choose<SchedulingPolicy>(
      value,
      {{"fcfs", SchedulingPolicy::kFcfs}, {"priority", SchedulingPolicy::kPriority}, {"fair", SchedulingPolicy::kFair}},
      o.engine.scheduling_policy);
}

absl::Status SetPriorityAging(Options& o, absl::string_view value) {
  const auto parsed = ParseDuration(value);
  if (!parsed.ok()) return parsed.status();
  if (*parsed == absl::ZeroDuration()) return absl::InvalidArgumentError("must be above zero");
  o.engine.priority_aging = *parsed;
  return absl::OkStatus();
}

absl::Status SetGenerationConfig(Options& o, absl::string_view value) {
  return Choose<bool>(value, {{"auto", true}, {"none", false}}, o.use_generation_config);
}

absl::Status SetMaxConnectionAge(Options& o, absl::string_view value) {
  o.rpc_limits.max_connection_age = absl::InfiniteDuration();
  if (value == "none") return absl::OkStatus();
  const auto parsed = ParseDuration(value);
  if (!parsed.ok()) return parsed.status();
  if (*parsed < absl::Seconds(1) || *parsed > absl::Hours(240)) {
    return absl::InvalidArgumentError("must be 1s to 240h, or none");
  }
  o.rpc_limits.max_connection_age = *parsed;
  return absl::OkStatus();
}

absl::Status SetDefaultTimeout(Options& o, absl::string_view value) {
  o.default_timeout.reset();
  if (value == "none") return absl::OkStatus();
  const auto parsed = ParseDuration(value);
  if (!parsed.ok()) return parsed.status();
  if (*parsed == absl::ZeroDuration()) return absl::InvalidArgumentError("must be above zero, or none");
  o.default_timeout = *parsed;
  return absl::OkStatus();
}

// A size that gRPC takes as an int.
absl::Status StoreSize(absl::string_view value, uint64_t min, uint64_t max, int& target) {
  const auto parsed = ParseBytes(value);
  if (!parsed.ok()) return parsed.status();
  if (*parsed < min || *parsed > max) {
    return absl::InvalidArgumentError(absl::StrCat(*parsed, " bytes; allowed: ", min, " to ", max));
  }
  target = static_cast<int>(*parsed);
  return absl::OkStatus();
}

absl::Status StoreTimeout(absl::string_view value, absl::Duration& target) {
  const auto parsed = ParseDuration(value);
  if (!parsed.ok()) return parsed.status();
  if (*parsed < absl::Milliseconds(1)) return absl::InvalidArgumentError("must be 1ms or more");
  target = *parsed;
  return absl::OkStatus();
}

absl::Status SetLogLevel(Options& o, absl::string_view value) {
  return Choose<LogLevel>(value,
                          {{"debug", LogLevel::kDebug},
                           {"info", LogLevel::kInfo},
                           {"warning", LogLevel::kWarning},
                           {"error", LogLevel::kError}},
                          o.log_level);
}

absl::Status SetLogFormat(Options& o, absl::string_view value) {
  return Choose<LogFormat>(value, {{"text", LogFormat::kText}, {"json", LogFormat::kJson}}, o.log_format);
}

absl::Status SetKvCacheMemory(Options& o, absl::string_view value) {
  return Store(ParseBytes(value), o.engine.kv_cache_bytes);
}

constexpr Flag kFlags[] = {
    {"config", "FILE", "none",
     "TOML file with these options as keys; the environment (QUIRE_MAX_NUM_SEQS=...) wins over it, the command line "
     "over both",
     [](Options&, absl::string_view) { return absl::OkStatus(); }},  // read by option_sources.cc
    {"model", "PATH", "required", "directory with config.json, *.safetensors and tokenizer.json, or one .gguf file",
     [](Options& o, absl::string_view v) { return StoreText(v, o.engine.model); }},
    {"served-model-name", "NAME", "last part of the path", "name that clients use for the model",
     [](Options& o, absl::string_view v) { return StoreText(v, o.served_model_name); }},
    {"load-format", "FORMAT", "auto",
     "auto, safetensors, gguf, or dummy: random weights from config.json alone, the same for the same --seed",
     SetLoadFormat},
    {"generation-config", "WHICH", "auto",
     "auto: sampling defaults and eos ids from generation_config.json; none: without it", SetGenerationConfig},
    {"backend", "NAME", "auto",
     "auto: cuda where a device is, else cpu; cuda: one GPU; cpu: SIMD kernels and worker threads; ref: plain float32 "
     "loops, the definition",
     SetBackend},
    {"dtype", "TYPE", "auto",
     "float32, bfloat16, float16: of weights and of activations entering a dot product (float32 also unpacks what a "
     "file has quantised, unless --quantization is given); auto: the checkpoint's",
     [](Options& o, absl::string_view v) { return SetDType(v, o.engine.dtype); }},
    {"quantization", "KIND", "none",
     "none, int8, int4: weights stored as numbers are repacked so at load, symmetric in groups of 32 with a scale each "
     "(int4: embedding and head as int8); what a file has quantised stays as it is",
     SetQuantization},
    {"threads", "N", "CPUs that cgroup quota and affinity allow", "workers of the cpu backend",
     [](Options& o, absl::string_view v) { return StoreInteger(v, 1, 1024, o.engine.backend.num_threads); }},
    {"cpu-bind", "CPUS", "none",
     "CPUs to pin the workers to, one each, such as 0,2-5; else pinned only where the affinity mask is narrower than "
     "the machine",
     [](Options& o, absl::string_view v) { return Store(ParseCpuList(v), o.engine.backend.cpu_bind); }},
    {"cpu-isa", "ISA", "auto",
     "instruction set of the cpu backend: avx512_bf16, avx512, avx2, portable; auto: the fastest here", SetCpuIsa},
    {"deterministic", "", "cpu, ref: true; cuda: false",
     "company, chunks, preemption and prefix hits change no bit of an answer; always so on cpu and ref, slower on cuda",
     SetDeterministic},
    {"listen", "HOST:PORT", "127.0.0.1:50051", "gRPC; port 0 takes a free one, told in the ready line",
     [](Options& o, absl::string_view v) { return Store(ParseListenAddress(v), o.listen); }},
    {"admin-listen", "HOST:PORT", "127.0.0.1:9400", "plaintext HTTP, read-only: /metrics, /health, /livez, /readyz",
     [](Options& o, absl::string_view v) { return Store(ParseListenAddress(v), o.admin_listen); }},
    {"insecure", "", "false",
     "allow --listen beyond loopback without TLS or tokens: whoever reaches the port may use it",
     [](Options& o, absl::string_view v) { return Store(ParseSwitch(v), o.insecure); }},
    {"reflection", "", "true", "answer gRPC server reflection, for grpcurl and the like",
     [](Options& o, absl::string_view v) { return Store(ParseSwitch(v), o.reflection); }},
    {"max-model-len", "TOKENS", "the model's, cut to what the cache holds", "longest prompt + output of one request",
     [](Options& o, absl::string_view v) { return StoreInteger(v, 2, kInt32Max, o.engine.max_model_len); }},
    {"block-size", "TOKENS", "16", "tokens per KV block: smaller wastes less, larger has shorter block tables",
     [](Options& o, absl::string_view v) { return StoreInteger(v, 1, 1024, o.engine.block_size); }},
    {"kv-cache-memory", "BYTES", "cpu, ref: 1GiB; cuda: what is free",
     "memory for K and V, such as 512MiB; more lets more requests run at once", SetKvCacheMemory},
    {"kv-cache-memory-bytes", "BYTES", "as --kv-cache-memory", "the same as --kv-cache-memory", SetKvCacheMemory},
    {"kv-cache-dtype", "TYPE", "auto",
     "of K and V: float32, bfloat16, float16; fp8_e4m3, int8, int4 with a scale for each token and head; auto: that of "
     "--dtype",
     SetKvCacheDType},
    {"prefault", "WHEN", "off",
     "when the kernel clears the cache's pages: off (when a block is first used, which is slower then, and resident "
     "memory grows until all were), background (from the start on, while nobody wants the CPU), start (before ready: "
     "memory that is not there shows at once). cpu backend",
     SetPrefault},
    {"gpu-memory-utilization", "SHARE", "0.92",
     "cuda: share of the device memory free before loading that weights, workspaces and KV cache may take",
     SetGpuMemoryUtilization},
    {"enforce-eager", "", "false", "cuda: launch every kernel by itself instead of one CUDA graph for each decode step",
     [](Options& o, absl::string_view v) { return Store(ParseSwitch(v), o.engine.enforce_eager); }},
    {"lazy-graphs", "", "false",
     "cuda: make CUDA graphs and run kernels when a step first needs them, not before ready: sooner ready, first steps "
     "slower",
     [](Options& o, absl::string_view v) { return Store(ParseSwitch(v), o.engine.lazy_graphs); }},
    {"prefill-attention", "HOW", "auto",
     "cuda: mma (mma.sync, every device), wgmma (compute capability 9.x; has never run on hardware); auto: mma, until "
     "wgmma has",
     SetPrefillAttention},
    {"max-num-seqs", "N", "128", "sequences in one step",
     [](Options& o, absl::string_view v) { return StoreInteger(v, 1, 65536, o.engine.max_num_seqs); }},
    {"max-num-batched-tokens", "TOKENS", "2048",
     "token budget of one step: larger prefills faster, smaller keeps the time between tokens even",
     [](Options& o, absl::string_view v) { return StoreInteger(v, 1, 1048576, o.engine.max_num_batched_tokens); }},
    {"chunked-prefill-size", "TOKENS", "256 on cpu, else the whole budget",
     "prompt tokens in one step: smaller brings first tokens sooner and evens the time between tokens, larger reads "
     "the "
     "weights less often",
     [](Options& o, absl::string_view v) { return StoreInteger(v, 1, 1048576, o.engine.chunked_prefill_size); }},
    {"enable-prefix-caching", "", "true", "reuse the KV blocks of a prompt's beginning that was seen before",
     [](Options& o, absl::string_view v) { return Store(ParseSwitch(v), o.engine.enable_prefix_caching); }},
    {"kv-events", "", "false",
     "tell routers that subscribe (SubscribeKvEvents of the VllmEngine dialect) which blocks are cached. The events "
     "carry "
     "the tokens of prompts without a cache salt; with --auth-token-file they need a token without a tenant",
     [](Options& o, absl::string_view v) { return Store(ParseSwitch(v), o.kv_events); }},
    {"scheduling-policy", "POLICY", "fcfs",
     "who runs first: fcfs, in order of arrival; priority, the request with the lowest number, which takes seat and "
     "blocks of others; fair, the tenant that was served least (virtual token counter)",
     SetSchedulingPolicy},
    {"priority-aging", "DURATION", "10s",
     "with --scheduling-policy priority: for each such time that a request has lived it counts as one priority better, "
     "so that nobody waits forever",
     SetPriorityAging},
    {"tenant-weights", "NAME=N,...", "1 each",
     "with --scheduling-policy fair: shares of tenants relative to each other, such as gold=4,free=0.5",
     [](Options& o, absl::string_view v) { return Store(ParseWeights(v), o.engine.tenant_weights); }},
    {"max-tenants", "N", "1024",
     "with --scheduling-policy fair: tenants with an account of their own; beyond, the others share one",
     [](Options& o, absl::string_view v) { return StoreInteger(v, 1, 1048576, o.engine.max_tenants); }},
    {"max-waiting-requests", "N", "1024", "requests that may queue; beyond: RESOURCE_EXHAUSTED",
     [](Options& o, absl::string_view v) { return StoreInteger(v, 1, kInt32Max, o.engine.max_waiting_requests); }},
    {"max-waiting-tokens", "TOKENS", "4194304",
     "prompt tokens, less prefix hits, that may queue; beyond: RESOURCE_EXHAUSTED",
     [](Options& o, absl::string_view v) {
       return StoreInteger(v, 1, std::numeric_limits<int64_t>::max(), o.engine.max_waiting_tokens);
     }},
    {"max-message-bytes", "BYTES", "16MiB", "largest request message; beyond: RESOURCE_EXHAUSTED",
     [](Options& o, absl::string_view v) {
       return StoreSize(v, 1024, size_t{1} << 30, o.rpc_limits.max_message_bytes);
     }},
    {"max-metadata-bytes", "BYTES", "8KiB", "largest metadata of a call; beyond, the call is refused",
     [](Options& o, absl::string_view v) {
       return StoreSize(v, 1024, size_t{1} << 20, o.rpc_limits.max_metadata_bytes);
     }},
    {"max-streams-per-connection", "N", "1000", "calls open at once on one connection; more wait in the client",
     [](Options& o, absl::string_view v) {
       return StoreInteger(v, 1, 1000000, o.rpc_limits.max_streams_per_connection);
     }},
    {"max-connection-age", "DURATION", "10m",
     "connections are asked to end after this long, give or take a tenth, so that clients find new replicas; calls "
     "under "
     "way finish. none: never",
     SetMaxConnectionAge},
    {"max-call-rate", "N", "5000",
     "calls that one connection may open in a second, which it may do at once; beyond: RESOURCE_EXHAUSTED",
     [](Options& o, absl::string_view v) { return StoreInteger(v, 1, 1000000000, o.max_call_rate); }},
    {"max-unsent-tokens", "TOKENS", "4096",
     "of one stream: when its client leaves so many untaken, its request stops running until half of them are taken",
     [](Options& o, absl::string_view v) { return StoreInteger(v, 1, kInt32Max, o.max_unsent_tokens); }},
    {"write-timeout", "DURATION", "30s", "a client that takes nothing for so long is taken for dead: CANCELLED",
     [](Options& o, absl::string_view v) { return StoreTimeout(v, o.write_timeout); }},
    {"step-timeout", "DURATION", "2m", "a step that takes longer hangs: /livez turns 503 until it is over",
     [](Options& o, absl::string_view v) { return StoreTimeout(v, o.step_timeout); }},
    {"max-waiting-requests-per-tenant", "N", "none",
     "requests of one tenant that may queue; beyond: RESOURCE_EXHAUSTED",
     [](Options& o, absl::string_view v) {
       return StoreInteger(v, 1, kInt32Max, o.engine.max_waiting_requests_per_tenant);
     }},
    {"max-waiting-tokens-per-tenant", "TOKENS", "none",
     "prompt tokens of one tenant that may queue; beyond: RESOURCE_EXHAUSTED",
     [](Options& o, absl::string_view v) {
       return StoreInteger(v, 1, std::numeric_limits<int64_t>::max(), o.engine.max_waiting_tokens_per_tenant);
     }},
    {"default-timeout", "DURATION", "none", "deadline of a request whose client gives none, such as 30s",
     SetDefaultTimeout},
    {"drain-delay", "DURATION", "0s", "after SIGTERM readiness is off, and requests are taken for this long more",
     [](Options& o, absl::string_view v) { return Store(ParseDuration(v), o.drain_delay); }},
    {"drain-timeout", "DURATION", "110s",
     "then accepted requests have this long to finish; what still runs ends UNAVAILABLE",
     [](Options& o, absl::string_view v) { return Store(ParseDuration(v), o.drain_timeout); }},
    {"health-listen", "HOST:PORT", "none", "plaintext grpc.health.v1 on a port of its own",
     [](Options& o, absl::string_view v) { return Store(ParseListenAddress(v), o.health_listen.emplace()); }},
    {"tls-cert", "FILE", "none",
     "PEM: the server's certificate and its chain; --listen speaks TLS. Read again when it changes, as the two below",
     [](Options& o, absl::string_view v) { return StoreText(v, o.tls.cert); }},
    {"tls-key", "FILE", "none", "PEM: its key, without a password",
     [](Options& o, absl::string_view v) { return StoreText(v, o.tls.key); }},
    {"tls-client-ca", "FILE", "none", "PEM: demand client certificates that one of these authorities has signed",
     [](Options& o, absl::string_view v) { return StoreText(v, o.tls.client_ca); }},
    {"auth-token-file", "FILE", "none",
     "demand one of these bearer tokens: one on a line, or sha256:HEX of it, then perhaps tenant=NAME max-priority=N. "
     "Read again when it changes; reflection is off then, health stays open",
     [](Options& o, absl::string_view v) { return StoreText(v, o.auth_token_file); }},
    {"otlp-endpoint", "URL", "none",
     "send a span of each request to this OpenTelemetry collector, such as http://localhost:4318; without a path to "
     "its "
     "/v1/traces. Where it is away spans are dropped, and no request waits",
     SetOtlpEndpoint},
    {"otlp-traces-endpoint", "URL", "as --otlp-endpoint", "the same as --otlp-endpoint", SetOtlpEndpoint},
    {"otlp-sampling-ratio", "SHARE", "1",
     "of the requests that come without a traceparent, the share that gets a span; with one its sampled flag decides",
     SetOtlpSamplingRatio},
    {"log-level", "LEVEL", "info", "debug, info, warning, error", SetLogLevel},
    {"log-format", "FORMAT", "text", "of the lines on stderr: text or json", SetLogFormat},
    {"seed", "N", "0", "of dummy weights",
     [](Options& o, absl::string_view v) {
       return StoreInteger(v, 0, std::numeric_limits<int64_t>::max(), o.engine.seed);
     }},
    {"json", "", "false", "plan: print one JSON object with GetModelResponse's names",
     [](Options& o, absl::string_view v) { return Store(ParseSwitch(v), o.json); }},
    {"device-memory", "BYTES", "the device's",
     "plan --backend cuda: the memory free on the device to plan for, such as 140GiB; none need be there",
     [](Options& o, absl::string_view v) { return Store(ParseBytes(v), o.device_memory); }},
    {"no-special", "", "false", "tokenize: without BOS and the like",
     [](Options& o, absl::string_view v) { return Store(ParseSwitch(v), o.no_special); }},
    {"decode", "", "false", "tokenize: from arrays of ids to JSON strings",
     [](Options& o, absl::string_view v) { return Store(ParseSwitch(v), o.decode); }},
};

// Breaks `text` into lines of at most `width` columns and puts `indent` before each.
std::string Wrapped(absl::string_view text, absl::string_view indent, size_t width) {
  std::string out, line;
  for (absl::string_view word : absl::StrSplit(text, ' ')) {
    if (!line.empty() && indent.size() + line.size() + 1 + word.size() > width) {
      absl::StrAppend(&out, indent, line, "\n");
      line.clear();
    }
    absl::StrAppend(&line, line.empty() ? "" : " ", word);
  }
  absl::StrAppend(&out, indent, line, "\n");
  return out;
}

}  // namespace

absl::Span<const Flag> AllFlags() { return kFlags; }

const Flag* FindFlag(absl::string_view name) {
  const Flag* found = std::find_if(std::begin(kFlags), std::end(kFlags), [&](const Flag& f) { return f.name == name; });
  return found == std::end(kFlags) ? nullptr : found;
}

absl::Status CheckOptions(const Options& options) {
  if (options.command == Subcommand::kHelp || options.command == Subcommand::kVersion) return absl::OkStatus();
  if (options.engine.model.empty()) return absl::InvalidArgumentError("--model is required: a model's directory");
  if (options.device_memory.has_value() &&
      (options.command != Subcommand::kPlan || options.engine.backend.kind != BackendKind::kCuda)) {
    return absl::InvalidArgumentError("--device-memory: goes with `quired plan --backend cuda` alone");
  }
  if (options.command != Subcommand::kServe) return absl::OkStatus();
  const TlsFiles& tls = options.tls;
  if (tls.cert.empty() != tls.key.empty()) {
    return absl::InvalidArgumentError("--tls-cert and --tls-key go together: give both or neither");
  }
  if (!tls.client_ca.empty() && tls.cert.empty()) {
    return absl::InvalidArgumentError("--tls-client-ca needs --tls-cert and --tls-key");
  }
  if (options.kv_events && !options.engine.enable_prefix_caching) {
    return absl::InvalidArgumentError("--kv-events needs --enable-prefix-caching");
  }
  const bool guarded = !tls.cert.empty() || !options.auth_token_file.empty();
  if (!options.listen.loopback() && !guarded && !options.insecure) {
    return absl::InvalidArgumentError(
        absl::StrCat("--listen ", options.listen.ToString(),
                     " is beyond loopback, which needs --tls-cert, --auth-token-file or --insecure"));
  }
  return absl::OkStatus();
}

std::string HelpText() {
  std::string text =
      "quired serves a language model over gRPC.\n\n"
      "  quired [serve] --model PATH ...    serves until SIGTERM, which drains; a second one stops at once\n"
      "  quired plan --model PATH ...       prints the memory plan (from config.json alone) and exits; --json for "
      "machines\n"
      "  quired tokenize --model PATH       each line of stdin, a JSON string, to a line with a JSON array of ids\n"
      "  quired --help, quired --version\n\n"
      "Options, with their defaults in brackets. Each may also stand in the file of --config (block-size = 16) and in "
      "the\n"
      "environment (QUIRE_BLOCK_SIZE=16); the command line wins, then the environment, then the file.\n"
      "A switch is set with --name or --name=true and cleared with --no-name or --name=false.\n\n";
  for (const Flag& flag : kFlags) {
    absl::StrAppend(&text, "  --", flag.name, flag.is_switch() ? "" : " ", flag.value, "  [", flag.fallback, "]\n");
    absl::StrAppend(&text, Wrapped(flag.help, "        ", 100));
  }
  return text;
}

}  // namespace quire
