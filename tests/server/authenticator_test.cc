// Who may call what, over a real gRPC connection. The methods are taken from the protos, so that a new one cannot be
// forgotten.

#include "server/authenticator.h"

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "quire/v1/generation.grpc.pb.h"
#include "quire/v1/model.grpc.pb.h"
#include "server/generation_service.h"
#include "server/model_service.h"
#include "server/rpc_server.h"
#include "server/vllm_service.h"
#include "tests/server/byte_tokenizer.h"

namespace quire {
namespace {

using ::testing::HasSubstr;

// Nothing gets this far.
class NoRunner final : public ModelRunner {
 public:
  absl::Status Launch(const Batch&) override { return absl::InternalError("launched"); }
  absl::StatusOr<const StepResult*> Collect() override { return absl::InternalError("collected"); }
};

GenerationOptions TestOptions() {
  GenerationOptions options;
  options.limits.model_name = "fake";
  options.limits.vocab_size = 257;
  options.limits.max_model_len = 100;
  options.limits.max_text_bytes = 1000;
  return options;
}

// The daemon's services, for which these tokens are needed.
class Services {
 public:
  explicit Services(std::unique_ptr<AuthTokens> tokens)
      : authenticator_(std::move(tokens)),
        tokenizer_(MakeByteTokenizer()),
        metrics_(Metrics::Info{}),
        log_(LogFormat::kText),
        detokenizer_(*tokenizer_, metrics_, log_),
        engine_({.num_blocks = 16, .max_model_len = 100}, 4, 100, std::make_unique<NoRunner>(), &detokenizer_),
        live_(metrics_, absl::Seconds(30)),
        pool_(TokenizerPool::Options()),
        generation_({*tokenizer_, engine_, detokenizer_, pool_, live_, metrics_, rate_, &authenticator_},
                    TestOptions()),
        model_(v1::GetModelResponse(), &authenticator_),
        vllm_({generation_, engine_, live_, authenticator_, [] { return true; }}, v1::GetModelResponse(), "", 1) {
    detokenizer_.Start([this](RequestId id, uint32_t index) { engine_.Stop(id, index); }, [](const absl::Status&) {});
    grpc::Service* const services[] = {&generation_, &model_, &vllm_};
    server_ = *RpcServer::Start({.address = {"127.0.0.1", 0}}, services);
    channel_ = grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->port()), grpc::InsecureChannelCredentials());
  }
  ~Services() {
    live_.Close([] {});
    pool_.Shutdown();
    engine_.Shutdown();
    detokenizer_.Shutdown();
    server_->Shutdown(absl::Seconds(5));
  }

  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

 private:
  Authenticator authenticator_;
  std::unique_ptr<Tokenizer> tokenizer_;
  Metrics metrics_;
  RequestLog log_;
  Detokenizer detokenizer_;
  Engine engine_;
  LiveRequests live_;
  TokenizerPool pool_;
  CallRate rate_{1'000'000};
  GenerationService generation_;
  ModelService model_;
  VllmService vllm_;
  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

// The code of a call with one empty message. `authorization`: metadata, unless empty.
grpc::StatusCode CodeOf(const std::shared_ptr<grpc::Channel>& channel, const std::string& path,
                        const std::string& authorization) {
  grpc::ClientContext context;
  if (!authorization.empty()) context.AddMetadata("authorization", authorization);
  grpc::CompletionQueue queue;
  grpc::GenericStub stub(channel);
  const auto call = stub.PrepareCall(&context, path, &queue);
  const auto wait = [&queue] {
    void* tag;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  call->StartCall(nullptr);
  if (wait()) {
    const grpc::Slice empty("", size_t{0});
    call->WriteLast(grpc::ByteBuffer(&empty, 1), grpc::WriteOptions(), nullptr);
    wait();
  }
  grpc::ByteBuffer reply;
  do call->Read(&reply, nullptr);
  while (wait());
  grpc::Status status;
  call->Finish(&status, nullptr);
  wait();
  return status.error_code();
}

TEST(Authenticator, EveryMethodAsksForAToken) {
  const Services services(AuthTokens::Parse("good-token\nother-token tenant=blue\n", "file").value());
  int num_methods = 0;
  for (const auto* file : {v1::GenerateRequest::descriptor()->file(), v1::GetModelRequest::descriptor()->file(),
                           vllm::grpc::engine::GenerateRequest::descriptor()->file()}) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m) {
        const auto* method = file->service(s)->method(m);
        if (method->name() == "HealthCheck") continue;  // open to all
        const std::string path = absl::StrCat("/", method->service()->full_name(), "/", method->name());
        for (const char* wrong :
             {"", "Bearer wrong", "Bearer ", "good-token", "Basic good-token", "Bearer good-token2"}) {
          EXPECT_EQ(CodeOf(services.channel(), path, wrong), grpc::StatusCode::UNAUTHENTICATED) << path << " " << wrong;
        }
        for (const char* right : {"Bearer good-token", "bearer other-token"}) {
          EXPECT_NE(CodeOf(services.channel(), path, right), grpc::StatusCode::UNAUTHENTICATED) << path << " " << right;
        }
        ++num_methods;
      }
    }
  }
  EXPECT_EQ(num_methods, 13);
}

TEST(Authenticator, ACredentialBindsTenantAndPriority) {
  const Principal blue{.tenant = "blue", .max_priority = -2};
  v1::GenerateRequest request;
  EXPECT_TRUE(BindToPrincipal(blue, request).ok());
  EXPECT_EQ(request.scheduling().tenant(), "blue");
  request.mutable_scheduling()->set_priority(-2);
  EXPECT_TRUE(BindToPrincipal(blue, request).ok());
  request.mutable_scheduling()->set_priority(-3);
  const absl::Status high = BindToPrincipal(blue, request);
  EXPECT_EQ(high.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(high.message()), HasSubstr("found -3, allowed for the bearer token: -2"));
  request.mutable_scheduling()->set_tenant("red");
  EXPECT_EQ(BindToPrincipal(blue, request).code(), absl::StatusCode::kPermissionDenied);
  EXPECT_TRUE(BindToPrincipal(Principal{}, request).ok());
  EXPECT_EQ(request.scheduling().tenant(), "red");
}

TEST(Authenticator, RequestIdsOfTenantsAreApart) {
  EXPECT_NE(ScopedRequestId({.tenant = "a"}, "1"), ScopedRequestId({.tenant = "b"}, "1"));
  EXPECT_EQ(ScopedRequestId({}, "1"), "1");
}

}  // namespace
}  // namespace quire
