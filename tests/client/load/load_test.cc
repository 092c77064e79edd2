#include "client/load/load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/client/fake_daemon.h"

namespace quire::client {
namespace {

using ::testing::HasSubstr;

class LoadTest : public ::testing::Test {
 protected:
  // Runs `quire load` on 8-token prompts and 4-token outputs; the result file is in result_.
  Outcome Load(const std::string& flags) {
    const std::string folder = ::testing::TempDir() + "/load_test_" + std::to_string(getpid());
    const Outcome outcome =
        RunQuire("load --target " + daemon_.target() + " --random-input-len 8 --random-output-len 4 --save-result " +
                 "--result-filename r.json --result-dir " + folder + " " + flags);
    if (std::ifstream file(folder + "/r.json"); file) {
      result_ = nlohmann::json::parse(file);
    }
    std::remove((folder + "/r.json").c_str());
    return outcome;
  }

  FakeDaemon daemon_;
  nlohmann::json result_;
};

TEST_F(LoadTest, ClosedLoopRunsEveryRequestAndNeverMoreAtOnceThanAsked) {
  std::atomic<int> live{0}, most{0};
  daemon_.SetGenerate(
      [&](grpc::ServerContext* context, const v1::GenerateRequest& request, FakeDaemon::Writer* writer) {
        const int now = ++live;
        for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
        }
        const grpc::Status status = FakeDaemon::Count(context, request, writer);
        --live;
        return status;
      });
  const Outcome outcome = Load("--num-prompts 24 --max-concurrency 4 --num-warmups 2 --save-detailed --connections 2");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_LE(most, 4);
  EXPECT_EQ(result_["completed"], 24);
  EXPECT_EQ(result_["failed"], 0);
  EXPECT_EQ(result_["total_input_tokens"], 24 * 8);
  EXPECT_EQ(result_["total_output_tokens"], 24 * 4);
  EXPECT_LE(result_["max_concurrent_requests"], 4);
  EXPECT_EQ(result_["generated_texts"][23], " 0 1 2 3");
  EXPECT_EQ(result_["itls"][0].size(), 3u);
  EXPECT_THAT(outcome.out, HasSubstr("Successful requests:                     24\n"));

  const std::vector<v1::GenerateRequest> requests = daemon_.requests();
  ASSERT_EQ(requests.size(), 26u) << "warm-ups are sent and not counted";
  EXPECT_TRUE(requests[0].stopping().ignore_eos());
  EXPECT_EQ(requests[0].sampling().temperature(), 0);
}

TEST_F(LoadTest, OpenLoopSendsWhenDueWhetherAnswersComeOrNot) {
  // No request is answered before all have come: only an open loop gets there.
  std::atomic<int> come{0};
  daemon_.SetGenerate(
      [&](grpc::ServerContext* context, const v1::GenerateRequest& request, FakeDaemon::Writer* writer) {
        ++come;
        while (come < 5 && !context->IsCancelled()) {
          usleep(1000);
        }
        return FakeDaemon::Count(context, request, writer);
      });
  const Outcome outcome = Load("--num-prompts 5 --request-rate 200 --timeout 20s --save-detailed");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(result_["completed"], 5);
  EXPECT_EQ(result_["request_rate"], 200);
  EXPECT_TRUE(result_["max_concurrency"].is_null());
  for (int i = 1; i < 5; ++i) {
    EXPECT_LT(result_["start_times"][i - 1], result_["start_times"][i]);
  }
}

TEST_F(LoadTest, FailedRequestsAreCountedApartAndReported) {
  std::atomic<int> come{0};
  daemon_.SetGenerate(
      [&](grpc::ServerContext* context, const v1::GenerateRequest& request, FakeDaemon::Writer* writer) {
        return ++come % 2 == 0 ? grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "queue is full")
                               : FakeDaemon::Count(context, request, writer);
      });
  const Outcome outcome = Load("--num-prompts 6 --max-concurrency 1");
  EXPECT_EQ(outcome.code, 0) << "failures are reported, not fatal";
  EXPECT_EQ(result_["completed"], 3);
  EXPECT_EQ(result_["failed"], 3);
  EXPECT_EQ(result_["total_output_tokens"], 3 * 4);
  EXPECT_THAT(outcome.out, HasSubstr("3 x RESOURCE_EXHAUSTED: queue is full"));
}

