#include "engine/ranks/ranked_backend.h"

namespace corpusd {

void RankedBackend::Begin(const RankedPass& pass, std::vector<bool> local_layers) {
  attention_.Begin(pass);
  local_layers_ = std::move(local_layers);
  next_layer_ = 0;
  together_ = attention_.placement().ranks > 1;
}

bool RankedBackend::Together() const { return together_ && !local_layers_[next_layer_]; }

void RankedBackend::Attention(MatrixView out, MatrixView q, const AttentionInput& input) {
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
    local_.AttentionOfParts(out, q, parts);
  } else if (status_.ok()) {
    status_ = attention_.Attend(out, q, parts);
  }
  CountLayer();
}

void RankedBackend::CountLayer() {
  if (together_) next_layer_ = (next_layer_ + 1) % static_cast<uint32_t>(local_layers_.size());
}

}  // namespace corpusd
