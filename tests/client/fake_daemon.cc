#include "tests/client/fake_daemon.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/cli.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace quire::client {

Outcome RunQuire(const std::string& flags, const std::vector<std::string>& more, const std::string& stdin_text) {
  std::vector<std::string> words = absl::StrSplit(absl::StrCat("quire ", flags), ' ', absl::SkipEmpty());
  words.insert(words.end(), more.begin(), more.end());
  std::vector<const char*> argv;
  for (const std::string& word : words) {
    argv.push_back(word.c_str());
  }
  std::istringstream in(stdin_text);
  std::ostringstream out, err;
  Io io{in, out, err};
  const int code = RunCli(static_cast<int>(argv.size()), argv.data(), io);
  return {code, out.str(), err.str()};
}

class FakeDaemon::Generation final : public v1::GenerationService::Service {
 public:
  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request, Writer* writer) override {
    FakeDaemon::Generate generate;
    {
      std::lock_guard<std::mutex> lock(mutex);
      requests.push_back(*request);
      const auto found = context->client_metadata().find("authorization");
      authorization =
          found == context->client_metadata().end() ? "" : std::string(found->second.data(), found->second.size());
      generate = answer;
    }
    return generate(context, *request, writer);
  }

  // A token for each byte, behind BOS 256.
  grpc::Status Tokenize(grpc::ServerContext*, const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override {
    if (!request->has_add_special_tokens() || request->add_special_tokens()) {
      response->add_ids(256);
    }
    for (char c : request->text()) {
      response->add_ids(static_cast<uint8_t>(c));
    }
    return grpc::Status::OK;
  }

  grpc::Status Detokenize(grpc::ServerContext*, const v1::DetokenizeRequest* request,
                          v1::DetokenizeResponse* response) override {
    for (uint32_t id : request->ids()) {
      if (id >= 256) {
        return BadField("ids", "is out of range");
      }
      *response->mutable_text() += static_cast<char>(id);
    }
    return grpc::Status::OK;
  }

  std::mutex mutex;
  FakeDaemon::Generate answer = Count;        // guarded by mutex
  std::vector<v1::GenerateRequest> requests;  // guarded by mutex
  std::string authorization;                  // guarded by mutex
};

class FakeDaemon::Model final : public v1::ModelService::Service {
  grpc::Status GetModel(grpc::ServerContext*, const v1::GetModelRequest*, v1::GetModelResponse* response) override {
    response->set_name("tales");
    response->set_family("LlamaForCausalLM");
    response->set_vocab_size(257);
    response->set_max_model_len(512);
    response->set_num_blocks(64);
    response->set_block_size(16);
    response->set_kv_bytes_per_token(1024);
    return grpc::Status::OK;
  }
};

FakeDaemon::FakeDaemon() : generation_(std::make_unique<Generation>()), model_(std::make_unique<Model>()) {
  grpc::EnableDefaultHealthCheckService(true);
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(generation_.get());
  builder.RegisterService(model_.get());
  server_ = builder.BuildAndStart();
  target_ = absl::StrCat("127.0.0.1:", port);
}

FakeDaemon::~FakeDaemon() { server_->Shutdown(std::chrono::system_clock::now()); }

void FakeDaemon::SetGenerate(Generate generate) {
  std::lock_guard<std::mutex> lock(generation_->mutex);
  generation_->answer = std::move(generate);
}

std::vector<v1::GenerateRequest> FakeDaemon::requests() {
  std::lock_guard<std::mutex> lock(generation_->mutex);
  return generation_->requests;
}

std::string FakeDaemon::authorization() {
  std::lock_guard<std::mutex> lock(generation_->mutex);
  return generation_->authorization;
}

grpc::Status FakeDaemon::Count(grpc::ServerContext*, const v1::GenerateRequest& request, Writer* writer) {
  return Miscount(request, writer, 0);
}

grpc::Status FakeDaemon::Miscount(const v1::GenerateRequest& request, Writer* writer, uint32_t excess) {
  const uint32_t num_outputs = request.has_n() ? request.n() : 1;
  const uint32_t num_tokens = request.stopping().has_max_tokens() ? request.stopping().max_tokens() : 3;
  const uint32_t num_prompt_tokens = request.has_tokens() ? request.tokens().ids_size() : request.text().size();
  v1::GenerateResponse response;
  response.mutable_accepted()->set_prompt_tokens(num_prompt_tokens);
  response.mutable_accepted()->set_seed(request.sampling().seed());
  writer->Write(response);
  for (uint32_t token = 0; token < num_tokens; ++token) {
    for (uint32_t index = 0; index < num_outputs; ++index) {
      v1::Delta* delta = response.mutable_delta();
      delta->Clear();
      delta->set_index(index);
      delta->set_text(absl::StrCat(" ", token));
      delta->add_token_ids(token);
      writer->Write(response);
    }
  }
  for (uint32_t index = 0; index < num_outputs; ++index) {
    v1::Finished* finished = response.mutable_finished();
    finished->set_index(index);
    finished->set_reason(v1::FINISH_REASON_LENGTH);
    finished->mutable_usage()->set_prompt_tokens(num_prompt_tokens);
    finished->mutable_usage()->set_completion_tokens(num_tokens + excess);
    writer->Write(response);
  }
  return grpc::Status::OK;
}

grpc::Status FakeDaemon::BadField(const std::string& field, const std::string& description) {
  google::rpc::BadRequest bad;
  bad.add_field_violations()->set_field(field);
  bad.mutable_field_violations(0)->set_description(description);
  google::rpc::Status details;
  details.set_code(grpc::StatusCode::INVALID_ARGUMENT);
  details.add_details()->PackFrom(bad);
  return grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "the request is not valid", details.SerializeAsString());
}

namespace {

// A test sends this process SIGINT for the client's Interrupt, which waits for it in a thread of its own. No thread of
// the test may take it first, so it is blocked before any is started.
class BlockInterrupts : public ::testing::Environment {
  void SetUp() override {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  }
};

[[maybe_unused]] const auto* const block_interrupts = ::testing::AddGlobalTestEnvironment(new BlockInterrupts);

}  // namespace
}  // namespace quire::client