TEST_F(LoadTest, AStreamWhoseUsageDisagreesWithItsTokensHasFailed) {
  std::atomic<int> come{0};
  daemon_.SetGenerate([&](grpc::ServerContext*, const v1::GenerateRequest& request, FakeDaemon::Writer* writer) {
    return FakeDaemon::Miscount(request, writer, come++ == 0 ? 1 : 0);
  });
  const Outcome outcome = Load("--num-prompts 2 --max-concurrency 1");
  EXPECT_EQ(result_["completed"], 1);
  EXPECT_THAT(outcome.out, HasSubstr("1 x usage.completion_tokens is 5, but 4 token ids came"));
}

TEST_F(LoadTest, AStreamWithoutItsEndHasFailed) {
  daemon_.SetGenerate([](auto*, const auto&, auto*) { return grpc::Status::OK; });
  const Outcome outcome = Load("--num-prompts 1");
  EXPECT_EQ(outcome.code, 2) << "no request completed";
  EXPECT_THAT(outcome.err, HasSubstr("no request completed; the first: stream out of order: 0 Accepted, 0 Finished"));
}

TEST_F(LoadTest, AnInterruptCancelsWhatIsUnderWayAndReportsTheRest) {
  std::atomic<int> come{0};
  daemon_.SetGenerate(
      [&](grpc::ServerContext* context, const v1::GenerateRequest& request, FakeDaemon::Writer* writer) {
        if (++come < 3) {
          return FakeDaemon::Count(context, request, writer);
        }
        kill(getpid(), SIGINT);
        while (!context->IsCancelled()) {
          usleep(1000);
        }
        return grpc::Status::CANCELLED;
      });
  const Outcome outcome = Load("--num-prompts 10 --max-concurrency 1");
  EXPECT_EQ(outcome.code, 130);
  EXPECT_EQ(result_["completed"], 2);
  EXPECT_EQ(result_["failed"], 1);
  EXPECT_EQ(result_["interrupted"], true);
  EXPECT_THAT(outcome.out, HasSubstr("Interrupted: 3 of 10 requests were sent."));
}

TEST_F(LoadTest, TheSameSeedSendsTheSameRequests) {
  const auto prompts = [&] {
    std::vector<std::string> sent;
    for (v1::GenerateRequest request : daemon_.requests()) {
      request.clear_request_id();  // of each run alone
      sent.push_back(request.SerializeAsString());
    }
    return sent;
  };
  Load("--num-prompts 3 --max-concurrency 1 --seed 5");
  Load("--num-prompts 3 --max-concurrency 1 --seed 5");
  const std::vector<std::string> sent = prompts();
  ASSERT_EQ(sent.size(), 6u);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(sent[i], sent[i + 3]);
  }
  EXPECT_NE(sent[0], sent[1]);
}

TEST_F(LoadTest, CorpusPromptsAreTokenizedByTheServerAndCut) {
  const std::string path = ::testing::TempDir() + "/load_test_corpus";
  std::ofstream(path) << std::string(1000, 'x');
  EXPECT_EQ(Load("--num-prompts 2 --dataset-name corpus --dataset-path " + path).code, 0);
  EXPECT_EQ(result_["total_input_tokens"], 2 * 8);
  EXPECT_FALSE(daemon_.requests()[0].stopping().ignore_eos());
}

TEST_F(LoadTest, AnAssertionThatDoesNotHoldIsExitCodeThree) {
  const Outcome held = Load("--num-prompts 2 --assert failed<=0 --assert total_output_tokens>=8");
  EXPECT_EQ(held.code, 0) << held.err;
  const Outcome missed = Load("--num-prompts 2 --assert failed<=0 --assert total_output_tokens>8 --assert speed>1");
  EXPECT_EQ(missed.code, 3);
  EXPECT_THAT(missed.err, HasSubstr("assertion missed: total_output_tokens>8: it is 8\n"));
  EXPECT_THAT(missed.err, HasSubstr("assertion missed: speed>1: the result has no number"));
}

