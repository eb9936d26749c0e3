// The llama family: RMSNorm, grouped-query attention with RoPE, SwiGLU, residuals (Touvron et al.
// 2023, arXiv 2302.13971; GQA: Ainslie et al. 2023, arXiv 2305.13245).
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "engine/model/gguf.h"
#include "engine/model/model.h"
#include "kernels/reference/dequantize.h"

namespace corpusd {
namespace {

struct LayerWeights {
  std::unique_ptr<Weight> qkv;      // [(q_heads + 2 kv_heads) * head_dim, hidden]
  std::unique_ptr<Weight> output;   // [hidden, q_heads * head_dim]
  std::unique_ptr<Weight> gate_up;  // [2 feed_forward, hidden]
  std::unique_ptr<Weight> down;     // [hidden, feed_forward]
  std::vector<float> attention_norm, feed_forward_norm;  // [hidden]
};

class WeightReader {
 public:
  WeightReader(const GgufFile& file, Backend& backend) : file_(file), backend_(backend) {}

  Result<WeightSource> Matrix(const std::string& name, uint32_t rows, uint32_t cols) const {
    const GgufTensor* const tensor = file_.FindTensor(name);
    if (tensor == nullptr) return InvalidArgumentError("tensor '" + name + "' is missing");
    if (tensor->dims.size() != 2 || tensor->dims[0] != cols || tensor->dims[1] != rows) {
      std::string shape;
      for (const uint64_t dim : tensor->dims)
        shape += (shape.empty() ? "" : " x ") + std::to_string(dim);
      return InvalidArgumentError("tensor '" + name + "' is " + shape + ", expected " +
                                  std::to_string(cols) + " x " + std::to_string(rows));
    }
    return WeightSource{name, tensor->type, rows, cols, tensor->bytes};
  }

  Result<std::unique_ptr<Weight>> Load(std::span<const WeightSource> sources) const {
    return backend_.LoadWeight(sources);
  }

  Result<std::vector<float>> Vector(const std::string& name, uint32_t count) const {
    const GgufTensor* const tensor = file_.FindTensor(name);
    if (tensor == nullptr) return InvalidArgumentError("tensor '" + name + "' is missing");
    if (tensor->dims.size() != 1 || tensor->dims[0] != count) {
      return InvalidArgumentError("tensor '" + name + "' should hold " + std::to_string(count) +
                                  " numbers");
    }
    std::vector<float> values(count);
    DequantizeRow(tensor->type, tensor->bytes.data(), values.data(), count);
    return values;
  }

 private:
  const GgufFile& file_;
  Backend& backend_;
};

Result<LayerWeights> LoadLayer(const WeightReader& reader, const ModelConfig& c, uint32_t index) {
  const std::string prefix = "blk." + std::to_string(index) + ".";
  const uint32_t q_rows = c.q_heads * c.head_dim;
  const uint32_t kv_rows = c.kv_heads * c.head_dim;
  LayerWeights layer;
  ASSIGN_OR_RETURN(const auto q, reader.Matrix(prefix + "attn_q.weight", q_rows, c.hidden));
  ASSIGN_OR_RETURN(const auto k, reader.Matrix(prefix + "attn_k.weight", kv_rows, c.hidden));
  ASSIGN_OR_RETURN(const auto v, reader.Matrix(prefix + "attn_v.weight", kv_rows, c.hidden));
  ASSIGN_OR_RETURN(layer.qkv, reader.Load(std::vector{q, k, v}));
  ASSIGN_OR_RETURN(const auto o, reader.Matrix(prefix + "attn_output.weight", c.hidden, q_rows));
  ASSIGN_OR_RETURN(layer.output, reader.Load(std::vector{o}));
  ASSIGN_OR_RETURN(const auto gate,
                   reader.Matrix(prefix + "ffn_gate.weight", c.feed_forward, c.hidden));
  ASSIGN_OR_RETURN(const auto up,
                   reader.Matrix(prefix + "ffn_up.weight", c.feed_forward, c.hidden));
  ASSIGN_OR_RETURN(layer.gate_up, reader.Load(std::vector{gate, up}));
  ASSIGN_OR_RETURN(const auto down,
                   reader.Matrix(prefix + "ffn_down.weight", c.hidden, c.feed_forward));
  ASSIGN_OR_RETURN(layer.down, reader.Load(std::vector{down}));
  ASSIGN_OR_RETURN(layer.attention_norm, reader.Vector(prefix + "attn_norm.weight", c.hidden));
  ASSIGN_OR_RETURN(layer.feed_forward_norm, reader.Vector(prefix + "ffn_norm.weight", c.hidden));
  return layer;
}

class LlamaModel final : public Model {
 public:
  LlamaModel(ModelConfig config, Backend& backend)
      : config_(std::move(config)),
        backend_(backend),
        angles_(config_.rope, config_.context_tokens),
        rope_(angles_.table()) {}

