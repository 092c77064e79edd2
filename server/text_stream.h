// TextStream: the ids of one output to its text, token by token.
//
// It is the only place where half a UTF-8 character can wait, and it finds stop strings. The law that it keeps: all
// that it appends, put together, is in bytes Decode(prompt + output) after its first |Decode(prompt)| bytes, less the
// text of the stop. A token stands for the same bytes whatever is before it, so those are the bytes of the output's
// tokens; the prompt tells no more than whether blanks that a text begins with are still left out (tokenizer.h).
// Invalid sequences become U+FFFD, an unfinished one only at the end; a character that the prompt began is shown by its
// completing bytes, as U+FFFD. What is appended is whole characters always.
//
// Stop strings are found in that text, wherever the borders of tokens are. The one that completes first wins; of those
// that complete at the same byte the one that begins first. Text that may yet become a stop string waits until it
// cannot.
//
// Thread: one at a time (the detokenizer's). The tokenizer must outlive it. It knows nothing of requests and RPCs.

#ifndef QUIRE_SERVER_TEXT_STREAM_H_
#define QUIRE_SERVER_TEXT_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/tokenizer/tokenizer.h"

namespace quire {

class TextStream {
 public:
  struct Options {
    bool skip_special_tokens = true;
    // Each valid UTF-8 of at least one byte.
    std::vector<std::string> stop = {};
    // The stop string, or the token that stops, is part of the text.
    bool include_stop = false;
    // A stop string counts when the token that completes it is the min_tokens-th or a later one; it may begin earlier.
    uint32_t min_tokens = 0;
  };

  // `prompt`: what stands before the output.
  TextStream(const Tokenizer& tokenizer, Options options, absl::Span<const uint32_t> prompt = {});

  // Takes the output's next token and appends to `text` what can be shown now. Returns which of Options::stop it
  // completes, if any: the text then ends before the stop string, or behind it with include_stop, and the output is
  // over. REQUIRES: the output is not over.
  std::optional<size_t> Push(uint32_t id, std::string& text);

  // Takes the token that ends the output (eos, stop id): its text is shown only with include_stop, and no stop string
  // is looked for in it. REQUIRES: the output is not over; Finish() follows.
  void PushStopToken(uint32_t id, std::string& text);

  // The output is over: what waits is shown, an unfinished character as U+FFFD. Does nothing after a stop string.
  void Finish(std::string& text);

 private:
  // A stop string and how much of it the text's end matches (Knuth, Morris and Pratt 1977, section 2).
  struct Stop {
    explicit Stop(std::string stop);
    // Takes the text's next byte; true if that completes the stop string. REQUIRES: matched < text.size().
    bool Advance(char byte);

    std::string text;
    std::vector<uint32_t> border;  // [text.size()] bytes of the longest proper border of text[0 .. i]
    size_t matched = 0;            // bytes of `text` that end the output's text so far
  };

  // A stop string that is complete, and where in held_ it ends.
  struct Match {
    size_t stop;
    size_t end;
  };

  // Appends the token's bytes to held_, as far as they are decided.
  void Take(uint32_t id);
  // Looks for stop strings in the bytes of held_ from `from` on; those before it have been looked at.
  std::optional<Match> FindStop(size_t from);

  const Tokenizer& tokenizer_;
  const bool skip_special_tokens_;
  const bool include_stop_;
  const uint32_t min_tokens_;
  std::vector<Stop> stops_;
  Tokenizer::DecodePosition position_;
  uint32_t num_tokens_ = 0;
  std::string unfinished_;  // the beginning of a character: at most three bytes between calls
  // Whole characters that are not shown. Between calls it is the longest end of the text that begins a stop string, so
  // a stop string that completes is all in it.
  std::string held_;
};

}  // namespace quire

#endif  // QUIRE_SERVER_TEXT_STREAM_H_
