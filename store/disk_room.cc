// What makes room in the disk tier by policy: for a publish that meets the cap, in the background
// above the high watermark, and when an admin asks. Plans by disk_eviction.h, then cuts one corpus
// after the other, each in one durable batch, so that a crash leaves whole records and less work.
#include <algorithm>
#include <limits>
#include <tuple>
#include <unordered_set>

#include "store/base/clock.h"
#include "store/base/fault_point.h"
#include "store/base/units.h"
#include "store/durable_block_store.h"
#include "store/pin_ledger.h"
#include "store/tenant_of.h"

namespace corpusd {
namespace {

// A corpus that is neither ready nor a job's, but got blocks this lately, is being imported.
constexpr int64_t kImportPatienceMs = 60'000;
// Uses of corpora of which nothing is remembered lie so far apart, in turnovers of the tier.
constexpr double kSeedTurn = 1.0 / 32;

// With the parts, which go first, if those are all of its blocks.
uint64_t BytesOf(const CorpusRecord& record, uint64_t blocks) {
  const uint64_t parts = blocks == record.chain.size() ? HeldPartBytes(record) : 0;
  return blocks * (record.block_bytes + kPinnedBlockOverheadBytes) + parts;
}

bool Expired(const CorpusRecord& record, int64_t now_ms) {
  return record.expires_at_ms != 0 && record.expires_at_ms <= now_ms;
}

// What a use saves: seconds of prefill per MiB. A corpus whose cost is not known, since its blocks
// were found or imported, counts as an average one.
double UseWeight(const CorpusRecord& record) {
  const double mebibytes = static_cast<double>(BytesOf(record, record.chain.size())) / (1 << 20);
  if (record.prefill_seconds <= 0 || mebibytes <= 0) return 1;
  return record.prefill_seconds / mebibytes;
}

std::string WhyText(const CorpusRecord& record, bool expired, int64_t now_ms) {
  if (expired) return "expired " + AgeText(now_ms - record.expires_at_ms) + " ago";
  std::string text = "priority " + std::string(PriorityText(record.priority));
  text += record.last_used_at_ms != 0
              ? ", last asked " + AgeText(now_ms - record.last_used_at_ms) + " ago"
              : ", never asked, made " + AgeText(now_ms - record.created_at_ms) + " ago";
  const auto prefill_ms = static_cast<int64_t>(record.prefill_seconds * 1000);
  if (prefill_ms >= 1000) text += ", " + AgeText(prefill_ms) + " to compute";
  return text;
}

std::string RoomText(const EvictPlan& plan, size_t corpora, const std::string& what) {
  return std::to_string(corpora) + (corpora == 1 ? " corpus, " : " corpora, ") +
         FormatBytes(plan.bytes) +
         (what.empty()             ? ""
          : TenantOf(what).empty() ? ", for corpus '" + what + "'"
                                   : ", for a tenant");
}

// A tenant has a promise: only its own corpora go for it, and those of nobody's.
bool MayGoFor(const CorpusRecord* room, const CorpusRecord& record, int64_t now_ms) {
  const std::string_view tenant = TenantOf(record.name);
  return room == nullptr || tenant.empty() || tenant == TenantOf(room->name) ||
         Expired(record, now_ms);
}

}  // namespace

void DurableBlockStore::SeedHeat() {
  double turn = 0;
  for (const auto& [id, heat] : catalog_->heats()) turn = std::max(turn, heat.turn);
  std::vector<const CorpusRecord*> unknown;
  for (const auto& [name, record] : catalog_->records()) {
    if (!catalog_->heats().contains(record.id)) unknown.push_back(&record);
  }
  const auto used = [](const CorpusRecord* record) {
    return std::max(record->last_used_at_ms, record->created_at_ms);
  };
  std::sort(unknown.begin(), unknown.end(),
            [&](const auto* a, const auto* b) { return used(a) < used(b); });
  for (const CorpusRecord* record : unknown) {
    disk_policy_.SetTurn(turn);
    seeded_heats_[record->id] = UseLocked(*record, /*correlated_ms=*/0);
    turn += kSeedTurn;
  }
  disk_policy_.SetTurn(turn);
}

Heat DurableBlockStore::HeatOfLocked(uint64_t corpus_id) const {
  const auto known = catalog_->heats().find(corpus_id);
  if (known != catalog_->heats().end()) return known->second;
  const auto seeded = seeded_heats_.find(corpus_id);
  return seeded == seeded_heats_.end() ? Heat{} : seeded->second;
}

Heat DurableBlockStore::UseLocked(const CorpusRecord& record, int64_t correlated_ms) {
  const uint64_t bytes = BytesOf(record, std::max(record.whole_blocks, record.chain.size()));
  return disk_policy_.Use(
      {record.id, /*position=*/0, bytes, UseWeight(record), correlated_ms, WallTimeMs()},
      HeatOfLocked(record.id));
}

std::vector<EvictableCorpus> DurableBlockStore::EvictableLocked(const CorpusRecord* room,
                                                                EvictPlan* plan) const {
  const int64_t now_ms = WallTimeMs();
  const std::vector<Digest> held = leases_.HeldDigests();
  const std::unordered_set<Digest, DigestHash> leased(held.begin(), held.end());
  std::vector<EvictableCorpus> corpora;
  for (const auto& [name, record] : catalog_->records()) {
    const SharedVector<Digest>& chain = record.chain;
    if (chain.empty()) continue;
    const auto published = published_ms_.find(record.id);
    const bool importing =
        record.state != CorpusState::kReady && record.state != CorpusState::kEvicted &&
        published != published_ms_.end() && now_ms - published->second < kImportPatienceMs;
    if (!MayGoFor(room, record, now_ms)) continue;
    if (PinHolds(record, now_ms)) {
      plan->pinned_bytes += BytesOf(record, chain.size());
    } else if ((room != nullptr && record.id == room->id) || importing ||
               record.state == CorpusState::kQueued || record.state == CorpusState::kPrefilling) {
      plan->busy_bytes += BytesOf(record, chain.size());
    } else {
      EvictableCorpus corpus;
      corpus.record = &record;
      corpus.rank = disk_policy_.Rank(HeatOfLocked(record.id));
      corpus.expired = Expired(record, now_ms);
      corpus.why = WhyText(record, corpus.expired, now_ms);
      if (!leased.empty()) {
        const auto last = std::find_if(chain.rbegin(), chain.rend(),
                                       [&](const Digest& d) { return leased.contains(d); });
        corpus.keep_blocks = static_cast<uint64_t>(chain.rend() - last);
        plan->leased_bytes += BytesOf(record, corpus.keep_blocks);
      }
      corpora.push_back(std::move(corpus));
    }
  }
  return corpora;
}

Result<EvictPlan> DurableBlockStore::PlanEvictionLocked(uint64_t bytes, const CorpusRecord* room,
                                                        std::optional<uint32_t> shelf) const {
  EvictPlan held;
  const auto corpora = EvictableLocked(room, &held);
  const ChainReader entries =
      [&](std::span<const Digest> digests) -> Result<std::vector<ChainEntry>> {
    ASSIGN_OR_RETURN(auto found, catalog_->Entries(digests));
    for (ChainEntry& entry : found) {
      if (shelf && ShelfOf(entry.location.extent) != *shelf) entry.payload_bytes = 0;
    }
    return found;
  };
  ASSIGN_OR_RETURN(EvictPlan plan,
                   PlanDiskEviction(corpora, entries, bytes,
                                    {options_.evict_run_blocks, options_.block_tokens}));
  plan.pinned_bytes = held.pinned_bytes;
  plan.busy_bytes = held.busy_bytes;
  plan.leased_bytes = held.leased_bytes;
  return plan;
}

Status DurableBlockStore::ExecuteLocked(EvictPlan* plan, EvictionReason reason,
                                        const std::string& what) {
  EvictPlan done = *plan;
  done.steps.clear();
  done.bytes = 0;
  Status status;
  uint64_t blocks = 0;
  for (EvictStep& step : plan->steps) {
    const CorpusRecord* const current = catalog_->Find(step.corpus);
    if (current == nullptr || current->id != step.corpus_id) continue;
    const CorpusRecord record = *current;
    std::string detail = step.why;
    const bool same = TenantOf(what) == TenantOf(record.name);
    if (!what.empty()) {
      detail = (same ? "for corpus '" + what + "'" : std::string("for a tenant")) + "; " + detail;
    }
    auto cut = CutTailLocked(record, step.keep_blocks,
                             step.expired ? EvictionReason::kExpired : reason, std::move(detail));
    if (!cut.ok()) {
      status = cut.status();
      break;
    }
    blocks += cut->blocks;
    step.bytes = cut->bytes;
    done.bytes += cut->bytes;
    done.steps.push_back(std::move(step));
    (void)FaultPoint("evict.step");  // for crashes
  }
  *plan = std::move(done);
  if (plan->steps.empty()) return status;
  ++evictions_.passes;
  evictions_.corpora += plan->steps.size();
  evictions_.blocks += blocks;
  evictions_.bytes += plan->bytes;
  evictions_.last_ms = WallTimeMs();
  evictions_.last_text = RoomText(*plan, plan->steps.size(), what);
  return status;
}

Result<DurableBlockStore::DiskSpace> DurableBlockStore::SpaceOf(uint32_t shelf) const {
  if (shelf == 0) return DiskSpace{options_.disk_bytes, DiskRoomBytes(), DiskUsedBytes()};
  ASSIGN_OR_RETURN(const ShelfUsage usage, payload_->UsageOfShelf(shelf));
  return DiskSpace{usage.capacity_bytes, usage.capacity_bytes, usage.used_bytes};
}

Status DurableBlockStore::MakeRoom(uint64_t needed_bytes, const CorpusRecord& record,
                                   const std::string& what, uint32_t shelf) {
  if (!options_.evict_disk) return OkStatus();
  const std::lock_guard one(evict_mutex_);
  ASSIGN_OR_RETURN(const DiskSpace space, SpaceOf(shelf));
  const uint64_t room = space.room_bytes;
  const uint64_t high = std::min(room, space.capacity_bytes / 100 * options_.disk_high_percent);
  const uint64_t low = std::min(high, space.capacity_bytes / 100 * options_.disk_low_percent);
  const uint64_t wanted = space.used_bytes + needed_bytes;
  if (wanted <= high) return OkStatus();
  const uint64_t must_go = wanted > room ? wanted - room : 0;
  EvictPlan plan;
  {
    const std::lock_guard lock(mutex_);
    // What the whole corpus will need, so that one too large for the tier takes nobody's place on
    // its way to that refusal.
    const uint64_t more =
        BytesOf(record, record.whole_blocks - std::min(record.whole_blocks, record.chain.size())) /
        (payload_->ShelvesThere().size() + 1);
    uint64_t evictable = 0;
    if (options_.shelves > 0) {
      ASSIGN_OR_RETURN(plan, PlanEvictionLocked(UINT64_MAX, &record, shelf));
      evictable = plan.bytes;
    } else {
      for (const EvictableCorpus& corpus : EvictableLocked(&record, &plan)) {
        evictable += BytesOf(*corpus.record, corpus.record->chain.size() - corpus.keep_blocks);
      }
    }
    const uint64_t stays = wanted - needed_bytes - std::min(wanted - needed_bytes, evictable);
    const bool trims = needed_bytes == 0;  // for nobody: as far as it goes
    const bool hopeless = !trims && stays + std::max(more, needed_bytes) > room;
    if (!hopeless) {
      ASSIGN_OR_RETURN(plan, PlanEvictionLocked(wanted - low, &record, shelf));
    }
    if (hopeless || (!trims && plan.bytes < must_go)) {
      if (must_go == 0) return OkStatus();
      ++evictions_.refusals;
      return ResourceExhaustedError(
          "the disk tier" + (shelf == 0 ? "" : " of rank " + std::to_string(shelf)) +
          " is full: " + FormatBytes(wanted - needed_bytes) + " of " +
          FormatBytes(space.capacity_bytes) + " are used, " +
          FormatBytes(std::max(more, needed_bytes)) + " more are needed, and of what is there " +
          FormatBytes(hopeless ? evictable : plan.bytes) +
          " may be evicted: " + FormatBytes(plan.pinned_bytes) + " are pinned, " +
          FormatBytes(plan.busy_bytes) + " are being prefilled, " + FormatBytes(plan.leased_bytes) +
          " are being read: raise --disk-bytes, unpin or remove a corpus");
    }
    RETURN_IF_ERROR(ExecuteLocked(&plan, EvictionReason::kRoom, what));
  }
  ReclaimSpace();
  return OkStatus();
}

Status DurableBlockStore::TrimDisk() {
  Status status = MakeRoom(0, {}, "");
  for (const uint32_t shelf : payload_->ShelvesThere()) {
    // One that went away meanwhile needs no room.
    const Status trimmed = MakeRoom(0, {}, "", shelf);
    if (status.ok() && trimmed.code() != StatusCode::kUnavailable) status = trimmed;
  }
  return status;
}

EvictionCounts DurableBlockStore::evictions() const {
  const std::lock_guard lock(mutex_);
  return evictions_;
}

EvictPlan DurableBlockStore::EvictFromMemory(TierKind from, uint64_t bytes, bool dry_run) {
  EvictPlan plan;
  std::vector<CorpusRecord> records;
  std::vector<EvictionCandidate> candidates;
  std::vector<std::string> why;
  const int64_t now_ms = WallTimeMs();
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, record] : catalog_->records()) {
      const bool expired = Expired(record, now_ms);
      EvictionCandidate candidate;
      candidate.rank = disk_policy_.Rank(HeatOfLocked(record.id));
      candidate.priority = expired ? -1 : static_cast<int32_t>(record.priority);
      candidate.pinned = PinHolds(record, now_ms) && record.pin->tier == static_cast<uint8_t>(from);
      if (candidate.pinned) plan.pinned_bytes += BytesOf(record, record.chain.size());
      candidates.push_back(candidate);
      why.push_back(WhyText(record, expired, now_ms));
      records.push_back(record);
    }
  }
  for (const size_t i : LeavingOrder(candidates)) {
    if (plan.bytes >= bytes) break;
    const CorpusRecord& record = records[i];
    const auto [blocks, freed] = from == TierKind::kDevice
                                     ? device_->table().Drop(AllDigests(record), dry_run)
                                     : host_.Drop(AllDigests(record), dry_run);
    if (blocks == 0) continue;
    plan.steps.push_back({record.name, record.id, record.chain.size(), blocks, freed,
                          candidates[i].priority < 0, why[i]});
    plan.bytes += freed;
  }
  return plan;
}

Result<EvictPlan> DurableBlockStore::EvictByPolicy(TierKind from, uint64_t bytes, bool dry_run) {
  if (from == TierKind::kDevice && device_ == nullptr) {
    return InvalidArgumentError("this daemon has no device tier to evict from");
  }
  if (from != TierKind::kDisk) return EvictFromMemory(from, bytes, dry_run);
  const std::lock_guard one(evict_mutex_);
  EvictPlan plan;
  {
    const std::lock_guard lock(mutex_);
    ASSIGN_OR_RETURN(plan, PlanEvictionLocked(bytes, /*room=*/nullptr, /*shelf=*/{}));
    if (dry_run) return plan;
    RETURN_IF_ERROR(ExecuteLocked(&plan, EvictionReason::kAsked, ""));
  }
  ReclaimSpace();
  return plan;
}

}  // namespace corpusd
