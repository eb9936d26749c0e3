// daemon/jobs/scrub_pass.h -- one scrub: every block of every corpus is read from disk and checked,
// the catalogue's metadata against it, and damage is computed again from the tokens. Slow on
// purpose: it keeps to a rate, and lets questions go first. One thread; stopped at any block, it
// goes on from its state.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "daemon/jobs/scrub_state.h"
#include "engine/engine.h"
#include "store/block_store.h"

namespace corpusd {

class ScrubPass {
 public:
  // yield: called before each block; returns when the disk may be used. May be empty.
  ScrubPass(BlockStore& store, Engine& engine, std::function<void(const std::stop_token&)> yield);

  // on_progress: after every block, with *state up to date. kCancelled if stopped; an error of the
  // disk itself (not damage) ends it.
  Status Run(ScrubState* state, const std::function<void()>& on_progress,
             const std::stop_token& stop);

 private:
  // blocks: indices in its chain, ascending.
  Status ScrubCorpus(const CorpusRecord& record, std::span<const size_t> blocks,
                     const std::function<void()>& done);
  // Everything that can be said without reading payload.
  void CheckMetadata(const CorpusRecord& record);
  // Blocks of the layers that do not see everything.
  Status ScrubParts(const CorpusRecord& record, const std::function<void()>& done);
  // kChanged: the corpus is not what it was, so that the rest is left to the next scrub.
  enum class Reading : uint8_t { kDone, kChanged };
  Result<Reading> ReadOne(const Digest& digest, const std::string& what,
                          const std::function<bool()>& still_named);
  void Repair(const CorpusRecord& record);
  void CheckCatalogue();
  // Waits until `bytes` more are within the rate. RETURNS false if stopped.
  bool Pace(uint64_t bytes);

  BlockStore& store_;
  Engine& engine_;
  const std::function<void(const std::stop_token&)> yield_;
  ScrubState* state_ = nullptr;
  std::stop_token stop_;
  std::vector<std::byte> payload_;  // of the block at hand
  std::chrono::steady_clock::time_point next_read_{};
};

// For each corpus the blocks that no earlier one (by id) has as well, which were checked with it:
// exact corpora share whole prefixes, segmented ones documents wherever they stand.
std::vector<std::vector<size_t>> OwnBlocks(const std::vector<CorpusRecord>& by_id);

}  // namespace corpusd
