#include "server/vllm_dialect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace quire {
namespace {

namespace vllm = ::vllm::grpc::engine;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint32_t kMaxModelLen = 100;

TEST(FromVllm, ZeroesWithoutPresenceMeanOne) {
  vllm::GenerateRequest request;
  request.set_request_id("r");
  request.set_text("hello");
  const auto result = FromVllm(request, kMaxModelLen);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->request_id(), "r");
  EXPECT_EQ(result->text(), "hello");
  EXPECT_EQ(result->sampling().temperature(), 1.0f);
  EXPECT_EQ(result->sampling().top_p(), 1.0f);
  EXPECT_EQ(result->sampling().repetition_penalty(), 1.0f);
  EXPECT_TRUE(result->sampling().has_top_k());
  EXPECT_FALSE(result->sampling().has_seed());
  EXPECT_FALSE(result->has_n());
  EXPECT_FALSE(result->stopping().has_max_tokens());
  EXPECT_FALSE(result->output().text());
  EXPECT_FALSE(result->output().skip_special_tokens());
}

TEST(FromVllm, CarriesEveryField) {
  vllm::GenerateRequest request;
  request.mutable_tokenized()->mutable_input_ids()->Add(7);
  auto& s = *request.mutable_sampling_params();
  s.set_temperature(0);
  s.set_top_k(4);
  s.set_min_p(0.5f);
  s.set_frequency_penalty(-1);
  s.set_presence_penalty(1);
  s.set_seed(-1);
  s.set_n(3);
  s.set_max_tokens(9);
  s.set_min_tokens(2);
  s.add_stop("x");
  s.add_stop_token_ids(5);
  s.set_include_stop_str_in_output(true);
  s.set_ignore_eos(true);
  s.set_logprobs(2);
  s.set_prompt_logprobs(0);
  (*s.mutable_logit_bias())[3] = -4;
  s.set_regex("a+");
  const auto r = FromVllm(request, kMaxModelLen);
  ASSERT_TRUE(r.ok()) << r.status();
  EXPECT_THAT(r->tokens().ids(), ElementsAre(7));
  EXPECT_EQ(r->sampling().temperature(), 0);
  EXPECT_EQ(r->sampling().top_k(), 4u);
  EXPECT_EQ(r->sampling().min_p(), 0.5f);
  EXPECT_EQ(r->sampling().frequency_penalty(), -1);
  EXPECT_EQ(r->sampling().presence_penalty(), 1);
  EXPECT_EQ(r->sampling().seed(), ~uint64_t{0});
  EXPECT_EQ(r->sampling().logit_bias().at(3), -4);
  EXPECT_EQ(r->n(), 3u);
  EXPECT_EQ(r->stopping().max_tokens(), 9u);
  EXPECT_EQ(r->stopping().min_tokens(), 2u);
  EXPECT_THAT(r->stopping().stop(), ElementsAre("x"));
  EXPECT_THAT(r->stopping().stop_token_ids(), ElementsAre(5));
  EXPECT_TRUE(r->stopping().include_stop());
  EXPECT_TRUE(r->stopping().ignore_eos());
  EXPECT_EQ(r->output().logprobs(), 2u);
  EXPECT_EQ(r->output().prompt_logprobs(), 0u);
  EXPECT_EQ(r->regex(), "a+");
}

