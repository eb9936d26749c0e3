// engine/segment/segment_answer.h -- one answer over a segmented corpus: the question is computed
// over the preamble to see what its retrieval heads look for, the blocks that they and its words
// find are put behind the preamble, and the answer is made over those. Blocks are chosen again as
// the answer goes on, and what the heads attend to says what it rests on. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "engine/decode/question_runner.h"
#include "engine/engine.h"
#include "engine/retrieval/block_selector.h"
#include "engine/segment/citations.h"
#include "engine/segment/loaded_corpora.h"
#include "engine/segment/segment_prefill.h"

namespace corpusd {

struct SegmentQuestion {
  const ComputeContext& context;
  BlockStore& store;
  const LoadedCorpus& corpus;
  const IndexScanner& scanner;
  const KvLayout& layout;  // with the sinks of the preamble
  const std::string& text;
  std::span<const TokenId> prompt;
  RetrievalPolicy policy = RetrievalPolicy::kFused;
  uint32_t budget_tokens = 0;  // of the corpus that may be attended to, preamble included
  const std::stop_token& stop;
};

class SegmentAnswer final : public AnswerWatcher {
 public:
  explicit SegmentAnswer(const SegmentQuestion& question);

  // Chooses blocks and leases them. RETURNS what the prompt is to be computed over; it lives as
  // long as this.
  Result<KvSequence*> Begin();

  QueryTap& tap() override { return tap_; }
  Status AfterPass(KvSequence& kv) override;

  // After the answer.
  void Report(const Tokenizer& tokenizer, QuestionReport* report) const;

 private:
  Status TapQuestion();
  Status Choose();
  Status Attend(KvSequence* kv);
  void Weigh();
  // The last `rows` rows of the tap.
  std::span<const float> LastRows(uint32_t rows) const;
  void Remember(std::span<const float> queries, uint32_t rows);

  const SegmentQuestion question_;
  const RetrievalRule rule_;
  const SegmentedText text_;
  QueryTap tap_;
  std::vector<float> looked_for_;  // queries of the question, then of the answer so far
  uint32_t looked_for_rows_ = 0;
  std::vector<BlockRef> preamble_;
  std::vector<uint64_t> chosen_;  // the best first
  std::vector<BlockRef> leases_;  // of them, in the order of their pages
  std::unique_ptr<KvSequence> kv_;
  std::vector<BlockWeight> weights_;
  uint64_t attended_tokens_ = 0;
  uint64_t passes_ = 0;
  FetchStats stats_;
  uint64_t recomputed_tokens_ = 0;
  QuestionReport::Selection selection_;
};

}  // namespace corpusd
