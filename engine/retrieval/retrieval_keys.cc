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

Status RetrievalKeys::AppendBlock(const KvFormat& format, const KvCalibration* calibration,
                                  const std::byte* block, uint32_t tokens) {
  CHECK(tokens > 0 && tokens <= kBlockTokens) << tokens;
  CHECK(format.head_dim == layout_.head_dim()) << format.head_dim;
  ASSIGN_OR_RETURN(std::byte* const tiles, NextTiles());
  std::vector<float> keys(size_t{tokens} * format.head_dim);
  std::byte* tile = tiles;
  for (const KeySource& source : layout_.heads().sources()) {
    ReadBlockKeys(keys.data(), format, calibration, &layout_.rope(), block, source, tokens);
    EncodeIndexTile(tile, keys.data(), tokens, format.head_dim);
    tile += layout_.tile_bytes();
  }
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

std::vector<float> RetrievalKeys::BestProducts(const HeadQueries& queries,
                                               const IndexScanner& scanner) const {
  const RetrievalHeads& heads = layout_.heads();
  const uint32_t rows = queries.rows();
  std::vector<float> best(heads.heads().size() * blocks());
  std::vector<std::vector<float>> row_best(scanner.threads());
  const auto items = static_cast<uint32_t>((blocks() + kScanBlocks - 1) / kScanBlocks);
  scanner.ForRanges(items, [&](uint32_t item, unsigned thread) {
    std::vector<float>& of_rows = row_best[thread];
    const uint64_t first = uint64_t{item} * kScanBlocks;
    const uint64_t end = std::min(first + kScanBlocks, blocks());
    for (uint64_t block = first; block < end; ++block) {
      for (uint32_t source = 0; source < heads.sources().size(); ++source) {
        const IndexQueries stacked = queries.OfSource(source);
        of_rows.resize(stacked.rows);
        scanner.Scan({.tile = blocks_[block].tiles + source * layout_.tile_bytes(),
                      .head_dim = layout_.head_dim(),
                      .tokens = blocks_[block].tokens,
                      .queries = stacked,
                      .best = of_rows.data()});
        const float* row = of_rows.data();
        for (const uint32_t head : heads.HeadsOf(source)) {
          best[head * blocks() + block] = *std::max_element(row, row + rows);
          row += rows;
        }
      }
    }
  });
  return best;
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
