// engine/ranks/rank_plan.h -- how long ranks should take to compute a text together, from the rates
// of one device and of the link between them: arithmetic over the schedule of RankedPrefill, not a
// measurement. Nothing here decides what is computed. Any thread.
#pragma once

#include <cstdint>
#include <string_view>

namespace corpusd {

struct KvFormat;     // kernels/kv_format.h
struct ModelConfig;  // engine/model/model_config.h

struct RankRates {
  double attention_flop_s = 0;  // of one device, many rows
  double linear_flop_s = 0;
  double link_bytes_s = 0;    // into and out of a device, each way
  double transfer_s = 20e-6;  // until the first byte of a transfer
};

// An H200's, bf16: tests/bench/results/2026-11-27-h200-x2-ranks.json has attention and link; matrix
// products are taken at nine tenths of what one of 8192^3 reaches there.
inline constexpr RankRates kMeasuredRates = {5.55e14, 7.0e14, 2.59e11};
inline constexpr std::string_view kMeasuredDevice = "H200";
// Rows of a rank in one segment of a plan.
inline constexpr uint64_t kPlannedRankTokens = 16384;

// What a token costs.
struct RankWork {
  uint32_t whole_layers = 0;  // that see everything
  uint32_t chunk_layers = 0;
  uint32_t chunk_tokens = 0;
  uint32_t q_heads = 0, kv_heads = 0, head_dim = 0;
  double linear_flop_token = 0;  // of all layers
  double kv_bytes_token = 0;     // of a layer, as pages hold it
  double query_bytes_row = 0;    // of a layer
  double state_bytes_row = 0;    // of a layer, what comes back for a row
  double PairFlop() const { return 4.0 * q_heads * head_dim; }  // of a query and a key
};

// Of a model with pages as this format holds them; queries and states travel in float32. Layers
// that see a window count as those of a chunk of twice that, of which half is seen on average.
RankWork WorkOf(const ModelConfig& config, const KvFormat& pages);

struct RankTimes {
  double seconds = 0;
  double attention_seconds = 0, linear_seconds = 0;  // of a device, without waiting
  double waiting_seconds = 0;                        // for the link
  double efficiency = 0;                             // of ranks times one device
};

// One segment of new_tokens after `history`, over `ranks`: per layer that sees everything, the
// steps of a rank take as long as their arithmetic or the transfer beside it.
RankTimes PlanSegment(const RankRates& rates, const RankWork& work, uint32_t ranks,
                      uint64_t new_tokens, uint64_t history);
// A whole text, in segments of rank_tokens a rank.
RankTimes PlanPrefill(const RankRates& rates, const RankWork& work, uint32_t ranks, uint64_t tokens,
                      uint64_t rank_tokens);

}  // namespace corpusd
