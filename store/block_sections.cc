// Sections of stored blocks in turn, past the host tier.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "store/direct_file.h"
#include "store/durable_block_store.h"

namespace corpusd {
namespace {

// Of one slot: enough for a disk's bandwidth, little beside a model.
constexpr uint64_t kSlotBytes = uint64_t{32} << 20;
constexpr size_t kSlotBlocksMax = 256;
// Read by one transfer.
constexpr size_t kBlocksPerTransfer = 8;

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Of blocks that can all be read and are of one shape, that of `like` if there is one.
Result<std::vector<ChainEntry>> EntriesInTurn(const Catalog& catalog, std::span<const Digest> chain,
                                              const ChainEntry* like) {
  ASSIGN_OR_RETURN(auto entries, catalog.Entries(chain));
  for (const ChainEntry& entry : entries) {
    if (entry.references == 0) return NotFoundError("a block of the chain is not stored");
    if (entry.quarantined) return CorruptionError("a block of the chain is quarantined");
    if (like == nullptr) like = &entries.front();
    if (entry.payload_bytes != like->payload_bytes || entry.sections != like->sections) {
      return InvalidArgumentError("the blocks of the chain differ in size");
    }
  }
  return entries;
}

}  // namespace

class DurableBlockStore::Sections final : public SectionReader {
 public:
  Sections(DurableBlockStore& store, std::span<const Digest> chain, std::vector<ChainEntry> entries,
           size_t slot_blocks)
      : store_(store),
        chain_(chain.begin(), chain.end()),
        entries_(std::move(entries)),
        payload_bytes_(entries_.front().payload_bytes),
        stride_((payload_bytes_ + kDirectPage - 1) / kDirectPage * kDirectPage),
        slot_blocks_(slot_blocks) {
    reads_.entries = entries_.size();
    for (Slot& slot : slots_) {
      slot.memory = std::make_unique<PageBuffer>(slot_blocks_ * stride_ / kDirectPage);
    }
  }
  ~Sections() override {
    for (uint32_t slot = 0; slot < kSlots; ++slot) (void)Wait(slot);
  }

  size_t slot_blocks() const override { return slot_blocks_; }
  size_t blocks() const override { return chain_.size(); }

  Status Append(std::span<const Digest> chain) override {
    ASSIGN_OR_RETURN(const auto more, EntriesInTurn(*store_.catalog_, chain, &entries_.front()));
    const std::lock_guard lock(mutex_);
    for (const Slot& slot : slots_) CHECK(slot.running == 0) << "a slot is being filled";
    chain_.insert(chain_.end(), chain.begin(), chain.end());
    entries_.insert(entries_.end(), more.begin(), more.end());
    reads_.entries += more.size();
    return OkStatus();
  }

  SectionReads reads() const override {
    const std::lock_guard lock(mutex_);
    return reads_;
  }

  void Begin(uint32_t slot, size_t first, size_t count, uint32_t section) override {
    CHECK(count <= slot_blocks_ && first + count <= chain_.size()) << first << " + " << count;
    std::vector<TransferQueue::Transfer> transfers;
    const uint64_t section_bytes = payload_bytes_ / entries_.front().sections;
    {
      const std::lock_guard lock(mutex_);
      CHECK(slots_[slot].running == 0) << "the slot is being filled";
      reads_.bytes += count * section_bytes;
      slots_[slot].status = OkStatus();
      slots_[slot].begun = Clock::now();
      for (size_t i = 0; i < count; i += kBlocksPerTransfer) {
        const size_t end = std::min(i + kBlocksPerTransfer, count);
        transfers.push_back({(end - i) * section_bytes, [this, slot, first, i, end, section] {
                               Fill(slot, first, i, end, section);
                             }});
        ++slots_[slot].running;
      }
    }
    store_.transfers_.Submit(TransferPriority::kBackground, std::move(transfers));
  }

  Status Wait(uint32_t slot) override {
    std::unique_lock lock(mutex_);
    const auto start = Clock::now();
    filled_.wait(lock, [&] { return slots_[slot].running == 0; });
    reads_.waited_seconds += SecondsSince(start);
    return slots_[slot].status;
  }

  const std::byte* block(uint32_t slot, size_t i) const override {
    return slots_[slot].memory->data_at(i * stride_);
  }

 private:
  struct Slot {
    std::unique_ptr<PageBuffer> memory;
    size_t running = 0;  // transfers
    Clock::time_point begun;
    Status status;
  };

  void Fill(uint32_t slot, size_t first, size_t begin, size_t end, uint32_t section) {
    Status status;
    for (size_t i = begin; i < end && status.ok(); ++i) {
      const auto payload =
          std::span(slots_[slot].memory->bytes()).subspan(i * stride_, payload_bytes_);
      // Each block by one thread at a time: an entry may follow a block that is moved.
      status = store_.loader_.ReadChecked(chain_[first + i], &entries_[first + i],
                                          {section, section + 1}, payload);
    }
    const std::lock_guard lock(mutex_);
    if (!status.ok()) slots_[slot].status = status;
    if (--slots_[slot].running == 0) reads_.read_seconds += SecondsSince(slots_[slot].begun);
    filled_.notify_all();  // under the lock: who waits may be the destructor
  }

  DurableBlockStore& store_;
  std::vector<Digest> chain_;
  std::vector<ChainEntry> entries_;
  const uint64_t payload_bytes_, stride_;
  const size_t slot_blocks_;
  mutable std::mutex mutex_;
  SectionReads reads_;
  std::condition_variable filled_;
  Slot slots_[kSlots];
};

Result<std::unique_ptr<SectionReader>> DurableBlockStore::ReadInTurn(
    std::span<const Digest> chain) {
  ASSIGN_OR_RETURN(auto entries, EntriesInTurn(*catalog_, chain, nullptr));
  if (entries.empty()) return InvalidArgumentError("there is no block to read");
  // Whole parts of attention: a multiple of four blocks.
  const uint64_t slot_bytes = std::min(kSlotBytes, host_.capacity_bytes() / 8);
  const uint64_t fit = slot_bytes / entries.front().payload_bytes / 4 * 4;
  const size_t blocks = std::clamp<uint64_t>(fit, 4, kSlotBlocksMax);
  return std::unique_ptr<SectionReader>(
      std::make_unique<Sections>(*this, chain, std::move(entries), blocks));
}

SectionSource* SectionSourceOf(BlockStore* store) { return dynamic_cast<SectionSource*>(store); }

}  // namespace corpusd
