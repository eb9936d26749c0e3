// The llama family: RMSNorm, grouped-query attention with RoPE, SwiGLU, residuals (Touvron et al.
// 2023, arXiv 2302.13971; GQA: Ainslie et al. 2023, arXiv 2305.13245). Llama 4 adds layers that
// attend within chunks, layers without positions whose queries grow with theirs (Nakanishi 2025,
// arXiv 2501.19399), and mixtures of experts; which layer does what is in its LayerConfig.
#include <bit>
#include <cmath>
#include <map>
#include <vector>

#include "engine/kv/history_pieces.h"
#include "engine/kv/visible_pages.h"
#include "engine/model/layer_weights.h"
#include "engine/model/model.h"
#include "engine/model/model_source.h"
#include "kernels/merge_order.h"

namespace corpusd {
namespace {

// A run's rows and the page before them that stays: with a window no longer than a span less this,
// what any row sees is one span.
constexpr uint32_t kSpanTokensOfRows = 1024;

class LlamaModel final : public Model {
 public:
  LlamaModel(ModelConfig config, Backend& backend)
      : config_(std::move(config)),
        backend_(backend),
        angles_(config_.rope, config_.RopePositions()),
        rope_(angles_.table()),
        local_angles_(config_.local_rope,
                      config_.local_rope.dimensions == 0 ? 0 : config_.RopePositions()),
        local_rope_(local_angles_.table()),
        unit_gain_(config_.head_dim, 1.0F) {
    parts_ = LayerPartsOf(config_);
  }

  Status LoadWeights(const ModelSource& source, const LoadProgress& on_layer) {
    ASSIGN_OR_RETURN(embedding_, LoadMatrix(source, backend_, "token_embd.weight",
                                            config_.vocabulary, config_.hidden));
    if (source.Has("output.weight")) {
      ASSIGN_OR_RETURN(
          head_, LoadMatrix(source, backend_, "output.weight", config_.vocabulary, config_.hidden));
    }
    ASSIGN_OR_RETURN(output_norm_, source.Vector("output_norm.weight", config_.hidden));
    for (uint32_t i = 0; i < config_.layers; ++i) {
      ASSIGN_OR_RETURN(auto layer, LoadLayer(source, backend_, i));
      layers_.push_back(std::move(layer));
      if (on_layer) on_layer(i + 1, config_.layers);
    }
    return OkStatus();
  }

  const ModelConfig& config() const override { return config_; }

  Result<KvFormat> Format(std::string_view name) const override {
    KvFormat format;
    format.layers = config_.layers;
    format.kv_heads = config_.kv_heads;
    format.head_dim = config_.head_dim;
    if (const std::string wrong = ParseKvFormat(name, &format); !wrong.empty()) {
      return InvalidArgumentError("KV format '" + std::string(name) + "' " + wrong);
    }
    if (IsCoded(format) && (config_.head_dim % 64 != 0 || !std::has_single_bit(config_.head_dim))) {
      return InvalidArgumentError("KV format '" + std::string(name) +
                                  "' needs heads of 64, 128 or 256 numbers; this model's have " +
                                  std::to_string(config_.head_dim) + ": use bf16 or int8");
    }
    return format;
  }

  Status Forward(std::span<const TokenId> tokens, KvSequence& kv, ForwardScratch& scratch,
                 const std::function<bool()>& between_layers) const override {
    const SequenceRows all{&kv, static_cast<uint32_t>(tokens.size())};
    return ForwardPacked(tokens, {&all, 1}, scratch, ForwardGoal::kHidden, between_layers);
  }

