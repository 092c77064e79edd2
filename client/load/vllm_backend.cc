#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/load/grpc_backend.h"
#include "client/load/grpc_channels.h"
#include "client/load/grpc_stream.h"
#include "vllm/engine.grpc.pb.h"

namespace quire::client {
namespace {

namespace vllm = ::vllm::grpc::engine;

// A field without presence reads 0 when it is left out, so neutral values are spelled out.
vllm::GenerateRequest Translate(const v1::GenerateRequest& request) {
  vllm::GenerateRequest translated;
  translated.set_request_id(request.request_id());
  translated.set_stream(true);
  if (request.has_tokens()) {
    const auto& ids = request.tokens().ids();
    translated.mutable_tokenized()->mutable_input_ids()->Add(ids.begin(), ids.end());
  } else {
    translated.set_text(request.text());
  }
  const v1::SamplingParams& from = request.sampling();
  vllm::SamplingParams& to = *translated.mutable_sampling_params();
  if (from.has_temperature()) {
    to.set_temperature(from.temperature());
  }
  to.set_top_p(from.has_top_p() ? from.top_p() : 1);
  to.set_top_k(from.top_k());
  to.set_min_p(from.min_p());
  to.set_frequency_penalty(from.frequency_penalty());
  to.set_presence_penalty(from.presence_penalty());
  to.set_repetition_penalty(from.has_repetition_penalty() ? from.repetition_penalty() : 1);
  for (const auto& [id, bias] : from.logit_bias()) {
    (*to.mutable_logit_bias())[static_cast<int32_t>(id)] = bias;
  }
  to.set_seed(static_cast<int32_t>(from.seed() & INT32_MAX));
  to.set_max_tokens(request.stopping().max_tokens());
  to.set_ignore_eos(request.stopping().ignore_eos());
  to.set_skip_special_tokens(true);
  to.set_n(1);
  return translated;
}

class VllmStream final : public GrpcStream<vllm::GenerateResponse> {
 public:
  VllmStream(const Connection& connection, vllm::VllmEngine::Stub& stub, const v1::GenerateRequest& request,
             const StreamOptions& options, StreamEvents& events)
      : GrpcStream(connection, options, events), request_(request), translated_(Translate(request)) {
    stub.async()->Generate(&context(), &translated_, this);
    Begin();
  }

 private:
  bool Take(const vllm::GenerateResponse& response) override {
    if (response.has_chunk()) {
      disorder_ = disorder_ || num_completes_ > 0 || response.chunk().index() != 0;
      const auto& ids = response.chunk().token_ids();
      ids_.insert(ids_.end(), ids.begin(), ids.end());
      return events().OnTokens({"", {ids.data(), static_cast<size_t>(ids.size())}, 0});
    }
    if (response.has_complete()) {
      ++num_completes_;
      const vllm::GenerateComplete& complete = response.complete();
      const auto& ids = complete.output_ids();
      differs_ = !std::equal(ids.begin(), ids.end(), ids_.begin(), ids_.end());
      usage_ = {complete.prompt_tokens(), complete.completion_tokens(), complete.cached_tokens()};
      finish_reason_ = absl::AsciiStrToUpper(complete.finish_reason());
    }
    return true;
  }

  void Conclude(Ending& ending) override {
    ending.finish_reason = finish_reason_;
    if (num_completes_ > 0) {
      ending.usage = usage_;
    }
    if (num_completes_ != 1 || disorder_) {
      ending.error = absl::StrCat("stream out of order: ", num_completes_, " Complete",
                                  disorder_ ? ", a chunk behind it or of another output" : "");
    } else if (differs_) {
      ending.error = "Complete.output_ids are not the ids of the chunks";
    } else if (finish_reason_ == "ABORT") {
      ending.error = "aborted by the server";
    } else {
      ending.error = PromptCountError(request_, usage_);
    }
  }

  const v1::GenerateRequest& request_;
  const vllm::GenerateRequest translated_;
  std::vector<uint32_t> ids_;  // of all chunks
  Usage usage_;
  std::string finish_reason_;
  int num_completes_ = 0;
  bool disorder_ = false;
  bool differs_ = false;
};

class VllmBackend final : public Backend {
 public:
  explicit VllmBackend(GrpcChannels channels) : channels_(std::move(channels)), stubs_(channels_) {}

  absl::StatusOr<ServedModel> Describe(absl::Duration ready_timeout) override {
    channels_.WaitForFirst(ready_timeout);
    grpc::ClientContext context;
    channels_.first().Prepare(context);
    vllm::GetModelInfoResponse info;
    const grpc::Status status = stubs_.first().GetModelInfo(&context, vllm::GetModelInfoRequest(), &info);
    if (!status.ok()) {
      return absl::UnavailableError(client::Describe(status));
    }
    return ServedModel{info.served_model_name().empty() ? info.model_path() : info.served_model_name(),
                       info.vocab_size()};
  }

  bool takes_ids() const override { return true; }

  absl::StatusOr<std::vector<uint32_t>> Tokenize(const std::string&) override {
    return absl::UnimplementedError("vllm.grpc.engine.VllmEngine has no call to tokenize a text");
  }

  std::unique_ptr<Stream> Open(const v1::GenerateRequest& request, const StreamOptions& options,
                               StreamEvents& events) override {
    const size_t turn = stubs_.NextTurn();
    return std::make_unique<VllmStream>(channels_[turn], stubs_[turn], request, options, events);
  }

 private:
  GrpcChannels channels_;
  GrpcStubs<vllm::VllmEngine> stubs_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeVllmBackend(const ConnectionOptions& options, uint32_t num_connections) {
  absl::StatusOr<GrpcChannels> channels = GrpcChannels::Create(options, num_connections);
  if (!channels.ok()) {
    return channels.status();
  }
  return std::make_unique<VllmBackend>(*std::move(channels));
}

}  // namespace quire::client
