// engine/segment/segment_answer.h -- one answer over a segmented corpus: the question is computed
// over the preamble to see what its retrieval heads look for, pieces of the blocks that they and
// its words find are put behind the preamble, the best last and computed anew, and the answer is
// made over those. What the heads attend to meanwhile says what it rests on. How much is attended
// to, and that choosing again while answering gains nothing: tests/eval/README.md. One thread.
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
  std::span<const TokenId> words;  // of the prompt: the question's own
  RetrievalPolicy policy = RetrievalPolicy::kFused;
  uint32_t budget_tokens = 0;  // of the corpus behind the preamble that may be attended to
  uint32_t blocks_max = 0;     // that are looked into
  const std::stop_token& stop;
};

class SegmentAnswer final : public AnswerWatcher {
 public:
  explicit SegmentAnswer(const SegmentQuestion& question);

  // Chooses pieces and leases their blocks. RETURNS what the prompt is to be computed over; it
  // lives as long as this.
  Result<KvSequence*> Begin();
  // What is computed behind it: the best piece anew, if the rule says so, and the question.
  std::span<const TokenId> prompt() const { return prompt_; }

  QueryTap& tap() override { return tap_; }
  Status AfterPass(KvSequence& kv) override;

  // After the answer.
  void Report(const Tokenizer& tokenizer, QuestionReport* report) const;

 private:
  Status TapQuestion();
  void Choose();
  // Puts the chosen pieces behind the preamble.
  Status Attend();

  const SegmentQuestion question_;
  RetrievalRule rule_;
  const SegmentedText text_;
  const SegmentPrefillTask task_;
  QueryTap tap_;
  std::vector<float> looked_for_;  // queries of the question's words
  uint32_t looked_for_rows_ = 0;
  SegmentLease preamble_;
  std::vector<BlockPiece> pieces_;  // in the order of their places
  size_t stored_ = 0;               // of them, from the first, are attended as stored
  std::vector<TokenId> prompt_;
  std::vector<uint64_t> blocks_;  // of them, each once
  SegmentLease leases_;           // of the stored pieces
  std::unique_ptr<KvSequence> kv_;
  std::vector<double> weights_;   // of blocks_, summed over the answer's tokens
  uint64_t prompt_tokens_ = 0;    // attended by the prompt's last token, itself included
  uint64_t attended_tokens_ = 0;  // by the answer's last token
  FetchStats stats_;
  uint64_t recomputed_tokens_ = 0;
  QuestionReport::Selection selection_;
};

}  // namespace corpusd