  Status LoadWeights(const GgufFile& file) {
    const WeightReader reader(file, backend_);
    ASSIGN_OR_RETURN(const auto table,
                     reader.Matrix("token_embd.weight", config_.vocabulary, config_.hidden));
    ASSIGN_OR_RETURN(embedding_, reader.Load(std::vector{table}));
    if (file.FindTensor("output.weight") != nullptr) {
      ASSIGN_OR_RETURN(const auto head,
                       reader.Matrix("output.weight", config_.vocabulary, config_.hidden));
      ASSIGN_OR_RETURN(head_, reader.Load(std::vector{head}));
    }
    ASSIGN_OR_RETURN(output_norm_, reader.Vector("output_norm.weight", config_.hidden));
    for (uint32_t i = 0; i < config_.layers; ++i) {
      ASSIGN_OR_RETURN(auto layer, LoadLayer(reader, config_, i));
      layers_.push_back(std::move(layer));
    }
    return OkStatus();
  }

  const ModelConfig& config() const override { return config_; }

  Result<KvFormat> Format(std::string_view name) const override {
    KvFormat format;
    if (!ParseKvFormatName(name, &format.key_codec, &format.value_codec)) {
      return InvalidArgumentError("KV format '" + std::string(name) +
                                  "' is not known: bf16, int8, cq8, cq4, cq3, cq2 and mixtures "
                                  "such as cq4k3v are");
    }
    if (IsCoded(format) && (config_.head_dim % 64 != 0 || !std::has_single_bit(config_.head_dim))) {
      return InvalidArgumentError("KV format '" + std::string(name) +
                                  "' needs heads of 64, 128 or 256 numbers; this model's have " +
                                  std::to_string(config_.head_dim) + ": use bf16 or int8");
    }
    format.layers = config_.layers;
    format.kv_heads = config_.kv_heads;
    format.head_dim = config_.head_dim;
    return format;
  }

  Status Forward(std::span<const TokenId> tokens, KvSequence& kv, ForwardScratch& scratch,
                 const std::function<bool()>& between_layers) const override {
    const auto n = static_cast<uint32_t>(tokens.size());
    RETURN_IF_ERROR(CheckTokens(tokens, kv, n, scratch));
    const uint64_t first_position = kv.tokens();
    RETURN_IF_ERROR(kv.Extend(backend_, n));
    const auto targets = kv.TargetsOfLast(n);
    const MatrixView x = scratch.hidden->Matrix(n, config_.hidden);
    backend_.Embed(x, *embedding_, tokens);
    for (uint32_t layer = 0; layer < config_.layers; ++layer) {
      RETURN_IF_ERROR(kv.WaitLayer(layer));
      const MatrixView qkv = ProjectQkv(layer, x, scratch);
      uint32_t row = 0;
      for (const KvSequence::Target& target : targets) {
        WriteKv(layer, kv, target, qkv.Rows(row, target.rows));
        row += target.rows;
      }
      const MatrixView attention = scratch.attention->Matrix(n, QueryCols());
      backend_.Attention(attention, qkv.Cols(0, QueryCols()), InputOf(layer, kv, first_position));
      backend_.MatMul(x, attention, *layers_[layer].output, /*accumulate=*/true);
      FeedForwardPart(layers_[layer], x, scratch);
      if (!between_layers()) return CancelledError("the computation was stopped");
    }
    return backend_.Synchronize();
  }

