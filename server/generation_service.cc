#include "server/generation_service.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "kernels/check.h"
#include "kvcache/block_hash.h"
#include "server/contained.h"
#include "server/errors.h"
#include "server/random_number.h"
#include "server/rpc_message.h"

namespace quire {
namespace {

// Longest inputs of the two small RPCs: they hold a worker of the pool for a fraction of a second.
constexpr size_t kMaxTokenizeBytes = size_t{4} << 20;
constexpr int kMaxDetokenizeIds = 1 << 20;
// Looked up on gRPC's thread, one after another.
constexpr int kMaxCancelIds = 16384;

std::string NewRequestId() {
  return absl::StrCat(absl::Hex(RandomNumber(), absl::kZeroPad16), absl::Hex(RandomNumber(), absl::kZeroPad16));
}

// Answers a unary call at once or later, from any thread.
void Reply(grpc::ServerUnaryReactor* reactor, const absl::Status& status) { reactor->Finish(ToGrpcStatus(status)); }

}  // namespace

GenerationService::GenerationService(const GenerationParts& parts, GenerationOptions options)
    : parts_(parts), options_(std::move(options)) {}

// --------------------------------------------------------------------------------------------------------------
// Generate

grpc::ServerWriteReactor<grpc::ByteBuffer>* GenerationService::Generate(grpc::CallbackServerContext* context,
                                                                        const grpc::ByteBuffer* bytes) {
  const auto parse = [](const grpc::ByteBuffer& from) -> absl::StatusOr<v1::GenerateRequest> {
    v1::GenerateRequest request;
    if (absl::Status status = ParseMessage(from, request); !status.ok()) return status;
    return request;
  };
  return Generate(context, *bytes, {.rpc_service = "quire.v1.GenerationService", .parse = parse, .encode = nullptr});
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* GenerationService::Generate(grpc::CallbackServerContext* context,
                                                                        const grpc::ByteBuffer& bytes,
                                                                        Dialect dialect) {
  const CallInfo call{dialect.rpc_service, TraceOf(*context), absl::Now()};
  parts_.metrics.Received();
  GenerateStream::Callbacks callbacks;
  callbacks.cancel_engine = [this](RequestId id, Ending ending) { parts_.engine.Cancel(id, ending); };
  callbacks.pause_engine = [this](RequestId id, bool pause) {
    pause ? parts_.engine.Pause(id) : parts_.engine.Resume(id);
  };
  callbacks.before_finish = [this](GenerateStream* stream) { parts_.live.ReleaseName(stream); };
  callbacks.done = [this](GenerateStream* stream) { parts_.live.Remove(stream); };
  callbacks.encode = std::move(dialect.encode);
  const std::shared_ptr<GenerateStream> stream =
      GenerateStream::Create(context, parts_.metrics, options_.max_unsent_tokens, std::move(callbacks));
  const absl::Status status = Contained([&] { return Receive(context, bytes, dialect, call, stream); });
  if (!status.ok()) Refuse(*stream, call, status);
  return stream.get();
}

TraceContext GenerationService::TraceOf(const grpc::CallbackServerContext& context) const {
  std::optional<TraceContext> parent;
  const auto [begin, end] = context.client_metadata().equal_range("traceparent");
  if (begin != end && std::next(begin) == end) {  // of two nobody can say which is meant
    parent = ParseTraceparent({begin->second.data(), begin->second.size()});
  }
  if (parts_.spans != nullptr) return parts_.spans->Begin(std::move(parent));
  return parent ? *std::move(parent) : TraceContext();
}

absl::Status GenerationService::Receive(grpc::CallbackServerContext* context, const grpc::ByteBuffer& bytes,
                                        const Dialect& dialect, const CallInfo& call,
                                        const std::shared_ptr<GenerateStream>& stream) {
  const absl::StatusOr<Principal> caller = Caller(*context);
  if (!caller.ok()) return caller.status();
  absl::StatusOr<v1::GenerateRequest> request = dialect.parse(bytes);
  if (!request.ok()) return request.status();
  if (absl::Status status = BindToPrincipal(*caller, *request); !status.ok()) return status;
  absl::StatusOr<GenerateJob> job = ValidateGenerate(*request, options_.limits);
  if (!job.ok()) return dialect.field_name ? WithFieldNames(job.status(), dialect.field_name) : job.status();
  if (job->request_id.empty()) job->request_id = NewRequestId();
  const std::string id = ScopedRequestId(*caller, job->request_id);
  if (absl::Status status = parts_.live.Add(id, job->tenant, stream); !status.ok()) return status;

  Admission admission{stream, *std::move(job), call, absl::InfiniteFuture()};
  if (context->deadline() != std::chrono::system_clock::time_point::max()) {
    admission.deadline = absl::FromChrono(context->deadline());
  } else if (options_.default_timeout) {
    admission.deadline = call.arrival + *options_.default_timeout;
  }
  const size_t kept_bytes = bytes.Length();
  return parts_.pool.Submit(kept_bytes,
                            [this, admission = std::move(admission)]() mutable { Admit(std::move(admission)); });
}

absl::StatusOr<Principal> GenerationService::Caller(const grpc::CallbackServerContext& context) const {
  if (absl::Status status = parts_.rate.Admit(context.peer(), absl::Now()); !status.ok()) return status;
  if (parts_.authenticator == nullptr) return Principal{};
  return parts_.authenticator->Check(context);
}

void GenerationService::Admit(Admission admission) {
  if (const std::optional<Ending> ending = admission.stream->cancelled()) {
    EndUnsubmitted(admission, *ending);
    return;
  }
  const absl::Status status = Contained([&] { return Submit(admission); });
  if (!status.ok()) Refuse(*admission.stream, admission.call, status);
}

absl::Status GenerationService::Submit(Admission& admission) {
  GenerateJob& job = admission.job;
  const uint32_t vocab_size = options_.limits.vocab_size;
  if (job.text) {
    job.prompt = parts_.tokenizer.Encode(*job.text, /*add_special_tokens=*/true);
    absl::Status status = ValidatePromptLength("text", job.prompt.size(), options_.limits);
    if (!status.ok()) return status;
    const bool known = std::all_of(job.prompt.begin(), job.prompt.end(), [&](uint32_t id) { return id < vocab_size; });
    if (!known) return InvalidField("text", "holds a token of the tokenizer that the model does not have");
  }
  const std::shared_ptr<Request> request = MakeRequest(admission);
  OutputSpec spec;
  spec.request_id = job.request_id;
  spec.call = admission.call;
  spec.text = {job.skip_special_tokens, std::move(job.stop), job.include_stop, request->min_tokens};
  spec.wants_text = job.wants_text;
  spec.wants_token_ids = job.wants_token_ids;

  parts_.detokenizer.Open(request, std::move(spec), admission.stream);
  const absl::Status status = Contained([&] { return parts_.engine.Submit(request); });
  if (status.ok()) {
    admission.stream->Submitted(request->id);
    return status;
  }
  parts_.detokenizer.Abandon(request->id);
  if (absl::IsResourceExhausted(status)) {
    return TryLater(status.code(), "too many requests wait", parts_.engine.RetryDelay());
  }
  return TryLater(absl::StatusCode::kUnavailable, "the engine takes no requests", absl::Seconds(1));
}

std::shared_ptr<Request> GenerationService::MakeRequest(const Admission& admission) {
  const GenerateJob& job = admission.job;
  auto request = std::make_shared<Request>();
  request->id = next_id_.fetch_add(1, std::memory_order_relaxed);
  request->prompt = job.prompt;
  request->use_prefix_cache = options_.enable_prefix_caching && !job.bypass_prefix_cache;
  request->read_prefix_cache = request->use_prefix_cache && !job.num_prompt_logprobs;
  if (request->use_prefix_cache) {
    request->root_hash = RootHash(job.cache_salt);
    request->prompt_hashes = HashBlocks(job.cache_salt, request->prompt, options_.block_size);
  }
  request->sampling = job.sampling;
  request->num_outputs = job.num_outputs;
  request->logit_bias = job.logit_bias;
  request->allowed_ids = job.allowed_ids;
  if (!job.has_seed) request->sampling.seed = RandomNumber();
  const uint32_t room = options_.limits.max_model_len - static_cast<uint32_t>(request->prompt.size());
  request->max_tokens = std::min(job.max_tokens.value_or(room), room);
  request->min_tokens = std::min(job.min_tokens, request->max_tokens);
  request->stop_ids = job.stop_ids;
  request->num_logprobs = job.num_logprobs;
  request->num_prompt_logprobs = job.num_prompt_logprobs;
  request->arrival = admission.call.arrival;
  request->deadline = admission.deadline;
  if (job.max_queue_time) request->queue_deadline = request->arrival + *job.max_queue_time;
  if (job.time_limit) request->time_limit = request->arrival + *job.time_limit;
  request->priority = job.priority;
  request->tenant = job.tenant;
  return request;
}

void GenerationService::Refuse(GenerateStream& stream, const CallInfo& call, const absl::Status& status) {
  parts_.metrics.Rejected();
  stream.End(status);
  if (parts_.spans == nullptr) return;
  RequestRecord record;
  record.call = call;
  record.status = status;
  record.total = absl::Now() - call.arrival;
  parts_.spans->Ended(record);
}

void GenerationService::EndUnsubmitted(const Admission& admission, Ending ending) {
  const bool expired = ending == Ending::kExpired;
  RequestRecord record;
  record.request_id = admission.job.request_id;
  record.call = admission.call;
  record.ending = expired ? RequestEnding::kExpired : RequestEnding::kCancelled;
  record.total = record.queued = absl::Now() - admission.call.arrival;
  record.status = expired ? absl::DeadlineExceededError("the request's deadline has passed")
                          : absl::CancelledError("the request was cancelled");
  parts_.metrics.Ended(record);
  admission.stream->End(record.status);
  if (parts_.spans != nullptr) parts_.spans->Ended(record);
}

// -------------------------------------------------------------------------------------------- Cancel, Tokenize,
// Detokenize

grpc::ServerUnaryReactor* GenerationService::Cancel(grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes,
                                                    grpc::ByteBuffer* reply) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  Reply(reactor, Contained([&] {
          const absl::StatusOr<Principal> caller = Caller(*context);
          if (!caller.ok()) return caller.status();
          v1::CancelRequest request;
          if (absl::Status status = ParseMessage(*bytes, request); !status.ok()) return status;
          if (request.request_ids_size() > kMaxCancelIds) {
            return InvalidField("request_ids", absl::StrCat("has ", request.request_ids_size(),
                                                            " ids; allowed: at most ", kMaxCancelIds));
          }
          for (const std::string& id : request.request_ids()) parts_.live.Cancel(ScopedRequestId(*caller, id));
          *reply = SerializeMessage(v1::CancelResponse());
          return absl::OkStatus();
        }));
  return reactor;
}

grpc::ServerUnaryReactor* GenerationService::Tokenize(grpc::CallbackServerContext* context,
                                                      const grpc::ByteBuffer* bytes, grpc::ByteBuffer* reply) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const auto tokenize = [this, reply](const v1::TokenizeRequest& request) {
    v1::TokenizeResponse response;
    const bool special = !request.has_add_special_tokens() || request.add_special_tokens();
    for (const uint32_t id : parts_.tokenizer.Encode(request.text(), special)) {
      const absl::string_view token = parts_.tokenizer.TokenBytes(id);
      response.add_ids(id);
      response.add_tokens(token.data(), token.size());
    }
    *reply = SerializeMessage(response);
    return absl::OkStatus();
  };
  const absl::Status status = Contained([&] {
    if (absl::Status status = Caller(*context).status(); !status.ok()) return status;
    const auto request = std::make_shared<v1::TokenizeRequest>();
    if (absl::Status status = ParseMessage(*bytes, *request); !status.ok()) return status;
    if (request->text().size() > kMaxTokenizeBytes) {
      return InvalidField("text",
                          absl::StrCat("has ", request->text().size(), " bytes; allowed: at most ", kMaxTokenizeBytes));
    }
    return parts_.pool.Submit(bytes->Length(), [reactor, request, tokenize] {
      Reply(reactor, Contained([&] { return tokenize(*request); }));
    });
  });
  if (!status.ok()) Reply(reactor, status);
  return reactor;
}