TEST_F(LoadTest, ATraceIsReplayedAtItsTimes) {
  const std::string path = ::testing::TempDir() + "/load_test_trace";
  std::ofstream(path) << "Timestamp,Request tokens,Response tokens\n10,5,2\n11,6,3\n";
  EXPECT_EQ(Load("--num-prompts 2 --save-detailed --dataset-name trace --trace-speedup 20 --dataset-path " + path).code,
            0);
  EXPECT_EQ(result_["input_lens"], (std::vector<int>{5, 6}));
  EXPECT_EQ(result_["output_lens"], (std::vector<int>{2, 3}));
  EXPECT_GE(result_["start_times"][1], 0.05);
}

TEST_F(LoadTest, ResultsAreAppendedLineByLineAndSummedUpAsMarkdown) {
  const std::string base = ::testing::TempDir() + "/load_test_append_" + std::to_string(getpid());
  std::remove(base.c_str());
  for (int i = 0; i < 2; ++i) {
    const Outcome outcome = RunQuire(
        "load --num-prompts 1 --random-input-len 4 --random-output-len 2 --save-result --append-result"
        " --result-dir / --result-filename " +
        base + " --markdown " + base + ".md --target " + daemon_.target());
    EXPECT_EQ(outcome.code, 0) << outcome.err;
  }
  std::ifstream file(base), markdown(base + ".md");
  std::string line;
  int lines = 0;
  for (; std::getline(file, line); ++lines) {
    EXPECT_EQ(nlohmann::json::parse(line)["completed"], 1);
  }
  EXPECT_EQ(lines, 2);
  std::getline(markdown, line);
  EXPECT_THAT(line, HasSubstr("### tales, "));
}

TEST_F(LoadTest, ACancelStormCancelsOnPurposeAndCountsThatApart) {
  // Every stream goes on until it is cancelled: only the client's cancel ends it.
  daemon_.SetGenerate([](grpc::ServerContext* context, const v1::GenerateRequest& request, FakeDaemon::Writer* writer) {
    v1::GenerateResponse response;
    response.mutable_accepted()->set_prompt_tokens(request.tokens().ids_size());
    writer->Write(response);
    while (!context->IsCancelled()) {
      response.mutable_delta()->clear_token_ids();
      response.mutable_delta()->add_token_ids(1);
      writer->Write(response);
      usleep(1000);
    }
    return grpc::Status::CANCELLED;
  });
  const Outcome outcome = Load("--num-prompts 6 --max-concurrency 3 --request-cancellation-rate 100");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(result_["cancelled"], 6);
  EXPECT_EQ(result_["failed"], 0);
  EXPECT_EQ(result_["completed"], 0);
  EXPECT_THAT(outcome.out, HasSubstr("Cancelled on purpose:                    6\n"));
}

TEST_F(LoadTest, ASlowReaderWaitsBetweenMessages) {
  const Outcome outcome = Load("--num-prompts 2 --read-delay-ms 20");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(result_["completed"], 2);
  EXPECT_GE(result_["duration"], 5 * 0.020) << "Accepted, 4 tokens and Finished have 5 delays between them";
}

TEST_F(LoadTest, TenantsAreDrawnByWeightAndCountedApart) {
  Load("--num-prompts 200 --tenant-mix a:3,b:1 --max-concurrency 8");
  const int a = result_["tenants"]["a"]["completed"], b = result_["tenants"]["b"]["completed"];
  EXPECT_EQ(a + b, 200);
  EXPECT_NEAR(a, 150, 30) << "five standard deviations";
  EXPECT_EQ(result_["tenants"]["a"]["output_tokens"], 4 * a);
  EXPECT_FALSE(daemon_.requests()[0].scheduling().tenant().empty());
}

