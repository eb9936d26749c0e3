#include "store/block_loader.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "store/base/clock.h"
#include "store/block_store.h"

namespace corpusd {
namespace {

// Questions are told apart; a prefill reads its history again with every run.
constexpr int64_t kQuestionMs = 500;
constexpr int64_t kPrefillMs = 60'000;

// Below about this, disks and PCIe fall off their bandwidth.
constexpr uint64_t kPieceBytes = uint64_t{768} << 10;
// A block that moves faster than it is read is not followed for ever.
constexpr int kMovesMax = 4;

bool IsDamage(const Status& status) {
  return status.code() == StatusCode::kCorruption || status.code() == StatusCode::kNotFound;
}

}  // namespace

struct BlockLoader::Arrival {
  Digest digest;
  ChainEntry entry;
  std::shared_ptr<HostBlock> block;
  uint64_t section_bytes = 0;
  uint32_t piece_sections = 1;
  std::vector<bool> claimed, ready;  // by piece
  size_t ready_pieces = 0;
  unsigned running = 0;   // threads that read a piece of it
  unsigned wanted = 0;    // prefetches that hold it
  bool finished = false;  // ref or status is final
  Status status;
  BlockRef ref;
  uint64_t device_bytes = 0;  // of it, from the device

  Arrival(const Digest& its_digest, const ChainEntry& its_entry, std::shared_ptr<HostBlock> memory,
          bool in_parts)
      : digest(its_digest),
        entry(its_entry),
        block(std::move(memory)),
        section_bytes(std::max<uint64_t>(1, entry.payload_bytes / entry.sections)),
        piece_sections(entry.sections) {
    const uint64_t wanted_sections = (kPieceBytes + section_bytes - 1) / section_bytes;
    if (in_parts && wanted_sections < entry.sections) {
      piece_sections = static_cast<uint32_t>(wanted_sections);
    }
    const size_t pieces = (entry.sections + piece_sections - 1) / piece_sections;
    claimed.resize(pieces);
    ready.resize(pieces);
  }
  bool HasSection(uint32_t section) const {
    if (finished) return status.ok();
    const size_t piece = section / piece_sections;
    return piece < ready.size() && ready[piece];
  }
};

class BlockLoader::Handle final : public BlockPrefetch {
 public:
  struct Item {
    Digest digest;
    BlockRef hit;
    ChainEntry entry;
    ArrivalPtr arrival;  // null: a hit, or broken from the start
    std::span<const std::byte> bytes;
    uint32_t tokens = 0;
    Status status;
  };

  Handle(BlockLoader& loader, const PrefetchOptions& options)
      : loader_(loader), options_(options), start_(SteadySeconds()) {}
  ~Handle() override {
    std::vector<ArrivalPtr> arrivals;
    for (const Item& item : items) {
      if (item.arrival != nullptr) arrivals.push_back(item.arrival);
    }
    loader_.Release(arrivals);
  }

  size_t blocks() const override { return items.size(); }
  std::span<const std::byte> bytes(size_t i) const override { return items[i].bytes; }
  uint32_t tokens(size_t i) const override { return items[i].tokens; }

  bool HasSection(uint32_t section) override {
    const std::lock_guard lock(loader_.mutex_);
    return std::all_of(items.begin(), items.end(),
                       [&](const Item& item) { return HasSectionLocked(item, section); });
  }

  Status WaitSection(uint32_t section) override {
    if (complete_) return OkStatus();
    const double begin = SteadySeconds();
    std::unique_lock lock(loader_.mutex_);
    for (const Item& item : items) {
      RETURN_IF_ERROR(WaitLocked(
          lock, [&] { return HasSectionLocked(item, section) || !StatusLocked(item).ok(); }));
      RETURN_IF_ERROR(StatusLocked(item));
    }
    waited_seconds_ += SteadySeconds() - begin;
    return OkStatus();
  }

  Result<std::vector<BlockRef>> Finish(FetchStats* stats) override;

  std::vector<Item> items;

 private:
  static bool HasSectionLocked(const Item& item, uint32_t section) {
    return item.hit.valid() || (item.arrival != nullptr && item.arrival->HasSection(section));
  }
  static const Status& StatusLocked(const Item& item) {
    return item.arrival != nullptr ? item.arrival->status : item.status;
  }
  Status WaitLocked(std::unique_lock<std::mutex>& lock, const std::function<bool()>& done);