  Status ForwardEach(std::span<const TokenId> tokens, std::span<KvSequence* const> sequences,
                     ForwardScratch& scratch,
                     const std::function<bool()>& between_layers) const override {
    const auto n = static_cast<uint32_t>(tokens.size());
    CHECK(sequences.size() == n) << n << " tokens of " << sequences.size() << " sequences";
    std::vector<KvSequence::Target> targets;
    for (uint32_t r = 0; r < n; ++r) {
      RETURN_IF_ERROR(CheckTokens(tokens, *sequences[r], 1, scratch));
      RETURN_IF_ERROR(sequences[r]->Extend(backend_, 1));
      targets.push_back(sequences[r]->TargetsOfLast(1).front());
    }
    const MatrixView x = scratch.hidden->Matrix(n, config_.hidden);
    backend_.Embed(x, *embedding_, tokens);
    std::vector<AttentionInput> inputs(n);
    for (uint32_t layer = 0; layer < config_.layers; ++layer) {
      const MatrixView qkv = ProjectQkv(layer, x, scratch);
      for (uint32_t r = 0; r < n; ++r) {
        const KvSequence& kv = *sequences[r];
        RETURN_IF_ERROR(kv.WaitLayer(layer));
        WriteKv(layer, kv, targets[r], qkv.Rows(r, 1));
        inputs[r] = InputOf(layer, kv, kv.tokens() - 1);
      }
      const MatrixView attention = scratch.attention->Matrix(n, QueryCols());
      backend_.AttentionEach(attention, qkv.Cols(0, QueryCols()), inputs);
      backend_.MatMul(x, attention, *layers_[layer].output, /*accumulate=*/true);
      FeedForwardPart(layers_[layer], x, scratch);
      if (!between_layers()) return CancelledError("the computation was stopped");
    }
    return backend_.Synchronize();
  }

  Status Logits(ForwardScratch& scratch, uint32_t first_row, MatrixView logits) const override {
    const MatrixView x =
        scratch.hidden->Matrix(scratch.rows(), config_.hidden).Rows(first_row, logits.rows);
    const MatrixView normed = scratch.normed->Matrix(logits.rows, config_.hidden);
    backend_.RmsNorm(normed, x, output_norm_.data(), config_.norm_epsilon);
    backend_.MatMul(logits, normed, head_ ? *head_ : *embedding_, /*accumulate=*/false);
    return backend_.Synchronize();
  }

 private:
  uint32_t QueryCols() const { return config_.q_heads * config_.head_dim; }

  // kInvalidArgument unless `count` more tokens fit behind kv and all ids are known.
  Status CheckTokens(std::span<const TokenId> tokens, const KvSequence& kv, uint32_t count,
                     const ForwardScratch& scratch) const {
    CHECK(!tokens.empty() && tokens.size() <= scratch.rows())
        << tokens.size() << " tokens, scratch for " << scratch.rows();
    for (const TokenId id : tokens) {
      if (id < config_.vocabulary) continue;
      return InvalidArgumentError("token id " + std::to_string(id) +
                                  " is beyond the vocabulary of " +
                                  std::to_string(config_.vocabulary));
    }
    if (kv.tokens() + count <= config_.context_tokens) return OkStatus();
    return InvalidArgumentError(std::to_string(kv.tokens() + count) +
                                " tokens are more than the model's context of " +
                                std::to_string(config_.context_tokens));
  }

