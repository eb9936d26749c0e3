#include "engine/retrieval/retrieval_keys.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/retrieval/block_keys.h"
#include "kernels/reference/index_tile_codec.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

// Blocks of one allocation: some 2 MiB, a huge page, for two KV heads of 64 numbers.
constexpr uint64_t kChunkBlocks = 256;
// Neighbouring blocks that one thread scans at a time.
constexpr uint32_t kScanBlocks = 16;
constexpr float kLog2E = 1.44269504f;
// Shares below it are all alike.
constexpr double kLeastShare = 1e-30;

}  // namespace

IndexLayout::IndexLayout(RetrievalHeads heads, const RopeConfig& rope)
    : heads_(std::move(heads)),
      angles_(rope, kBlockTokens),
      rope_(angles_.table()),
      scale_(static_cast<float>(RopeAttentionFactor(rope) /
                                std::sqrt(static_cast<double>(heads_.shape().head_dim)))) {}

HeadQueries::HeadQueries(const IndexLayout& layout, std::span<const float> q, uint32_t rows)
    : rows_(rows) {
  const RetrievalHeads& heads = layout.heads();
  const size_t head_dim = layout.head_dim();
  const size_t count = heads.heads().size();
  CHECK(rows > 0 && q.size() == rows * count * head_dim) << q.size() << " numbers, " << rows;
  for (uint32_t source = 0; source < heads.sources().size(); ++source) {
    Group group;
    const size_t stacked = heads.HeadsOf(source).size() * rows;
    group.codes.resize(stacked * head_dim);
    group.sums.resize(stacked);
    group.scales.resize(stacked);
    size_t i = 0;
    for (const uint32_t head : heads.HeadsOf(source)) {
      for (uint32_t row = 0; row < rows; ++row, ++i) {
        EncodeIndexQuery(q.data() + (row * count + head) * head_dim, layout.head_dim(),
                         group.codes.data() + i * head_dim, &group.sums[i], &group.scales[i]);
      }
    }
    groups_.push_back(std::move(group));
  }
}

IndexQueries HeadQueries::OfSource(uint32_t source) const {
  const Group& group = groups_[source];
  return {group.codes.data(), group.sums.data(), group.scales.data(),
          static_cast<uint32_t>(group.sums.size())};
}

Result<std::byte*> RetrievalKeys::NextTiles() {
  const uint64_t place = blocks_.size() % kChunkBlocks;
  if (place == 0) {
    ASSIGN_OR_RETURN(auto chunk, HostBuffer::Create(layout_.block_bytes() * kChunkBlocks,
                                                    "the index of a corpus's keys"));
    chunks_.push_back(std::move(chunk));
  }
  return static_cast<Buffer&>(*chunks_.back()).data() + place * layout_.block_bytes();
}

void RetrievalKeys::EncodeBlock(std::byte* tiles, const IndexLayout& layout, const KvFormat& format,
                                const KvCalibration* calibration, const std::byte* block,
                                uint32_t tokens) {
  CHECK(tokens > 0 && tokens <= kBlockTokens) << tokens;
  CHECK(format.head_dim == layout.head_dim()) << format.head_dim;
  std::vector<float> keys(size_t{tokens} * format.head_dim);
  for (const KeySource& source : layout.heads().sources()) {
    ReadBlockKeys(keys.data(), format, calibration, &layout.rope(), block, source, tokens);
    EncodeIndexTile(tiles, keys.data(), tokens, format.head_dim);
    tiles += layout.tile_bytes();
  }
}

Status RetrievalKeys::AppendBlock(const KvFormat& format, const KvCalibration* calibration,
                                  const std::byte* block, uint32_t tokens) {
  ASSIGN_OR_RETURN(std::byte* const tiles, NextTiles());
  EncodeBlock(tiles, layout_, format, calibration, block, tokens);
  blocks_.push_back({tiles, tokens});
  return OkStatus();
}

Status RetrievalKeys::AppendCoded(std::span<const std::byte> bytes, uint32_t tokens) {
  CHECK(bytes.size() == layout_.block_bytes()) << bytes.size();
  ASSIGN_OR_RETURN(std::byte* const tiles, NextTiles());
  std::memcpy(tiles, bytes.data(), bytes.size());
  blocks_.push_back({tiles, tokens});
  return OkStatus();
}

std::span<const std::byte> RetrievalKeys::block_bytes(uint64_t block) const {
  return {blocks_[block].tiles, layout_.block_bytes()};
}

uint64_t RetrievalKeys::bytes() const {
  return blocks_.size() * layout_.block_bytes() + blocks_.capacity() * sizeof(Block);
}

