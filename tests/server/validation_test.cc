// Validation: every field's range, named by its path; and the order of refusals.

#include "server/validation.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/cord.h"
#include "google/rpc/error_details.pb.h"

namespace quire {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

RequestLimits Limits() {
  RequestLimits limits;
  limits.model_name = "tiny";
  limits.vocab_size = 100;
  limits.max_model_len = 32;
  limits.max_text_bytes = 200;
  limits.default_sampling.temperature = 0.7f;
  limits.default_sampling.top_p = 0.9f;
  limits.eos_ids = {1, 7};
  return limits;
}

v1::GenerateRequest Parse(const std::string& text) {
  v1::GenerateRequest request;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request)) << text;
  return request;
}

// The paths that BadRequest names.
std::vector<std::string> FieldsOf(const absl::Status& status) {
  std::vector<std::string> fields;
  google::rpc::BadRequest detail;
  const auto payload = status.GetPayload("type.googleapis.com/google.rpc.BadRequest");
  if (payload.has_value() && detail.ParseFromString(std::string(*payload))) {
    for (const auto& violation : detail.field_violations()) {
      EXPECT_FALSE(violation.description().empty());
      fields.push_back(violation.field());
    }
  }
  return fields;
}

std::string ReasonOf(const absl::Status& status) {
  google::rpc::ErrorInfo detail;
  const auto payload = status.GetPayload("type.googleapis.com/google.rpc.ErrorInfo");
  return payload.has_value() && detail.ParseFromString(std::string(*payload)) ? detail.reason() : "";
}

std::string Repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

TEST(ValidationTest, WholeNumbersAreToldInFull) {
  EXPECT_EQ(ValidateGenerate(Parse("text: 'a' n: 4294967295"), Limits()).status().message(),
            "n: is 4294967295; allowed: 1 to 16");
}

TEST(ValidationTest, EveryFieldOutOfRangeIsNamedByItsPath) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "prompt"},
      {"text: ''", "text"},
      {"text: '" + std::string(201, 'x') + "'", "text"},
      {"tokens {}", "tokens.ids"},
      {"tokens { ids: [" + Repeated("1,", 31) + "1] }", "tokens.ids"},
      {"tokens { ids: [1, 2, 100] }", "tokens.ids[2]"},
      {"text: 'a' request_id: '" + std::string(129, 'r') + "'", "request_id"},
      {"text: 'a' request_id: 'a\\nb'", "request_id"},
      {"text: 'a' sampling { temperature: -1 }", "sampling.temperature"},
      {"text: 'a' sampling { temperature: 100.5 }", "sampling.temperature"},
      {"text: 'a' sampling { temperature: nan }", "sampling.temperature"},
      {"text: 'a' sampling { top_p: 0 }", "sampling.top_p"},
      {"text: 'a' sampling { top_p: 1.5 }", "sampling.top_p"},
      {"text: 'a' sampling { top_p: nan }", "sampling.top_p"},
      {"text: 'a' sampling { min_p: -0.1 }", "sampling.min_p"},
      {"text: 'a' sampling { repetition_penalty: 0 }", "sampling.repetition_penalty"},
      {"text: 'a' sampling { frequency_penalty: -2.5 }", "sampling.frequency_penalty"},
      {"text: 'a' sampling { presence_penalty: inf }", "sampling.presence_penalty"},
      {"text: 'a' sampling { logit_bias { key: 5 value: 101 } }", "sampling.logit_bias[5]"},
      {"text: 'a' sampling { logit_bias { key: 100 value: 1 } }", "sampling.logit_bias[100]"},
      {"text: 'a' sampling { allowed_token_ids: [3, 100] }", "sampling.allowed_token_ids[1]"},
      {"text: 'a' sampling { allowed_token_ids: [" + Repeated("1,", 100) + "1] }", "sampling.allowed_token_ids"},
      {"text: 'a' sampling { allowed_token_ids: [7, 1, 7] } stopping { min_tokens: 2 }", "sampling.allowed_token_ids"},
      {"text: 'a' stopping { max_tokens: 0 }", "stopping.max_tokens"},
      {"text: 'a' stopping { max_tokens: 4 min_tokens: 5 }", "stopping.min_tokens"},
      {"text: 'a' stopping { " + Repeated("stop: 's' ", 17) + "}", "stopping.stop"},
      {"text: 'a' stopping { stop: 'ok' stop: '' }", "stopping.stop[1]"},
      {"text: 'a' stopping { stop: '" + std::string(257, 'x') + "' }", "stopping.stop[0]"},
      {"text: 'a' stopping { stop_token_ids: [" + Repeated("1,", 128) + "1] }", "stopping.stop_token_ids"},
      {"text: 'a' stopping { stop_token_ids: 100 }", "stopping.stop_token_ids[0]"},
      {"text: 'a' output { logprobs: 21 }", "output.logprobs"},
      {"text: 'a' output { prompt_logprobs: 21 }", "output.prompt_logprobs"},
      {"text: 'a' scheduling { priority: 3 }", "scheduling.priority"},
      {"text: 'a' scheduling { tenant: '\\t' }", "scheduling.tenant"},
      {"text: 'a' scheduling { max_queue_time { seconds: -1 } }", "scheduling.max_queue_time"},
      {"text: 'a' scheduling { time_limit { nanos: -1 } }", "scheduling.time_limit"},
      {"text: 'a' cache { salt: '" + std::string(1025, 's') + "' }", "cache.salt"},
      {"text: 'a' n: 0", "n"},
      {"text: 'a' n: 17", "n"},
  };
  for (const auto& [text, field] : cases) {
    const absl::Status status = ValidateGenerate(Parse(text), Limits()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text << status;
    EXPECT_THAT(FieldsOf(status), ElementsAre(field)) << text;
  }
}

