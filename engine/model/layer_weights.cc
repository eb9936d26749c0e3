#include "engine/model/layer_weights.h"

#include <string>

namespace corpusd {
namespace {

struct Part {
  std::string tensor;
  uint32_t rows;
};

Result<std::unique_ptr<Weight>> LoadStack(Backend& backend, std::vector<SourceMatrix> parts) {
  std::vector<WeightSource> sources;
  for (const SourceMatrix& part : parts) sources.push_back(part.weight);
  return backend.LoadWeight(sources);
}

// Several matrices over the same inputs, one below the other.
Result<std::unique_ptr<Weight>> LoadRows(const ModelSource& source, Backend& backend,
                                         const std::vector<Part>& parts, uint32_t cols) {
  std::vector<SourceMatrix> matrices;
  for (const Part& part : parts) {
    ASSIGN_OR_RETURN(auto matrix, source.Matrix(part.tensor, part.rows, cols));
    matrices.push_back(std::move(matrix));
  }
  return LoadStack(backend, std::move(matrices));
}

Status LoadAttention(const ModelSource& source, Backend& backend, const std::string& prefix,
                     LayerWeights* layer) {
  const ModelConfig& c = source.config();
  const uint32_t q_rows = c.q_heads * c.head_dim;
  const uint32_t kv_rows = c.kv_heads * c.head_dim;
  ASSIGN_OR_RETURN(layer->attention_norm, source.Vector(prefix + "attn_norm.weight", c.hidden));
  ASSIGN_OR_RETURN(layer->qkv, LoadRows(source, backend,
                                        {{prefix + "attn_q.weight", q_rows},
                                         {prefix + "attn_k.weight", kv_rows},
                                         {prefix + "attn_v.weight", kv_rows}},
                                        c.hidden));
  ASSIGN_OR_RETURN(layer->output,
                   LoadMatrix(source, backend, prefix + "attn_output.weight", c.hidden, q_rows));
  if (c.head_norm == HeadNorm::kGain) {
    ASSIGN_OR_RETURN(layer->query_norm, source.Vector(prefix + "attn_q_norm.weight", c.head_dim));
    ASSIGN_OR_RETURN(layer->key_norm, source.Vector(prefix + "attn_k_norm.weight", c.head_dim));
  }
  if (c.branch_norms) {
    ASSIGN_OR_RETURN(layer->attention_branch_norm,
                     source.Vector(prefix + "post_attention_norm.weight", c.hidden));
    ASSIGN_OR_RETURN(layer->feed_forward_branch_norm,
                     source.Vector(prefix + "post_ffw_norm.weight", c.hidden));
  }
  if (c.qkv_bias) {
    for (const Part& part : std::vector<Part>{{prefix + "attn_q.bias", q_rows},
                                              {prefix + "attn_k.bias", kv_rows},
                                              {prefix + "attn_v.bias", kv_rows}}) {
      ASSIGN_OR_RETURN(const auto bias, source.Vector(part.tensor, part.rows));
      layer->qkv_bias.insert(layer->qkv_bias.end(), bias.begin(), bias.end());
    }
  }
  if (c.output_bias) {
    ASSIGN_OR_RETURN(layer->output_bias, source.Vector(prefix + "attn_output.bias", c.hidden));
  }
  return OkStatus();
}

// An expert's matrices are turned and repacked one expert at a time: no more than one is in memory
// twice.
Result<Expert> LoadExpert(const ModelSource& source, Backend& backend, const std::string& prefix,
                          uint32_t index) {
  const ModelConfig& c = source.config();
  const uint32_t inner = c.expert_feed_forward;
  Expert expert;
  std::vector<SourceMatrix> gate_up;
  for (const char* const name : {"ffn_gate_exps.weight", "ffn_up_exps.weight"}) {
    ASSIGN_OR_RETURN(auto matrix,
                     source.ExpertMatrix(prefix + name, index, c.experts, inner, c.hidden));
    gate_up.push_back(std::move(matrix));
  }
  ASSIGN_OR_RETURN(expert.gate_up, LoadStack(backend, std::move(gate_up)));
  std::vector<SourceMatrix> down;
  ASSIGN_OR_RETURN(auto matrix, source.ExpertMatrix(prefix + "ffn_down_exps.weight", index,
                                                    c.experts, c.hidden, inner));
  down.push_back(std::move(matrix));
  ASSIGN_OR_RETURN(expert.down, LoadStack(backend, std::move(down)));
  return expert;
}

}  // namespace

Result<std::unique_ptr<Weight>> LoadMatrix(const ModelSource& source, Backend& backend,
                                           const std::string& tensor, uint32_t rows,
                                           uint32_t cols) {
  return LoadRows(source, backend, {{tensor, rows}}, cols);
}

Result<LayerWeights> LoadLayer(const ModelSource& source, Backend& backend, uint32_t index) {
  const ModelConfig& c = source.config();
  const LayerConfig& config = c.layer_configs[index];
  const std::string prefix = "blk." + std::to_string(index) + ".";
  const std::string shared = config.experts ? "_shexp" : "";
  LayerWeights layer;
  RETURN_IF_ERROR(LoadAttention(source, backend, prefix, &layer));
  ASSIGN_OR_RETURN(layer.feed_forward_norm, source.Vector(prefix + "ffn_norm.weight", c.hidden));
  ASSIGN_OR_RETURN(layer.gate_up,
                   LoadRows(source, backend,
                            {{prefix + "ffn_gate" + shared + ".weight", config.feed_forward},
                             {prefix + "ffn_up" + shared + ".weight", config.feed_forward}},
                            c.hidden));
  ASSIGN_OR_RETURN(layer.down, LoadMatrix(source, backend, prefix + "ffn_down" + shared + ".weight",
                                          c.hidden, config.feed_forward));
  if (!config.experts) return layer;
  ASSIGN_OR_RETURN(layer.router, LoadMatrix(source, backend, prefix + "ffn_gate_inp.weight",
                                            c.experts, c.hidden));
  for (uint32_t i = 0; i < c.experts; ++i) {
    ASSIGN_OR_RETURN(Expert expert, LoadExpert(source, backend, prefix, i));
    layer.experts.push_back(std::move(expert));
  }
  return layer;
}

}  // namespace corpusd
