// engine/model/layer_weights.h -- the weights of one transformer layer on a backend, and how they
// come out of a ModelSource. Immutable after loading; any thread may read.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/model/model_config.h"
#include "engine/model/model_source.h"
#include "store/base/result.h"

namespace corpusd {

struct LayerWeights {
  std::unique_ptr<Weight> qkv;      // [(q_heads + 2 kv_heads) * head_dim, hidden]
  std::unique_ptr<Weight> output;   // [hidden, q_heads * head_dim]
  std::unique_ptr<Weight> gate_up;  // [2 feed_forward, hidden]; of the shared expert in a mixture
  std::unique_ptr<Weight> down;     // [hidden, feed_forward]
  std::vector<float> attention_norm, feed_forward_norm;  // [hidden]
  std::vector<float> qkv_bias;                           // [rows of qkv], or empty
  std::vector<float> output_bias;                        // [hidden], or empty
  std::vector<float> query_norm, key_norm;               // [head_dim], or empty
  // Of what attention and feed-forward part add, [hidden], or empty.
  std::vector<float> attention_branch_norm, feed_forward_branch_norm;
  // Of layers with experts.
  std::unique_ptr<Weight> router;  // [experts, hidden]
  std::vector<Expert> experts;
};

// One matrix of the source as a weight. Errors as ModelSource::Matrix and Backend::LoadWeight.
Result<std::unique_ptr<Weight>> LoadMatrix(const ModelSource& source, Backend& backend,
                                           const std::string& tensor, uint32_t rows, uint32_t cols);

Result<LayerWeights> LoadLayer(const ModelSource& source, Backend& backend, uint32_t layer);

}  // namespace corpusd
