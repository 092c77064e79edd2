#include <grpcpp/channel.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/load/grpc_backend.h"
#include "client/load/grpc_channels.h"
#include "client/load/grpc_stream.h"
#include "client/model.h"
#include "quire/v1/generation.grpc.pb.h"

namespace quire::client {
namespace {

class QuireStream final : public GrpcStream<v1::GenerateResponse> {
 public:
  QuireStream(const Connection& connection, v1::GenerationService::Stub& stub, const v1::GenerateRequest& request,
              const StreamOptions& options, StreamEvents& events)
      : GrpcStream(connection, options, events), request_(request) {
    stub.async()->Generate(&context(), &request, this);
    Begin();
  }

 private:
  bool Take(const v1::GenerateResponse& response) override {
    if (response.has_accepted()) {
      ++num_accepted_;
      usage_.prompt_tokens = response.accepted().prompt_tokens();
    } else if (response.has_delta()) {
      const v1::Delta& delta = response.delta();
      disorder_ = disorder_ || num_accepted_ == 0 || num_finished_ > 0 || delta.index() != 0;
      const auto& ids = delta.token_ids();
      return events().OnTokens({delta.text(), {ids.data(), static_cast<size_t>(ids.size())}, 0});
    } else if (response.has_finished()) {
      ++num_finished_;
      const v1::Finished& finished = response.finished();
      finish_reason_ = std::string(absl::StripPrefix(v1::FinishReason_Name(finished.reason()), "FINISH_REASON_"));
      usage_ = {finished.usage().prompt_tokens(), finished.usage().completion_tokens(),
                finished.usage().cached_tokens()};
    }
    return true;
  }

  void Conclude(Ending& ending) override {
    ending.finish_reason = finish_reason_;
    if (num_accepted_ > 0) {
      ending.usage = usage_;
    }
    if (num_accepted_ != 1 || num_finished_ != 1 || disorder_) {
      ending.error = absl::StrCat("stream out of order: ", num_accepted_, " Accepted, ", num_finished_, " Finished",
                                  disorder_ ? ", a Delta outside of them or of another output" : "");
    } else {
      ending.error = PromptCountError(request_, usage_);
    }
  }

  const v1::GenerateRequest& request_;
  Usage usage_;
  std::string finish_reason_;
  int num_accepted_ = 0;
  int num_finished_ = 0;
  bool disorder_ = false;
};

class QuireBackend final : public Backend {
 public:
  explicit QuireBackend(GrpcChannels channels) : channels_(std::move(channels)), stubs_(channels_) {}

  absl::StatusOr<ServedModel> Describe(absl::Duration ready_timeout) override {
    channels_.WaitForFirst(ready_timeout);
    v1::GetModelResponse model;
    if (grpc::Status status = GetModel(channels_.first(), &model); !status.ok()) {
      return absl::UnavailableError(client::Describe(status));
    }
    return ServedModel{model.name(), model.vocab_size()};
  }

  bool takes_ids() const override { return true; }

  absl::StatusOr<std::vector<uint32_t>> Tokenize(const std::string& text) override {
    grpc::ClientContext context;
    channels_.first().Prepare(context);
    v1::TokenizeRequest request;
    request.set_text(text);
    request.set_add_special_tokens(false);
    v1::TokenizeResponse response;
    const grpc::Status status = stubs_.first().Tokenize(&context, request, &response);
    if (!status.ok()) {
      return absl::UnavailableError(absl::StrCat("Tokenize: ", client::Describe(status)));
    }
    return std::vector<uint32_t>(response.ids().begin(), response.ids().end());
  }

  std::unique_ptr<Stream> Open(const v1::GenerateRequest& request, const StreamOptions& options,
                               StreamEvents& events) override {
    const size_t turn = stubs_.NextTurn();
    return std::make_unique<QuireStream>(channels_[turn], stubs_[turn], request, options, events);
  }

 private:
  GrpcChannels channels_;
  GrpcStubs<v1::GenerationService> stubs_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeQuireBackend(const ConnectionOptions& options, uint32_t num_connections) {
  absl::StatusOr<GrpcChannels> channels = GrpcChannels::Create(options, num_connections);
  if (!channels.ok()) {
    return channels.status();
  }
  return std::make_unique<QuireBackend>(*std::move(channels));
}

}  // namespace quire::client
