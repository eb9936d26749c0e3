// engine/decode/decode_batcher.h -- steps of several answers at once: questions that wait for their
// next token go through the model together, so that its weights, and the pages of a corpus that
// they share, are read once for all. Who is in a batch never changes a bit of an answer.
// Thread-safe; one object for all questions of an engine.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "engine/prefill/prefill_runner.h"
#include "engine/retrieval/query_tap.h"

namespace corpusd {

// One more token of one answer. kv belongs to the step, and all layers of its pages must be there.
struct DecodeStep {
  TokenId token = 0;  // computed behind kv
  KvSequence* kv = nullptr;
  MatrixView logits;        // [1, vocabulary], written
  QueryTap* tap = nullptr;  // if not null, gets the token's queries
};

class DecodeBatcher {
 public:
  // context must outlive it.
  explicit DecodeBatcher(const ComputeContext& context);

  // Says that an answer decodes, while it lives: a batch waits a moment for those who do.
  class Member {
   public:
    explicit Member(DecodeBatcher& batcher);
    ~Member();
    Member(const Member&) = delete;
    Member& operator=(const Member&) = delete;

   private:
    DecodeBatcher& batcher_;
  };

  // Computes the steps, together with those of others. Blocks until all are done. RETURNS the first
  // error.
  Status Step(std::span<const DecodeStep> steps);

  struct Counts {
    uint64_t steps = 0;    // tokens
    uint64_t batches = 0;  // passes over the weights
  };
  Counts counts() const;

 private:
  struct Request {
    const DecodeStep* step;
    Status status = OkStatus();
    bool done = false;
  };

  // Computes the waiting requests, the oldest first, as many as one pass may take.
  void RunBatch(std::unique_lock<std::mutex>& lock);
  // Takes them. REQUIRES: the lock; one waits at least.
  std::vector<Request*> TakeBatch();
  Status Compute(const std::vector<Request*>& batch);

  const ComputeContext context_;
  const uint32_t rows_max_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Request*> waiting_;  // oldest first
  uint32_t members_ = 0;
  bool leading_ = false;  // a thread runs a batch or waits for its turn to
  Counts counts_;
  // The leader's.
  std::unique_ptr<ForwardScratch> scratch_;
  std::unique_ptr<Buffer> logits_;
};

}  // namespace corpusd
