// store/miss_reason.h -- what the catalogue remembers of blocks that left the disk, so that a later
// miss can say when and why. A note is a fact about the past: it outlives its corpus, and is
// forgotten oldest first beyond kEvictionNotesMax. Not a promise about what is stored now: a note
// whose blocks were built again is only history. Formats in FORMAT.md. Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "store/base/result.h"
#include "store/prefix_hash.h"

namespace corpusd {

// Values are persistent.
enum class EvictionReason : uint8_t {
  kRoom = 0,     // something new needed the space
  kAsked = 1,    // `corpusctl evict`
  kExpired = 2,  // the corpus's time was over
  kRemoved = 3,  // `corpusctl rm`
};
std::string_view EvictionReasonText(EvictionReason reason);  // "room", "asked", ...

// A run of blocks of one corpus, [first_block, first_block + blocks), that left the disk tier.
struct EvictionNote {
  std::string corpus;  // its name then
  uint64_t corpus_id = 0;
  uint64_t first_block = 0;  // index in the corpus's chain
  uint64_t blocks = 0;
  uint64_t bytes = 0;   // of payload; what other corpora share of it stayed
  Digest first_digest;  // of block first_block: a text's chain is looked up by it
  int64_t when_ms = 0;  // Unix time
  EvictionReason reason = EvictionReason::kRoom;
  std::string detail;  // one sentence for people: who needed the room, at most 256 bytes
  bool operator==(const EvictionNote&) const = default;
};

inline constexpr size_t kEvictionNotesMax = 4096;
// Of one corpus; when there are more, the two farthest from its start become one.
inline constexpr size_t kEvictionNotesPerCorpus = 16;
inline constexpr size_t kEvictionDetailBytes = 256;

std::string EncodeEvictionNote(const EvictionNote& note);
// kCorruption for bytes that no EncodeEvictionNote made.
Result<EvictionNote> DecodeEvictionNote(std::string_view bytes);

}  // namespace corpusd
