// engine/ranks/worker_state.h -- what a RankWorker keeps of the prefills that rank 0 has begun: an
// exact corpus whose rows are dealt, the text of a segmented one. Internal to RankWorker; its
// thread's.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "engine/ranks/rank_worker.h"

namespace corpusd {

// An exact corpus that is computed together.
struct RankWorker::Prefilled {
  std::shared_ptr<RankPages> history;
  bool shelved = false;  // this rank stores what it keeps
  uint64_t next = 0;     // token of which the next segment must begin
  std::vector<TokenId> tokens;
  std::vector<Digest> chain;
  std::unique_ptr<RankedPrefill> prefill;
  struct Kept {
    uint64_t block = 0;
    uint32_t tokens = 0;
    std::span<const std::byte> bytes;  // where it was computed or dealt to
  };
  std::vector<Kept> fresh;  // of the last segment, not leased yet
  // What it computed in that, by part. Both where the CPU reads them.
  std::map<uint64_t, std::vector<std::span<const std::byte>>> computed;
  std::unique_ptr<HostCopies> copies;
  std::vector<HeldBlock> leases;
};

// The text of a segmented corpus.
struct RankWorker::Documents {
  std::vector<TokenId> tokens;
  std::unique_ptr<CorpusChain> chain;
  std::vector<Digest> digests;  // zeros: blocks are named by rank 0
  std::vector<KvSequence::SharedPage> preamble;
  SegmentedText text;
  std::unique_ptr<ComputeContext> context;
  std::unique_ptr<SegmentRunner> runner;
};

}  // namespace corpusd
