#include "client/load/openai_backend.h"

#include <sys/resource.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/load/http_loop.h"
#include "client/load/openai_chunk.h"
#include "client/load/sse.h"

namespace quire::client {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxErrorBytes = 64 << 10;  // of a body that is no stream
constexpr absl::Duration kReadyPoll = absl::Milliseconds(200);

// The sampling options that were asked for, under the names that vLLM, SGLang and llama.cpp share.
void AddSampling(const v1::SamplingParams& sampling, Json& body) {
  const auto add = [&body](const char* key, bool given, auto value) {
    if (given) {
      body[key] = value;
    }
  };
  add("temperature", sampling.has_temperature(), sampling.temperature());
  add("top_p", sampling.has_top_p(), sampling.top_p());
  add("top_k", sampling.has_top_k(), sampling.top_k());
  add("min_p", sampling.has_min_p(), sampling.min_p());
  add("repetition_penalty", sampling.has_repetition_penalty(), sampling.repetition_penalty());
  add("frequency_penalty", sampling.has_frequency_penalty(), sampling.frequency_penalty());
  add("presence_penalty", sampling.has_presence_penalty(), sampling.presence_penalty());
  add("seed", sampling.has_seed(), sampling.seed());
  for (const auto& [id, bias] : sampling.logit_bias()) {
    body["logit_bias"][absl::StrCat(id)] = bias;
  }
  for (uint32_t id : sampling.allowed_token_ids()) {
    body["allowed_token_ids"].push_back(id);
  }
}

class OpenAiStream final : public Backend::Stream, public HttpExchange {
 public:
  OpenAiStream(HttpLoop& loop, const HttpOptions& http, HttpRequest request, absl::Duration read_delay,
               StreamEvents& events)
      : HttpExchange(http, std::move(request)), loop_(loop), events_(events) {
    read_delay_ = read_delay;
    loop_.Start(*this);
  }

  void Cancel() override { loop_.Cancel(*this); }

 private:
  void OnStart() override { events_.OnSent(); }

  bool OnBody(absl::string_view bytes) override {
    if (!streams_.has_value()) {
      streams_ = status() == 200 && content_type() == "text/event-stream";
    }
    if (!*streams_) {
      error_body_.append(bytes.data(), std::min(bytes.size(), kMaxErrorBytes - error_body_.size()));
      return true;
    }
    const bool fits = sse_.Feed(bytes, [this](absl::string_view data) { Take(data); });
    if (!fits && error_.empty()) {
      error_ = "an event of the stream does not end";
    }
    return error_.empty() && !unwanted_;
  }

  void Take(absl::string_view data) {
    if (done_ || unwanted_ || !error_.empty()) {
      return;
    }
    if (data == "[DONE]") {
      done_ = true;
      return;
    }
    absl::StatusOr<OpenAiChunk> chunk = ParseOpenAiChunk(data);
    if (!chunk.ok()) {
      error_ = std::string(chunk.status().message());
      return;
    }
    if (!chunk->error.empty()) {
      error_ = absl::StrCat("the stream says: ", chunk->error);
      return;
    }
    if (!chunk->finish_reason.empty()) {
      finish_reason_ = chunk->finish_reason;
    }
    // A server that reports usage with every chunk (continuous_usage_stats) says how many tokens this one has.
    const uint32_t before = usage_.has_value() ? usage_->completion_tokens : 0;
    uint32_t num_tokens = chunk->has_output ? 1 : 0;
    if (chunk->usage.has_value()) {
      usage_ = chunk->usage;
      if (chunk->has_output && usage_->completion_tokens > before) {
        num_tokens = usage_->completion_tokens - before;
      }
    }
    if (chunk->has_output && !events_.OnTokens({chunk->text, {}, num_tokens})) {
      unwanted_ = true;
    }
  }

  void OnEnd(const HttpEnd& end) override {
    Ending ending;
    ending.http_status = end.status;
    ending.cancelled = end.cancelled;
    ending.finish_reason = finish_reason_;
    ending.usage = usage_;
    ending.retry_after = end.retry_after;
    ending.error = ErrorOf(end);
    events_.OnEnd(ending);  // *this may be gone behind it
  }

