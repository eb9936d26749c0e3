#include "daemon/metrics/label_values.h"

#include <algorithm>
#include <numeric>

namespace corpusd {

std::array<uint64_t, kTierLabels.size()> ShareByBytes(
    uint64_t tokens, const std::array<uint64_t, kTierLabels.size()>& bytes) {
  std::array<uint64_t, kTierLabels.size()> shares{};
  const uint64_t total = std::accumulate(bytes.begin(), bytes.end(), uint64_t{0});
  if (total == 0) {
    shares[static_cast<size_t>(TierKind::kHost)] = tokens;
    return shares;
  }
  uint64_t left = tokens;
  for (size_t i = 0; i < bytes.size(); ++i) {
    shares[i] = static_cast<uint64_t>(static_cast<double>(tokens) * static_cast<double>(bytes[i]) /
                                      static_cast<double>(total));
    shares[i] = std::min(shares[i], left);
    left -= shares[i];
  }
  shares[static_cast<size_t>(std::max_element(bytes.begin(), bytes.end()) - bytes.begin())] += left;
  return shares;
}

}  // namespace corpusd
