#include "engine/retrieval/corpus_index.h"

#include <algorithm>
#include <cmath>

#include "store/base/check.h"

namespace corpusd {
namespace {

// Adds weight times the values' distances from their mean, in standard deviations; nothing if they
// are all equal. In order, so that the sums are the same everywhere.
void AddStandardized(std::span<const float> values, double weight, std::vector<double>* sums) {
  double mean = 0;
  for (const float value : values) mean += value;
  mean /= static_cast<double>(values.size());
  double squares = 0;
  for (const float value : values) squares += (value - mean) * (value - mean);
  const double deviation = std::sqrt(squares / static_cast<double>(values.size()));
  if (!(deviation > 0)) return;
  for (size_t i = 0; i < values.size(); ++i) {
    (*sums)[i] += weight * (values[i] - mean) / deviation;
  }
}

std::vector<float> Floats(std::span<const double> values) {
  std::vector<float> floats(values.size());
  std::transform(values.begin(), values.end(), floats.begin(),
                 [](double value) { return static_cast<float>(value); });
  return floats;
}

}  // namespace

void CorpusIndex::Remember(const Digest& digest) {
  places_.emplace(digest, digests_.size());
  digests_.push_back(digest);
}

CorpusIndex::BlockPart CorpusIndex::MakePart(const IndexLayout& layout, const StoredBlock& block,
                                             std::string_view text) {
  BlockPart part{std::vector<std::byte>(layout.block_bytes()), block.tokens, CountTerms(text)};
  RetrievalKeys::EncodeBlock(part.keys.data(), layout, *block.format, block.calibration,
                             block.bytes, block.tokens);
  return part;
}

CorpusIndex::BlockPart CorpusIndex::PartOf(const Digest& digest, std::string_view text) const {
  const uint64_t block = places_.at(digest);
  const auto keys = keys_.block_bytes(block);
  return {{keys.begin(), keys.end()}, keys_.tokens(block), CountTerms(text)};
}

Status CorpusIndex::Add(const Digest& digest, const BlockPart& part) {
  RETURN_IF_ERROR(keys_.AppendCoded(part.keys, part.tokens));
  words_.Append(part.terms.postings, part.terms.length);
  Remember(digest);
  return OkStatus();
}

Result<bool> CorpusIndex::AdoptBlock(const Digest& digest, const CorpusIndex& from,
                                     std::string_view text) {
  CHECK(from.layout_.heads().digest() == layout_.heads().digest()) << "indexes of other heads";
  if (!from.Has(digest)) return false;
  RETURN_IF_ERROR(Add(digest, from.PartOf(digest, text)));
  return true;
}

uint64_t CorpusIndex::bytes() const {
  constexpr uint64_t kPlaceBytes = sizeof(Digest) + 4 * sizeof(void*);
  return keys_.bytes() + words_.bytes() + digests_.capacity() * sizeof(Digest) +
         places_.size() * kPlaceBytes;
}

CorpusIndex::Scores CorpusIndex::Search(const RetrievalQuery& query, RetrievalPolicy policy,
                                        const RetrievalRule& rule,
                                        const IndexScanner& scanner) const {
  const uint64_t first = std::min(query.first_block, blocks());
  const uint64_t count = blocks() - first;
  Scores scores;
  std::vector<double> sums(count);
  if (query.rows > 0 && count > 0) {
    RetrievalKeys::Scores found =
        keys_.Scan(HeadQueries(layout_, query.q, query.rows), first, scanner);
    scores.log_sums = std::move(found.log_sums);
    std::vector<double> of_heads(count);
    for (size_t head = 0; head < layout_.heads().heads().size(); ++head) {
      const auto shares = std::span(found.log_shares).subspan(head * blocks() + first, count);
      AddStandardized(shares, 1, &of_heads);
    }
    if (policy != RetrievalPolicy::kLexical) AddStandardized(Floats(of_heads), 1, &sums);
  }
  if (policy != RetrievalPolicy::kHeads && count > 0) {
    const double weight = policy == RetrievalPolicy::kLexical ? 1 : rule.lexical_weight;
    const std::vector<float> words = words_.Score(query.text, rule.bm25, scanner);
    AddStandardized(std::span(words).subspan(first), weight, &sums);
  }
  scores.of_blocks.assign(first, -HUGE_VALF);
  for (const double sum : sums) scores.of_blocks.push_back(static_cast<float>(sum));
  return scores;
}

uint32_t CorpusIndex::HitToken(const RetrievalQuery& query, const Scores& scores, uint64_t block,
                               const IndexScanner& scanner) const {
  const uint32_t count = tokens(block);
  if (query.rows == 0) return count / 2;
  const std::vector<float> products =
      keys_.Products(HeadQueries(layout_, query.q, query.rows), block, scanner);
  std::vector<double> mass(count);
  for (size_t i = 0; i < scores.log_sums.size(); ++i) {
    for (uint32_t t = 0; t < count; ++t) {
      mass[t] += std::exp(double{layout_.scale()} * products[i * count + t] - scores.log_sums[i]);
    }
  }
  return static_cast<uint32_t>(std::max_element(mass.begin(), mass.end()) - mass.begin());
}

std::vector<float> CorpusIndex::Mass(std::span<const float> q, uint32_t rows,
                                     std::span<const uint64_t> blocks,
                                     const IndexScanner& scanner) const {
  const HeadQueries queries(layout_, q, rows);
  const size_t curves = layout_.heads().heads().size() * rows;
  const double scale = layout_.scale();
  std::vector<std::vector<float>> products;
  std::vector<double> largest(curves, -HUGE_VAL);
  for (const uint64_t block : blocks) {
    products.push_back(keys_.Products(queries, block, scanner));
    const uint32_t count = tokens(block);
    for (size_t i = 0; i < curves; ++i) {
      const float* of_curve = products.back().data() + i * count;
      largest[i] = std::max(largest[i], double{*std::max_element(of_curve, of_curve + count)});
    }
  }
  std::vector<double> totals(curves), sums(curves * blocks.size());
  for (size_t b = 0; b < blocks.size(); ++b) {
    const uint32_t count = tokens(blocks[b]);
    for (size_t i = 0; i < curves; ++i) {
      double& sum = sums[b * curves + i];
      for (uint32_t t = 0; t < count; ++t) {
        sum += std::exp(scale * (products[b][i * count + t] - largest[i]));
      }
      totals[i] += sum;
    }
  }
  std::vector<double> mass(blocks.size());
  for (size_t b = 0; b < blocks.size(); ++b) {
    for (size_t i = 0; i < curves; ++i) mass[b] += sums[b * curves + i] / totals[i];
    mass[b] /= static_cast<double>(curves);
  }
  return Floats(mass);
}

}  // namespace corpusd
