#include "daemon/jobs/maintenance.h"

#include "daemon/corpus_update.h"
#include "daemon/log.h"
#include "store/pin_ledger.h"

namespace corpusd {

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

}  // namespace corpusd
