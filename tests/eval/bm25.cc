#include "tests/eval/bm25.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstddef>
#include <set>

namespace corpusd {
namespace {

constexpr double kSaturation = 1.2, kLengthWeight = 0.75;  // the usual k1 and b

}  // namespace

std::vector<std::string> Bm25Terms(std::string_view text) {
  std::vector<std::string> terms;
  bool inside = false;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool word = byte >= 0x80 || std::isalnum(byte) != 0;
    if (word && !inside) terms.emplace_back();
    if (word) terms.back() += static_cast<char>(byte >= 0x80 ? byte : std::tolower(byte));
    inside = word;
  }
  return terms;
}

Bm25Index::Bm25Index(const std::vector<std::string>& chunks) {
  double total = 0;
  for (uint32_t chunk = 0; chunk < chunks.size(); ++chunk) {
    const std::vector<std::string> terms = Bm25Terms(chunks[chunk]);
    for (const std::string& term : terms) {
      std::vector<Posting>& list = postings_[term];
      if (list.empty() || list.back().chunk != chunk) list.push_back({chunk, 0});
      ++list.back().occurrences;
    }
    lengths_.push_back(static_cast<uint32_t>(terms.size()));
    total += static_cast<double>(terms.size());
  }
  mean_length_ = std::max(1.0, total / std::max<double>(1, static_cast<double>(chunks.size())));
}

std::vector<size_t> Bm25Index::Search(std::string_view query, size_t count) const {
  const std::vector<std::string> terms = Bm25Terms(query);
  std::vector<double> scores(lengths_.size(), 0);
  for (const std::string& term : std::set<std::string>(terms.begin(), terms.end())) {
    const auto found = postings_.find(term);
    if (found == postings_.end()) continue;
    const auto holders = static_cast<double>(found->second.size());
    const double weight =
        std::log1p((static_cast<double>(lengths_.size()) - holders + 0.5) / (holders + 0.5));
    for (const Posting& posting : found->second) {
      const double times = posting.occurrences;
      const double length = lengths_[posting.chunk] / mean_length_;
      scores[posting.chunk] += weight * times * (kSaturation + 1) /
                               (times + kSaturation * (1 - kLengthWeight + kLengthWeight * length));
    }
  }
  std::vector<size_t> order;
  for (size_t chunk = 0; chunk < scores.size(); ++chunk) {
    if (scores[chunk] > 0) order.push_back(chunk);
  }
  const size_t kept = std::min(count, order.size());
  std::partial_sort(
      order.begin(), order.begin() + static_cast<ptrdiff_t>(kept), order.end(),
      [&](size_t a, size_t b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a < b; });
  order.resize(kept);
  return order;
}

}  // namespace corpusd
