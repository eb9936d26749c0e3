// The decode kernels of layers without positions, run on the CPU: one block's part of a long row
// against its double sums.
#include "tests/gpu/emulated/device.h"
// The kernels' sources; the order matters.
#include "page_lone.inc"
#include "page_still.inc"
#include "query_coordinates.inc"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "tests/support/coded_tile_builder.h"

namespace corpusd::cuda {
namespace {

constexpr uint32_t kGroup = 5, kDistinct = 40;
constexpr uint32_t kPages = 1024;      // a block has 32 of them
constexpr uint32_t kManyPages = 3000;  // or 91: more than are described at a time

// A side's numbers of a page: codes [128][Dim], a scale byte a token, a mean a dim.
struct Side {
  std::vector<uint8_t> codes, scales;
  std::vector<int8_t> means;
  template <int Bits>
  double Number(int token, int dim) const {
    const auto dims = static_cast<int>(means.size());
    return double{__uint_as_float(ScaleBits(scales[token]))} / LevelUnit(Bits) *
               LevelOfCode(Bits, codes[token * dims + dim]) +
           means[dim] * double{kMeanStep};
  }
};

// kHead: the KV head whose tiles are filled.
template <int Bits, int Dim, uint32_t kKvHeads = 8, uint32_t kHead = 3>
class StillScene {
 public:
  explicit StillScene(bool odd, uint32_t pages = kPages)
      : row_{0, pages, int64_t{pages} * kTileTokens - 1} {
    using Tile = CodedTile<Bits, Dim>;
    constexpr uint32_t kBlock = 2 * kKvHeads * Tile::kBytes;
    bytes_.resize(size_t{kDistinct} * kBlock + 64);
    uint8_t* const base = bytes_.data() + (64 - reinterpret_cast<uintptr_t>(bytes_.data()) % 64);
    for (uint32_t p = 0; p < kDistinct; ++p) {
      uint8_t* const block = base + size_t{p} * kBlock;
      Fill(&keys_[p], false, block + kHead * Tile::kBytes);
      Fill(&values_[p], true, block + (kKvHeads + kHead) * Tile::kBytes);
    }
    for (uint32_t p = 0; p < pages; ++p) {
      DevicePage page;
      page.bytes = base + size_t{p % kDistinct} * kBlock;
      page.layer_bytes = kBlock;
      page.key_tile_bytes = page.value_tile_bytes = Tile::kBytes;
      page.tokens = odd && p % 7 == 3 ? 61 : kTileTokens;
      page.hidden = odd && p % 5 == 2 ? 40 : 0;
      page.first_position = int64_t{p} * kTileTokens;
      page.value_codec = PageCodec{Bits};
      page.key_codec = odd && (p < 3 || p % 11 == 4) ? PageCodec::kBf16 : PageCodec{Bits};
      pages_.push_back(page);
    }
    std::normal_distribution<float> normal;
    for (float& x : basis_) x = normal(random_) / std::sqrt(static_cast<float>(Dim));
    for (float& x : q_) x = 2 * normal(random_);
    call_.q = {q_.data(), 1, kKvHeads * kGroup * Dim, kKvHeads * kGroup * Dim};
    call_.q_heads = kKvHeads * kGroup;
    call_.kv_heads = kKvHeads;
    call_.head_dim = Dim;
    call_.scale = 1 / std::sqrt(static_cast<float>(Dim));
    call_.pages = pages_.data();
    call_.rows = &row_;
    call_.pages_min = call_.pages_max = pages;
    workspace_.resize(PageAttentionFloats(1, pages, kKvHeads * kGroup, kKvHeads, Dim), -7.0f);
    call_.basis.arrays = basis_.data();
    call_.workspace = workspace_.data();
  }

  // Runs block `part`. RETURNS the largest error of a head, a share of its output's norm.
  double Run(uint32_t part) {
    const uint32_t each = LongPagesOfPart(row_.pages, call_.kv_blocks());
    static std::vector<uint8_t> shared((size_t{227} << 10) + 1024);
    emulated::block.shared =
        shared.data() + (1024 - reinterpret_cast<uintptr_t>(shared.data()) % 1024);
    ptx::counting_barriers.clear();
    ptx::own_copies.clear();
    if constexpr (Bits == 8) {
      emulated::block.index = {part, kHead, 0};
      EXPECT_TRUE(emulated::Run(kStillThreads, [&] { StillKernel<Bits, Dim>(call_); }));
    } else {
      for (uint32_t slice = 0; slice < Dim / kSlice; ++slice) {
        emulated::block.index = {slice, kHead, 0};
        EXPECT_TRUE(emulated::Run(kTeams * kSlice, [&] { CoordinatesKernel<Dim>(call_); }));
      }
      const uint32_t number = kHead * LongPartsMax(call_.kv_blocks()) + part;
      emulated::block.index = {number / kLoneParts, 0, 0};
      EXPECT_TRUE(emulated::Run(kLoneParts * kLoneThreads, [&] { LoneKernel<Bits, Dim>(call_); }));
    }
    double worst = 0;
    for (uint32_t h = kHead * kGroup; h < (kHead + 1) * kGroup; ++h) {
      const uint32_t place = PageKindOfBits(Bits) * ((row_.pages + each - 1) / each) + part;
      worst = std::max(worst, Error(call_.State(0, h, place), h, part * each, (part + 1) * each));
    }
    return worst;
  }