TEST(FromVllm, KeepsTheEndOfATruncatedPrompt) {
  vllm::GenerateRequest request;
  for (uint32_t id = 0; id < 200; ++id) request.mutable_tokenized()->add_input_ids(id);
  request.mutable_sampling_params()->set_truncate_prompt_tokens(2);
  EXPECT_THAT(FromVllm(request, kMaxModelLen)->tokens().ids(), ElementsAre(198, 199));
  request.mutable_sampling_params()->set_truncate_prompt_tokens(-1);
  EXPECT_EQ(FromVllm(request, kMaxModelLen)->tokens().ids_size(), 99);
  request.mutable_sampling_params()->set_truncate_prompt_tokens(0);
  EXPECT_EQ(FromVllm(request, kMaxModelLen).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(FromVllm, RefusesByNameWhatHasNoCounterpart) {
  const auto error = [](auto set) {
    vllm::GenerateRequest request;
    request.set_text("a");
    set(request);
    const auto result = FromVllm(request, kMaxModelLen);
    EXPECT_FALSE(result.ok());
    return std::string(result.status().message());
  };
  EXPECT_THAT(error([](auto& r) { r.mutable_sampling_params()->set_logprobs(-1); }),
              HasSubstr("logprobs: is -1; allowed: 0 to 20"));
  EXPECT_THAT(error([](auto& r) { (*r.mutable_sampling_params()->mutable_logit_bias())[-2] = 1; }),
              HasSubstr("logit_bias[-2]"));
  EXPECT_THAT(error([](auto& r) { r.set_data_parallel_rank(1); }), HasSubstr("data_parallel_rank"));
  for (const auto& status : {FromVllm(
                                 [] {
                                   vllm::GenerateRequest r;
                                   r.mutable_mm_inputs();
                                   return r;
                                 }(),
                                 9)
                                 .status(),
                             FromVllm(
                                 [] {
                                   vllm::GenerateRequest r;
                                   r.set_kv_transfer_params_json("{}");
                                   return r;
                                 }(),
                                 9)
                                 .status(),
                             FromVllm(
                                 [] {
                                   vllm::GenerateRequest r;
                                   r.mutable_sampling_params()->set_structural_tag("x");
                                   return r;
                                 }(),
                                 9)
                                 .status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
  }
}

v1::GenerateResponse Delta(uint32_t index, std::vector<uint32_t> ids) {
  v1::GenerateResponse response;
  response.mutable_delta()->set_index(index);
  for (const uint32_t id : ids) {
    response.mutable_delta()->add_token_ids(id);
    auto* logprobs = response.mutable_delta()->add_logprobs();
    logprobs->set_token_id(id);
    logprobs->set_logprob(-float(id));
    logprobs->add_top()->set_token_id(id + 1);
  }
  return response;
}

v1::GenerateResponse Finished(uint32_t index, uint32_t completion_tokens) {
  v1::GenerateResponse response;
  auto& finished = *response.mutable_finished();
  finished.set_index(index);
  finished.set_reason(v1::FINISH_REASON_STOP);
  finished.set_stop("end");
  finished.mutable_usage()->set_prompt_tokens(3);
  finished.mutable_usage()->set_completion_tokens(completion_tokens);
  finished.mutable_usage()->set_cached_tokens(2);
  return response;
}

TEST(VllmEncoder, ChunksCarryIdsWithoutCountsAndCompleteCarriesAll) {
  for (const bool stream : {true, false}) {
    VllmEncoder encoder(stream, /*first_prompt_id=*/11);
    std::vector<vllm::GenerateResponse> out;
    v1::GenerateResponse prompt;
    prompt.mutable_prompt_logprobs()->add_logprobs()->set_token_id(12);
    encoder.Encode(prompt, out);
    encoder.Encode(Delta(0, {1, 2}), out);
    encoder.Encode(Delta(1, {5}), out);
    encoder.Encode(Delta(0, {3}), out);
    encoder.Encode(Finished(0, 3), out);
    ASSERT_EQ(out.size(), stream ? 4u : 1u);
    if (stream) {
      EXPECT_THAT(out[0].chunk().token_ids(), ElementsAre(1, 2));
      EXPECT_THAT(out[0].chunk().output_logprobs().token_logprobs(), ElementsAre(-1, -2));
      EXPECT_THAT(out[0].chunk().input_logprobs().token_ids(), ElementsAre(11, 12));
      EXPECT_FALSE(out[0].chunk().input_logprobs().token_logprobs(0).has_value());
      EXPECT_EQ(out[1].chunk().index(), 1u);
      EXPECT_FALSE(out[1].chunk().has_input_logprobs());
      EXPECT_EQ(out[0].chunk().prompt_tokens() + out[0].chunk().completion_tokens() + out[0].chunk().cached_tokens(),
                0u);
    }
    const vllm::GenerateComplete& complete = out.back().complete();
    EXPECT_THAT(complete.output_ids(), ElementsAre(1, 2, 3));
    EXPECT_EQ(complete.output_logprobs().top_logprobs(2).token_ids(0), 4u);
    EXPECT_EQ(complete.finish_reason(), "stop");
    EXPECT_EQ(complete.matched_stop_str(), "end");
    EXPECT_EQ(complete.prompt_tokens(), 3u);
    EXPECT_EQ(complete.completion_tokens(), 3u);
    EXPECT_EQ(complete.cached_tokens(), 2u);
    EXPECT_EQ(complete.input_logprobs().token_ids_size(), 2);
    out.clear();
    encoder.Encode(Finished(1, 1), out);
    EXPECT_THAT(out.at(0).complete().output_ids(), ElementsAre(5));
  }
}

}  // namespace
}  // namespace quire
