#include "client/errors.h"

#include <grpcpp/support/status.h>
#include <gtest/gtest.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace quire::client {
namespace {

grpc::Status WithDetail(grpc::StatusCode code, const std::string& message, const google::protobuf::Message& detail) {
  google::rpc::Status details;
  details.set_code(code);
  details.set_message(message);
  details.add_details()->PackFrom(detail);
  return grpc::Status(code, message, details.SerializeAsString());
}

TEST(Describe, NamesEachFieldThatIsWrong) {
  google::rpc::BadRequest bad;
  auto* violation = bad.add_field_violations();
  violation->set_field("sampling.temperature");
  violation->set_description("is -1, must be in [0, 100]");
  violation = bad.add_field_violations();
  violation->set_field("stopping.stop[1]");
  violation->set_description("is empty");
  EXPECT_EQ(Describe(WithDetail(grpc::StatusCode::INVALID_ARGUMENT, "refused", bad)),
            "INVALID_ARGUMENT: refused (sampling.temperature: is -1, must be in [0, 100]; stopping.stop[1]: is empty)");
}

TEST(Describe, DoesNotRepeatWhatTheMessageSays) {
  google::rpc::BadRequest bad;
  auto* violation = bad.add_field_violations();
  violation->set_field("n");
  violation->set_description("is 0");
  EXPECT_EQ(Describe(WithDetail(grpc::StatusCode::INVALID_ARGUMENT, "n: is 0", bad)), "INVALID_ARGUMENT: n: is 0");
}

TEST(Describe, SaysWhenToComeAgain) {
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_nanos(250'000'000);
  const grpc::Status status = WithDetail(grpc::StatusCode::RESOURCE_EXHAUSTED, "queue is full", retry);
  EXPECT_EQ(Describe(status), "RESOURCE_EXHAUSTED: queue is full (retry in 250ms)");
  EXPECT_EQ(RetryDelay(status), absl::Milliseconds(250));
}

TEST(Describe, SaysTheReason) {
  google::rpc::ErrorInfo error;
  error.set_reason("UNSUPPORTED_PARAMETER");
  EXPECT_EQ(Describe(WithDetail(grpc::StatusCode::UNIMPLEMENTED, "no chat", error)),
            "UNIMPLEMENTED: no chat (reason UNSUPPORTED_PARAMETER)");
}

TEST(Describe, IsOneLineWhateverTheServerSends) {
  EXPECT_EQ(Describe(grpc::Status(grpc::StatusCode::INTERNAL, "a\nb\x1b[2J")), "INTERNAL: a b [2J");
  EXPECT_EQ(Describe(grpc::Status(grpc::StatusCode::INTERNAL, "a", "no protobuf")), "INTERNAL: a");
  EXPECT_EQ(RetryDelay(grpc::Status(grpc::StatusCode::INTERNAL, "a", "no protobuf")), std::nullopt);
}

TEST(CodeName, KnowsAllCodesAndNumbersTheRest) {
  EXPECT_EQ(CodeName(0), "OK");
  EXPECT_EQ(CodeName(14), "UNAVAILABLE");
  EXPECT_EQ(CodeName(16), "UNAUTHENTICATED");
  EXPECT_EQ(CodeName(17), "CODE_17");
  EXPECT_EQ(CodeName(-1), "CODE_-1");
}

}  // namespace
}  // namespace quire::client
