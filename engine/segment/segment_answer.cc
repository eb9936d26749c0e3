#include "engine/segment/segment_answer.h"

#include <algorithm>
#include <chrono>

namespace corpusd {
namespace {

// Blocks are chosen again after so many tokens of an answer.
constexpr uint64_t kChooseEvery = 16;
// Of the first choice, told to those who measure it.
constexpr size_t kTopBlocks = 48;
constexpr size_t kCitationsMax = 8;

}  // namespace

SegmentAnswer::SegmentAnswer(const SegmentQuestion& question)
    : question_(question),
      text_(question.corpus.text()),
      tap_(question.corpus.index->layout().heads().heads(),
           question.corpus.index->layout().head_dim()) {
  selection_.candidate_blocks = question.corpus.chain.blocks() - text_.preamble_digests().size();
}

Result<KvSequence*> SegmentAnswer::Begin() {
  const SegmentPrefillTask task{question_.context, question_.store, text_, question_.layout,
                                question_.stop};
  ASSIGN_OR_RETURN(SegmentLease lease, LeaseSegments(task, {}, ComputePriority::kQuestion));
  preamble_ = std::move(lease.preamble);
  recomputed_tokens_ += lease.recomputed_tokens;
  RETURN_IF_ERROR(TapQuestion());
  const auto start = std::chrono::steady_clock::now();
  RETURN_IF_ERROR(Choose());
  const std::chrono::duration<double, std::milli> spent = std::chrono::steady_clock::now() - start;
  selection_.select_ms = spent.count();
  kv_ = std::make_unique<KvSequence>(question_.layout);
  for (const BlockRef& ref : preamble_) kv_->AddShared(ref.bytes().data(), ref.tokens());
  RETURN_IF_ERROR(Attend(kv_.get()));
  return kv_.get();
}

// The prompt over the preamble alone, no further than to the last of the heads.
Status SegmentAnswer::TapQuestion() {
  KvSequence kv(question_.layout);
  for (const BlockRef& ref : preamble_) kv.AddShared(ref.bytes().data(), ref.tokens());
  const Model& model = question_.context.model;
  const auto rows = static_cast<uint32_t>(std::min<size_t>(question_.prompt.size(), kRunTokens));
  ASSIGN_OR_RETURN(const auto scratch,
                   ForwardScratch::Create(question_.context.backend, model.config(), rows));
  for (size_t first = 0; first < question_.prompt.size(); first += rows) {
    const auto chunk =
        question_.prompt.subspan(first, std::min<size_t>(rows, question_.prompt.size() - first));
    const bool last = first + chunk.size() == question_.prompt.size();
    tap_.Begin(static_cast<uint32_t>(chunk.size()));
    uint32_t layer = 0;
    ComputeGate::Turn turn(question_.context.gate, ComputePriority::kQuestion);
    const Status status = model.Forward(chunk, kv, *scratch, [&] {
      tap_.Take(layer, scratch->Qkv(tap_.rows(), model.config()), 0);
      return !question_.stop.stop_requested() && !(last && layer++ == tap_.last_layer());
    });
    const bool seen = last && layer > tap_.last_layer();
    if (!status.ok() && !seen) return status;
  }
  Remember(tap_.queries(), tap_.rows());
  return OkStatus();
}

std::span<const float> SegmentAnswer::LastRows(uint32_t rows) const {
  return tap_.queries().last(tap_.queries().size() / tap_.rows() * rows);
}

void SegmentAnswer::Remember(std::span<const float> queries, uint32_t rows) {
  looked_for_.insert(looked_for_.end(), queries.begin(), queries.end());
  looked_for_rows_ += rows;
}

Status SegmentAnswer::Choose() {
  const RetrievalQuery query{looked_for_, looked_for_rows_, question_.text};
  const std::vector<float> scores =
      question_.corpus.index->Score(query, question_.policy, rule_, question_.scanner);
  Candidates candidates;
  candidates.scores = scores;
  candidates.tokens = question_.corpus.block_tokens;
  candidates.first_block = text_.preamble_digests().size();
  if (selection_.rounds == 0) selection_.top_blocks = BestBlocks(candidates, kTopBlocks);
  const auto preamble_tokens = static_cast<uint32_t>(text_.preamble().size());
  const uint32_t budget =
      question_.budget_tokens - std::min(question_.budget_tokens, preamble_tokens);
  chosen_ = ChooseBlocks(candidates, budget, rule_);
  ++selection_.rounds;
  return OkStatus();
}

// Puts the chosen blocks behind the preamble in place of those that are there.
Status SegmentAnswer::Attend(KvSequence* kv) {
  const std::vector<uint64_t> order = AttendOrder(chosen_);
  const SegmentPrefillTask task{question_.context, question_.store, text_, question_.layout,
                                question_.stop};
  ASSIGN_OR_RETURN(SegmentLease lease, LeaseSegments(task, order, ComputePriority::kQuestion));
  kv->TruncateShared(preamble_.size());
  for (const BlockRef& ref : lease.blocks) kv->AddShared(ref.bytes().data(), ref.tokens());
  leases_ = std::move(lease.blocks);
  recomputed_tokens_ += lease.recomputed_tokens;
  stats_.device_bytes += lease.stats.device_bytes;
  stats_.host_bytes += lease.stats.host_bytes;
  stats_.disk_bytes += lease.stats.disk_bytes;
  stats_.waited_seconds += lease.stats.waited_seconds;
  return OkStatus();
}

Status SegmentAnswer::AfterPass(KvSequence& kv) {
  attended_tokens_ = kv.attended_tokens();
  Weigh();
  if (passes_ > 0) Remember(LastRows(1), 1);
  // The prompt's pass gives the first token.
  if (++passes_ % kChooseEvery != 0) return OkStatus();
  const std::vector<uint64_t> before = chosen_;
  RETURN_IF_ERROR(Choose());
  return chosen_ == before ? OkStatus() : Attend(&kv);
}

// What the last token of the pass, the one that gives the next, looks at.
void SegmentAnswer::Weigh() {
  if (chosen_.empty()) return;
  const std::vector<float> mass =
      question_.corpus.index->Mass(LastRows(1), 1, chosen_, question_.scanner);
  for (size_t i = 0; i < chosen_.size(); ++i) {
    const auto known = std::find_if(weights_.begin(), weights_.end(),
                                    [&](const BlockWeight& w) { return w.block == chosen_[i]; });
    if (known != weights_.end()) {
      known->weight += mass[i];
    } else {
      weights_.push_back({chosen_[i], mass[i]});
    }
  }
}

void SegmentAnswer::Report(const Tokenizer& tokenizer, QuestionReport* report) const {
  report->attended_tokens = attended_tokens_;
  report->recomputed_tokens = recomputed_tokens_;
  report->load_ms = stats_.waited_seconds * 1e3;
  report->device_bytes = stats_.device_bytes;
  report->host_bytes = stats_.host_bytes;
  report->disk_bytes = stats_.disk_bytes;
  report->selection = selection_;
  report->selection->blocks = chosen_;
  report->citations = CiteBlocks(question_.corpus.record, question_.corpus.chain,
                                 question_.corpus.tokens, tokenizer, weights_, kCitationsMax);
}

}  // namespace corpusd
