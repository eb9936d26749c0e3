#include "daemon/jobs/maintenance.h"

#include <algorithm>

#include "daemon/corpus_update.h"
#include "daemon/log.h"
#include "store/pin_ledger.h"

namespace corpusd {

std::chrono::milliseconds UntilNextExpiry(const BlockStore& store, int64_t now_ms,
                                          std::chrono::milliseconds at_most) {
  int64_t wait_ms = at_most.count();
  for (const CorpusRecord& record : store.ListCorpora()) {
    for (const int64_t end : {record.expires_at_ms, record.pin ? record.pin->expires_at_ms : 0}) {
      // One already over waits for something else: a pin, a job.
      if (end > now_ms) wait_ms = std::min(wait_ms, end - now_ms);
    }
  }
  return std::chrono::milliseconds(std::max<int64_t>(wait_ms, 1000));
}

void WatchStore(BlockStore& store, JobQueue& jobs, int64_t now_ms) {
  const bool can_write = store.write_gate().TryOpen();
  const uint64_t passes = store.evictions().passes;
  if (const Status trimmed = can_write ? store.TrimDisk() : OkStatus(); !trimmed.ok()) {
    Log(LogLevel::kWarn, "disk_not_trimmed", {{"error", trimmed.message()}});
  }
  if (can_write) jobs.RetryFailed();
  if (const EvictionCounts evictions = store.evictions(); evictions.passes != passes) {
    Log(LogLevel::kInfo, "disk_evicted", {{"what", evictions.last_text}});
  }
  const size_t asked = store.leases().AskOverdue(now_ms);
  if (asked > 0) Log(LogLevel::kWarn, "leases_overdue", {{"readers", asked}});
}

MaintenanceReport ExpireCorpora(BlockStore& store, const JobQueue& jobs, int64_t now_ms) {
  MaintenanceReport report;
  for (const CorpusRecord& record : store.ListCorpora()) {
    const bool pinned = PinHolds(record, now_ms);
    const bool expired = record.expires_at_ms != 0 && record.expires_at_ms <= now_ms;
    if (expired && !pinned && !jobs.ActiveJob(record.name)) {
      const Status removed = store.RemoveCorpus(record.name);
      Log(removed.ok() ? LogLevel::kInfo : LogLevel::kWarn, "corpus_expired",
          {{"corpus", record.name}, {"error", removed.message()}});
      if (removed.ok()) ++report.removed_corpora;
    } else if (record.pin && !pinned) {
      const auto ended = UpdateCorpusRecord(store, record.name, [&](CorpusRecord& changed) {
        if (!PinHolds(changed, now_ms)) changed.pin.reset();
        return OkStatus();
      });
      if (ended.ok()) ++report.ended_pins;
    }
  }
  return report;
}

void ScrubWhenDue(const BlockStore& store, JobQueue& jobs, int64_t interval_ms,
                  uint64_t bytes_per_s, int64_t now_ms) {
  if (interval_ms == 0) return;
  int64_t last_ms = 0;
  for (const JobRecord& job : jobs.List()) {
    if (!job.scrub) continue;
    if (!IsFinished(job.state)) return;
    // Cancelled and failed ones too: who stopped it does not want it back at once.
    last_ms = std::max(last_ms, job.finished_at_ms);
  }
  if (now_ms - last_ms < interval_ms || store.ListCorpora().empty()) return;
  (void)jobs.SubmitScrub(bytes_per_s);  // refused only while the daemon stops
}

}  // namespace corpusd
