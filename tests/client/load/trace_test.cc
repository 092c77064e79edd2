#include "client/load/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

namespace quire::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<std::vector<TraceRow>> Read(const std::string& content) {
  const std::string path =
      ::testing::TempDir() + "/trace_test_" + ::testing::UnitTest::GetInstance()->current_test_info()->name();
  std::ofstream(path, std::ios::binary) << content;
  return ReadTrace(path);
}

TEST(Trace, OfAzureHasDates) {
  const auto rows = *Read(
      "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:15:46.6805900,374,44\r\n"
      "2023-11-16 18:15:50.9951690,396,109\r\n");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].input_len, 374u);
  EXPECT_EQ(rows[1].output_len, 109u);
  EXPECT_NEAR(rows[1].time_s - rows[0].time_s, 4.314579, 1e-6);
  EXPECT_EQ(Read("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,2162,5\n")->size(), 1u);
}

TEST(Trace, OfBurstGptHasSecondsAndLeavesOutWhatFailed) {
  const auto rows = *Read(
      "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
      "5,1,2,ChatGPT,472,18,490,Conversation log\n45,2,2,ChatGPT,1087,0,1087,Conversation log\n"
      "118,3,1,GPT-4,417,276,693,API log\n");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].input_len, 472u);
  EXPECT_EQ(rows[1].time_s, 118);
  EXPECT_EQ(rows[1].output_len, 276u);
}

TEST(Trace, OfMooncakeHasMillisecondsAndBlocks) {
  const auto rows = *Read(
      "{\"timestamp\": 3000, \"input_length\": 600, \"output_length\": 26, \"hash_ids\": [46, 47, 48]}\n"
      "{\"timestamp\": 0, \"input_length\": 10, \"output_length\": 2}\n");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].time_s, 0) << "in the order of time";
  EXPECT_EQ(rows[1].time_s, 3);
  EXPECT_THAT(rows[1].block_hashes, ElementsAre(46, 47)) << "two blocks hold 600 tokens";
}

TEST(Trace, NamesTheLineThatWillNotDo) {
  EXPECT_THAT(Read("a,b\n1,2\n").status().message(), HasSubstr("NamesTheLineThatWillNotDo:1: want a first line"));
  EXPECT_THAT(Read("Timestamp,Request tokens,Response tokens\n1,2\n").status().message(), HasSubstr(":2: want the"));
  for (const char* row : {"noon,1,2", "1,-1,2", "1,2,99999999999"}) {
    EXPECT_FALSE(Read(std::string("Timestamp,Request tokens,Response tokens\n") + row).ok()) << row;
  }
  for (const char* hashes : {"[\"a\"]", "{}", "[0.5]"}) {
    const bool ok =
        Read(std::string("{\"timestamp\": 1, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": ") + hashes + "}")
            .ok();
    EXPECT_EQ(ok, std::string(hashes) == "{}") << hashes;
  }
}

}  // namespace
}  // namespace quire::client
