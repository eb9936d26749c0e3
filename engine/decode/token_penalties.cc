#include "engine/decode/token_penalties.h"

#include <algorithm>

namespace corpusd {

TokenPenalties::TokenPenalties(const SamplingOptions& options, std::span<const TokenId> before)
    : options_(options) {
  for (const TokenId id : before.last(std::min<size_t>(before.size(), options.repetition_window))) {
    AddToWindow(id);
  }
}

bool TokenPenalties::active() const {
  return options_.repetition_penalty != 1 || options_.presence_penalty != 0 ||
         options_.frequency_penalty != 0;
}

void TokenPenalties::AddToWindow(TokenId id) {
  if (options_.repetition_penalty == 1 || options_.repetition_window == 0) return;
  if (window_.size() == options_.repetition_window) {
    const auto oldest = of_window_.find(window_.front());
    if (--oldest->second == 0) of_window_.erase(oldest);
    window_.pop_front();
  }
  window_.push_back(id);
  ++of_window_[id];
}

void TokenPenalties::Add(TokenId id) {
  AddToWindow(id);
  ++of_answer_[id];
}

void TokenPenalties::Apply(std::span<float> logits) const {
  const auto penalty = static_cast<float>(options_.repetition_penalty);
  for (const auto& [id, times] : of_window_) {
    if (id >= logits.size()) continue;
    float& logit = logits[id];
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
  for (const auto& [id, times] : of_answer_) {
    if (id >= logits.size()) continue;
    logits[id] -=
        static_cast<float>(options_.presence_penalty + times * options_.frequency_penalty);
  }
}

}  // namespace corpusd
