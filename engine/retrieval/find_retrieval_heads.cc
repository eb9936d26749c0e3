#include "engine/retrieval/find_retrieval_heads.h"

#include <algorithm>
#include <cmath>

#include "kernels/reference/index_tile_codec.h"

namespace corpusd {
namespace {

constexpr float kLog2E = 1.44269504f;

// The queries of all questions and heads as bytes; of one KV head: [heads that read it][rows].
class QuestionQueries {
 public:
  QuestionQueries(const HeadShape& shape, std::vector<uint32_t> first_rows)
      : shape_(shape), first_rows_(std::move(first_rows)), group_(shape.q_heads / shape.kv_heads) {
    const size_t stacked = size_t{shape.layers} * shape.q_heads * rows();
    codes_.resize(stacked * shape.head_dim);
    sums_.resize(stacked);
    scales_.resize(stacked);
  }
  // Of all questions.
  uint32_t rows() const { return first_rows_.back(); }
  uint32_t first_row(size_t question) const { return first_rows_[question]; }

  void Put(uint32_t layer, size_t question, uint32_t row, const float* q) {
    for (uint32_t head = 0; head < shape_.q_heads; ++head) {
      const size_t i = At(layer, head) + first_rows_[question] + row;
      EncodeIndexQuery(q + size_t{head} * shape_.head_dim, shape_.head_dim,
                       &codes_[i * shape_.head_dim], &sums_[i], &scales_[i]);
    }
  }
  IndexQueries OfSource(uint32_t layer, uint32_t kv_head) const {
    const size_t i = At(layer, kv_head * group_);
    return {&codes_[i * shape_.head_dim], &sums_[i], &scales_[i], group_ * rows()};
  }

 private:
  size_t At(uint32_t layer, uint32_t head) const {
    return (size_t{layer} * shape_.q_heads + head) * rows();
  }
  const HeadShape shape_;
  const std::vector<uint32_t> first_rows_;  // [questions + 1]
  const uint32_t group_;
  std::vector<int8_t> codes_;
  std::vector<int32_t> sums_;
  std::vector<float> scales_;
};

class Search {
 public:
  Search(const HeadSearch& options, const NeedleCorpus& corpus)
      : options_(options),
        corpus_(corpus),
        config_(options.context.model.config()),
        shape_(HeadShapeOf(config_)),
        preamble_(options.chat.CorpusPrefix("")),
        passes_(corpus.questions.size() + corpus.documents.size()) {}

  Result<HeadScores> Run() {
    ASSIGN_OR_RETURN(exact_, options_.context.model.Format("bf16"));
    const size_t document = corpus_.documents.front().size();
    ASSIGN_OR_RETURN(scratch_,
                     ForwardScratch::Create(options_.context.backend, config_,
                                            static_cast<uint32_t>(preamble_.size() + document),
                                            /*shared=*/true));
    RETURN_IF_ERROR(AskAll());
    const auto blocks = static_cast<uint32_t>(document / kBlockTokens);
    scores_.shape = shape_;
    scores_.questions = static_cast<uint32_t>(corpus_.questions.size());
    scores_.blocks = blocks * static_cast<uint32_t>(corpus_.documents.size());
    masses_.resize(size_t{shape_.layers} * shape_.q_heads * queries_->rows() * scores_.blocks);
    for (const NeedleQuestion& question : corpus_.questions) {
      scores_.answers.push_back(question.document * blocks + question.value_token / kBlockTokens);
    }
    for (uint32_t i = 0; i < corpus_.documents.size(); ++i) RETURN_IF_ERROR(Read(i, blocks));
    if (options_.progress) options_.progress(passes_, passes_);
    ScoreQuestions();
    return std::move(scores_);
  }

 private:
  uint32_t QueryCols() const { return shape_.q_heads * shape_.head_dim; }
  uint32_t AllCols() const { return QueryCols() + 2 * shape_.kv_heads * shape_.head_dim; }

  // One pass over the preamble and `tokens`; visit(layer, qkv of all rows) after every layer.
  template <typename Visit>
  Status Pass(std::span<const TokenId> tokens, const Visit& visit) {
    if (options_.progress) options_.progress(done_, passes_);
    ++done_;
    std::vector<TokenId> all = preamble_;
    all.insert(all.end(), tokens.begin(), tokens.end());
    KvSequence kv(exact_, exact_);
    uint32_t layer = 0;
    Status read;
    ComputeGate::Turn turn(options_.context.gate, ComputePriority::kPrefill);
    const Status status = options_.context.model.Forward(all, kv, *scratch_, [&] {
      read = options_.context.backend.Synchronize();
      if (!read.ok()) return false;
      visit(layer++, scratch_->qkv->Matrix(static_cast<uint32_t>(all.size()), AllCols()));
      turn.Offer();
      return true;
    });
    return read.ok() ? status : read;
  }

  Status AskAll() {
    std::vector<std::vector<TokenId>> questions;
    std::vector<uint32_t> first_rows = {0};
    for (const NeedleQuestion& question : corpus_.questions) {
      std::vector<TokenId> tokens;
      options_.tokenizer.Encode(question.text, /*parse_special=*/false, &tokens);
      first_rows.push_back(first_rows.back() + static_cast<uint32_t>(tokens.size()));
      questions.push_back(std::move(tokens));
    }
    queries_ = std::make_unique<QuestionQueries>(shape_, std::move(first_rows));
    for (size_t i = 0; i < questions.size(); ++i) {
      RETURN_IF_ERROR(Pass(questions[i], [&](uint32_t layer, MatrixView qkv) {
        for (uint32_t row = 0; row < questions[i].size(); ++row) {
          queries_->Put(layer, i, row, qkv.row(static_cast<uint32_t>(preamble_.size()) + row));
        }
      }));
    }
    return OkStatus();
  }