TEST_F(LoadTest, DeadlinesAreDrawnByWeight) {
  std::atomic<int> with_deadline{0};
  daemon_.SetGenerate(
      [&](grpc::ServerContext* context, const v1::GenerateRequest& request, FakeDaemon::Writer* writer) {
        const auto left = context->deadline() - std::chrono::system_clock::now();
        with_deadline += left < std::chrono::hours(2) ? 1 : 0;
        return FakeDaemon::Count(context, request, writer);
      });
  EXPECT_EQ(Load("--num-prompts 4 --deadline-mix 1h:1,30m:1").code, 0);
  EXPECT_EQ(with_deadline, 4);
}

TEST_F(LoadTest, AReplayCheckFindsTokensThatDependOnCompany) {
  EXPECT_EQ(Load("--num-prompts 6 --replay-check 3").code, 0);
  EXPECT_EQ(result_["replay_checked"], 3);
  EXPECT_EQ(result_["replay_mismatched"], 0);

  daemon_.SetGenerate([](grpc::ServerContext*, const v1::GenerateRequest& request, FakeDaemon::Writer* writer) {
    v1::GenerateResponse response;
    response.mutable_accepted()->set_prompt_tokens(request.tokens().ids_size());
    writer->Write(response);
    response.mutable_delta()->add_token_ids(request.request_id().find("replay") == std::string::npos ? 1 : 2);
    writer->Write(response);
    v1::Finished* finished = response.mutable_finished();
    finished->set_reason(v1::FINISH_REASON_LENGTH);
    finished->mutable_usage()->set_prompt_tokens(request.tokens().ids_size());
    finished->mutable_usage()->set_completion_tokens(1);
    writer->Write(response);
    return grpc::Status::OK;
  });
  const Outcome outcome = Load("--num-prompts 6 --replay-check 2");
  EXPECT_EQ(outcome.code, 3);
  EXPECT_EQ(result_["replay_mismatched"], 2);
  EXPECT_THAT(outcome.err, HasSubstr("repeated alone, gave another answer"));
}

TEST_F(LoadTest, ASweepReportsTheHighestRateThatHolds) {
  // Stages count from 0 in the ids; the third, of 800 a second, is refused.
  daemon_.SetGenerate([](grpc::ServerContext* context, const v1::GenerateRequest& request, FakeDaemon::Writer* writer) {
    return request.request_id().rfind("p-2-", 0) == 0 ? grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "full")
                                                      : FakeDaemon::Count(context, request, writer);
  });
  const Outcome outcome = Load(
      "--profile sweep --goodput e2el:60000 --sweep-start-rps 200 --sweep-stage-seconds 0.01 --sweep-precision 1 "
      "--num-warmups 1 --request-id-prefix p- --save-detailed");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(result_["sweep_request_rate"], 400);
  EXPECT_EQ(result_["request_rate"], 400) << "all else is of the best stage";
  EXPECT_EQ(result_["completed"], 20);
  EXPECT_EQ(result_["failed"], 0);
  ASSERT_EQ(result_["sweep"].size(), 3u);
  EXPECT_EQ(result_["sweep"][1]["attainment"], 1);
  EXPECT_EQ(result_["sweep"][2]["holds"], false);
  EXPECT_EQ(result_["sweep"][2]["stopped_early"], true);
  EXPECT_THAT(outcome.out, HasSubstr("Highest rate that holds: 400.00 requests/s"));
  const std::vector<v1::GenerateRequest> requests = daemon_.requests();
  EXPECT_NE(requests[1].tokens().ids(0), requests[21].tokens().ids(0)) << "each stage has prompts of its own";
}

TEST_F(LoadTest, TooManyErrorsEndTheRun) {
  daemon_.SetGenerate([](auto*, const auto&, auto*) { return grpc::Status(grpc::StatusCode::INTERNAL, "broken"); });
  const Outcome outcome = Load("--num-prompts 100 --max-concurrency 1 --max-errors 3");
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(result_["failed"], 4);
  EXPECT_THAT(outcome.out, HasSubstr("Given up after 4 failures: 4 of 100 requests were sent."));
}

TEST_F(LoadTest, NothingIsSentAfterMaxSeconds) {
  const Outcome outcome = Load("--num-prompts 1000 --request-rate 50 --burstiness inf --max-seconds 0.1");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(result_["completed"], 4) << "due at 20, 40, 60 and 80 ms";
}

}  // namespace
}  // namespace quire::client
