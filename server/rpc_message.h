// Messages and statuses at the edge to gRPC.
//
// The services take their requests as bytes and parse them here, so that bytes that are no request are answered with
// INVALID_ARGUMENT and a message (the library itself would answer UNIMPLEMENTED without one).
//
// Thread: functions of their arguments.

#ifndef QUIRE_SERVER_RPC_MESSAGE_H_
#define QUIRE_SERVER_RPC_MESSAGE_H_

#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace quire {

// INVALID_ARGUMENT when `bytes` are no such message (invalid UTF-8 in a string, a cut message, a wrong wire type).
absl::Status ParseMessage(const grpc::ByteBuffer& bytes, google::protobuf::Message& message);

grpc::ByteBuffer SerializeMessage(const google::protobuf::Message& message);

// The same code and message; payloads become the details of a google.rpc.Status in the trailer grpc-status-details-bin.
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace quire

#endif  // QUIRE_SERVER_RPC_MESSAGE_H_