grpc::ServerUnaryReactor* GenerationService::Detokenize(grpc::CallbackServerContext* context,
                                                        const grpc::ByteBuffer* bytes, grpc::ByteBuffer* reply) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  const auto detokenize = [this, reply](const v1::DetokenizeRequest& request) {
    v1::DetokenizeResponse response;
    const bool skip = !request.has_skip_special_tokens() || request.skip_special_tokens();
    response.set_text(parts_.tokenizer.Decode(
        absl::MakeConstSpan(request.ids().data(), static_cast<size_t>(request.ids_size())), skip));
    *reply = SerializeMessage(response);
    return absl::OkStatus();
  };
  const absl::Status status = Contained([&] {
    if (absl::Status status = Caller(*context).status(); !status.ok()) return status;
    const auto request = std::make_shared<v1::DetokenizeRequest>();
    if (absl::Status status = ParseMessage(*bytes, *request); !status.ok()) return status;
    if (request->ids_size() > kMaxDetokenizeIds) {
      return InvalidField("ids",
                          absl::StrCat("has ", request->ids_size(), " ids; allowed: at most ", kMaxDetokenizeIds));
    }
    if (absl::Status status = ValidateTokenIds("ids", request->ids(), options_.limits.vocab_size); !status.ok()) {
      return status;
    }
    return parts_.pool.Submit(bytes->Length(), [reactor, request, detokenize] {
      Reply(reactor, Contained([&] { return detokenize(*request); }));
    });
  });
  if (!status.ok()) Reply(reactor, status);
  return reactor;
}

}  // namespace quire
