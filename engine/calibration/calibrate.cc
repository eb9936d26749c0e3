#include "engine/calibration/calibrate.h"

#include <algorithm>
#include <string>

#include "engine/calibration/moment_collector.h"
#include "kernels/reference/dequantize.h"

namespace corpusd {
namespace {

constexpr uint32_t kWindowTokens = 1024;

Result<std::vector<float>> OutputWeight(const ModelSource& source, uint32_t layer) {
  const ModelConfig& config = source.config();
  const uint32_t cols = config.q_heads * config.head_dim;
  ASSIGN_OR_RETURN(
      const SourceMatrix stored,
      source.Matrix("blk." + std::to_string(layer) + ".attn_output.weight", config.hidden, cols));
  std::vector<float> weight(size_t{config.hidden} * cols);
  const size_t row_bytes = WeightRowBytes(stored.weight.type, cols);
  for (uint32_t row = 0; row < config.hidden; ++row) {
    DequantizeRow(stored.weight.type, stored.weight.bytes.data() + row * row_bytes,
                  weight.data() + size_t{row} * cols, cols);
  }
  return weight;
}

}  // namespace

Result<std::unique_ptr<KvCalibration>> CalibrateKv(
    const ModelSource& source, const ComputeContext& context, std::span<const TokenId> tokens,
    unsigned threads, const std::function<void(size_t done, size_t windows)>& progress) {
  const Model& model = context.model;
  const ModelConfig& config = model.config();
  const uint32_t window_tokens = std::min(kWindowTokens, config.context_tokens);
  const size_t windows = std::min<size_t>(tokens.size(), kCalibrationTokens) / window_tokens;
  if (windows == 0) {
    return InvalidArgumentError("the calibration text has " + std::to_string(tokens.size()) +
                                " tokens: at least " + std::to_string(window_tokens) +
                                " are needed, " + std::to_string(kCalibrationTokens) +
                                " of prose and code are better");
  }
  const RopeAngles angles(config.rope, window_tokens);
  const RopeAngles local_angles(config.local_rope, window_tokens);
  std::vector<MomentCollector> layers;
  for (uint32_t i = 0; i < config.layers; ++i) {
    ASSIGN_OR_RETURN(auto output, OutputWeight(source, i));
    // A table of no pairs turns nothing. Chunks and windows shorter than ours are not cut here:
    // that shifts what an error is taken to cost, not what is computed.
    const LayerConfig& layer = config.layer_configs[i];
    RopeTable rope{nullptr, window_tokens, 0};
    if (layer.rope) rope = layer.local_rope ? local_angles.table() : angles.table();
    layers.emplace_back(config, rope, std::move(output));
  }
  ThreadPool pool(threads);
  ASSIGN_OR_RETURN(const KvFormat exact, model.Format("bf16"));
  ASSIGN_OR_RETURN(const auto scratch,
                   ForwardScratch::Create(context.backend, config, window_tokens,
                                          /*shared=*/true));
  const uint32_t q_cols = config.q_heads * config.head_dim;
  const uint32_t cols = q_cols + 2 * config.kv_heads * config.head_dim;
  for (size_t window = 0; window < windows; ++window) {
    if (progress) progress(window, windows);
    KvSequence kv(exact, exact);
    uint32_t layer = 0;
    ComputeGate::Turn turn(context.gate, ComputePriority::kPrefill);
    RETURN_IF_ERROR(
        model.Forward(tokens.subspan(window * window_tokens, window_tokens), kv, *scratch, [&] {
          if (!context.backend.Synchronize().ok()) return false;
          layers[layer++].Add(scratch->qkv->Matrix(window_tokens, cols),
                              scratch->attention->Matrix(window_tokens, q_cols),
                              static_cast<uint32_t>(window) * 3, pool);
          turn.Offer();
          return true;
        }));
  }
  if (progress) progress(windows, windows);
  std::vector<KvCoordinateArrays> keys, values;
  for (const MomentCollector& layer : layers) {
    for (const MomentCollector::Head& head : layer.Finish()) {
      ASSIGN_OR_RETURN(auto key, BuildCoordinates(head.key, config.head_dim));
      ASSIGN_OR_RETURN(auto value, BuildCoordinates(head.value, config.head_dim));
      keys.push_back(std::move(key));
      values.push_back(std::move(value));
    }
  }
  return std::make_unique<KvCalibration>(
      KvCalibrationShape{config.layers, config.kv_heads, config.head_dim}, std::move(keys),
      std::move(values));
}

}  // namespace corpusd
