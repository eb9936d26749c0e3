// store/pin_ledger.h -- PinLedger: what the pins of all corpora hold, and whether one more fits.
// A pin is charged to its owner with the disk that its corpus takes once it is whole, so a promise
// stands while a prefill goes on; a block that two pinned corpora share is charged to both, for
// each promise holds by itself. A value, filled from records; one thread at a time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "store/base/result.h"
#include "store/block_ref.h"
#include "store/corpus_record.h"

namespace corpusd {

struct PinLimits {
  uint64_t owner_bytes = 0;   // of all pins of one owner; 0: no limit
  uint64_t total_bytes = 0;   // of all pins; 0: nine tenths of disk_bytes
  uint64_t host_bytes = 0;    // capacity of the host tier
  uint64_t disk_bytes = 0;    // capacity of the disk tier
  uint64_t device_bytes = 0;  // capacity of the device tier; 0: there is none
  uint64_t TotalBytes() const { return total_bytes == 0 ? disk_bytes / 10 * 9 : total_bytes; }
};

// Whether the record's pin holds at this time.
bool PinHolds(const CorpusRecord& record, int64_t now_ms);
// Of one stored block, rounded up: its header, and the padding to whole pages of the disk.
inline constexpr uint64_t kPinnedBlockOverheadBytes = 8192;
// Bytes on disk that a pin of the corpus is charged with, headers and padding included.
uint64_t PinCharge(const CorpusRecord& record);

class PinLedger {
 public:
  struct Entry {
    uint64_t corpus_id = 0;
    std::string corpus;
    std::string owner;
    TierKind tier = TierKind::kDisk;
    uint64_t bytes = 0;         // charged, on disk
    uint64_t host_bytes = 0;    // of memory, if the pin is of the host tier
    uint64_t device_bytes = 0;  // of its memory, if the pin is of the device tier
  };
  struct Holding {
    std::string owner;
    uint64_t pins = 0;
    uint64_t bytes = 0;
  };

  explicit PinLedger(int64_t now_ms) : now_ms_(now_ms) {}
  // Enters the record's pin if it has one that holds.
  void Add(const CorpusRecord& record);

  // By owner, who holds most first.
  std::vector<Holding> Holdings() const;
  uint64_t TotalBytes() const;
  // kResourceExhausted unless the record's pin fits beside those of the other corpora; the message
  // says who holds what, the largest first. Ok for a record without a pin that holds.
  Status CheckFits(const CorpusRecord& record, const PinLimits& limits) const;

 private:
  Entry MakeEntry(const CorpusRecord& record) const;

  int64_t now_ms_;
  std::vector<Entry> entries_;
};

// The pin's owner as messages name it.
std::string PinOwnerText(const std::string& owner);

}  // namespace corpusd
