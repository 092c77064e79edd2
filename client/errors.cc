#include "client/errors.h"

#include <grpcpp/support/status.h>

#include <array>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace quire::client {
namespace {

// `text` on one line: a server's message may hold anything.
std::string OneLine(std::string text) {
  for (char& c : text) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) {
      c = ' ';
    }
  }
  return text;
}

absl::Duration ToDuration(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

google::rpc::Status DecodeDetails(const grpc::Status& status) {
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) {
    details.Clear();
  }
  return details;
}

// What one detail says; empty if it is of a type that is not ours to know.
std::vector<std::string> Phrases(const google::protobuf::Any& detail) {
  std::vector<std::string> phrases;
  google::rpc::BadRequest bad_request;
  google::rpc::RetryInfo retry;
  google::rpc::ErrorInfo error;
  if (detail.UnpackTo(&bad_request)) {
    for (const auto& violation : bad_request.field_violations()) {
      phrases.push_back(absl::StrCat(violation.field(), ": ", violation.description()));
    }
  } else if (detail.UnpackTo(&retry)) {
    phrases.push_back(absl::StrCat("retry in ", absl::FormatDuration(ToDuration(retry.retry_delay()))));
  } else if (detail.UnpackTo(&error)) {
    phrases.push_back(absl::StrCat("reason ", error.reason()));
  }
  return phrases;
}

}  // namespace

std::string CodeName(int code) {
  static constexpr std::array<const char*, 17> kNames = {
      "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
      "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
      "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
      "DATA_LOSS", "UNAUTHENTICATED"};
  return code >= 0 && code < static_cast<int>(kNames.size()) ? kNames[code] : absl::StrCat("CODE_", code);
}

std::string Describe(const grpc::Status& status) {
  std::vector<std::string> phrases;
  const google::rpc::Status details = DecodeDetails(status);
  for (const auto& detail : details.details()) {
    for (std::string& phrase : Phrases(detail)) {
      // The message of a single violation says it already.
      if (!absl::StrContains(status.error_message(), phrase)) {
        phrases.push_back(std::move(phrase));
      }
    }
  }
  std::string line = absl::StrCat(CodeName(status.error_code()), ": ", status.error_message());
  if (!phrases.empty()) {
    absl::StrAppend(&line, " (", absl::StrJoin(phrases, "; "), ")");
  }
  return OneLine(std::move(line));
}

std::optional<absl::Duration> RetryDelay(const grpc::Status& status) {
  const google::rpc::Status details = DecodeDetails(status);
  for (const auto& detail : details.details()) {
    google::rpc::RetryInfo retry;
    if (detail.UnpackTo(&retry)) {
      return ToDuration(retry.retry_delay());
    }
  }
  return std::nullopt;
}

}  // namespace quire::client
