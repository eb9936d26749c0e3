// store/disk_eviction.h -- what leaves the disk tier next, and in what order: tails of corpora, the
// coldest first by eviction_policy.h. Plans only; nothing is read but chain entries, nothing is
// changed. Pure but for the reader it is given; the caller holds its own lock.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "store/base/result.h"
#include "store/corpus_record.h"
#include "store/record_codec.h"

namespace corpusd {

// One corpus that loses blocks.
struct EvictStep {
  std::string corpus;
  uint64_t corpus_id = 0;
  uint64_t keep_blocks = 0;  // what its chain keeps
  uint64_t blocks = 0;       // that leave its chain
  uint64_t bytes = 0;        // of payload that goes with them; what others share of it stays
  bool expired = false;
  std::string why;  // for people: "priority low, last used 3 days ago, 12 s to compute again"
};

struct EvictPlan {
  std::vector<EvictStep> steps;  // in the order of leaving
  uint64_t bytes = 0;            // of all steps
  // Why nothing more may go, in payload bytes, shared blocks counted for each corpus.
  uint64_t pinned_bytes = 0;
  uint64_t busy_bytes = 0;    // being prefilled, or of who asks for the room
  uint64_t leased_bytes = 0;  // up to the last block that a reader holds
};

// What a publish that met the cap, a pass in the background or an admin has made go since the
// start.
struct EvictionCounts {
  uint64_t passes = 0;  // that took something
  uint64_t corpora = 0;
  uint64_t blocks = 0;
  uint64_t bytes = 0;
  uint64_t refusals = 0;  // too little could go
  int64_t last_ms = 0;    // Unix time of the last pass; 0: none
  std::string last_text;  // "2 corpora, 12 MiB, for corpus 'b'"
};

// A corpus that may lose blocks.
struct EvictableCorpus {
  const CorpusRecord* record = nullptr;
  double rank = 0;           // EvictionPolicy::Rank; a larger one stays longer
  bool expired = false;      // goes before all others
  uint64_t keep_blocks = 0;  // it must keep so many
  std::string why;
};

// In order; an absent one has references == 0, one that lies on a disk where no room is needed has
// payload_bytes == 0.
using ChainReader = std::function<Result<std::vector<ChainEntry>>(std::span<const Digest>)>;

// Where chains may be cut.
struct CutRule {
  uint32_t run_blocks = 1;    // exact corpora: at multiples of so many blocks
  uint32_t block_tokens = 0;  // segmented ones: between segments of such blocks; 0: as a whole
};

// Cuts tails, expired corpora first, then by priority, then by rank, until so many bytes go or no
// more can. A block goes when the last corpus that names it is cut. The beginning that an exact
// corpus shares is cut only if what all others own is too little; a segmented one shares documents
// that may stand anywhere, and what it gives up of them is adopted again for nothing. Blocks on
// other disks go with the tail that they are part of. RETURNS steps without any that would give
// nothing back.
Result<EvictPlan> PlanDiskEviction(std::span<const EvictableCorpus> corpora,
                                   const ChainReader& entries, uint64_t needed_bytes,
                                   const CutRule& rule);

// "40 s", "12 min", "3 h", "9 days".
std::string AgeText(int64_t milliseconds);

}  // namespace corpusd