TEST(ValidationTest, TheEndsOfTheRangesAreAllowed) {
  for (const std::string& text : std::vector<std::string>{
           "text: '" + std::string(200, 'x') + "'",
           "tokens { ids: [" + Repeated("1,", 30) + "99] }",
           "text: 'a' request_id: '" + std::string(128, '~') + "' model: 'tiny'",
           "text: 'a' sampling { temperature: 0 top_k: 4294967295 top_p: 1 min_p: 1 seed: 18446744073709551615 }",
           "text: 'a' sampling { temperature: 100 repetition_penalty: 100 frequency_penalty: 2 presence_penalty: -2 }",
           "text: 'a' sampling { repetition_penalty: 1e-40 logit_bias { key: 99 value: -100 } }",
           "text: 'a' sampling { allowed_token_ids: [99, 99, 0] }",
           "text: 'a' stopping { max_tokens: 4294967295 min_tokens: 4294967295 }",
           "text: 'a' stopping { " + Repeated("stop: '" + std::string(256, 'x') + "' ", 16) + "}",
           "text: 'a' output { logprobs: 20 prompt_logprobs: 0 }",
           "text: 'a' n: 16",
           "text: 'a' n: 1 json_object: false scheduling { priority: 0 }",
           "text: 'a' scheduling { tenant: 't' max_queue_time { seconds: 5 } time_limit { nanos: 7 } }",
       }) {
    const absl::Status status = ValidateGenerate(Parse(text), Limits()).status();
    EXPECT_TRUE(status.ok()) << text << status;
  }
}

TEST(ValidationTest, SchedulingOptionsAreTakenAsTheyAre) {
  RequestLimits limits = Limits();
  limits.has_priorities = true;
  const auto job = ValidateGenerate(
      Parse("text: 'a' scheduling { priority: -3 tenant: 't' max_queue_time { seconds: 5 } time_limit { nanos: 7 } }"),
      limits);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->priority, -3);
  EXPECT_EQ(job->tenant, "t");
  EXPECT_EQ(job->max_queue_time, absl::Seconds(5));
  EXPECT_EQ(job->time_limit, absl::Nanoseconds(7));
}

