#include "client/health.h"

#include <google/protobuf/io/coded_stream.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

namespace quire::client {
namespace {

// HealthCheckResponse { enum ServingStatus { UNKNOWN, SERVING, NOT_SERVING, SERVICE_UNKNOWN } status = 1; }: a varint
// behind the tag of field 1 (1 << 3 | 0); a zero is left out. The messages are two scalars, so their bytes are read
// here.
std::string DecodeStatus(const grpc::ByteBuffer& message) {
  grpc::Slice bytes;
  if (!message.DumpToSingleSlice(&bytes).ok()) {
    return "UNKNOWN";
  }
  google::protobuf::io::CodedInputStream input(bytes.begin(), static_cast<int>(bytes.size()));
  uint32_t status = 0;
  if (input.ReadTag() != (1 << 3) || !input.ReadVarint32(&status)) {
    return "UNKNOWN";
  }
  static constexpr const char* kNames[] = {"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"};
  return status < 4 ? kNames[status] : "UNKNOWN";
}

}  // namespace

grpc::Status CheckHealth(const Connection& connection, std::string* serving) {
  grpc::ClientContext context;
  connection.Prepare(context);
  // HealthCheckRequest { string service = 1; }: empty bytes are the empty name, the server as a whole.
  const grpc::Slice empty;
  const grpc::ByteBuffer request(&empty, 1);
  grpc::ByteBuffer response;
  grpc::Status status;
  grpc::CompletionQueue queue;
  grpc::GenericStub stub(connection.channel());
  const auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", request, &queue);
  call->StartCall();
  call->Finish(&response, &status, nullptr);
  void* tag;
  bool ok;
  queue.Next(&tag, &ok);
  if (status.ok()) {
    *serving = DecodeStatus(response);
  }
  return status;
}

}  // namespace quire::client
