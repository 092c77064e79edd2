// Errors: google.rpc details on the wire, as every client library reads them.

#include "server/errors.h"

#include <gtest/gtest.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "quire/v1/generation.pb.h"
#include "server/rpc_message.h"

namespace quire {
namespace {

google::rpc::Status Rich(const grpc::Status& status) {
  google::rpc::Status rich;
  EXPECT_TRUE(rich.ParseFromString(status.error_details()));
  EXPECT_EQ(rich.code(), static_cast<int>(status.error_code()));
  EXPECT_EQ(rich.message(), status.error_message());
  return rich;
}

TEST(ErrorsTest, InvalidFieldBecomesBadRequest) {
  const grpc::Status status = ToGrpcStatus(InvalidField("stopping.stop[1]", "has 0 bytes; allowed: 1 to 256"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "stopping.stop[1]: has 0 bytes; allowed: 1 to 256");
  const google::rpc::Status rich = Rich(status);
  ASSERT_EQ(rich.details_size(), 1);
  google::rpc::BadRequest detail;
  ASSERT_TRUE(rich.details(0).UnpackTo(&detail));
  EXPECT_EQ(detail.field_violations(0).field(), "stopping.stop[1]");
}

TEST(ErrorsTest, TryLaterBecomesRetryInfo) {
  const grpc::Status status =
      ToGrpcStatus(TryLater(absl::StatusCode::kResourceExhausted, "full", absl::Milliseconds(2750)));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  google::rpc::RetryInfo detail;
  ASSERT_TRUE(Rich(status).details(0).UnpackTo(&detail));
  EXPECT_EQ(detail.retry_delay().seconds(), 2);
  EXPECT_EQ(detail.retry_delay().nanos(), 750000000);
}

TEST(ErrorsTest, NotSupportedBecomesErrorInfo) {
  const grpc::Status status = ToGrpcStatus(NotSupported("n", "not yet"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNIMPLEMENTED);
  google::rpc::ErrorInfo detail;
  ASSERT_TRUE(Rich(status).details(0).UnpackTo(&detail));
  EXPECT_EQ(detail.reason(), "UNSUPPORTED_PARAMETER");
  EXPECT_EQ(detail.domain(), "quire");
  EXPECT_EQ(detail.metadata().at("field"), "n");
}

TEST(ErrorsTest, PlainStatusesCarryNoDetails) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  const grpc::Status status = ToGrpcStatus(absl::NotFoundError("no such model"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_TRUE(status.error_details().empty());
}

TEST(RpcMessageTest, MessagesGoThroughBytes) {
  v1::GenerateRequest request;
  request.set_text("Grüße");
  v1::GenerateRequest parsed;
  ASSERT_TRUE(ParseMessage(SerializeMessage(request), parsed).ok());
  EXPECT_EQ(parsed.text(), "Grüße");
  EXPECT_TRUE(ParseMessage(SerializeMessage(v1::CancelResponse()), parsed).ok());  // no bytes at all
}

TEST(RpcMessageTest, BytesThatAreNoMessageAreInvalid) {
  for (const std::string bytes : {"\x1a\x02\xff\xfe", "\x1a\xff\xff\xff\xff\x0f", "\xff\xff\xff\xff"}) {
    const grpc::Slice slice(bytes);
    v1::GenerateRequest request;
    const absl::Status status = ParseMessage(grpc::ByteBuffer(&slice, 1), request);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace quire
