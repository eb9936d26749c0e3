#include "engine/ranks/rank_plan.h"

#include <algorithm>

#include "engine/model/model_config.h"
#include "engine/ranks/placement.h"
#include "kernels/kv_format.h"

namespace corpusd {

RankWork WorkOf(const ModelConfig& config, const KvFormat& pages) {
  RankWork work;
  work.q_heads = config.q_heads;
  work.kv_heads = config.kv_heads;
  work.head_dim = config.head_dim;
  const double hidden = config.hidden, query = double{1} * config.q_heads * config.head_dim;
  const double key = double{1} * config.kv_heads * config.head_dim;
  for (const LayerConfig& layer : config.layer_configs) {
    if (layer.span == AttentionSpan::kAll) {
      ++work.whole_layers;
    } else {
      ++work.chunk_layers;
      work.chunk_tokens = layer.span_tokens * (layer.span == AttentionSpan::kWindow ? 2 : 1);
    }
    double weights = hidden * (2 * query + 2 * key) + 3 * hidden * layer.feed_forward;
    if (layer.experts) {
      weights += hidden * config.experts +
                 3 * hidden * config.experts_used * double{1} * config.expert_feed_forward;
    }
    work.linear_flop_token += 2 * weights;
  }
  work.kv_bytes_token = static_cast<double>(pages.BlockBytes()) / pages.layers / kBlockTokens;
  work.query_bytes_row = query * sizeof(float);
  work.state_bytes_row = (query + 2.0 * config.q_heads) * sizeof(float);
  return work;
}

RankTimes PlanSegment(const RankRates& rates, const RankWork& work, uint32_t ranks,
                      uint64_t new_tokens, uint64_t history) {
  const double n = static_cast<double>(new_tokens), before = static_cast<double>(history);
  const double each = n / ranks;  // rows of a rank
  RankTimes times;
  // Layers that see a chunk: half of it on average.
  const double chunk_pairs = each * std::min<double>(work.chunk_tokens, n + before) / 2;
  const double layer_attention =
      work.PairFlop() * (n * before + n * n / 2) / ranks / rates.attention_flop_s;
  times.attention_seconds =
      work.whole_layers * layer_attention +
      work.chunk_layers * work.PairFlop() * chunk_pairs / rates.attention_flop_s;
  times.linear_seconds = each * work.linear_flop_token / rates.linear_flop_s;
  // Of `ranks` steps the first needs nothing of others, or answers nobody.
  const bool keys = KeysTravel(new_tokens, history, static_cast<uint64_t>(work.kv_bytes_token),
                               static_cast<uint64_t>(work.query_bytes_row));
  const double bytes = keys ? (n + before) / ranks * work.kv_bytes_token
                            : each * (work.query_bytes_row + work.state_bytes_row);
  const double transfer = rates.transfer_s + bytes / rates.link_bytes_s;
  const double step = layer_attention / ranks;
  double waiting = (ranks - 1) * std::max(0.0, transfer - step);
  // The first queries come before any step, the last states after all.
  if (!keys && ranks > 1) waiting = std::max(waiting, transfer);
  times.waiting_seconds = work.whole_layers * waiting;
  times.seconds = times.attention_seconds + times.linear_seconds + times.waiting_seconds;
  times.efficiency = (times.attention_seconds + times.linear_seconds) / times.seconds;
  return times;
}

RankTimes PlanPrefill(const RankRates& rates, const RankWork& work, uint32_t ranks, uint64_t tokens,
                      uint64_t rank_tokens) {
  RankTimes all;
  const uint64_t segment = rank_tokens * ranks;
  for (uint64_t first = 0; first < tokens; first += segment) {
    const RankTimes one = PlanSegment(rates, work, ranks, std::min(segment, tokens - first), first);
    all.seconds += one.seconds;
    all.attention_seconds += one.attention_seconds;
    all.linear_seconds += one.linear_seconds;
    all.waiting_seconds += one.waiting_seconds;
  }
  const double computing = all.attention_seconds + all.linear_seconds;
  all.efficiency = all.seconds > 0 ? computing / all.seconds : 1;
  return all;
}

}  // namespace corpusd
