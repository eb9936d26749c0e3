// store/miss_explain.h -- why blocks that somebody asks for are not there: of another identity, a
// hole, evicted, expired, removed, damaged, or never seen. Reads the catalogue alone, no payload.
// Counters of what was missed live here too. Any thread.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store/base/result.h"
#include "store/miss_reason.h"
#include "store/prefix_hash.h"

namespace corpusd {

class BlockStore;
class CorpusChain;

enum class MissReason : uint8_t {
  kNone,       // the block is there
  kIdentity,   // there under another root: model, tokenizer, format, mode, tenant, preamble
  kHole,       // missing while a later block of the chain is there
  kEvicted,    // left the disk for room, or because an admin asked
  kExpired,    // its corpus's time was over
  kRemoved,    // its corpus was removed
  kCorrupt,    // a checksum failed: quarantined until it is computed again
  kNeverSeen,  // no record of it
};
inline constexpr size_t kMissReasons = 8;
std::string_view MissReasonText(MissReason reason);  // "none", "identity", ...

enum class BlockPresence : uint8_t { kAbsent, kStored, kQuarantined };

// One identity that a corpus was ever made with; kept when the corpus goes.
struct RootRecord {
  Digest root;
  std::vector<IdentityField> identity;
  std::string corpus;  // the last one made with it
  int64_t when_ms = 0;
};

// Misses since the start, by reason, in blocks and in lookups.
class MissCounters {
 public:
  struct Counts {
    std::array<uint64_t, kMissReasons> lookups{};
    std::array<uint64_t, kMissReasons> blocks{};
  };
  // A lookup that missed `blocks` blocks, the first of them for this reason.
  void Count(MissReason reason, uint64_t blocks) {
    lookups_[static_cast<size_t>(reason)].fetch_add(1, std::memory_order_relaxed);
    blocks_[static_cast<size_t>(reason)].fetch_add(blocks, std::memory_order_relaxed);
  }
  Counts Read() const;

 private:
  std::array<std::atomic<uint64_t>, kMissReasons> lookups_{};
  std::array<std::atomic<uint64_t>, kMissReasons> blocks_{};
};

// What is looked for.
struct MissQuestion {
  std::span<const IdentityField> identity;  // of the root
  std::span<const TokenId> tokens;
  uint32_t block_tokens = 0;
  std::string text_sha256;             // of the source, hex; "": not known
  const CorpusChain* chain = nullptr;  // of a segmented corpus; null: exact
};

// Neighbouring blocks that miss for one reason.
struct MissRun {
  uint64_t first_block = 0;
  uint64_t blocks = 0;
  MissReason reason = MissReason::kNone;
  int64_t when_ms = 0;  // of an eviction; 0: not known
  std::string detail;   // one sentence for people; may be empty
};

struct FieldDifference {
  std::string field, stored, asked;
};

struct MissReport {
  uint64_t blocks = 0;
  uint64_t present = 0;
  std::vector<MissRun> runs;  // all blocks, in order
  // kIdentity: who has the text, and what differs.
  std::string other_corpus;
  std::vector<FieldDifference> differences;
  // The first missing block's; kNone if none is.
  MissReason reason() const;
};

Result<MissReport> ExplainMiss(const BlockStore& store, const MissQuestion& question);

// The chain's blocks by presence and by the notes of what left: all of ExplainMiss but identity.
// segments: of a segmented corpus, where a hole is one of its segment; null: exact.
std::vector<MissRun> ClassifyBlocks(std::span<const Digest> chain,
                                    std::span<const BlockPresence> presence,
                                    std::span<const EvictionNote> notes,
                                    const CorpusChain* segments = nullptr);

}  // namespace corpusd
