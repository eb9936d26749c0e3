// engine/segment/segmented_corpora.h -- segmented corpora of one engine: made, mended, asked. Keeps
// the tokens and the retrieval index of the last few in memory. Thread-safe; borrows all it is
// given.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/prefill/prefill_runner.h"
#include "engine/segment/segment_prefill.h"

namespace corpusd {

class SegmentedCorpora {
 public:
  SegmentedCorpora(const ComputeContext& context, BlockStore& store);

  // Computes and publishes what is missing. layout: with the sinks of the preamble.
  Status Prefill(CorpusRecord* record, const KvLayout& layout, std::span<const TokenId> tokens,
                 const std::function<void(const PrefillProgress&)>& progress,
                 const std::stop_token& stop);
  // Computes damaged and missing blocks again. RETURNS how many.
  Result<uint64_t> Repair(const CorpusRecord& record, const KvLayout& layout,
                          std::span<const TokenId> tokens);
  // Reads the corpus's blocks into the host tier, in order, as far as they fit.
  Result<FetchStats> Warm(const CorpusRecord& record);

 private:
  const ComputeContext context_;
  BlockStore& store_;
};

// As the identity of a corpus has it, such as "segmented-1024-128".
std::string ModeField(const SegmentRule& rule);

}  // namespace corpusd