  std::string ErrorOf(const HttpEnd& end) const {
    if (!error_.empty()) {
      return error_;
    }
    if (end.cancelled) {
      return "cancelled";
    }
    if (end.timed_out) {
      return "DEADLINE_EXCEEDED: no end of the answer within the time-out";
    }
    if (!end.error.empty()) {
      return absl::StrCat("HTTP: ", end.error);
    }
    if (end.status != 200) {
      return absl::StrCat("HTTP ", end.status, error_body_.empty() ? "" : ": ", OpenAiErrorMessage(error_body_));
    }
    if (!streams_.value_or(false)) {
      return absl::StrCat("no event stream came: ", OpenAiErrorMessage(error_body_));
    }
    if (finish_reason_.empty()) {
      return done_ ? "[DONE] came without a finish_reason" : "the stream broke off: neither finish_reason nor [DONE]";
    }
    return "";
  }

  HttpLoop& loop_;
  StreamEvents& events_;
  SseParser sse_;
  std::optional<bool> streams_;  // absent: no byte has come
  std::string error_body_;
  std::string error_;
  std::string finish_reason_;
  std::optional<Usage> usage_;
  bool done_ = false;
  bool unwanted_ = false;
};

// Each stream holds a socket: as many as the system allows.
void RaiseFileLimit() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

class OpenAiBackend final : public Backend {
 public:
  OpenAiBackend(OpenAiOptions options, HttpOptions http, std::unique_ptr<HttpLoop> loop)
      : options_(std::move(options)),
        http_(std::move(http)),
        base_(absl::StripSuffix(absl::StripSuffix(options_.base_url, "/"), "/v1")),
        url_(absl::StrCat(base_, !options_.endpoint.empty() ? options_.endpoint
                                 : options_.chat            ? "/v1/chat/completions"
                                                            : "/v1/completions")),
        model_(options_.connection.model),
        loop_(std::move(loop)) {}

  absl::StatusOr<ServedModel> Describe(absl::Duration ready_timeout) override {
    const absl::Time until = absl::Now() + ready_timeout;
    absl::StatusOr<std::string> page = Get("/v1/models");
    while (absl::IsUnavailable(page.status()) && absl::Now() < until) {
      std::this_thread::sleep_for(absl::ToChronoMilliseconds(kReadyPoll));
      page = Get("/v1/models");
    }
    if (absl::IsUnavailable(page.status())) {
      return page.status();
    }
    if (!page.ok() && model_.empty()) {
      return absl::NotFoundError(
          absl::StrCat(page.status().message(), "; --model NAME does without the list of models"));
    }
    const Json json = page.ok() ? Json::parse(*page, nullptr, /*allow_exceptions=*/false) : Json();
    return Choose(json);
  }

  bool takes_ids() const override { return !options_.chat; }

  absl::StatusOr<std::vector<uint32_t>> Tokenize(const std::string& text) override {
    // vLLM reads model and prompt, llama.cpp content; each passes over what is the other's.
    const Json ask = {
        {"model", model_}, {"prompt", text}, {"content", text}, {"add_special_tokens", false}, {"add_special", false}};
    absl::StatusOr<std::string> page = HttpFetch(
        *loop_, http_,
        {absl::StrCat(base_, "/tokenize"), ask.dump(-1, ' ', false, Json::error_handler_t::replace), Timeout()});
    const Json json = page.ok() ? Json::parse(*page, nullptr, /*allow_exceptions=*/false) : Json();
    const auto tokens = json.is_object() ? json.find("tokens") : json.end();
    if (!json.is_object() || tokens == json.end() || !tokens->is_array()) {
      return absl::UnimplementedError(absl::StrCat(base_, "/tokenize gives no token ids"));
    }
    std::vector<uint32_t> ids;
    for (const Json& id : *tokens) {
      if (!id.is_number_unsigned()) {
        return absl::UnimplementedError(absl::StrCat(base_, "/tokenize gives no token ids"));
      }
      ids.push_back(id.get<uint32_t>());
    }
    return ids;
  }

  std::unique_ptr<Stream> Open(const v1::GenerateRequest& request, const StreamOptions& options,
                               StreamEvents& events) override {
    HttpRequest http{url_, OpenAiBody(request, options_.chat, model_, options_.extra_body),
                     options_.connection.timeout};
    if (options.deadline.has_value()) {
      http.timeout = options.deadline;
    }
    return std::make_unique<OpenAiStream>(*loop_, http_, std::move(http), options.read_delay, events);
  }

