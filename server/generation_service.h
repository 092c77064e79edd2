// GenerationService: the RPCs Generate, Cancel, Tokenize and Detokenize.
//
// On gRPC's thread a request is parsed and checked; everything that takes time with its text happens in the tokenizer
// pool: tokenizing, hashing, opening its output, submitting it to the engine. From then on the detokenizer writes to
// its stream.
//
// Thread: any.

#ifndef QUIRE_SERVER_GENERATION_SERVICE_H_
#define QUIRE_SERVER_GENERATION_SERVICE_H_

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "engine/engine.h"
#include "quire/v1/generation.grpc.pb.h"
#include "server/authenticator.h"
#include "server/call_rate.h"
#include "server/detokenizer.h"
#include "server/live_requests.h"
#include "server/metrics.h"
#include "server/request_record.h"
#include "server/span_exporter.h"
#include "server/tokenizer/tokenizer.h"
#include "server/tokenizer_pool.h"
#include "server/validation.h"

namespace quire {

// What the service works with; all outlive it.
struct GenerationParts {
  const Tokenizer& tokenizer;
  Engine& engine;
  Detokenizer& detokenizer;
  TokenizerPool& pool;
  LiveRequests& live;
  Metrics& metrics;
  CallRate& rate;
  SpanExporter* spans = nullptr;                 // nullptr: spans are not exported
  const Authenticator* authenticator = nullptr;  // nullptr: everybody may call
};

struct GenerationOptions {
  RequestLimits limits;
  int32_t block_size = 16;  // tokens
  bool enable_prefix_caching = true;
  std::optional<absl::Duration> default_timeout;
  uint64_t max_unsent_tokens = 4096;  // of one stream: beyond, its request pauses until its client reads
};

// The generated service with methods that take and give bytes (rpc_message.h says why).
using RawGenerationService = v1::GenerationService::WithRawCallbackMethod_Generate<
    v1::GenerationService::WithRawCallbackMethod_Cancel<v1::GenerationService::WithRawCallbackMethod_Tokenize<
        v1::GenerationService::WithRawCallbackMethod_Detokenize<v1::GenerationService::Service>>>>;

class GenerationService final : public RawGenerationService {
 public:
  GenerationService(const GenerationParts& parts, GenerationOptions options);

  const RequestLimits& limits() const { return options_.limits; }

  // How the messages of another protocol become a request, and responses its messages.
  struct Dialect {
    absl::string_view rpc_service;                           // a literal: its name in the proto
    std::string (*field_name)(absl::string_view) = nullptr;  // of a field of quire.v1; absent: the same
    std::function<absl::StatusOr<v1::GenerateRequest>(const grpc::ByteBuffer&)> parse;
    std::function<void(v1::GenerateResponse, std::deque<grpc::ByteBuffer>&)> encode;  // as GenerateStream's
  };

  // One Generate call in a dialect.
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer& bytes, Dialect dialect);

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* bytes) override;
  grpc::ServerUnaryReactor* Cancel(grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes,
                                   grpc::ByteBuffer* reply) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes,
                                     grpc::ByteBuffer* reply) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes,
                                       grpc::ByteBuffer* reply) override;

 private:
  // A checked call on its way to the engine.
  struct Admission {
    std::shared_ptr<GenerateStream> stream;
    GenerateJob job;
    CallInfo call;
    absl::Time deadline;
  };

  // Who calls; an error if nobody may, or the connection opens calls too fast.
  absl::StatusOr<Principal> Caller(const grpc::CallbackServerContext& context) const;
  // Parses, checks and queues a call for the pool.
  absl::Status Receive(grpc::CallbackServerContext* context, const grpc::ByteBuffer& bytes, const Dialect& dialect,
                       const CallInfo& call, const std::shared_ptr<GenerateStream>& stream);
  // Where the call stands in its caller's trace.
  TraceContext TraceOf(const grpc::CallbackServerContext& context) const;
  // The pool's part: tokenizes and submits, or refuses.
  void Admit(Admission admission);
  absl::Status Submit(Admission& admission);
  void Refuse(GenerateStream& stream, const CallInfo& call, const absl::Status& status);
  // A call that was cancelled before it was submitted.
  void EndUnsubmitted(const Admission& admission, Ending ending);

  std::shared_ptr<Request> MakeRequest(const Admission& admission);

  const GenerationParts parts_;
  const GenerationOptions options_;
  std::atomic<RequestId> next_id_{1};
};

}  // namespace quire

#endif  // QUIRE_SERVER_GENERATION_SERVICE_H_
