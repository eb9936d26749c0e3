// Which rank holds what: balance, nodes that cover everything once, and the rule of what travels.
#include "engine/ranks/placement.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

namespace corpusd {
namespace {

std::set<uint32_t> StrandsBelow(MergeNode node) {
  if (IsStrand(node)) return {node.index};
  std::set<uint32_t> strands = StrandsBelow({2 * node.width, node.index});
  strands.merge(StrandsBelow({2 * node.width, 2 * node.width - 1 - node.index}));
  return strands;
}

TEST(PlacementTest, NodesOfAllRanksHoldEverySpanOnceAndAreTheirOwn) {
  for (uint32_t ranks = 1; ranks <= 9; ++ranks) {
    for (const uint32_t spans : {1u, 2u, 3u, 7u, 16u, 63u, 64u, 65u, 200u}) {
      const Placement placement{ranks, 4};
      std::multiset<uint32_t> strands;
      for (uint32_t rank = 0; rank < ranks; ++rank) {
        const auto nodes = placement.NodesOf(rank, uint64_t{spans} * 4);
        const bool power_of_two = (ranks & (ranks - 1)) == 0;
        EXPECT_LE(nodes.size(), power_of_two ? 1 : kStrands) << ranks << " " << spans;
        for (const MergeNode node : nodes) {
          for (const uint32_t strand : StrandsBelow(node)) {
            if (strand >= spans) continue;
            strands.insert(strand);
            ForEachSpan(strand, spans, [&](uint32_t span) {
              EXPECT_EQ(placement.RankOfPage(uint64_t{span} * 4 + 3), rank) << span;
            });
          }
        }
      }
      std::multiset<uint32_t> all;
      for (uint32_t strand = 0; strand < std::min(spans, kStrands); ++strand) all.insert(strand);
      EXPECT_EQ(strands, all) << ranks << " ranks, " << spans << " spans";
    }
  }
}

TEST(PlacementTest, EverySpanIsInOneStrand) {
  std::set<uint32_t> seen;
  for (uint32_t strand = 0; strand < kStrands; ++strand) {
    uint32_t before = 0;
    ForEachSpan(strand, 300, [&](uint32_t span) {
      EXPECT_TRUE(seen.insert(span).second) << span;
      EXPECT_GE(span, before);
      before = span;
    });
  }
  EXPECT_EQ(seen.size(), 300u);
}

TEST(PlacementTest, AZigzagPrefixIsBalancedToASpan) {
  for (const uint32_t ranks : {2u, 3u, 4u, 8u}) {
    const Placement placement{ranks, 1};
    std::vector<int> held(ranks, 0);
    for (uint32_t span = 0; span < kStrands / (2 * ranks) * 2 * ranks; ++span) {
      ++held[placement.RankOfPage(span)];
      const auto [least, most] = std::minmax_element(held.begin(), held.end());
      EXPECT_LE(*most - *least, 2) << ranks << " ranks after " << span;
    }
  }
}

TEST(PlacementTest, DealtRowsAreAllRowsOnceCutAtUnitsAndBalanced) {
  for (const uint32_t ranks : {1u, 2u, 3u, 4u, 8u}) {
    for (const uint64_t rows : {5 * 1024ull, 16 * 1024ull + 77, 64 * 1024ull}) {
      const uint64_t first = 3 * 1024;
      const auto dealt = DealRows(first, first + rows, 256, ranks);
      ASSERT_EQ(dealt.size(), ranks);
      std::map<uint64_t, uint64_t> pieces;
      std::vector<double> work(ranks, 0);
      for (uint32_t rank = 0; rank < ranks; ++rank) {
        for (const RowPiece& piece : dealt[rank]) {
          EXPECT_EQ((piece.first_position - first) % 256, 0u);
          pieces[piece.first_position] = piece.end();
          const auto begin = static_cast<double>(piece.first_position - first);
          const auto end = static_cast<double>(piece.end() - first);
          work[rank] += end * end - begin * begin;
        }
      }
      uint64_t at = first;
      for (const auto& [begin, end] : pieces) {
        EXPECT_EQ(begin, at);
        at = end;
      }
      EXPECT_EQ(at, first + rows);
      if (rows != 64 * 1024) continue;
      const auto [least, most] = std::minmax_element(work.begin(), work.end());
      EXPECT_LT(*most / *least, ranks == 3 ? 1.05 : 1.0001) << ranks;
    }
  }
  EXPECT_TRUE(DealRows(0, 1000, 256, 4).empty());  // three units and a rest
}

TEST(PlacementTest, WholeSpansAreDealtToWhoKeepsThem) {
  constexpr uint64_t kSpan = 1024;
  for (const uint32_t ranks : {2u, 4u, 8u}) {
    const Placement placement{ranks, kSpan / kBlockTokens};
    for (const uint32_t unit : {uint32_t{kSpan}, 256u}) {
      for (const uint64_t before : {0u, 1u, 65u}) {
        const uint64_t first = before * ranks * kSpan, end = first + 4 * ranks * kSpan;
        const auto dealt = DealRows(first, end, unit, ranks, kSpan);
        ASSERT_EQ(dealt.size(), ranks);
        uint64_t rows = 0;
        std::vector<uint64_t> positions(ranks, 0);  // sums
        for (uint32_t rank = 0; rank < ranks; ++rank) {
          for (const RowPiece& piece : dealt[rank]) {
            rows += piece.rows;
            for (uint64_t at = piece.first_position; at < piece.end(); at += kBlockTokens) {
              EXPECT_EQ(placement.RankOfPage(at / kBlockTokens), rank) << at;
              positions[rank] += at - first;
            }
          }
        }
        EXPECT_EQ(rows, end - first);
        const auto [least, most] = std::minmax_element(positions.begin(), positions.end());
        EXPECT_EQ(*least, *most) << ranks << " ranks from " << first;
      }
    }
    // No run of all ranks, or spans that cannot be dealt evenly: two pieces of each.
    for (const auto& [first, spans] :
         {std::pair{kSpan, 2 * ranks}, std::pair{uint64_t{0}, 3 * ranks}}) {
      for (const auto& pieces : DealRows(first, first + spans * kSpan, 256, ranks, kSpan)) {
        EXPECT_EQ(pieces.size(), 2u) << first;
        EXPECT_EQ(pieces.front().rows, spans * kSpan / (2 * ranks)) << first;
      }
    }
  }
}

TEST(PlacementTest, KeysTravelAboveTheShareThatContextParallelismFound) {
  // Scout, 40 query heads and 8 KV heads in bf16: above 40 %; Llama 3 405B, 128 and 8: 12.5 %.
  const uint64_t kv = 2 * 8 * 128 * 2;
  EXPECT_TRUE(KeysTravel(41, 59, kv, 40 * 128 * 2));
  EXPECT_FALSE(KeysTravel(39, 61, kv, 40 * 128 * 2));
  EXPECT_TRUE(KeysTravel(126, 874, kv, 128 * 128 * 2));
  EXPECT_FALSE(KeysTravel(124, 876, kv, 128 * 128 * 2));
}

}  // namespace
}  // namespace corpusd
