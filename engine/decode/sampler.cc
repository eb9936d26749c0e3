#include "engine/decode/sampler.h"

#include <algorithm>
#include <cmath>

namespace corpusd {

double Sampler::NextUniform() { return static_cast<double>(random_.Next() >> 11) * 0x1.0p-53; }

TokenId Sampler::Next(std::span<const float> logits) {
  if (options_.temperature <= 0) {
    return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
  sorted_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    sorted_.emplace_back(logits[i], static_cast<TokenId>(i));
  }
  std::sort(sorted_.begin(), sorted_.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  const double top = sorted_.front().first;
  double total = 0;
  for (const auto& [logit, id] : sorted_) total += std::exp((logit - top) / options_.temperature);
  const double nucleus = total * std::clamp(options_.top_p, 0.0, 1.0);
  // Sum of the kept tokens: at least the first, then until the nucleus is reached.
  double kept = 0;
  size_t count = 0;
  do {
    kept += std::exp((sorted_[count++].first - top) / options_.temperature);
  } while (count < sorted_.size() && kept < nucleus);
  const double target = NextUniform() * kept;
  double sum = 0;
  for (size_t i = 0; i < count; ++i) {
    sum += std::exp((sorted_[i].first - top) / options_.temperature);
    if (target < sum) return sorted_[i].second;
  }
  return sorted_[count - 1].second;
}

}  // namespace corpusd
