#include "client/output.h"

#include <gtest/gtest.h>

#include <sstream>

namespace quire::client {
namespace {

v1::GenerateResponse Delta(uint32_t index, const std::string& text, int num_tokens = 1) {
  v1::GenerateResponse response;
  response.mutable_delta()->set_index(index);
  response.mutable_delta()->set_text(text);
  for (int i = 0; i < num_tokens; ++i) {
    response.mutable_delta()->add_token_ids(7);
  }
  return response;
}

v1::GenerateResponse Finished(uint32_t index) {
  v1::GenerateResponse response;
  response.mutable_finished()->set_index(index);
  response.mutable_finished()->set_reason(v1::FINISH_REASON_LENGTH);
  response.mutable_finished()->mutable_usage()->set_cached_tokens(16);
  return response;
}

TEST(TextPrinter, StreamsOneOutputAsItComesAndEndsItsLine) {
  std::ostringstream out;
  TextPrinter printer(/*labelled=*/false, out);
  printer.Print(Delta(0, "Once"));
  EXPECT_EQ(out.str(), "Once");
  printer.Print(Delta(0, " upon"));
  printer.Print(Finished(0));
  printer.Finish();
  EXPECT_EQ(out.str(), "Once upon\n");
}

TEST(TextPrinter, AddsNoSecondNewlineAndNoneToNothing) {
  std::ostringstream out, empty;
  TextPrinter printer(false, out), idle(false, empty);
  printer.Print(Delta(0, "a\n"));
  printer.Finish();
  idle.Finish();
  EXPECT_EQ(out.str(), "a\n");
  EXPECT_EQ(empty.str(), "");
}

TEST(TextPrinter, SeveralOutputsTakeTurnsByIndex) {
  std::ostringstream out;
  TextPrinter printer(/*labelled=*/true, out);
  printer.Print(Delta(1, "one"));
  printer.Print(Delta(0, "zero"));
  EXPECT_EQ(out.str(), "[0] zero") << "output 1 waits";
  printer.Print(Finished(1));
  printer.Print(Delta(0, "!"));
  printer.Print(Finished(0));
  printer.Print(Delta(2, "two"));
  printer.Print(Finished(2));
  printer.Finish();
  EXPECT_EQ(out.str(), "[0] zero!\n[1] one\n[2] two\n");
}

TEST(TextPrinter, ShowsWhatAnUnfinishedOutputHeldBack) {
  std::ostringstream out;
  TextPrinter printer(true, out);
  printer.Print(Delta(0, "zero"));
  printer.Print(Delta(2, "two"));
  printer.Finish();
  EXPECT_EQ(out.str(), "[0] zero\n[2] two\n");
}

TEST(Summary, CountsTokensAndTimesThemFromSending) {
  const absl::Time sent = absl::UnixEpoch();
  Summary summary(sent);
  v1::GenerateResponse accepted;
  accepted.mutable_accepted()->set_prompt_tokens(17);
  accepted.mutable_accepted()->set_seed(9);
  summary.Add(accepted, sent);
  summary.Add(Delta(0, "", 1), sent + absl::Milliseconds(20));
  summary.Add(Delta(0, "", 3), sent + absl::Milliseconds(270));
  summary.Add(Delta(0, "", 2), sent + absl::Milliseconds(520));
  summary.Add(Finished(0), sent + absl::Milliseconds(600));
  // 5 tokens behind the first, in 0.5 s.
  EXPECT_EQ(summary.Line(),
            "17 prompt tokens (16 cached), 6 tokens in 0.52s, 10.0 tok/s, TTFT 20.0 ms, length, seed 9");
}

TEST(Summary, NamesWhatStoppedTheOutput) {
  Summary summary(absl::UnixEpoch());
  v1::GenerateResponse finished;
  finished.mutable_finished()->set_reason(v1::FINISH_REASON_STOP);
  finished.mutable_finished()->set_stop("\n\n");
  summary.Add(finished, absl::UnixEpoch());
  EXPECT_EQ(summary.Line(), "0 prompt tokens (0 cached), 0 tokens, stop \"\\n\\n\"");
}

}  // namespace
}  // namespace quire::client
