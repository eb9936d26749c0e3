// store/corpus_record.h -- what the catalogue keeps about a corpus. Plain data, persisted as
// documented in store/FORMAT.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/base/result.h"
#include "store/base/shared_vector.h"
#include "store/corpus_parts.h"
#include "store/prefix_hash.h"

namespace corpusd {

// Values are persistent.
enum class CorpusState : uint8_t {
  kQueued = 0,
  kPrefilling = 1,
  kReady = 2,
  kFailed = 3,
  kCancelled = 4,
  kEvicted = 5  // was ready; blocks left the disk, a prefill brings them back
};
std::string_view CorpusStateText(CorpusState state);  // "queued", "prefilling", ...

struct CorpusSource {
  std::string path;  // as the client named it
  uint64_t first_token = 0;
  uint64_t tokens = 0;
  uint64_t bytes = 0;
  std::string sha256;  // hex of the source's bytes
  bool operator==(const CorpusSource&) const = default;
};

// A durable promise: not evicted from this tier until expires_at, charged to its owner's quota.
struct CorpusPin {
  uint8_t tier = 2;           // TierKind
  int64_t expires_at_ms = 0;  // Unix time; 0: never
  std::string owner = {};     // a user's name or "uid:N"; "": made before pins had owners
  std::string reason = {};    // the owner's words
  int64_t created_at_ms = 0;  // when it was last made or changed
  bool operator==(const CorpusPin&) const = default;
};

// How dear an unpinned corpus is to its users: what leaves first when room is needed. Values are
// persistent and ordered.
enum class RetentionPriority : uint8_t { kLow = 0, kNormal = 1, kHigh = 2 };
std::string_view PriorityText(RetentionPriority priority);  // "low", "normal", "high"
// kInvalidArgument, naming the three, for any other text.
Result<RetentionPriority> ParsePriority(std::string_view text);

// What the KV format costs on a sample of the corpus's own tokens.
struct CorpusQuality {
  uint32_t sample_tokens = 0;
  double mean_kld = 0;  // KL divergence from exact keys and values, nats
  double same_top = 0;  // share of places with the same most likely token
  bool operator==(const CorpusQuality&) const = default;
};

// How the documents (sources) of a segmented corpus are cut into chains: corpus_chain.h.
struct SegmentRule {
  uint32_t window_tokens = 0;   // own tokens of one segment, a multiple of the block; 0: exact
  uint32_t overlap_tokens = 0;  // of the document before it that a later segment sees, too
  bool operator==(const SegmentRule&) const = default;
};

struct CorpusRecord {
  uint64_t id = 0;          // given by the catalogue, never reused
  uint64_t generation = 0;  // grows by one with every update
  std::string name;
  std::string mode;  // "exact", "segmented"
  CorpusState state = CorpusState::kQueued;
  std::string error;            // why, if failed
  uint64_t tokens = 0;          // of the whole corpus
  uint64_t durable_tokens = 0;  // of them in published blocks
  SharedVector<Digest> chain;   // published blocks, in order
  uint64_t whole_blocks = 0;    // of the whole corpus, published or not; 0: not known
  std::string kv_format;        // KvFormatName
  uint64_t block_bytes = 0;
  uint64_t bf16_bytes = 0;  // what the corpus would take in bf16
  std::vector<IdentityField> identity;
  Digest root;
  SharedVector<CorpusSource> sources;
  std::optional<CorpusPin> pin;
  int64_t expires_at_ms = 0;  // 0: never
  RetentionPriority priority = RetentionPriority::kNormal;
  int64_t created_at_ms = 0;
  int64_t last_used_at_ms = 0;
  double prefill_seconds = 0;   // summed over runs
  uint64_t prefill_tokens = 0;  // computed in them; 0: not counted (older records)
  uint32_t resumed_times = 0;
  uint64_t skipped_files = 0;            // binaries and unreadable files left out
  std::optional<CorpusQuality> quality;  // none: exact, or not measured
  SegmentRule segments;                  // of a segmented corpus; else zeros
  std::vector<CorpusPart> parts;         // of layers that do not see everything; else none
  std::vector<std::string> roots;        // what the client was told to read, for updates
  // The corpus that this one is to take the place of as soon as it is ready; "": none.
  std::string replaces;
};

}  // namespace corpusd