  Status ForwardPacked(std::span<const TokenId> tokens, std::span<const SequenceRows> sequences,
                       ForwardScratch& scratch, ForwardGoal goal,
                       const std::function<bool()>& between_layers) const override {
    const auto n = static_cast<uint32_t>(tokens.size());
    std::vector<PackedPart> parts;
    std::vector<uint64_t> positions;  // of every row
    for (const auto& [kv, rows] : sequences) {
      const auto first_row = static_cast<uint32_t>(positions.size());
      CHECK(sequences.size() == 1 || rows > backend_.few_rows()) << rows << " rows of a pack";
      RETURN_IF_ERROR(CheckTokens(tokens.subspan(first_row, rows), *kv, rows, scratch));
      for (uint32_t r = 0; r < rows; ++r) positions.push_back(kv->tokens() + r);
      RETURN_IF_ERROR(kv->Extend(backend_, rows));
      std::vector<std::vector<KvSequence::Target>> targets;
      for (uint32_t part = 0; part < kv->parts(); ++part) {
        targets.push_back(kv->TargetsOfLast(rows, part));
      }
      parts.push_back({*kv, first_row, rows, positions[first_row], std::move(targets), {}});
    }
    CHECK(positions.size() == n) << n << " tokens for " << positions.size() << " rows";
    CHECK(n <= scratch.rows()) << n << " tokens, scratch for " << scratch.rows();
    const MatrixView x = EmbedTokens(tokens, scratch);
    std::vector<AttentionPart> inputs;
    for (uint32_t layer = 0; layer < config_.layers; ++layer) {
      for (const PackedPart& part : parts) RETURN_IF_ERROR(part.kv.WaitLayer(layer));
      const MatrixView qkv = ProjectQkv(layer, x, scratch);
      ScaleQueries(layer, qkv, [&](uint32_t r) { return positions[r]; });
      for (const PackedPart& part : parts) WritePart(layer, qkv, part);
      if (goal == ForwardGoal::kHidden || layer + 1 < config_.layers) {
        const MatrixView attention = scratch.attention->Matrix(n, QueryCols());
        RETURN_IF_ERROR(AttendRows(layer, qkv, attention, parts, &inputs));
        OutputPart(layers_[layer], x, attention, scratch);
        FeedForwardPart(layer, x, scratch);
      }
      if (!between_layers()) return Stopped();
    }
    return backend_.Synchronize();
  }

