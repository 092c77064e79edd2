#include "client/output.h"

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

namespace quire::client {

void TextPrinter::Print(const v1::GenerateResponse& response) {
  if (response.has_delta()) {
    const v1::Delta& delta = response.delta();
    if (delta.index() == turn_) {
      PrintTurn(delta.text());
    } else {
      held_[delta.index()] += delta.text();
    }
  } else if (response.has_finished()) {
    finished_.insert(response.finished().index());
    while (finished_.erase(turn_) > 0) {
      EndTurn();
      PrintTurn(held_[turn_]);
      held_.erase(turn_);
    }
  }
}

void TextPrinter::Finish() {
  if (turn_begun_) {
    EndTurn();
  }
  for (const auto& [index, text] : held_) {
    turn_ = index;
    PrintTurn(text);
    EndTurn();
  }
  held_.clear();
}

void TextPrinter::PrintTurn(const std::string& text) {
  if (text.empty()) {
    return;
  }
  if (labelled_ && !turn_begun_) {
    Write(absl::StrCat("[", turn_, "] "));
  }
  turn_begun_ = true;
  Write(text);
}

void TextPrinter::EndTurn() {
  if (labelled_ && !turn_begun_) {
    Write(absl::StrCat("[", turn_, "]"));  // an output without text
  }
  if (in_line_) {
    Write("\n");
  }
  ++turn_;
  turn_begun_ = false;
}

void TextPrinter::Write(const std::string& text) {
  if (!text.empty()) {
    out_ << text << std::flush;
    in_line_ = text.back() != '\n';
  }
}

namespace {

// "stop", "length", "time_limit", and what matched.
std::string Ending(const v1::Finished& finished) {
  const std::string name = v1::FinishReason_Name(finished.reason());
  std::string ending = absl::AsciiStrToLower(absl::StripPrefix(name, "FINISH_REASON_"));
  if (finished.has_stop()) {
    absl::StrAppend(&ending, " \"", absl::Utf8SafeCEscape(finished.stop()), "\"");
  } else if (finished.has_stop_token_id()) {
    absl::StrAppend(&ending, " token ", finished.stop_token_id());
  }
  return ending;
}

}  // namespace

void Summary::Add(const v1::GenerateResponse& response, absl::Time now) {
  if (response.has_accepted()) {
    prompt_tokens_ = response.accepted().prompt_tokens();
    seed_ = response.accepted().seed();
  } else if (response.has_delta() && response.delta().token_ids_size() > 0) {
    num_tokens_ += response.delta().token_ids_size();
    last_ = now;
    if (!first_.has_value()) {
      first_ = now;
      num_first_tokens_ = response.delta().token_ids_size();
    }
  } else if (response.has_finished()) {
    cached_tokens_ = response.finished().usage().cached_tokens();
    endings_.push_back(Ending(response.finished()));
  }
}

std::string Summary::Line() const {
  std::string line =
      absl::StrCat(prompt_tokens_, " prompt tokens (", cached_tokens_, " cached), ", num_tokens_, " tokens");
  if (first_.has_value()) {
    absl::StrAppendFormat(&line, " in %.2fs", absl::ToDoubleSeconds(*last_ - sent_));
    if (const double decoding = absl::ToDoubleSeconds(*last_ - *first_); decoding > 0) {
      absl::StrAppendFormat(&line, ", %.1f tok/s", static_cast<double>(num_tokens_ - num_first_tokens_) / decoding);
    }
    absl::StrAppendFormat(&line, ", TTFT %.1f ms", absl::ToDoubleMilliseconds(*first_ - sent_));
  }
  if (!endings_.empty()) {
    absl::StrAppend(&line, ", ", absl::StrJoin(endings_, " + "));
  }
  if (seed_.has_value()) {
    absl::StrAppend(&line, ", seed ", *seed_);
  }
  return line;
}

}  // namespace quire::client