  Status Read(uint32_t document, uint32_t blocks) {
    return Pass(corpus_.documents[document], [&](uint32_t layer, MatrixView qkv) {
      options_.scanner.ForRanges(shape_.kv_heads * blocks, [&](uint32_t item, unsigned) {
        ScoreBlock(layer, item % shape_.kv_heads, qkv, item / shape_.kv_heads,
                   document * blocks + item / shape_.kv_heads);
      });
    });
  }

  // Block `place` of the document at hand, `block` of all.
  void ScoreBlock(uint32_t layer, uint32_t kv_head, MatrixView qkv, uint32_t place,
                  uint32_t block) {
    const uint32_t dim = shape_.head_dim;
    std::vector<float> keys(size_t{kBlockTokens} * dim);
    for (uint32_t t = 0; t < kBlockTokens; ++t) {
      const uint32_t row = static_cast<uint32_t>(preamble_.size()) + place * kBlockTokens + t;
      std::copy_n(qkv.row(row) + QueryCols() + size_t{kv_head} * dim, dim,
                  keys.data() + size_t{t} * dim);
    }
    std::vector<std::byte> bytes(IndexTileBytes(dim));
    EncodeIndexTile(bytes.data(), keys.data(), kBlockTokens, dim);
    const IndexQueries stacked = queries_->OfSource(layer, kv_head);
    std::vector<float> best(stacked.rows), mass(stacked.rows);
    const auto scale =
        static_cast<float>(RopeAttentionFactor(config_.rope) / std::sqrt(static_cast<double>(dim)));
    options_.scanner.Scan({.tile = bytes.data(),
                           .head_dim = dim,
                           .tokens = kBlockTokens,
                           .queries = stacked,
                           .best = best.data(),
                           .mass = mass.data(),
                           .exponent = scale * kLog2E});
    const uint32_t group = shape_.q_heads / shape_.kv_heads;
    const size_t first = (size_t{layer} * shape_.q_heads + kv_head * group) * queries_->rows();
    for (uint32_t i = 0; i < stacked.rows; ++i) {
      masses_[(first + i) * scores_.blocks + block] = scale * best[i] + std::log(mass[i]);
    }
  }

  // From the masses of each row to the logarithm of the mean share of a question's rows.
  void ScoreQuestions() {
    const uint32_t heads = shape_.layers * shape_.q_heads;
    const size_t blocks = scores_.blocks;
    scores_.scores.resize(size_t{heads} * scores_.questions * blocks);
    options_.scanner.ForRanges(heads, [&](uint32_t head, unsigned) {
      std::vector<double> shares(blocks);
      for (uint32_t question = 0; question < scores_.questions; ++question) {
        std::fill(shares.begin(), shares.end(), 0);
        const uint32_t begin = queries_->first_row(question);
        const uint32_t end = queries_->first_row(question + 1);
        for (uint32_t row = begin; row < end; ++row) {
          const float* masses = &masses_[(size_t{head} * queries_->rows() + row) * blocks];
          const float largest = *std::max_element(masses, masses + blocks);
          double total = 0;
          for (size_t i = 0; i < blocks; ++i) total += std::exp(double{masses[i]} - largest);
          for (size_t i = 0; i < blocks; ++i) {
            shares[i] += std::exp(double{masses[i]} - largest) / total;
          }
        }
        float* scores = &scores_.scores[(size_t{head} * scores_.questions + question) * blocks];
        for (size_t i = 0; i < blocks; ++i) {
          scores[i] = static_cast<float>(std::log(std::max(shares[i] / (end - begin), 1e-30)));
        }
      }
    });
  }

  const HeadSearch& options_;
  const NeedleCorpus& corpus_;
  const ModelConfig& config_;
  const HeadShape shape_;
  const std::vector<TokenId> preamble_;
  const size_t passes_;
  size_t done_ = 0;
  KvFormat exact_;
  std::unique_ptr<ForwardScratch> scratch_;
  std::unique_ptr<QuestionQueries> queries_;
  // [layers * q_heads][rows][blocks]: the logarithm of a row's sum of exponentials over a block.
  std::vector<float> masses_;
  HeadScores scores_;
};

}  // namespace

Result<HeadScores> ScoreAllHeads(const HeadSearch& search, std::string_view text,
                                 const NeedleCorpusShape& shape) {
  if (text.empty()) return InvalidArgumentError("the calibration text is empty");
  const NeedleCorpus corpus =
      MakeNeedleCorpus(text, shape, [&](std::string_view piece, std::vector<TokenId>* out) {
        search.tokenizer.Encode(piece, /*parse_special=*/false, out);
      });
  return Search(search, corpus).Run();
}

Result<RetrievalHeads> FindRetrievalHeads(const HeadSearch& search, std::string_view text) {
  NeedleCorpusShape shape;
  const uint64_t context = search.context.model.config().context_tokens;
  const uint64_t preamble = search.chat.CorpusPrefix("").size();
  const uint64_t room = (context - std::min(context, preamble)) / kBlockTokens * kBlockTokens;
  if (room < 2 * kBlockTokens) {
    return InvalidArgumentError("a context of " + std::to_string(context) +
                                " tokens is too short to look for retrieval heads in");
  }
  shape.document_tokens = static_cast<uint32_t>(std::min<uint64_t>(shape.document_tokens, room));
  ASSIGN_OR_RETURN(const HeadScores scores, ScoreAllHeads(search, text, shape));
  if (scores.questions == 0) {
    return InvalidArgumentError("no fact fits a document of " +
                                std::to_string(shape.document_tokens) + " tokens");
  }
  return RetrievalHeads::Create(scores.shape, ChooseHeads(scores, {}));
}

}  // namespace corpusd
