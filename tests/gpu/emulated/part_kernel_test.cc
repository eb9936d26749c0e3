// The decode kernel of short rows, run on the CPU: rows that share their pages, of which a block
// takes several at once, compute what each computes alone, bit for bit.
#include "page_attention.inc"
#include "tests/gpu/emulated/device.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "tests/support/coded_tile_builder.h"

namespace corpusd::cuda {
int AttendLongParts(const PageAttention&, CUstream_st*) { return cudaErrorNotSupported; }
int AttendCodedParts(const PageAttention&, CUstream_st*) { return cudaErrorNotSupported; }

namespace {

constexpr uint32_t kKvHeads = 2, kDim = 64, kPages = 5, kRows = 5;

// Rows over five pages of 4 bits and a page of each row's own in bfloat16.
class PartScene {
 public:
  // apart: every row reads a copy of its own, so that no rows share.
  PartScene(uint32_t group, bool apart) : group_(group) {
    using Tile = CodedTile<4, kDim>;
    constexpr uint32_t kCoded = 2 * kKvHeads * Tile::kBytes;
    constexpr uint32_t kPlain = 2 * kKvHeads * kTileTokens * kDim * 2;
    std::vector<uint8_t> block;
    for (uint32_t i = 0; i < kPages * 2 * kKvHeads; ++i) {
      std::vector<uint8_t> codes(kTileTokens * kDim), scales(kTileTokens);
      for (uint8_t& code : codes) code = random_() & 15;
      for (uint8_t& scale : scales) scale = static_cast<uint8_t>(140 + random_() % 40);
      const auto tile = BuildCodedTile<4, kDim>(codes, scales, i % (2 * kKvHeads) >= kKvHeads);
      block.insert(block.end(), tile.begin(), tile.end());
      block.resize((i + 1) * Tile::kBytes);
    }
    std::vector<uint16_t> own(kRows * kPlain / 2);
    for (uint16_t& x : own) x = static_cast<uint16_t>(0x3C00 + random_() % 0x300);
    bytes_.resize((apart ? kRows : 1) * block.size() + own.size() * 2 + 64);
    uint8_t* at = bytes_.data() + (64 - reinterpret_cast<uintptr_t>(bytes_.data()) % 64);
    uint8_t* const plain = at + (apart ? kRows : 1) * block.size();
    for (uint32_t i = 0; i < (apart ? kRows : 1); ++i) {
      std::copy(block.begin(), block.end(), at + i * block.size());
    }
    std::memcpy(plain, own.data(), own.size() * 2);
    for (uint32_t r = 0; r < kRows; ++r) {
      rows_.push_back({static_cast<uint32_t>(pages_.size()), kPages + 1,
                       int64_t{kPages} * kTileTokens + 3 + r % 2});
      for (uint32_t p = 0; p < kPages; ++p) {
        DevicePage page;
        page.bytes = at + (apart ? r * block.size() : 0) + p * kCoded;
        page.layer_bytes = kCoded;
        page.key_tile_bytes = page.value_tile_bytes = Tile::kBytes;
        page.tokens = p == 2 ? 100 : kTileTokens;
        page.hidden = p == 3 ? 17 : 0;
        page.first_position = int64_t{p} * kTileTokens;
        page.key_codec = page.value_codec = PageCodec::kCq4;
        pages_.push_back(page);
      }
      DevicePage page;
      page.bytes = plain + r * kPlain;
      page.layer_bytes = kPlain;
      page.key_tile_bytes = page.value_tile_bytes = kTileTokens * kDim * 2;
      page.tokens = 9;
      page.first_position = int64_t{kPages} * kTileTokens;
      pages_.push_back(page);
    }
    std::normal_distribution<float> normal;
    const uint32_t heads = kKvHeads * group;
    q_.resize(size_t{kRows} * heads * kDim);
    for (float& x : basis_) x = normal(random_) / 8;
    for (float& x : q_) x = normal(random_);
    for (float& x : turns_) x = normal(random_);
    workspace_.assign(PageAttentionFloats(kRows, kPages + 1, heads, kKvHeads, kDim), -7.0f);
    call_.q = {q_.data(), kRows, heads * kDim, heads * kDim};
    call_.q_heads = heads;
    call_.kv_heads = kKvHeads;
    call_.head_dim = kDim;
    call_.scale = 0.125f;
    call_.pages = pages_.data();
    call_.rows = rows_.data();
    call_.pages_min = call_.pages_max = kPages + 1;
    call_.rope = {turns_.data(), kDim / 2};
    call_.basis.arrays = basis_.data();
    call_.workspace = workspace_.data();
  }

  // RETURNS the states of all parts.
  const std::vector<float>& Run() {
    const uint32_t rows = RowsOfBlock(group_);
    for (uint32_t z = 0; z < (kRows + rows - 1) / rows; ++z) {
      for (uint32_t y = 0; y < call_.kv_blocks(); ++y) {
        for (uint32_t x = 0; x < kPages + 1; ++x) {
          emulated::block.index = {x, y, z};
          EXPECT_TRUE(emulated::Run(kPartWarps * 32, [&] { PartKernel<kDim>(call_); }));
        }
      }
    }
    return workspace_;
  }
  // Whether the first two rows share the pages of a part.
  bool Share(uint32_t part) const { return SharePages(call_, rows_[0], rows_[1], part); }

 private:
  const uint32_t group_;
  std::mt19937 random_{5};
  std::vector<uint8_t> bytes_;
  std::vector<DevicePage> pages_;
  std::vector<AttentionRow> rows_;
  std::vector<float> basis_ = std::vector<float>(2 * kKvHeads * BasisSideFloats(kDim));
  std::vector<float> turns_ = std::vector<float>(size_t{kPages + 1} * kTileTokens * kDim);
  std::vector<float> q_, workspace_;
  PageAttention call_;
};

TEST(PartKernelTest, RowsThatSharePagesAreEachAsAlone) {
  for (const uint32_t group : {1u, 3u, 4u, 5u, 9u}) {
    SCOPED_TRACE(group);
    PartScene shared(group, false), apart(group, true);
    EXPECT_TRUE(shared.Share(1));
    EXPECT_FALSE(shared.Share(kPages)) << "pages of their own";
    EXPECT_FALSE(apart.Share(1));
    const std::vector<float>& together = shared.Run();
    const std::vector<float>& alone = apart.Run();
    EXPECT_EQ(std::memcmp(together.data(), alone.data(), together.size() * sizeof(float)), 0);
    EXPECT_EQ(std::count(together.begin(), together.end(), -7.0f), 0) << "a state is missing";
  }
}

}  // namespace
}  // namespace corpusd::cuda