  BlockLoader& loader_;
  const PrefetchOptions options_;
  const double start_;
  double waited_seconds_ = 0;
  bool complete_ = false;
};

Status BlockLoader::Handle::WaitLocked(std::unique_lock<std::mutex>& lock,
                                       const std::function<bool()>& done) {
  bool came = true;
  if (options_.deadline > 0) {
    const std::chrono::duration<double> left(options_.deadline - SteadySeconds());
    const auto until = std::chrono::steady_clock::now() +
                       std::chrono::duration_cast<std::chrono::steady_clock::duration>(left);
    came = loader_.arrived_.wait_until(lock, options_.stop, until, done);
  } else {
    came = loader_.arrived_.wait(lock, options_.stop, done);
  }
  if (came) return OkStatus();
  if (options_.stop.stop_requested()) return CancelledError("reading blocks was cancelled");
  return {StatusCode::kDeadlineExceeded, "blocks did not arrive before their deadline"};
}

Result<std::vector<BlockRef>> BlockLoader::Handle::Finish(FetchStats* stats) {
  const double begin = SteadySeconds();
  std::vector<BlockRef> refs(items.size());
  Status failed;
  std::unique_lock lock(loader_.mutex_);
  for (size_t i = 0; i < items.size(); ++i) {
    Item& item = items[i];
    if (item.arrival != nullptr) {
      RETURN_IF_ERROR(WaitLocked(lock, [&] { return item.arrival->finished; }));
      refs[i] = item.arrival->ref;
    } else {
      refs[i] = item.hit;
    }
    const Status& status = StatusLocked(item);
    if (refs[i].valid()) {
      // From disk, be it by the hand of another prefetch.
      const uint64_t device_bytes = item.arrival == nullptr ? 0 : item.arrival->device_bytes;
      (item.hit.valid() ? stats->host_bytes : stats->disk_bytes) +=
          refs[i].bytes().size() - device_bytes;
      stats->device_bytes += device_bytes;
    } else if (status.code() == StatusCode::kNotFound) {
      stats->missing.push_back(i);
    } else if (IsDamage(status)) {
      stats->damaged.push_back(i);
    } else {
      failed = status;
    }
  }
  RETURN_IF_ERROR(failed);
  complete_ = stats->missing.empty() && stats->damaged.empty();
  waited_seconds_ += SteadySeconds() - begin;
  stats->seconds += SteadySeconds() - start_;
  stats->waited_seconds += waited_seconds_;
  return refs;
}

Result<std::unique_ptr<BlockPrefetch>> BlockLoader::Prefetch(std::span<const Digest> digests,
                                                             const PrefetchOptions& options) {
  auto handle = std::make_unique<Handle>(*this, options);
  std::vector<size_t> absent;
  std::vector<Digest> absent_digests;
  host_.NoteUse(digests,
                options.priority == TransferPriority::kQuestion ? kQuestionMs : kPrefillMs);
  for (size_t i = 0; i < digests.size(); ++i) {
    Handle::Item& item = handle->items.emplace_back();
    item.digest = digests[i];
    item.hit = host_.Find(digests[i]);
    if (item.hit.valid()) continue;
    absent.push_back(i);
    absent_digests.push_back(digests[i]);
  }
  ASSIGN_OR_RETURN(const auto entries, source_.Entries(absent_digests));
  std::vector<size_t> wanted;
  for (size_t k = 0; k < absent.size(); ++k) {
    Handle::Item& item = handle->items[absent[k]];
    item.entry = entries[k];
    if (item.entry.references == 0) {
      item.status = NotFoundError("block " + item.digest.Hex().substr(0, 12) + " is not stored");
    } else if (item.entry.quarantined) {
      item.status = CorruptionError("block " + item.digest.Hex().substr(0, 12) + " is quarantined");
    } else {
      wanted.push_back(absent[k]);
    }
  }
  std::vector<ArrivalPtr> begun;
  RETURN_IF_ERROR(Claim(handle.get(), wanted, &begun));
  for (Handle::Item& item : handle->items) {
    if (!item.hit.valid()) continue;
    item.bytes = item.hit.bytes();
    item.tokens = item.hit.tokens();
  }
  Enqueue(begun, options.priority);
  return std::unique_ptr<BlockPrefetch>(std::move(handle));
}

Status BlockLoader::Claim(Handle* handle, std::span<const size_t> wanted,
                          std::vector<ArrivalPtr>* begun) {
  const std::lock_guard lock(mutex_);
  std::vector<HostTier::Request> requests;
  std::vector<Handle::Item*> fresh;
  const auto join = [&](Handle::Item& item, const ArrivalPtr& arrival) {
    item.arrival = arrival;
    item.bytes = arrival->block->bytes();
    item.tokens = arrival->entry.tokens;
    ++arrival->wanted;
  };
  for (const size_t i : wanted) {
    Handle::Item& item = handle->items[i];
    item.hit = host_.Find(item.digest);  // whoever was reading it may be done
    if (item.hit.valid()) continue;
    const auto it = arrivals_.find(item.digest);
    if (it != arrivals_.end()) {
      join(item, it->second);
      begun->push_back(it->second);  // enqueued again, perhaps at a higher priority
      continue;
    }
    fresh.push_back(&item);
    requests.push_back({item.digest, item.entry.tokens, item.entry.payload_bytes});
  }
  ASSIGN_OR_RETURN(auto blocks, host_.Reserve(requests));
  for (size_t k = 0; k < fresh.size(); ++k) {
    Handle::Item& item = *fresh[k];
    const auto [it, inserted] = arrivals_.try_emplace(item.digest);
    if (inserted) {  // else the digest is in the list twice
      it->second = std::make_shared<Arrival>(item.digest, item.entry, std::move(blocks[k]),
                                             source_.ReadsParts());
      begun->push_back(it->second);
    }
    join(item, it->second);
  }
  return OkStatus();
}

void BlockLoader::Enqueue(std::span<const ArrivalPtr> arrivals, TransferPriority priority) {
  size_t pieces = 0;
  for (const ArrivalPtr& arrival : arrivals) pieces = std::max(pieces, arrival->ready.size());
  std::vector<TransferQueue::Transfer> transfers;
  for (uint32_t piece = 0; piece < pieces; ++piece) {
    for (const ArrivalPtr& arrival : arrivals) {
      if (piece >= arrival->ready.size()) continue;
      transfers.push_back({arrival->piece_sections * arrival->section_bytes,
                           [this, arrival, piece] { RunPiece(arrival, piece); }});
    }
  }
  if (!transfers.empty()) queue_.Submit(priority, std::move(transfers));
}

void BlockLoader::RunPiece(const ArrivalPtr& arrival, uint32_t piece) {
  ChainEntry entry;
  std::shared_ptr<HostBlock> block;
  {
    const std::lock_guard lock(mutex_);
    if (arrival->finished || arrival->claimed[piece]) return;
    arrival->claimed[piece] = true;
    ++arrival->running;
    entry = arrival->entry;
    block = arrival->block;
  }
  const uint32_t first = piece * arrival->piece_sections;
  const uint32_t end = std::min(first + arrival->piece_sections, entry.sections);
  const auto source = ReadSections(arrival->digest, &entry, {first, end}, block->bytes());
  const Status& status = source.status();
  {
    const std::lock_guard lock(mutex_);
    arrival->entry.location = entry.location;
    --arrival->running;
    if (source.ok() && *source == TierKind::kDevice) {
      arrival->device_bytes += (end - first) * arrival->section_bytes;
    }
    block.reset();
    if (!arrival->finished) {
      arrival->ready[piece] = status.ok();
      arrival->ready_pieces += status.ok() ? 1 : 0;
      if (!status.ok() || arrival->ready_pieces == arrival->ready.size()) {
        FinishLocked(*arrival, status);
      }
    }
    DropUnwantedLocked(*arrival);
  }
  arrived_.notify_all();
}

Result<TierKind> BlockLoader::ReadSections(const Digest& digest, ChainEntry* entry,
                                           SectionRange range, std::span<std::byte> payload) {
  const std::string name = "block " + digest.Hex().substr(0, 12);
  for (int move = 0; move < kMovesMax; ++move) {
    auto source = source_.ReadSections(digest, *entry, range, payload);
    if (!IsDamage(source.status())) return source;
    ASSIGN_OR_RETURN(const auto now, source_.Entries({&digest, 1}));
    if (now.front().references == 0) return NotFoundError(name + " was removed");
    if (now.front().location == entry->location) {
      source_.Quarantine(digest, entry->location);
      return CorruptionError(source.status().message());
    }
    entry->location = now.front().location;
  }
  return UnavailableError(name + " keeps moving on disk: ask again");
}

void BlockLoader::FinishLocked(Arrival& arrival, const Status& status) {
  arrival.finished = true;
  arrival.status = status;
  if (status.ok()) arrival.ref = host_.Insert(arrival.block, arrival.entry.place);
  const auto it = arrivals_.find(arrival.digest);
  if (it != arrivals_.end() && it->second.get() == &arrival) arrivals_.erase(it);
}

void BlockLoader::DropUnwantedLocked(Arrival& arrival) {
  if (arrival.wanted > 0 || arrival.running > 0) return;
  if (!arrival.finished) FinishLocked(arrival, CancelledError("nobody waits for the block"));
  arrival.block.reset();
  arrival.ref = {};
}

void BlockLoader::Release(std::span<const ArrivalPtr> arrivals) {
  const std::lock_guard lock(mutex_);
  for (const ArrivalPtr& arrival : arrivals) {
    --arrival->wanted;
    DropUnwantedLocked(*arrival);
  }
}

}  // namespace corpusd
