#include "engine/decode/answer_writer.h"

#include <utility>

namespace corpusd {

void AnswerWriter::Add(std::string_view bytes, const TokenLogprob* logprob) {
  ++answer_.tokens;
  const std::string whole = utf8_.Append(bytes);
  written_ += whole.size();
  if (logprob != nullptr) pending_.push_back({*logprob, written_});
  Emit(stops_.Append(whole));
  if (stopped()) answer_.stop = stops_.found();
}

void AnswerWriter::Finish(std::string_view reason) {
  answer_.finish_reason = reason;
  if (stopped()) return;
  const std::string rest = utf8_.Finish();
  // The last token's bytes are the rest's.
  if (!pending_.empty()) pending_.back().end += rest.size();
  std::string text = stops_.Append(rest);
  if (!stopped()) text += stops_.Finish();
  Emit(std::move(text));
}

void AnswerWriter::Emit(std::string text) {
  if (refused_) return;
  answer_.text += text;
  const size_t first = answer_.logprobs.size();
  size_t passed = 0;
  while (passed < pending_.size() && pending_[passed].end <= answer_.text.size()) {
    answer_.logprobs.push_back(std::move(pending_[passed++].logprob));
  }
  pending_.erase(pending_.begin(), pending_.begin() + static_cast<ptrdiff_t>(passed));
  const auto logprobs = std::span(std::as_const(answer_.logprobs)).subspan(first);
  if (text.empty() && logprobs.empty()) return;
  refused_ = !sink_({choice_, text, logprobs});
}

}  // namespace corpusd
