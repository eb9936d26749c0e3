#include "engine/segment/segment_answer.h"

#include <algorithm>
#include <chrono>

namespace corpusd {
namespace {

// Told to those who measure the choice.
constexpr size_t kTopBlocks = 48;
constexpr size_t kCitationsMax = 8;

}  // namespace

SegmentAnswer::SegmentAnswer(const SegmentQuestion& question)
    : question_(question),
      text_(question.corpus.text()),
      task_{question_.context, question_.store, text_, question_.layout, question_.stop},
      tap_(question.corpus.index->layout().heads().heads(),
           question.corpus.index->layout().head_dim()) {
  rule_.blocks_max = question.blocks_max;
  selection_.candidate_blocks = question.corpus.chain.blocks() - text_.preamble_digests().size();
}

Result<KvSequence*> SegmentAnswer::Begin() {
  ASSIGN_OR_RETURN(preamble_, LeasePreamble(task_, ComputePriority::kQuestion));
  recomputed_tokens_ += preamble_.recomputed_tokens;
  AddFetch(preamble_.stats, &stats_);
  RETURN_IF_ERROR(TapQuestion());
  const auto start = std::chrono::steady_clock::now();
  Choose();
  const std::chrono::duration<double, std::milli> spent = std::chrono::steady_clock::now() - start;
  selection_.select_ms = spent.count();
  kv_ = std::make_unique<KvSequence>(question_.layout);
  for (const KvSequence::SharedPage& page : preamble_.pages) kv_->AddShared(page);
  RETURN_IF_ERROR(Attend());
  return kv_.get();
}

// The prompt over the preamble alone, no further than to the last of the question's words and to
// the last of the heads.
Status SegmentAnswer::TapQuestion() {
  if (question_.words.empty()) return OkStatus();
  const auto words_end = static_cast<size_t>(question_.words.data() + question_.words.size() -
                                             question_.prompt.data());
  const auto prompt = question_.prompt.first(words_end);
  KvSequence kv(question_.layout);
  for (const KvSequence::SharedPage& page : preamble_.pages) kv.AddShared(page);
  const Model& model = question_.context.model;
  const auto rows = static_cast<uint32_t>(std::min<size_t>(prompt.size(), kRunTokens));
  ASSIGN_OR_RETURN(const auto scratch,
                   ForwardScratch::Create(question_.context.backend, model.config(), rows));
  for (size_t first = 0; first < prompt.size(); first += rows) {
    const auto chunk = prompt.subspan(first, std::min<size_t>(rows, prompt.size() - first));
    const bool last = first + chunk.size() == prompt.size();
    tap_.Begin(static_cast<uint32_t>(chunk.size()));
    uint32_t layer = 0;
    ComputeGate::Turn turn(question_.context.gate, ComputePriority::kQuestion);
    const Status status = model.Forward(chunk, kv, *scratch, [&] {
      const MatrixView qkv = scratch->Qkv(tap_.rows(), model.config());
      if (!tap_.Take(question_.context.backend, layer, qkv, 0)) return false;
      return !question_.stop.stop_requested() && !(last && layer++ == tap_.last_layer());
    });
    const bool seen = last && layer > tap_.last_layer();
    if (!status.ok() && !seen) return status;
  }
  // Of the last chunk's queries, those of the question's own words: what stands before them looks
  // for nothing.
  looked_for_rows_ = static_cast<uint32_t>(std::min<size_t>(question_.words.size(), tap_.rows()));
  const size_t floats = tap_.queries().size() / tap_.rows();
  const auto queries = tap_.queries().last(looked_for_rows_ * floats);
  looked_for_.assign(queries.begin(), queries.end());
  return OkStatus();
}

void SegmentAnswer::Choose() {
  const CorpusIndex& index = *question_.corpus.index;
  RetrievalQuery query;
  query.q = looked_for_;
  query.rows = looked_for_rows_;
  query.text = question_.text;
  query.first_block = text_.preamble_digests().size();
  const auto scores = index.Search(query, question_.policy, rule_, question_.scanner);
  const Candidates candidates{scores.of_blocks, query.first_block};
  selection_.top_blocks = BestBlocks(candidates, kTopBlocks);
  std::vector<BlockHit> hits;
  for (const uint64_t block : BestBlocks(candidates, rule_.blocks_max)) {
    hits.push_back({block, index.HitToken(query, scores, block, question_.scanner)});
  }
  const CorpusChain& chain = question_.corpus.chain;
  const auto document_of = [&](uint64_t block) {
    const CorpusSegment& segment = chain.SegmentOfBlock(block);
    return segment.first_block == 0 ? UINT64_MAX : segment.source;
  };
  ChosenPieces chosen = PiecesAround(hits, question_.corpus.block_tokens, document_of,
                                     question_.budget_tokens, rule_);
  pieces_ = std::move(chosen.pieces);
  stored_ = pieces_.size() - (rule_.recompute_best ? chosen.of_best : 0);
  for (size_t i = stored_; i < pieces_.size(); ++i) {
    const uint64_t first = chain.block(pieces_[i].block).first_token;
    const auto tokens = std::span(question_.corpus.tokens)
                            .subspan(first + pieces_[i].first, pieces_[i].end - pieces_[i].first);
    prompt_.insert(prompt_.end(), tokens.begin(), tokens.end());
  }
  recomputed_tokens_ += prompt_.size();
  prompt_.insert(prompt_.end(), question_.prompt.begin(), question_.prompt.end());
  for (auto piece = pieces_.rbegin(); piece != pieces_.rend(); ++piece) {
    if (std::find(blocks_.begin(), blocks_.end(), piece->block) == blocks_.end()) {
      blocks_.push_back(piece->block);
    }
  }
  weights_.assign(blocks_.size(), 0);
}

Status SegmentAnswer::Attend() {
  std::vector<uint64_t> order;
  for (size_t i = 0; i < stored_; ++i) order.push_back(pieces_[i].block);
  ASSIGN_OR_RETURN(leases_, LeaseBlocks(task_, preamble_.pages, order, ComputePriority::kQuestion));
  for (size_t i = 0; i < stored_; ++i) {
    kv_->AddShared({leases_.pages[i].bytes, pieces_[i].end, pieces_[i].first});
  }
  recomputed_tokens_ += leases_.recomputed_tokens;
  AddFetch(leases_.stats, &stats_);
  return OkStatus();
}

// What the last token of the pass, the one that gives the next, looks at.
Status SegmentAnswer::AfterPass(KvSequence& kv) {
  attended_tokens_ = kv.attended_tokens();
  if (prompt_tokens_ == 0) prompt_tokens_ = attended_tokens_;
  if (blocks_.empty()) return OkStatus();
  const size_t floats = tap_.queries().size() / tap_.rows();
  const std::vector<float> mass =
      question_.corpus.index->Mass(tap_.queries().last(floats), 1, blocks_, question_.scanner);
  for (size_t i = 0; i < blocks_.size(); ++i) weights_[i] += mass[i];
  return OkStatus();
}

void SegmentAnswer::Report(const Tokenizer& tokenizer, QuestionReport* report) const {
  report->attended_tokens = attended_tokens_;
  report->prompt_tokens = prompt_tokens_;
  report->cached_tokens = prompt_tokens_ - std::min<uint64_t>(prompt_tokens_, prompt_.size());
  report->recomputed_tokens = recomputed_tokens_;
  report->load_ms = stats_.waited_seconds * 1e3;
  report->device_bytes = stats_.device_bytes;
  report->host_bytes = stats_.host_bytes;
  report->disk_bytes = stats_.disk_bytes;
  report->selection = selection_;
  report->selection->blocks = blocks_;
  std::vector<PieceWeight> weights;
  for (const BlockPiece& piece : pieces_) {
    // A block's weight is that of its pieces together.
    uint64_t of_block = 0;
    for (const BlockPiece& other : pieces_) {
      of_block += other.block == piece.block ? other.end - other.first : 0;
    }
    const auto place = std::find(blocks_.begin(), blocks_.end(), piece.block) - blocks_.begin();
    weights.push_back({piece, weights_[static_cast<size_t>(place)] * (piece.end - piece.first) /
                                  static_cast<double>(of_block)});
  }
  report->citations = CitePieces(question_.corpus.record, question_.corpus.chain,
                                 question_.corpus.tokens, tokenizer, weights, kCitationsMax);
}

}  // namespace corpusd
