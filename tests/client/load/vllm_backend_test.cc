#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "tests/client/fake_daemon.h"
#include "vllm/engine.grpc.pb.h"

namespace quire::client {
namespace {

using ::testing::HasSubstr;
namespace vllm = ::vllm::grpc::engine;

// Streams max_tokens ids, one a chunk, and the Complete that `change` may spoil.
class FakeEngine final : public vllm::VllmEngine::Service {
 public:
  FakeEngine() {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    target_ = absl::StrCat("127.0.0.1:", port);
  }
  ~FakeEngine() override { server_->Shutdown(std::chrono::system_clock::now()); }

  grpc::Status GetModelInfo(grpc::ServerContext*, const vllm::GetModelInfoRequest*,
                            vllm::GetModelInfoResponse* response) override {
    response->set_served_model_name("tales");
    response->set_vocab_size(50);
    return grpc::Status::OK;
  }

  grpc::Status Generate(grpc::ServerContext*, const vllm::GenerateRequest* request,
                        grpc::ServerWriter<vllm::GenerateResponse>* writer) override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      last_ = *request;
    }
    vllm::GenerateResponse response;
    vllm::GenerateResponse last;
    vllm::GenerateComplete& complete = *last.mutable_complete();
    for (uint32_t id = 0; id < request->sampling_params().max_tokens(); ++id) {
      response.mutable_chunk()->clear_token_ids();
      response.mutable_chunk()->add_token_ids(id);
      complete.add_output_ids(id);
      writer->Write(response);
    }
    complete.set_finish_reason("length");
    complete.set_prompt_tokens(request->tokenized().input_ids_size());
    complete.set_completion_tokens(complete.output_ids_size());
    change(complete);
    writer->Write(last);
    return grpc::Status::OK;
  }

  Outcome Load(const std::string& flags) {
    return RunQuire("load --backend vllm-grpc --random-input-len 8 --random-output-len 4 --target " + target_ + " " +
                    flags);
  }

  vllm::GenerateRequest last() {
    std::lock_guard<std::mutex> lock(mutex_);
    return last_;
  }

  std::function<void(vllm::GenerateComplete&)> change = [](vllm::GenerateComplete&) {};

 private:
  std::unique_ptr<grpc::Server> server_;
  std::string target_;
  std::mutex mutex_;
  vllm::GenerateRequest last_;  // guarded by mutex_
};

TEST(VllmBackend, StreamsIdsAndSpellsOutNeutralValues) {
  FakeEngine engine;
  const Outcome outcome = engine.Load("--num-prompts 4 --assert completed>=4 --assert total_output_tokens>=16");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const vllm::GenerateRequest request = engine.last();
  EXPECT_TRUE(request.stream());
  EXPECT_EQ(request.tokenized().input_ids_size(), 8);
  EXPECT_EQ(request.sampling_params().top_p(), 1);
  EXPECT_EQ(request.sampling_params().repetition_penalty(), 1);
  EXPECT_EQ(request.sampling_params().n(), 1u);
  EXPECT_TRUE(request.sampling_params().has_temperature());
  EXPECT_TRUE(request.sampling_params().ignore_eos());
}

TEST(VllmBackend, FindsGapsAndMiscounts) {
  FakeEngine engine;
  engine.change = [](vllm::GenerateComplete& complete) { complete.set_output_ids(1, 9); };
  EXPECT_THAT(engine.Load("--num-prompts 1").err, HasSubstr("output_ids are not the ids of the chunks"));
  engine.change = [](vllm::GenerateComplete& complete) { complete.set_completion_tokens(5); };
  EXPECT_THAT(engine.Load("--num-prompts 1").err, HasSubstr("completion_tokens is 5, but 4 token ids came"));
  engine.change = [](vllm::GenerateComplete& complete) { complete.set_prompt_tokens(7); };
  EXPECT_THAT(engine.Load("--num-prompts 1").err, HasSubstr("prompt_tokens is 7, but 8 token ids were sent"));
  engine.change = [](vllm::GenerateComplete& complete) { complete.set_finish_reason("abort"); };
  EXPECT_THAT(engine.Load("--num-prompts 1").err, HasSubstr("aborted by the server"));
}

TEST(VllmBackend, RefusesWhatTheDialectCannotSay) {
  for (const char* flags : {"--tenant a", "--priority 1", "--max-queue-time 1s", "--tenant-mix a:1", "--cache-salt x",
                            "--base-url http://x", "--api-key x"}) {
    const Outcome outcome = RunQuire(absl::StrCat("load --backend vllm-grpc ", flags));
    EXPECT_EQ(outcome.code, 1) << flags;
    EXPECT_THAT(outcome.err, HasSubstr("is not for --backend vllm-grpc")) << flags;
  }
}

}  // namespace
}  // namespace quire::client