  MatrixView ProjectQkv(uint32_t layer, MatrixView x, ForwardScratch& scratch) const {
    const uint32_t kv_cols = config_.kv_heads * config_.head_dim;
    const MatrixView normed = scratch.normed->Matrix(x.rows, config_.hidden);
    const MatrixView qkv = scratch.qkv->Matrix(x.rows, QueryCols() + 2 * kv_cols);
    backend_.RmsNorm(normed, x, layers_[layer].attention_norm.data(), config_.norm_epsilon);
    backend_.MatMul(qkv, normed, *layers_[layer].qkv, /*accumulate=*/false);
    return qkv;
  }

  void WriteKv(uint32_t layer, const KvSequence& kv, const KvSequence::Target& target,
               MatrixView qkv) const {
    const uint32_t kv_cols = config_.kv_heads * config_.head_dim;
    backend_.WriteKv({&kv.own_format(), target.block, layer, target.first_slot, kv.basis(layer)},
                     qkv.Cols(QueryCols(), kv_cols), qkv.Cols(QueryCols() + kv_cols, kv_cols),
                     &rope_);
  }

  AttentionInput InputOf(uint32_t layer, const KvSequence& kv, uint64_t first_position) const {
    AttentionInput input;
    input.shape = {config_.q_heads, config_.kv_heads, config_.head_dim,
                   static_cast<float>(RopeAttentionFactor(config_.rope) /
                                      std::sqrt(static_cast<double>(config_.head_dim)))};
    input.layer = layer;
    input.first_position = first_position;
    input.lists = kv.lists();
    input.rope = &rope_;
    input.basis = kv.basis(layer);
    return input;
  }

  void FeedForwardPart(const LayerWeights& w, MatrixView x, ForwardScratch& scratch) const {
    const MatrixView normed = scratch.normed->Matrix(x.rows, config_.hidden);
    const MatrixView gate_up = scratch.gate_up->Matrix(x.rows, 2 * config_.feed_forward);
    const MatrixView activated = scratch.activated->Matrix(x.rows, config_.feed_forward);
    backend_.RmsNorm(normed, x, w.feed_forward_norm.data(), config_.norm_epsilon);
    backend_.MatMul(gate_up, normed, *w.gate_up, /*accumulate=*/false);
    backend_.SwiGlu(activated, gate_up);
    backend_.MatMul(x, activated, *w.down, /*accumulate=*/true);
  }

  const ModelConfig config_;
  Backend& backend_;
  const RopeAngles angles_;
  const RopeTable rope_;
  std::unique_ptr<Weight> embedding_, head_;  // head_ null: tied to the embedding
  std::vector<float> output_norm_;
  std::vector<LayerWeights> layers_;
};

}  // namespace

Result<std::unique_ptr<ForwardScratch>> ForwardScratch::Create(Backend& backend,
                                                               const ModelConfig& c,
                                                               uint32_t rows) {
  auto scratch = std::make_unique<ForwardScratch>();
  scratch->rows_ = rows;
  const auto allocate = [&](uint32_t cols) {
    return backend.Allocate(uint64_t{rows} * cols * sizeof(float), "activations");
  };
  const uint32_t q_cols = c.q_heads * c.head_dim;
  const uint32_t kv_cols = c.kv_heads * c.head_dim;
  ASSIGN_OR_RETURN(scratch->hidden, allocate(c.hidden));
  ASSIGN_OR_RETURN(scratch->normed, allocate(c.hidden));
  ASSIGN_OR_RETURN(scratch->qkv, allocate(q_cols + 2 * kv_cols));
  ASSIGN_OR_RETURN(scratch->attention, allocate(q_cols));
  ASSIGN_OR_RETURN(scratch->gate_up, allocate(2 * c.feed_forward));
  ASSIGN_OR_RETURN(scratch->activated, allocate(c.feed_forward));
  return scratch;
}

Result<std::unique_ptr<Model>> LoadLlamaModel(const GgufFile& file, Backend& backend) {
  ASSIGN_OR_RETURN(ModelConfig config, ReadModelConfig(file));
  auto model = std::make_unique<LlamaModel>(std::move(config), backend);
  RETURN_IF_ERROR(model->LoadWeights(file));
  return model;
}

}  // namespace corpusd
