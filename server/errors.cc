#include "server/errors.h"

#include <optional>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "google/rpc/error_details.pb.h"

namespace quire {
namespace {

// The type URL that google.protobuf.Any uses.
template <typename Message>
std::string TypeUrl() {
  return absl::StrCat("type.googleapis.com/", Message::descriptor()->full_name());
}

template <typename Message>
void AddDetail(absl::Status& status, const Message& detail) {
  status.SetPayload(TypeUrl<Message>(), absl::Cord(detail.SerializeAsString()));
}

template <typename Message>
std::optional<Message> DetailOf(const absl::Status& status) {
  const auto payload = status.GetPayload(TypeUrl<Message>());
  Message detail;
  if (!payload || !detail.ParseFromString(std::string(*payload))) return std::nullopt;
  return detail;
}

}  // namespace

absl::Status InvalidFields(const std::vector<FieldViolation>& violations) {
  // gRPC carries details in a trailer, and peers refuse metadata above 8 KiB: some violations are as good as all.
  constexpr size_t kMostTold = 8;
  google::rpc::BadRequest detail;
  for (const FieldViolation& violation : violations) {
    if (detail.field_violations_size() == kMostTold) break;
    auto* told = detail.add_field_violations();
    told->set_field(violation.field);
    told->set_description(violation.description);
  }
  std::string message = absl::StrCat(violations.front().field, ": ", violations.front().description);
  if (violations.size() > 1) absl::StrAppend(&message, " (and ", violations.size() - 1, " more)");
  absl::Status status = absl::InvalidArgumentError(message);
  AddDetail(status, detail);
  return status;
}

absl::Status InvalidField(absl::string_view field, absl::string_view description) {
  return InvalidFields({{std::string(field), std::string(description)}});
}

absl::Status WithFieldNames(const absl::Status& status, std::string (*name_of)(absl::string_view)) {
  if (auto info = DetailOf<google::rpc::ErrorInfo>(status); info && info->metadata().count("field") > 0) {
    absl::Status renamed = status;
    std::string& field = (*info->mutable_metadata())["field"];
    field = name_of(field);
    AddDetail(renamed, *info);
    return renamed;
  }
  std::optional<google::rpc::BadRequest> bad = DetailOf<google::rpc::BadRequest>(status);
  if (!bad || bad->field_violations().empty()) return status;
  // The message begins with the first field.
  absl::string_view message = status.message();
  const std::string first = bad->field_violations(0).field();
  for (auto& violation : *bad->mutable_field_violations()) violation.set_field(name_of(violation.field()));
  absl::Status renamed(status.code(), absl::ConsumePrefix(&message, first)
                                          ? absl::StrCat(bad->field_violations(0).field(), message)
                                          : std::string(message));
  AddDetail(renamed, *bad);
  return renamed;
}

absl::Status NotSupported(absl::string_view field, absl::string_view message) {
  google::rpc::ErrorInfo detail;
  detail.set_reason("UNSUPPORTED_PARAMETER");
  (*detail.mutable_metadata())["field"] = std::string(field);
  detail.set_domain("quire");
  absl::Status status = absl::UnimplementedError(message);
  AddDetail(status, detail);
  return status;
}

absl::Status DeadlineExceeded(absl::string_view reason, absl::string_view message) {
  google::rpc::ErrorInfo detail;
  detail.set_reason(std::string(reason));
  detail.set_domain("quire");
  absl::Status status = absl::DeadlineExceededError(message);
  AddDetail(status, detail);
  return status;
}

absl::Status TryLater(absl::StatusCode code, absl::string_view message, absl::Duration retry_delay) {
  google::rpc::RetryInfo detail;
  detail.mutable_retry_delay()->set_seconds(absl::ToInt64Seconds(retry_delay));
  detail.mutable_retry_delay()->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(retry_delay % absl::Seconds(1))));
  absl::Status status(code, message);
  AddDetail(status, detail);
  return status;
}

}  // namespace quire
