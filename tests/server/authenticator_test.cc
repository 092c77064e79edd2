// Who may call what, over a real gRPC connection. The methods are taken from the protos, so that a new one cannot be
// forgotten.

#include "server/authenticator.h"

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "quire/v1/generation.grpc.pb.h"
#include "quire/v1/model.grpc.pb.h"
#include "tests/server/test_services.h"

namespace quire {
namespace {

using ::testing::HasSubstr;

// Nothing gets this far.
class NoRunner final : public ModelRunner {
 public:
  absl::Status Launch(const Batch&) override { return absl::InternalError("launched"); }
  absl::StatusOr<const StepResult*> Collect() override { return absl::InternalError("collected"); }
};

// The daemon's services, for which these tokens are needed.
TestServicesSetup WithTokens(std::unique_ptr<AuthTokens> tokens) {
  TestServicesSetup setup;
  setup.scheduler = {.num_blocks = 16, .max_model_len = 100};
  setup.generation.limits.model_name = "fake";
  setup.generation.limits.vocab_size = 257;
  setup.generation.limits.max_model_len = 100;
  setup.generation.limits.max_text_bytes = 1000;
  setup.runner = std::make_unique<NoRunner>();
  setup.tokens = std::move(tokens);
  return setup;
}

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
  const TestServices services(WithTokens(AuthTokens::Parse("good-token\nother-token tenant=blue\n", "file").value()));
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
          EXPECT_EQ(CodeOf(services.channel, path, wrong), grpc::StatusCode::UNAUTHENTICATED) << path << " " << wrong;
        }
        for (const char* right : {"Bearer good-token", "bearer other-token"}) {
          EXPECT_NE(CodeOf(services.channel, path, right), grpc::StatusCode::UNAUTHENTICATED) << path << " " << right;
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