 private:
  absl::Duration Timeout() const { return options_.connection.timeout.value_or(absl::Seconds(10)); }

  absl::StatusOr<std::string> Get(absl::string_view path) {
    return HttpFetch(*loop_, http_, {absl::StrCat(base_, path), std::nullopt, Timeout()});
  }

  // The model of --model, or the first of the list {"data": [{"id": ...}]}; llama.cpp tells its vocabulary's size.
  absl::StatusOr<ServedModel> Choose(const Json& json) {
    ServedModel served{model_, std::nullopt};
    std::vector<std::string> names;
    if (const auto data = json.is_object() ? json.find("data") : json.end(); json.is_object() && data != json.end()) {
      for (const Json& model : *data) {
        const std::string name = model.is_object() ? model.value("id", "") : "";
        names.push_back(name);
        if (!name.empty() && (served.name.empty() || served.name == name)) {
          served.name = model_ = name;
          const auto meta = model.find("meta");
          if (meta != model.end() && meta->is_object() && (*meta).contains("n_vocab") &&
              (*meta)["n_vocab"].is_number_unsigned()) {
            served.vocab_size = (*meta)["n_vocab"].get<uint32_t>();
          }
        }
      }
    }
    if (served.name.empty()) {
      return absl::UnavailableError(absl::StrCat(base_, "/v1/models lists no model; give --model NAME"));
    }
    return served;
  }

  const OpenAiOptions options_;
  const HttpOptions http_;
  const std::string base_;
  const std::string url_;
  std::string model_;
  std::unique_ptr<HttpLoop> loop_;
};

}  // namespace

std::string OpenAiBody(const v1::GenerateRequest& request, bool chat, const std::string& model,
                       const std::string& extra_body) {
  Json body = {{"model", model}, {"stream", true}, {"stream_options", {{"include_usage", true}}}};
  if (chat) {
    body["messages"] = Json::array({{{"role", "user"}, {"content", request.text()}}});
    body["max_completion_tokens"] = request.stopping().max_tokens();
  } else {
    if (request.has_tokens()) {
      body["prompt"] = std::vector<uint32_t>(request.tokens().ids().begin(), request.tokens().ids().end());
    } else {
      body["prompt"] = request.text();
    }
    body["max_tokens"] = request.stopping().max_tokens();
  }
  if (request.stopping().ignore_eos()) {
    body["ignore_eos"] = true;
  }
  AddSampling(request.sampling(), body);
  if (request.scheduling().has_priority()) {
    body["priority"] = request.scheduling().priority();
  }
  if (!request.cache().salt().empty()) {
    body["cache_salt"] = request.cache().salt();
  }
  if (!extra_body.empty()) {
    body.merge_patch(Json::parse(extra_body));
  }
  return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

absl::StatusOr<std::unique_ptr<Backend>> MakeOpenAiBackend(const OpenAiOptions& options) {
  if (!absl::StartsWith(options.base_url, "http://") && !absl::StartsWith(options.base_url, "https://")) {
    return absl::InvalidArgumentError(
        absl::StrCat("--base-url '", options.base_url, "'; allowed: http://HOST:PORT or https://HOST:PORT"));
  }
  if (options.connection.tls_cert.empty() != options.connection.tls_key.empty()) {
    return absl::InvalidArgumentError("--tls-cert and --tls-key go together: give both or neither");
  }
  std::string key = options.api_key;
  if (!options.connection.token_file.empty()) {
    absl::StatusOr<std::string> token = ReadToken(options.connection.token_file);
    if (!token.ok()) {
      return token.status();
    }
    key = *std::move(token);
  }
  HttpOptions http{options.connection.tls_ca, options.connection.tls_cert, options.connection.tls_key, options.headers};
  if (!key.empty()) {
    http.headers.push_back(absl::StrCat("Authorization: Bearer ", key));
  }
  RaiseFileLimit();
  absl::StatusOr<std::unique_ptr<HttpLoop>> loop = HttpLoop::Create();
  if (!loop.ok()) {
    return loop.status();
  }
  return std::make_unique<OpenAiBackend>(options, std::move(http), *std::move(loop));
}

}  // namespace quire::client
