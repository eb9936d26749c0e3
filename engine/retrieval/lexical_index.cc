#include "engine/retrieval/lexical_index.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "engine/retrieval/lexical_terms.h"

namespace corpusd {
namespace {

constexpr uint32_t kCountBits = 32 - kTermBits;
constexpr uint32_t kCountMax = (1u << kCountBits) - 1;
constexpr uint32_t kScanBlocks = 256;  // that one thread runs over at a time

// The question's terms behind a filter of 8 KiB that nearly all of a block's terms fail.
class AskedTerms {
 public:
  explicit AskedTerms(std::string_view question) : terms_(TermsOf(question)) {
    std::sort(terms_.begin(), terms_.end());
    terms_.erase(std::unique(terms_.begin(), terms_.end()), terms_.end());
    for (const uint32_t term : terms_) filter_[Word(term)] |= Bit(term);
  }
  size_t size() const { return terms_.size(); }
  // Index of a term, or size().
  size_t Find(uint32_t term) const {
    if ((filter_[Word(term)] & Bit(term)) == 0) return size();
    const auto found = std::lower_bound(terms_.begin(), terms_.end(), term);
    return found != terms_.end() && *found == term ? static_cast<size_t>(found - terms_.begin())
                                                   : size();
  }

 private:
  static size_t Word(uint32_t term) { return term >> 6 & 1023; }
  static uint64_t Bit(uint32_t term) { return uint64_t{1} << (term & 63); }

  std::vector<uint32_t> terms_;
  std::array<uint64_t, 1024> filter_{};
};

struct Hit {
  uint32_t block;
  uint32_t term;   // index of the asked one
  uint32_t count;  // in the block
};

}  // namespace

BlockTerms CountTerms(std::string_view text) {
  std::vector<uint32_t> terms = TermsOf(text);
  std::sort(terms.begin(), terms.end());
  BlockTerms block;
  block.length = static_cast<uint32_t>(terms.size());
  for (size_t i = 0; i < terms.size();) {
    size_t end = i + 1;
    while (end < terms.size() && terms[end] == terms[i]) ++end;
    const auto count = static_cast<uint32_t>(std::min<size_t>(end - i, kCountMax));
    block.postings.push_back(terms[i] << kCountBits | count);
    i = end;
  }
  return block;
}

void LexicalIndex::Append(std::span<const uint32_t> postings, uint32_t length) {
  postings_.insert(postings_.end(), postings.begin(), postings.end());
  ends_.push_back(postings_.size());
  lengths_.push_back(length);
  total_length_ += length;
}

bool LexicalIndex::AreSane(std::span<const uint32_t> postings) {
  for (size_t i = 0; i < postings.size(); ++i) {
    if ((postings[i] & kCountMax) == 0) return false;
    if (i > 0 && postings[i] >> kCountBits <= postings[i - 1] >> kCountBits) return false;
  }
  return true;
}

std::span<const uint32_t> LexicalIndex::postings(uint64_t block) const {
  const uint64_t begin = block == 0 ? 0 : ends_[block - 1];
  return {postings_.data() + begin, ends_[block] - begin};
}

uint64_t LexicalIndex::bytes() const {
  return postings_.capacity() * sizeof(uint32_t) + ends_.capacity() * sizeof(uint64_t) +
         lengths_.capacity() * sizeof(uint32_t);
}

std::vector<float> LexicalIndex::Score(std::string_view question, const Bm25Rule& rule,
                                       const IndexScanner& scanner) const {
  const AskedTerms asked(question);
  std::vector<float> scores(blocks());
  if (asked.size() == 0 || total_length_ == 0) return scores;
  const auto items = static_cast<uint32_t>((blocks() + kScanBlocks - 1) / kScanBlocks);
  std::vector<std::vector<Hit>> hits(items);
  scanner.ForRanges(items, [&](uint32_t item, unsigned) {
    const uint64_t end = std::min<uint64_t>(uint64_t{item + 1} * kScanBlocks, blocks());
    for (uint64_t block = uint64_t{item} * kScanBlocks; block < end; ++block) {
      for (const uint32_t posting : postings(block)) {
        const size_t term = asked.Find(posting >> kCountBits);
        if (term == asked.size()) continue;
        hits[item].push_back(
            {static_cast<uint32_t>(block), static_cast<uint32_t>(term), posting & kCountMax});
      }
    }
  });
  std::vector<uint64_t> with_term(asked.size());
  for (const auto& run : hits) {
    for (const Hit& hit : run) ++with_term[hit.term];
  }
  std::vector<double> rarity(asked.size());
  const auto count = static_cast<double>(blocks());
  for (size_t i = 0; i < rarity.size(); ++i) {
    const auto n = static_cast<double>(with_term[i]);
    rarity[i] = std::log1p((count - n + 0.5) / (n + 0.5));
  }
  const double mean_length = static_cast<double>(total_length_) / count;
  std::vector<double> sums(blocks());
  for (const auto& run : hits) {
    for (const Hit& hit : run) {
      const double share = lengths_[hit.block] / mean_length;
      const double damping = rule.k1 * (1 - rule.b + rule.b * share);
      sums[hit.block] += rarity[hit.term] * hit.count * (rule.k1 + 1) / (hit.count + damping);
    }
  }
  std::transform(sums.begin(), sums.end(), scores.begin(),
                 [](double sum) { return static_cast<float>(sum); });
  return scores;
}

}  // namespace corpusd
