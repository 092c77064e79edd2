#include "client/load/live_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace quire::client {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

RequestResult Completed(double ttft_s) {
  RequestResult request;
  request.first_token_s = ttft_s;
  request.end_s = ttft_s + 1;
  request.output_tokens = 11;
  return request;
}

TEST(LiveView, OnATerminalReplacesItsLines) {
  std::istringstream in;
  std::ostringstream out, err;
  Io io{in, out, err, false, /*err_is_terminal=*/true};
  LiveView view("a run", 4, io);
  const RequestResult first = Completed(0.1), second = Completed(0.3);
  view.Show({0.25, 3, 2, 0, 0, 50, {&first, &second}}, MetricPoint{0.2, 3, 1, 0.5});
  EXPECT_THAT(err.str(), HasSubstr("2 of 4 done, 0 failed, 0 cancelled, 1 under way"));
  EXPECT_THAT(err.str(), HasSubstr("200 tok/s █"));
  EXPECT_THAT(err.str(), HasSubstr("2 done; TTFT p50 100.0  p90 -  p99 - ms; TPOT p50 100.0"));
  EXPECT_THAT(err.str(), HasSubstr("server: 3 running, 1 waiting, KV cache ███████████████░"));
  EXPECT_THAT(err.str(), HasSubstr("50 %"));
  EXPECT_THAT(err.str(), Not(HasSubstr("\033[J")));
  view.Clear();
  EXPECT_THAT(err.str(), HasSubstr("\033[5A\r\033[J")) << "the five lines go";
  EXPECT_EQ(out.str(), "");
}

TEST(LiveView, ElsewhereIsALineEachTime) {
  std::istringstream in;
  std::ostringstream out, err;
  Io io{in, out, err};
  LiveView view("a run", 4, io);
  view.Show({10, 3, 2, 1, 0, 50, {}}, std::nullopt);
  view.Clear();
  EXPECT_EQ(err.str(), "quire load: 3 of 4 done, 1 failed, 0 under way, 5 tok/s, 10.0s\n");
}

}  // namespace
}  // namespace quire::client
