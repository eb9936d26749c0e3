// engine/retrieval/retrieval_keys.h -- the keys of a model's retrieval heads for every token of a
// corpus, before positions, in 4 bits, in memory: scanned in one pass by a question's queries.
// Blocks are appended, never changed. Const calls from any thread; appending from one, with no
// other call at that time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/backend/host_buffer.h"
#include "engine/calibration/kv_calibration.h"
#include "engine/model/rope_table.h"
#include "engine/retrieval/index_scanner.h"
#include "engine/retrieval/retrieval_heads.h"
#include "kernels/index_tile.h"
#include "kernels/kv_format.h"
#include "store/base/result.h"

namespace corpusd {

// What an index of one model holds and how its blocks are read. Must outlive the indexes.
class IndexLayout {
 public:
  IndexLayout(RetrievalHeads heads, const RopeConfig& rope);

  const RetrievalHeads& heads() const { return heads_; }
  uint32_t head_dim() const { return heads_.shape().head_dim; }
  const RopeTable& rope() const { return rope_; }
  // Multiplies q . k in attention.
  float scale() const { return scale_; }
  uint64_t tile_bytes() const { return IndexTileBytes(head_dim()); }
  uint64_t block_bytes() const { return tile_bytes() * heads_.sources().size(); }

 private:
  const RetrievalHeads heads_;
  const RopeAngles angles_;
  const RopeTable rope_;
  const float scale_;
};

// A question's queries of the retrieval heads, as bytes, sorted by the keys that they meet.
class HeadQueries {
 public:
  // q: [rows][heads][head_dim], before positions, heads in the layout's order.
  HeadQueries(const IndexLayout& layout, std::span<const float> q, uint32_t rows);

  uint32_t rows() const { return rows_; }
  // Of the heads that read source i: [heads of it][rows][head_dim].
  IndexQueries OfSource(uint32_t source) const;

 private:
  struct Group {
    std::vector<int8_t> codes;
    std::vector<int32_t> sums;
    std::vector<float> scales;
  };
  const uint32_t rows_;
  std::vector<Group> groups_;
};

class RetrievalKeys {
 public:
  explicit RetrievalKeys(const IndexLayout& layout) : layout_(layout) {}

  // Reads, turns back and codes the keys of a stored block into tiles, [layout.block_bytes()]; the
  // same bytes on every host. calibration: of coded formats. REQUIRES: format has the layout's
  // layers, KV heads and head_dim; 1 <= tokens <= kBlockTokens. Any thread.
  static void EncodeBlock(std::byte* tiles, const IndexLayout& layout, const KvFormat& format,
                          const KvCalibration* calibration, const std::byte* block,
                          uint32_t tokens);
  // The same, appended. kResourceExhausted: no memory.
  Status AppendBlock(const KvFormat& format, const KvCalibration* calibration,
                     const std::byte* block, uint32_t tokens);
  // What EncodeBlock or block_bytes() gave for a block of this layout. REQUIRES:
  // layout.block_bytes() of them.
  Status AppendCoded(std::span<const std::byte> bytes, uint32_t tokens);

  uint64_t blocks() const { return blocks_.size(); }
  uint32_t tokens(uint64_t block) const { return blocks_[block].tokens; }
  // Tiles of all sources, in order.
  std::span<const std::byte> block_bytes(uint64_t block) const;
  uint64_t bytes() const;

  struct Scores {
    // [heads][blocks]: the logarithm of a block's share in a head's attention, softmax over the
    // tokens of all blocks from first_block on for every query row, mean over the rows. Blocks
    // before first_block: 0.
    std::vector<float> log_shares;
    // [heads][rows]: the logarithm of the sum over those tokens of exp(scale * product).
    std::vector<double> log_sums;
  };
  // The same for any number of threads.
  Scores Scan(const HeadQueries& queries, uint64_t first_block, const IndexScanner& scanner) const;
  // [heads][rows][tokens]: products with each token of one block.
  std::vector<float> Products(const HeadQueries& queries, uint64_t block,
                              const IndexScanner& scanner) const;

 private:
  struct Block {
    const std::byte* tiles;
    uint32_t tokens;
  };
  Result<std::byte*> NextTiles();
  // Of a source's stacked rows, [blocks from first_block on][rows]: the largest product and the
  // block's mass against it.
  struct RowMasses {
    std::vector<float> best, mass;
  };
  RowMasses ScanSource(const HeadQueries& queries, uint32_t source, uint64_t first_block,
                       const IndexScanner& scanner) const;

  const IndexLayout& layout_;
  std::vector<std::unique_ptr<HostBuffer>> chunks_;
  std::vector<Block> blocks_;
};

}  // namespace corpusd
