#include "tests/bench/model_plan.h"

#include <algorithm>

namespace corpusd {

Result<KvPlan> PlanKv(const ModelConfig& config, const std::string& name, uint64_t tokens) {
  KvFormat format;
  format.layers = config.layers;
  format.kv_heads = config.kv_heads;
  format.head_dim = config.head_dim;
  if (const std::string wrong = ParseKvFormat(name, &format); !wrong.empty()) {
    return InvalidArgumentError("KV format '" + name + "' " + wrong);
  }
  KvPlan plan{name, 0, 0};
  const uint64_t blocks = (tokens + kBlockTokens - 1) / kBlockTokens;
  const auto parts = LayerPartsOf(config);
  if (parts == nullptr) {
    plan.token_bytes = format.BlockBytes() / kBlockTokens;
    plan.bytes = blocks * format.BlockBytes();
    return plan;
  }
  for (size_t p = 0; p < parts->parts.size(); ++p) {
    const LayerPart& part = parts->parts[p];
    const uint64_t block_bytes = StoredBytes(PartFormat(format, *parts, p));
    if (part.span_tokens == 0) {
      plan.token_bytes = block_bytes / kBlockTokens;
      plan.bytes += blocks * block_bytes;
      continue;
    }
    // What the last chunk or window holds; nothing at a multiple of a chunk.
    const uint64_t seen =
        part.window ? std::min<uint64_t>(tokens, part.span_tokens) : tokens % part.span_tokens;
    plan.bytes += (seen + kBlockTokens - 1) / kBlockTokens * block_bytes;
  }
  return plan;
}

std::vector<PlannedProduct> ProductsOf(const ModelConfig& c, WeightType stored, WeightMode mode) {
  std::vector<PlannedProduct> products;
  const auto add = [&](const std::string& name, uint32_t rows, uint32_t cols, double times) {
    for (PlannedProduct& product : products) {
      if (product.name != name || product.rows != rows || product.cols != cols) continue;
      product.a_token += times;
      return;
    }
    const WeightRole role = name == kOutputName ? WeightRole::kTable : WeightRole::kProduct;
    products.push_back({name, KeptType(mode, role, stored, cols), rows, cols, times});
  };
  const uint32_t q_rows = c.q_heads * c.head_dim;
  for (const LayerConfig& layer : c.layer_configs) {
    add("queries, keys, values", q_rows + 2 * c.kv_heads * c.head_dim, c.hidden, 1);
    add("attention's output", c.hidden, q_rows, 1);
    const std::string dense = layer.experts ? "shared expert's" : "feed forward's";
    add(dense + " gate and up", 2 * layer.feed_forward, c.hidden, 1);
    add(dense + " down", c.hidden, layer.feed_forward, 1);
    if (!layer.experts) continue;
    add("an expert's gate and up", 2 * c.expert_feed_forward, c.hidden, c.experts_used);
    add("an expert's down", c.hidden, c.expert_feed_forward, c.experts_used);
  }
  add(kOutputName, c.vocabulary, c.hidden, 1);
  return products;
}

SpanCount SpansOf(const ModelConfig& config) {
  SpanCount spans;
  double keys = 0;
  for (const LayerConfig& layer : config.layer_configs) {
    if (layer.span == AttentionSpan::kAll) {
      ++spans.all;
      continue;
    }
    ++spans.local;
    // A query at place p of its chunk sees p + 1, one of a window all of it.
    keys += layer.span == AttentionSpan::kChunk ? (layer.span_tokens + 1) / 2.0 : layer.span_tokens;
  }
  if (spans.local > 0) spans.local_keys = static_cast<uint64_t>(keys / spans.local);
  return spans;
}

TimePlan PlanTime(const ModelConfig& config, const MeasuredRates& rates, uint64_t tokens,
                  uint32_t question_tokens) {
  const SpanCount spans = SpansOf(config);
  const auto n = static_cast<double>(tokens);
  const double local_keys = std::min(static_cast<double>(spans.local_keys), n / 2);
  TimePlan plan;
  plan.products = n * rates.products_row;
  plan.local_attention = n * spans.local * local_keys * rates.key_row;
  plan.full_attention = n * spans.all * (n + 1) / 2 * rates.key_row;
  plan.encoding = n * config.layers * rates.encode_token;
  plan.prefill = plan.products + plan.local_attention + plan.full_attention + plan.encoding;
  const double keys = spans.all * n + spans.local * local_keys;
  plan.decode_token = rates.products_one_row + keys * rates.key_one_row;
  // Its rows are few but more than one: as a run, each matrix and each page read once.
  plan.question =
      question_tokens * (rates.products_row + keys * rates.key_row) + rates.products_one_row;
  return plan;
}

}  // namespace corpusd
