#include "engine/ranks/ranked_backend.h"

namespace corpusd {

std::vector<LayerReach> ReachOf(const ModelConfig& config) {
  std::vector<LayerReach> layers;
  for (const LayerConfig& layer : config.layer_configs) {
    layers.push_back({layer.span == AttentionSpan::kAll,
                      layer.span == AttentionSpan::kWindow ? layer.span_tokens : 0});
  }
  return layers;
}

void RankedBackend::Begin(const RankedPass& pass, std::vector<LayerReach> layers) {
  attention_->Begin(pass);
  layers_ = std::move(layers);
  next_layer_ = 0;
  status_ = OkStatus();
  together_ = attention_->placement().ranks > 1;
}

bool RankedBackend::Together() const { return together_ && layers_[next_layer_].whole; }

void RankedBackend::Attention(MatrixView out, MatrixView q, const AttentionInput& input) {
  if (!Together()) {
    local_.Attention(out, q, input);
    return CountLayer();
  }
  const AttentionPart all{input, q.rows};
  AttentionOfParts(out, q, {&all, 1});
}

void RankedBackend::AttentionEach(MatrixView out, MatrixView q,
                                  std::span<const AttentionInput> rows) {
  if (!Together()) {
    local_.AttentionEach(out, q, rows);
    return CountLayer();
  }
  std::vector<AttentionPart> parts;
  parts.reserve(rows.size());
  for (const AttentionInput& row : rows) parts.push_back({row, 1});
  AttentionOfParts(out, q, parts);
}

void RankedBackend::AttentionOfParts(MatrixView out, MatrixView q,
                                     std::span<const AttentionPart> parts) {
  if (!Together()) {
    const uint32_t window = together_ ? layers_[next_layer_].window_tokens : 0;
    if (window > 0 && status_.ok()) status_ = attention_->ShareWindow(parts, window);
    if (status_.ok()) local_.AttentionOfParts(out, q, parts);
  } else if (status_.ok()) {
    status_ = attention_->Attend(out, q, parts);
  }
  CountLayer();
}

void RankedBackend::CountLayer() {
  if (together_) next_layer_ = (next_layer_ + 1) % static_cast<uint32_t>(layers_.size());
}

}  // namespace corpusd
