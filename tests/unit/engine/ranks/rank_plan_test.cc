// The plan's formula against a discrete simulation of the schedule: every rank, step, transfer and
// layer, with the work that zigzag really gives each step.
#include "engine/ranks/rank_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "engine/model/model_config.h"
#include "engine/ranks/placement.h"
#include "kernels/kv_format.h"

namespace corpusd {
namespace {

RankWork Scout() {
  return {.whole_layers = 12,
          .chunk_layers = 36,
          .chunk_tokens = 8192,
          .q_heads = 40,
          .kv_heads = 8,
          .head_dim = 128,
          .linear_flop_token = 2 * 17e9,
          .kv_bytes_token = 4096,
          .query_bytes_row = 40 * 128 * 2,
          .state_bytes_row = 40 * (128 * 2 + 4)};
}
// An H100's, of the order that tests/bench measures; the link is varied.
constexpr RankRates kRates = {6.0e14, 4.0e14, 3.0e11};

// Pairs of a query of `reader` and a key of `holder`: history is dealt evenly.
double Pairs(const std::vector<std::vector<RowPiece>>& pieces, uint32_t reader, uint32_t holder,
             double history) {
  double pairs = 0;
  for (const RowPiece& rows : pieces[reader]) {
    pairs += rows.rows * history / static_cast<double>(pieces.size());
    for (const RowPiece& keys : pieces[holder]) {
      if (keys.first_position < rows.first_position) pairs += double{1} * rows.rows * keys.rows;
      if (keys.first_position == rows.first_position) pairs += 0.5 * rows.rows * keys.rows;
    }
  }
  return pairs;
}

// Seconds of one layer that sees everything. A rank computes one thing at a time and each way of
// its link carries one transfer at a time.
double SimulateLayer(const RankRates& rates, const RankWork& work, uint32_t ranks, uint64_t tokens,
                     uint64_t history) {
  const auto pieces = DealRows(history, history + tokens, 8192, ranks);
  const bool keys = KeysTravel(tokens, history, static_cast<uint64_t>(work.kv_bytes_token),
                               static_cast<uint64_t>(work.query_bytes_row));
  const auto n = static_cast<double>(tokens), before = static_cast<double>(history);
  std::vector<double> computing(ranks, 0), into(ranks, 0), out(ranks, 0), posted(ranks, 0);
  std::vector<double> done(ranks, 0);
  const auto transfer = [&](uint32_t from, uint32_t to, double ready, double bytes) {
    const double begin = std::max({ready, out[from], into[to]});
    const double end = begin + rates.transfer_s + bytes / rates.link_bytes_s;
    out[from] = into[to] = end;
    return end;
  };
  const auto seconds = [&](uint32_t reader, uint32_t holder) {
    return Pairs(pieces, reader, holder, before) * work.PairFlop() / rates.attention_flop_s;
  };
  // Queries of all steps are posted at once, pages one step ahead.
  std::vector<std::vector<double>> arrived(ranks + 1, std::vector<double>(ranks, 0));
  const auto bring = [&](uint32_t step) {
    for (uint32_t r = 0; step % ranks != 0 && r < ranks; ++r) {
      const uint32_t from = (r + ranks - step) % ranks;
      const double bytes =
          keys ? (n + before) / ranks * work.kv_bytes_token : n / ranks * work.query_bytes_row;
      arrived[step][r] = transfer(from, r, keys ? std::max(posted[r], posted[from]) : 0, bytes);
    }
  };
  for (uint32_t step = 1; !keys && step < ranks; ++step) bring(step);
  for (uint32_t i = 0; i < ranks; ++i) {
    const uint32_t step = keys ? i : i + 1;  // queries: a rank's own rows come last
    if (keys) bring(step);
    for (uint32_t r = 0; r < ranks; ++r) {
      const uint32_t other = (r + ranks - step % ranks) % ranks;
      const double begin = std::max(computing[r], arrived[step][r]);
      posted[r] = begin;
      computing[r] = begin + (keys ? seconds(r, other) : seconds(other, r));
      done[r] = std::max(done[r], computing[r]);
    }
    for (uint32_t r = 0; !keys && step % ranks != 0 && r < ranks; ++r) {
      const uint32_t other = (r + ranks - step) % ranks;
      done[other] =
          std::max(done[other], transfer(r, other, computing[r], n / ranks * work.state_bytes_row));
    }
  }
  return *std::max_element(done.begin(), done.end());
}

double SimulatePrefill(const RankRates& rates, const RankWork& work, uint32_t ranks,
                       uint64_t tokens, uint64_t rank_tokens) {
  const uint64_t segment = rank_tokens * ranks;
  double all = 0;
  for (uint64_t first = 0; first < tokens; first += segment) {
    const uint64_t count = std::min(segment, tokens - first);
    const double rows = static_cast<double>(count) / ranks;
    all += work.whole_layers * SimulateLayer(rates, work, ranks, count, first);
    all +=
        work.chunk_layers * rows * work.chunk_tokens / 2 * work.PairFlop() / rates.attention_flop_s;
    all += rows * work.linear_flop_token / rates.linear_flop_s;
  }
  return all;
}

TEST(RankPlanTest, OneRankIsItsArithmetic) {
  const RankTimes one = PlanPrefill(kRates, Scout(), 1, 1 << 20, 1 << 16);
  EXPECT_EQ(one.waiting_seconds, 0);
  EXPECT_DOUBLE_EQ(one.efficiency, 1);
  const double n = 1 << 20;
  const double whole = 12 * 4.0 * 40 * 128 * n * n / 2 / 6e14;
  const double chunks = 36 * 4.0 * 40 * 128 * n * 4096 / 6e14;
  EXPECT_NEAR(one.attention_seconds, whole + chunks, 1e-3 * whole);
}

TEST(RankPlanTest, TheFormulaIsWhatASimulationOfTheScheduleGives) {
  for (const uint32_t ranks : {2u, 8u, 64u}) {
    // 16K rows a rank are a power of two of chunks for all; 10M tokens in whole segments.
    const uint64_t rank_tokens = 16384;
    const uint64_t tokens = rank_tokens * ranks * (10'485'760 / (rank_tokens * ranks));
    for (const double link : {3.0e11, 5.0e10}) {
      RankRates rates = kRates;
      rates.link_bytes_s = link;
      const RankTimes plan = PlanPrefill(rates, Scout(), ranks, tokens, rank_tokens);
      const double simulated = SimulatePrefill(rates, Scout(), ranks, tokens, rank_tokens);
      EXPECT_NEAR(plan.seconds / simulated, 1, 0.03)
          << ranks << " ranks, link " << link << ": " << plan.seconds << " s planned, " << simulated
          << " s simulated";
      RecordProperty(
          "planned_s_" + std::to_string(ranks) + "_" + std::to_string(static_cast<int>(link / 1e9)),
          std::to_string(plan.seconds) + " at " + std::to_string(plan.efficiency));
    }
  }
}

// What `corpusctl plan --ranks 8,64` says of Scout's 10M tokens: from its shape, at measured rates.
TEST(RankPlanTest, APlanOfAModelIsWhatASimulationGives) {
  ModelConfig config;
  config.hidden = 5120;
  config.q_heads = 40;
  config.kv_heads = 8;
  config.head_dim = 128;
  config.experts = 16;
  config.experts_used = 1;
  config.expert_feed_forward = 8192;
  for (uint32_t i = 0; i < 48; ++i) {
    LayerConfig layer;
    layer.experts = true;
    layer.feed_forward = 8192;
    if (i % 4 != 3) layer.span = AttentionSpan::kChunk;
    layer.span_tokens = i % 4 != 3 ? 8192 : 0;
    config.layer_configs.push_back(layer);
  }
  const KvFormat pages{.layers = 48, .kv_heads = 8, .head_dim = 128};
  const RankWork work = WorkOf(config, pages);
  EXPECT_EQ(work.whole_layers, 12u);
  EXPECT_EQ(work.chunk_layers, 36u);
  EXPECT_EQ(work.chunk_tokens, 8192u);
  EXPECT_NEAR(work.linear_flop_token, 2 * 15.1e9, 2e9);  // 17B, less the embeddings
  EXPECT_EQ(work.kv_bytes_token, 4096);
  for (const uint32_t ranks : {8u, 64u}) {
    const uint64_t segment = kPlannedRankTokens * ranks;
    const uint64_t tokens = segment * (10'000'000 / segment);
    const RankTimes plan = PlanPrefill(kMeasuredRates, work, ranks, tokens, kPlannedRankTokens);
    const double simulated =
        SimulatePrefill(kMeasuredRates, work, ranks, tokens, kPlannedRankTokens);
    EXPECT_NEAR(plan.seconds / simulated, 1, 0.03) << ranks << " ranks: " << plan.seconds;
    std::printf("%u ranks, %llu tokens: planned %.0f s, simulated %.0f s, efficiency %.3f\n", ranks,
                static_cast<unsigned long long>(tokens), plan.seconds, simulated, plan.efficiency);
  }
}

TEST(RankPlanTest, ASlowLinkIsWaitedFor) {
  RankRates slow = kRates;
  slow.link_bytes_s = 1e9;
  EXPECT_LT(PlanSegment(slow, Scout(), 8, 1 << 17, 0).efficiency, 0.5);
  EXPECT_GT(PlanSegment(kRates, Scout(), 8, 1 << 17, 1 << 23).efficiency, 0.98);
}

}  // namespace
}  // namespace corpusd