 private:
  void Fill(Side* side, bool transposed, uint8_t* tile) {
    side->codes.resize(kTileTokens * Dim);
    side->scales.resize(kTileTokens);
    side->means.resize(Dim);
    for (uint8_t& code : side->codes) code = random_() & ((1 << Bits) - 1);
    for (uint8_t& scale : side->scales) scale = static_cast<uint8_t>(140 + random_() % 40);
    for (int8_t& mean : side->means)
      mean = static_cast<int8_t>(static_cast<int>(random_() % 21) - 10);
    const auto bytes = BuildCodedTile<Bits, Dim>(side->codes, side->scales, transposed);
    std::memcpy(tile, bytes.data(), bytes.size());
    std::memcpy(tile + CodedTile<Bits, Dim>::kCodeBytes + kTileTokens, side->means.data(), Dim);
  }

  double Error(const float* state, uint32_t head, uint32_t first, uint32_t end) const {
    const float* basis = basis_.data() + 2 * kHead * BasisSideFloats(Dim);
    std::vector<double> q(Dim), sums(Dim);
    for (int i = 0; i < Dim * Dim; ++i) {
      q[i % Dim] += double{q_[head * Dim + i / Dim]} * call_.scale *
                    basis[BasisPartOffset(BasisPart::kQuery, Dim) + i];
    }
    double mass = 0;
    for (uint32_t p = first; p < std::min(end, row_.pages); ++p) {
      if (pages_[p].key_codec != PageCodec{Bits}) continue;
      for (int token = pages_[p].hidden; token < pages_[p].tokens; ++token) {
        double score = 0;
        for (int d = 0; d < Dim; ++d) {
          score += q[d] * (keys_[p % kDistinct].template Number<Bits>(token, d) +
                           basis[BasisPartOffset(BasisPart::kMeanCoordinates, Dim) + d]);
        }
        const double weight = std::exp(score);
        mass += weight;
        for (int d = 0; d < Dim; ++d) {
          sums[d] += weight * values_[p % kDistinct].template Number<Bits>(token, d);
        }
      }
    }
    double error = 0, norm = 0;
    for (int d = 0; d < Dim; ++d) {
      const double want = sums[d] / mass, got = double{state[2 + d]} / state[1];
      error += (got - want) * (got - want);
      norm += want * want;
    }
    // What the part weighs beside others.
    EXPECT_NEAR(std::log2(double{state[1]}) + state[0], std::log2(mass), 0.01);
    return std::sqrt(error / norm);
  }

  std::mt19937 random_{Bits * 100 + Dim};
  std::vector<uint8_t> bytes_;
  Side keys_[kDistinct], values_[kDistinct];
  std::vector<DevicePage> pages_;
  std::vector<float> basis_ = std::vector<float>(2 * kKvHeads * BasisSideFloats(Dim));
  std::vector<float> q_ = std::vector<float>(kKvHeads * kGroup * Dim);
  std::vector<float> workspace_;
  AttentionRow row_;
  PageAttention call_;
};

template <int Bits, int Dim>
void CheckBothScenes() {
  SCOPED_TRACE(std::to_string(Bits) + " bits, " + std::to_string(Dim) + " dims");
  EXPECT_LT((StillScene<Bits, Dim>(false).Run(1)), 2e-3);
  EXPECT_LT((StillScene<Bits, Dim>(true).Run(0)), 2e-3) << "hidden, short and other pages";
  ptx::late_copies.wanted = true;
  EXPECT_LT((StillScene<Bits, Dim>(false).Run(1)), 2e-3) << "tiles that overtake each other";
  ptx::late_copies = {};
  EXPECT_LT((StillScene<Bits, Dim>(true, kManyPages).Run(2)), 2e-3) << "many pages";
}

TEST(StillKernelTest, OneBlocksPartMatchesDoubleSums) {
  CheckBothScenes<2, 64>();
  CheckBothScenes<3, 64>();
  CheckBothScenes<4, 64>();
  CheckBothScenes<8, 64>();
  CheckBothScenes<2, 128>();
  CheckBothScenes<3, 128>();
  CheckBothScenes<4, 128>();
  CheckBothScenes<8, 128>();
}

// 7 x 37 parts: the last block has one.
TEST(StillKernelTest, TheLastOfAnOddNumberOfPartsHasABlockOfItsOwn) {
  ASSERT_EQ(7 * LongPartsMax(7) % kLoneParts, 1u);
  EXPECT_LT((StillScene<2, 64, 7, 6>(true).Run(LongPartsMax(7) - 1)), 2e-3);
}

}  // namespace
}  // namespace corpusd::cuda