RetrievalKeys::RowMasses RetrievalKeys::ScanSource(const HeadQueries& queries, uint32_t source,
                                                   uint64_t first_block,
                                                   const IndexScanner& scanner) const {
  const IndexQueries stacked = queries.OfSource(source);
  const uint64_t count = blocks() - first_block;
  RowMasses rows{std::vector<float>(count * stacked.rows),
                 std::vector<float>(count * stacked.rows)};
  const auto items = static_cast<uint32_t>((count + kScanBlocks - 1) / kScanBlocks);
  scanner.ForRanges(items, [&](uint32_t item, unsigned) {
    const uint64_t first = uint64_t{item} * kScanBlocks;
    const uint64_t end = std::min(first + kScanBlocks, count);
    for (uint64_t i = first; i < end; ++i) {
      const Block& block = blocks_[first_block + i];
      scanner.Scan({.tile = block.tiles + source * layout_.tile_bytes(),
                    .head_dim = layout_.head_dim(),
                    .tokens = block.tokens,
                    .queries = stacked,
                    .best = rows.best.data() + i * stacked.rows,
                    .mass = rows.mass.data() + i * stacked.rows,
                    .exponent = layout_.scale() * kLog2E});
    }
  });
  return rows;
}

RetrievalKeys::Scores RetrievalKeys::Scan(const HeadQueries& queries, uint64_t first_block,
                                          const IndexScanner& scanner) const {
  const RetrievalHeads& heads = layout_.heads();
  const uint32_t rows = queries.rows();
  const uint64_t count = blocks() - std::min(first_block, blocks());
  Scores scores{std::vector<float>(heads.heads().size() * blocks()),
                std::vector<double>(heads.heads().size() * rows)};
  if (count == 0) return scores;
  for (uint32_t source = 0; source < heads.sources().size(); ++source) {
    const RowMasses found = ScanSource(queries, source, first_block, scanner);
    const std::span<const uint32_t> heads_here = heads.HeadsOf(source);
    const size_t stacked = heads_here.size() * rows;
    std::vector<float> largest(stacked, -HUGE_VALF);
    for (uint64_t i = 0; i < count; ++i) {
      for (size_t row = 0; row < stacked; ++row) {
        largest[row] = std::max(largest[row], found.best[i * stacked + row]);
      }
    }
    // Each block's mass against the largest product of all, then the whole, in order.
    std::vector<double> weights(count * stacked), totals(stacked);
    const auto items = static_cast<uint32_t>((count + kScanBlocks - 1) / kScanBlocks);
    scanner.ForRanges(items, [&](uint32_t item, unsigned) {
      const uint64_t end = std::min(uint64_t{item + 1} * kScanBlocks, count);
      for (uint64_t i = uint64_t{item} * kScanBlocks; i < end; ++i) {
        for (size_t row = 0; row < stacked; ++row) {
          const uint64_t at = i * stacked + row;
          const double below = double{layout_.scale()} * (found.best[at] - largest[row]);
          weights[at] = std::exp(below) * found.mass[at];
        }
      }
    });
    for (uint64_t i = 0; i < count; ++i) {
      for (size_t row = 0; row < stacked; ++row) totals[row] += weights[i * stacked + row];
    }
    for (size_t h = 0; h < heads_here.size(); ++h) {
      float* shares = scores.log_shares.data() + heads_here[h] * blocks() + first_block;
      for (uint64_t i = 0; i < count; ++i) {
        double share = 0;
        for (size_t row = h * rows; row < (h + 1) * rows; ++row) {
          share += weights[i * stacked + row] / totals[row];
        }
        shares[i] = static_cast<float>(std::log(std::max(share / rows, kLeastShare)));
      }
      for (size_t row = 0; row < rows; ++row) {
        scores.log_sums[heads_here[h] * size_t{rows} + row] =
            double{layout_.scale()} * largest[h * rows + row] + std::log(totals[h * rows + row]);
      }
    }
  }
  return scores;
}

std::vector<float> RetrievalKeys::Products(const HeadQueries& queries, uint64_t block,
                                           const IndexScanner& scanner) const {
  const RetrievalHeads& heads = layout_.heads();
  const uint32_t rows = queries.rows();
  const uint32_t count = tokens(block);
  std::vector<float> products(heads.heads().size() * rows * count);
  std::vector<float> best, scores;
  for (uint32_t source = 0; source < heads.sources().size(); ++source) {
    const IndexQueries stacked = queries.OfSource(source);
    best.resize(stacked.rows);
    scores.resize(size_t{stacked.rows} * kBlockTokens);
    scanner.Scan({.tile = blocks_[block].tiles + source * layout_.tile_bytes(),
                  .head_dim = layout_.head_dim(),
                  .tokens = count,
                  .queries = stacked,
                  .best = best.data(),
                  .scores = scores.data()});
    size_t i = 0;
    for (const uint32_t head : heads.HeadsOf(source)) {
      for (uint32_t row = 0; row < rows; ++row, ++i) {
        std::copy_n(scores.data() + i * kBlockTokens, count,
                    products.data() + (size_t{head} * rows + row) * count);
      }
    }
  }
  return products;
}

}  // namespace corpusd