  Status ForwardEach(std::span<const TokenId> tokens, std::span<KvSequence* const> sequences,
                     ForwardScratch& scratch,
                     const std::function<bool()>& between_layers) const override {
    const auto n = static_cast<uint32_t>(tokens.size());
    CHECK(sequences.size() == n) << n << " tokens of " << sequences.size() << " sequences";
    for (uint32_t r = 0; r < n; ++r) {
      CHECK(n == 1 || sequences[r]->history() == nullptr) << "a history is read for one row alone";
      RETURN_IF_ERROR(CheckTokens(tokens, *sequences[r], 1, scratch));
      RETURN_IF_ERROR(sequences[r]->Extend(backend_, 1));
    }
    const MatrixView x = EmbedTokens(tokens, scratch);
    std::vector<AttentionInput> inputs(n);
    std::vector<KvWriteTarget> targets(n);
    std::vector<RunsBySpan> runs(n);
    for (uint32_t layer = 0; layer < config_.layers; ++layer) {
      const MatrixView qkv = ProjectQkv(layer, x, scratch);
      ScaleQueries(layer, qkv, [&](uint32_t r) { return sequences[r]->tokens() - 1; });
      for (uint32_t r = 0; r < n; ++r) {
        const KvSequence& kv = *sequences[r];
        RETURN_IF_ERROR(kv.WaitLayer(layer));
        targets[r] = TargetIn(layer, kv, kv.TargetOfLast(kv.place(layer).part));
        inputs[r] = InputOf(layer, kv, kv.tokens() - 1);
        if (IsReadInTurn(layer, kv)) continue;  // all of its pages
        inputs[r].lists = RunsOf(layer, kv, kv.tokens() - 1, 1, &runs[r]).front().pages.lists();
      }
      const uint32_t kv_cols = config_.kv_heads * config_.head_dim;
      backend_.WriteKvEach(targets, qkv.Cols(QueryCols(), kv_cols),
                           qkv.Cols(QueryCols() + kv_cols, kv_cols), RopeOf(layer));
      const MatrixView attention = scratch.attention->Matrix(n, QueryCols());
      if (n == 1 && IsReadInTurn(layer, *sequences[0])) {
        RETURN_IF_ERROR(AttendInTurn(layer, *sequences[0], inputs[0], qkv, attention));
      } else {
        backend_.AttentionEach(attention, qkv.Cols(0, QueryCols()), inputs);
      }
      OutputPart(layers_[layer], x, attention, scratch);
      FeedForwardPart(layer, x, scratch);
      if (!between_layers()) return Stopped();
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

  // What is under way still reads pages that the caller may let go now.
  Status Stopped() const {
    RETURN_IF_ERROR(backend_.Synchronize());
    return CancelledError("the computation was stopped");
  }

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
    if (!layers_[layer].qkv_bias.empty()) backend_.AddBias(qkv, layers_[layer].qkv_bias.data());
    if (config_.head_norm == HeadNorm::kUnitOnRope && config_.layer_configs[layer].rope) {
      backend_.HeadNorm(qkv.Cols(0, QueryCols() + kv_cols), config_.head_dim, unit_gain_.data(),
                        config_.norm_epsilon);
    }
    if (config_.head_norm == HeadNorm::kGain) {
      backend_.HeadNorm(qkv.Cols(0, QueryCols()), config_.head_dim,
                        layers_[layer].query_norm.data(), config_.norm_epsilon);
      backend_.HeadNorm(qkv.Cols(QueryCols(), kv_cols), config_.head_dim,
                        layers_[layer].key_norm.data(), config_.norm_epsilon);
    }
    return qkv;
  }

  MatrixView EmbedTokens(std::span<const TokenId> tokens, ForwardScratch& scratch) const {
    const MatrixView x =
        scratch.hidden->Matrix(static_cast<uint32_t>(tokens.size()), config_.hidden);
    backend_.Embed(x, *embedding_, tokens);
    if (config_.embedding_scale != 1) {
      backend_.ScaleRows(x, std::vector<float>(x.rows, config_.embedding_scale));
    }
    return x;
  }

  // Lengthens the queries of layers with temperature; position_of: of a row.
  template <typename PositionOf>
  void ScaleQueries(uint32_t layer, MatrixView qkv, const PositionOf& position_of) const {
    if (!config_.layer_configs[layer].temperature) return;
    std::vector<float> factors(qkv.rows);
    for (uint32_t r = 0; r < qkv.rows; ++r) {
      const double steps =
          std::floor(static_cast<double>(position_of(r) + 1) / config_.temperature_floor);
      factors[r] = static_cast<float>(1 + config_.temperature_scale * std::log1p(steps));
    }
    backend_.ScaleRows(qkv.Cols(0, QueryCols()), factors);
  }

  // How a call's rows are cut, the same for all layers of a span.
  using RunsBySpan = std::map<std::pair<AttentionSpan, uint32_t>, std::vector<AttentionRun>>;
  const std::vector<AttentionRun>& RunsOf(uint32_t layer, const KvSequence& kv,
                                          uint64_t first_position, uint32_t rows,
                                          RunsBySpan* runs) const {
    const LayerConfig& c = config_.layer_configs[layer];
    const auto [found, added] = runs->try_emplace({c.span, c.span_tokens});
    if (!added) return found->second;
    const auto lists = kv.lists(kv.place(layer).part);
    if (c.span == AttentionSpan::kChunk) {
      found->second = CutAtChunks(lists, first_position, rows, c.span_tokens);
      return found->second;
    }
    const bool cut = c.span == AttentionSpan::kWindow && first_position >= c.span_tokens;
    const uint64_t first_seen = cut ? first_position + 1 - c.span_tokens : 0;
    // What is dropped leaves the parts as they are, and the spans where more than one may be seen.
    const bool spans = c.span_tokens + kSpanTokensOfRows > kSpanPages * kBlockTokens;
    found->second.push_back(
        {0, rows, VisiblePages(lists, first_seen, spans ? kSpanPages : kPartPages)});
    return found->second;
  }

  // One sequence's rows of a packed call.
  struct PackedPart {
    KvSequence& kv;
    uint32_t first_row, rows;
    uint64_t first_position;
    std::vector<std::vector<KvSequence::Target>> targets;  // by part of the layers
    RunsBySpan runs;
  };

  // Writes a part's K and V of a layer; qkv: of the whole call.
  void WritePart(uint32_t layer, MatrixView qkv, const PackedPart& part) const {
    uint32_t row = part.first_row;
    for (const KvSequence::Target& target : part.targets[part.kv.place(layer).part]) {
      WriteKv(layer, part.kv, target, qkv.Rows(row, target.rows));
      row += target.rows;
    }
  }

  // What a part's rows attend to, in the order of the rows.
  void AddInputs(uint32_t layer, PackedPart* part, std::vector<AttentionPart>* inputs) const {
    const LayerConfig& c = config_.layer_configs[layer];
    for (const AttentionRun& run :
         RunsOf(layer, part->kv, part->first_position, part->rows, &part->runs)) {
      AttentionInput input = InputOf(layer, part->kv, part->first_position + run.first_row);
      input.lists = run.pages.lists();
      // A row alone sees what its pages show.
      if (part->rows > 1 && c.span == AttentionSpan::kWindow) input.shape.window = c.span_tokens;
      inputs->push_back({input, run.rows});
    }
  }

  // Whether the layer attends to pages of which not all are in memory.
  static bool IsReadInTurn(uint32_t layer, const KvSequence& kv) {
    return kv.history() != nullptr && kv.place(layer).part == 0;
  }

  Status AttendInTurn(uint32_t layer, const KvSequence& kv, const AttentionInput& input,
                      MatrixView qkv, MatrixView attention) const {
    HistoryPieces pieces(kv, layer);
    return backend_.AttentionInPieces(attention, qkv.Cols(0, QueryCols()), input, pieces);
  }

  // Attention of all rows of a packed call; inputs: memory for it.
  Status AttendRows(uint32_t layer, MatrixView qkv, MatrixView attention,
                    std::vector<PackedPart>& parts, std::vector<AttentionPart>* inputs) const {
    PackedPart& first = parts.front();
    if (IsReadInTurn(layer, first.kv)) {
      CHECK(parts.size() == 1) << "a history is read for one sequence alone";
      return AttendInTurn(layer, first.kv, InputOf(layer, first.kv, first.first_position), qkv,
                          attention);
    }
    inputs->clear();
    for (PackedPart& part : parts) AddInputs(layer, &part, inputs);
    backend_.AttentionOfParts(attention, qkv.Cols(0, QueryCols()), *inputs);
    return OkStatus();
  }

  const RopeTable* RopeOf(uint32_t layer) const {
    const LayerConfig& c = config_.layer_configs[layer];
    if (!c.rope) return nullptr;
    return c.local_rope ? &local_rope_ : &rope_;
  }

  static KvWriteTarget TargetIn(uint32_t layer, const KvSequence& kv,
                                const KvSequence::Target& target) {
    const LayerPlace place = kv.place(layer);
    return {&kv.own_format(place.part), target.block, place.index, target.first_slot,
            kv.basis(layer)};
  }
  void WriteKv(uint32_t layer, const KvSequence& kv, const KvSequence::Target& target,
               MatrixView qkv) const {
    const uint32_t kv_cols = config_.kv_heads * config_.head_dim;
    backend_.WriteKv(TargetIn(layer, kv, target), qkv.Cols(QueryCols(), kv_cols),
                     qkv.Cols(QueryCols() + kv_cols, kv_cols), RopeOf(layer));
  }

  AttentionInput InputOf(uint32_t layer, const KvSequence& kv, uint64_t first_position) const {
    AttentionInput input;
    input.shape = {config_.q_heads, config_.kv_heads, config_.head_dim,
                   static_cast<float>(RopeAttentionFactor(config_.rope) /
                                      std::sqrt(config_.query_scalar > 0 ? config_.query_scalar
                                                                         : config_.head_dim))};
    const LayerPlace place = kv.place(layer);
    input.layer = place.index;
    input.first_position = first_position;
    input.lists = kv.lists(place.part);
    input.rope = RopeOf(layer);
    input.basis = kv.basis(layer);
    return input;
  }

  // x += the product, normed first if the model does so.
  void AddBranch(MatrixView x, MatrixView inner, const Weight& weight,
                 const std::vector<float>& norm, ForwardScratch& scratch) const {
    if (norm.empty()) return backend_.MatMul(x, inner, weight, /*accumulate=*/true);
    const MatrixView branch = scratch.normed->Matrix(x.rows, config_.hidden);
    backend_.MatMul(branch, inner, weight, /*accumulate=*/false);
    backend_.RmsNorm(branch, branch, norm.data(), config_.norm_epsilon);
    backend_.Add(x, branch);
  }

  void OutputPart(const LayerWeights& w, MatrixView x, MatrixView attention,
                  ForwardScratch& scratch) const {
    AddBranch(x, attention, *w.output, w.attention_branch_norm, scratch);
    if (!w.output_bias.empty()) backend_.AddBias(x, w.output_bias.data());
  }

  void FeedForwardPart(uint32_t layer, MatrixView x, ForwardScratch& scratch) const {
    const LayerWeights& w = layers_[layer];
    const uint32_t inner = config_.layer_configs[layer].feed_forward;
    const MatrixView normed = scratch.normed->Matrix(x.rows, config_.hidden);
    const MatrixView gate_up = scratch.gate_up->Matrix(x.rows, 2 * inner);
    const MatrixView activated = scratch.activated->Matrix(x.rows, inner);
    backend_.RmsNorm(normed, x, w.feed_forward_norm.data(), config_.norm_epsilon);
    backend_.MatMul(gate_up, normed, *w.gate_up, /*accumulate=*/false);
    if (config_.gelu) {
      backend_.GeGlu(activated, gate_up);
    } else {
      backend_.SwiGlu(activated, gate_up);
    }
    AddBranch(x, activated, *w.down, w.feed_forward_branch_norm, scratch);
    if (!config_.layer_configs[layer].experts) return;
    const uint32_t expert_inner = config_.expert_feed_forward;
    ExpertInput input;
    input.x = normed;
    input.logits = scratch.router->Matrix(x.rows, config_.experts);
    input.experts = w.experts;
    input.used = config_.experts_used;
    input.gathered = scratch.gathered->Matrix(x.rows, config_.hidden);
    input.result = scratch.expert_result->Matrix(x.rows, config_.hidden);
    input.gate_up = scratch.gate_up->Matrix(x.rows, 2 * expert_inner);
    input.activated = scratch.activated->Matrix(x.rows, expert_inner);
    backend_.MatMul(input.logits, normed, *w.router, /*accumulate=*/false);
    backend_.MixExperts(x, input);
  }

  const ModelConfig config_;
  Backend& backend_;
  const RopeAngles angles_;
  const RopeTable rope_;
  const RopeAngles local_angles_;  // empty unless the model has them
  const RopeTable local_rope_;
  const std::vector<float> unit_gain_;        // [head_dim]
  std::unique_ptr<Weight> embedding_, head_;  // head_ null: tied to the embedding
  std::vector<float> output_norm_;
  std::vector<LayerWeights> layers_;
};

}  // namespace

Result<std::unique_ptr<ForwardScratch>> ForwardScratch::Create(Backend& backend,
                                                               const ModelConfig& c, uint32_t rows,
                                                               bool shared) {
  auto scratch = std::make_unique<ForwardScratch>();
  scratch->rows_ = rows;
  const auto allocate = [&](uint32_t cols) {
    const uint64_t bytes = uint64_t{rows} * cols * sizeof(float);
    return shared ? backend.AllocateShared(bytes, kActivations)
                  : backend.Allocate(bytes, kActivations);
  };
  const uint32_t q_cols = c.q_heads * c.head_dim;
  const uint32_t kv_cols = c.kv_heads * c.head_dim;
  ASSIGN_OR_RETURN(scratch->hidden, allocate(c.hidden));
  ASSIGN_OR_RETURN(scratch->normed, allocate(c.hidden));
  ASSIGN_OR_RETURN(scratch->qkv, allocate(q_cols + 2 * kv_cols));
  ASSIGN_OR_RETURN(scratch->attention, allocate(q_cols));
  ASSIGN_OR_RETURN(scratch->gate_up, allocate(2 * c.FeedForwardMax()));
  ASSIGN_OR_RETURN(scratch->activated, allocate(c.FeedForwardMax()));
  if (c.experts == 0) return scratch;
  ASSIGN_OR_RETURN(scratch->router, allocate(c.experts));
  ASSIGN_OR_RETURN(scratch->gathered, allocate(c.hidden));
  ASSIGN_OR_RETURN(scratch->expert_result, allocate(c.hidden));
  return scratch;
}

Result<std::unique_ptr<Model>> LoadModel(const ModelSource& source, Backend& backend,
                                         const LoadProgress& on_layer) {
  const ModelConfig& config = source.config();
  RETURN_IF_ERROR(backend.Supports({config.q_heads, config.kv_heads, config.head_dim, 1}));
  auto model = std::make_unique<LlamaModel>(config, backend);
  RETURN_IF_ERROR(model->LoadWeights(source, on_layer));
  return model;
}

Result<std::unique_ptr<Model>> LoadLlamaModel(const GgufFile& file, Backend& backend) {
  ASSIGN_OR_RETURN(const auto source, MakeGgufSource(file));
  return LoadModel(*source, backend);
}

}  // namespace corpusd