TEST(ValidationTest, WhatIsNotBuiltIsRefusedByName) {
  for (const std::string& field : std::vector<std::string>{
           "chat { messages { role: 'user' content: 'hi' } }", "text: 'a' json_schema: '{}'", "text: 'a' regex: 'a'",
           "text: 'a' grammar: 'x'", "text: 'a' choice { choices: 'x' }", "text: 'a' json_object: true"}) {
    const absl::Status status = ValidateGenerate(Parse(field), Limits()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << field;
    EXPECT_EQ(ReasonOf(status), "UNSUPPORTED_PARAMETER") << field;
  }
}

TEST(ValidationTest, MistakesAreToldBeforeWhatIsNotBuilt) {
  const absl::Status status =
      ValidateGenerate(Parse("text: 'a' regex: 'a' sampling { top_p: 7 temperature: -1 }"), Limits()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(FieldsOf(status), ElementsAre("sampling.temperature", "sampling.top_p"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("sampling.temperature: is -1; allowed: 0 to 100 (and 1 more)"));
}

TEST(ValidationTest, AnotherModelIsNotFound) {
  EXPECT_EQ(ValidateGenerate(Parse("model: 'other' text: ''"), Limits()).status().code(), absl::StatusCode::kNotFound);
}

TEST(ValidationTest, AbsentIsNotZero) {
  const GenerateJob job = *ValidateGenerate(Parse("text: 'a'"), Limits());
  EXPECT_FLOAT_EQ(job.sampling.temperature, 0.7f);
  EXPECT_FLOAT_EQ(job.sampling.top_p, 0.9f);
  EXPECT_FALSE(job.has_seed);
  EXPECT_FALSE(job.max_tokens.has_value());
  EXPECT_TRUE(job.wants_text && job.wants_token_ids && job.skip_special_tokens);
  EXPECT_FALSE(job.num_logprobs.has_value());
  const GenerateJob zero = *ValidateGenerate(
      Parse("text: 'a' sampling { temperature: 0 seed: 0 } output { logprobs: 0 text: false token_ids: false }"),
      Limits());
  EXPECT_EQ(zero.sampling.temperature, 0);
  EXPECT_TRUE(zero.has_seed);
  EXPECT_EQ(zero.num_logprobs, 0u);
  EXPECT_FALSE(zero.wants_text || zero.wants_token_ids);
}

TEST(ValidationTest, BiasAndAllowedIdsAreSorted) {
  const GenerateJob job =
      *ValidateGenerate(Parse("text: 'a' sampling { logit_bias { key: 9 value: 1.5 } logit_bias { key: 2 value: -100 } "
                              "allowed_token_ids: [30, 4, 30] frequency_penalty: 1 }"),
                        Limits());
  ASSERT_EQ(job.logit_bias.size(), 2u);
  EXPECT_EQ(job.logit_bias[0].id, 2u);
  EXPECT_EQ(job.logit_bias[0].bias, -100);
  EXPECT_EQ(job.logit_bias[1].id, 9u);
  EXPECT_THAT(job.allowed_ids, ElementsAre(4, 30));
  EXPECT_TRUE(job.sampling.HasPenalties());
}

TEST(ValidationTest, TooManyBiasesAreRefused) {
  RequestLimits limits = Limits();
  limits.vocab_size = 5000;
  std::string text = "text: 'a' sampling {";
  for (int id = 0; id < 1024; ++id) text += " logit_bias { key: " + std::to_string(id) + " value: 1 }";
  EXPECT_TRUE(ValidateGenerate(Parse(text + " }"), limits).ok());
  EXPECT_THAT(FieldsOf(ValidateGenerate(Parse(text + " logit_bias { key: 1024 value: 1 } }"), limits).status()),
              ElementsAre("sampling.logit_bias"));
}

TEST(ValidationTest, IgnoreEosLeavesTheClientsStopIds) {
  EXPECT_THAT(ValidateGenerate(Parse("text: 'a' stopping { stop_token_ids: [9, 7, 9] }"), Limits())->stop_ids,
              ElementsAre(1, 7, 9));
  EXPECT_THAT(ValidateGenerate(Parse("text: 'a' stopping { stop_token_ids: 9 ignore_eos: true }"), Limits())->stop_ids,
              ElementsAre(9));
}

TEST(ValidationTest, DetailsStayFarBelowTheMetadataLimit) {
  std::string text = "text: 'a' sampling {";
  for (int id = 0; id < 100; ++id) text += " logit_bias { key: " + std::to_string(id) + " value: 1000 }";
  const absl::Status status = ValidateGenerate(Parse(text + " }"), Limits()).status();
  EXPECT_EQ(FieldsOf(status).size(), 8u);
  EXPECT_LT(status.GetPayload("type.googleapis.com/google.rpc.BadRequest")->size(), 2048u);
}

}  // namespace
}  // namespace quire
