// engine/prefill/exact_prefill.h -- computes what is missing of an exact corpus, call by call: each
// call reads what lies before it, and what it computed is made durable on a thread of its own while
// the next call computes over it. One call's blocks are on their way at most: memory is that of
// two. A call is one run, or as many as keep a device busy where that changes no bit. One thread;
// the record and the progress are the caller's, and are what is durable.
#pragma once

#include <future>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <vector>

#include "engine/engine.h"
#include "engine/prefill/history_in_turn.h"
#include "engine/prefill/prefill_runner.h"

namespace corpusd {

// An exact corpus as it will be.
struct ExactText {
  const KvLayout& layout;
  std::span<const TokenId> tokens;
  std::span<const Digest> chain;
  size_t known_blocks = 0;  // of the chain, from its root, that were stored at the beginning
  bool run_by_run = false;  // no call of several runs
};

// How many tokens are computed in one call behind so many: a multiple of kRunTokens. More than one
// run where the backend wants more rows, calls and runs give the same bits, and neither memory nor
// the time between two turns of the gate grows too much.
uint64_t TokensOfCall(const ComputeContext& context, const KvLayout& layout, uint64_t before);

class ExactPrefill {
 public:
  // What is in `text` must outlive it, as must the other references.
  ExactPrefill(const ComputeContext& context, BlockStore& store, const ExactText& text,
               CorpusRecord* record, PrefillProgress* progress);
  ExactPrefill(const ExactPrefill&) = delete;
  ExactPrefill& operator=(const ExactPrefill&) = delete;

  // Whether all blocks are computed; the last ones may be on their way yet.
  bool done() const { return computed_blocks() == text_.chain.size(); }
  // Adopts or computes what comes next. On an error nothing is on its way, and what is not durable
  // is computed again by the calls that follow. kAborted: the record is not the store's any more.
  Status Next(const std::stop_token& stop);
  // Waits until all that was computed is durable, or says why it is not.
  Status Finish();
  // Whether the history is larger than the host tier.
  bool reads_in_turn() const { return history_.reader != nullptr; }
  // Lets go of all that it reads. REQUIRES: nothing is on its way.
  void ForgetHistory();

 private:
  // What a call computed.
  struct Computed {
    std::shared_ptr<KvSequence> kv;
    size_t first_block = 0;
    uint64_t end_token = 0;
    double seconds = 0;
    std::vector<BlockWrite> writes;  // payloads: of kv
  };

  size_t computed_blocks() const {
    return record_.chain.size() + (computed_ ? computed_->writes.size() : 0);
  }
  size_t EndOfCall(size_t first_block) const;
  Status Adopt(std::span<const Digest> blocks, uint64_t tokens);
  // Of what lies before a call, the blocks on their way included.
  Result<std::shared_ptr<KvSequence>> SequenceBefore(const std::stop_token& stop);
  Result<Computed> Compute(size_t first_block, size_t end_block, const std::stop_token& stop);
  Status BeginToPublish(Computed computed);
  // On the other thread.
  Result<CorpusRecord> Publish(CorpusRecord record) const;

  const ComputeContext context_;
  BlockStore& store_;
  const ExactText text_;
  CorpusRecord& record_;
  PrefillProgress& progress_;
  HistoryInTurn history_;
  bool one_run_;  // a call; also once several took more memory than there was
  std::unique_ptr<ForwardScratch> scratch_;
  std::optional<Computed> computed_;             // on its way
  std::future<Result<CorpusRecord>> published_;  // destroyed first: it waits
};

}  // namespace corpusd
