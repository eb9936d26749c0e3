// engine/decode/answer_writer.h -- tokens of one answer in, its text out: whole characters, nothing
// that may be a part of a stop string, and the likelihoods of the tokens that a piece completes.
// One thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/decode/sampling.h"
#include "engine/decode/stop_strings.h"
#include "engine/decode/utf8_stream.h"

namespace corpusd {

class AnswerWriter {
 public:
  // choice: which of the question's answers. sink must outlive this.
  AnswerWriter(uint32_t choice, const AnswerOptions& options, const AnswerSink& sink)
      : choice_(choice), stops_(options.stop), sink_(sink) {}

  // A token and its bytes. logprob: null if it was not asked for.
  void Add(std::string_view bytes, const TokenLogprob* logprob);
  // Whether a stop string ended the text.
  bool stopped() const { return !stops_.found().empty(); }
  // Whether the sink has refused a piece.
  bool refused() const { return refused_; }
  // The end, for this reason; what was held back goes out. Not after a stop string.
  void Finish(std::string_view reason);
  // After Finish.
  GeneratedAnswer Take() { return std::move(answer_); }

 private:
  void Emit(std::string text);

  const uint32_t choice_;
  Utf8Stream utf8_;
  StopStrings stops_;
  const AnswerSink& sink_;
  GeneratedAnswer answer_;
  bool refused_ = false;
  size_t written_ = 0;  // bytes that came out of utf8_, held back ones included
  // Tokens whose text is not out yet, and where in the text each ends.
  struct Pending {
    TokenLogprob logprob;
    size_t end;
  };
  std::vector<Pending> pending_;
};

}  // namespace corpusd
