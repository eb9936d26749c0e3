// Prefills that failed for a cause that may pass, and when a JobQueue tries them again.
#include <algorithm>

#include "daemon/corpus_update.h"
#include "daemon/jobs/job_queue.h"

namespace corpusd {
namespace {

// A disk that was full for a moment costs seconds; one that stays full, a look every 10 minutes.
constexpr int64_t kFirstWaitMs = 5'000;
constexpr int64_t kWaitMsMax = 600'000;

int64_t WaitMs(uint32_t failed_times) {
  return std::min(kWaitMsMax, kFirstWaitMs << std::min<uint32_t>(failed_times, 20));
}

}  // namespace

void JobQueue::SetRetry(JobRecord& record, const Status& failure) const {
  record.retry_at_ms = 0;
  // kUnavailable: a rank was lost; those that are left go on.
  const bool may_pass = failure.code() == StatusCode::kResourceExhausted ||
                        failure.code() == StatusCode::kIoError ||
                        failure.code() == StatusCode::kUnavailable;
  if (may_pass) record.retry_at_ms = now_ms_() + WaitMs(record.failed_times++);
}

bool JobQueue::MayRetry(const JobRecord& record) const {
  if (record.state != JobState::kFailed || record.retry_at_ms == 0) return false;
  if (FindActive(record.corpus) != nullptr) return false;
  const Result<CorpusRecord> corpus = store_.GetCorpus(record.corpus);
  return corpus.ok() && corpus->state == CorpusState::kFailed;
}

void JobQueue::DropRetries(std::string_view corpus) {
  for (auto& [id, entry] : jobs_) {
    if (entry.record.corpus != corpus || entry.record.retry_at_ms == 0) continue;
    entry.record.retry_at_ms = 0;
    Persist(entry.record);
  }
}

void JobQueue::RetryFailed() {
  std::lock_guard lock(mutex_);
  if (stopping_) return;
  for (auto& [id, entry] : jobs_) {
    JobRecord& record = entry.record;
    if (record.retry_at_ms == 0 || record.retry_at_ms > now_ms_()) continue;
    if (OpenJobs() >= options_.queued_max) return;
    if (!MayRetry(record)) {  // its corpus was removed, renamed or marked by somebody else
      DropRetries(record.corpus);
      continue;
    }
    JobRecord again = record;
    again.state = JobState::kQueued;
    again.retry_at_ms = 0;
    again.finished_at_ms = 0;
    MarkCorpus(again.corpus, CorpusState::kQueued, again.error);
    Enqueue(std::move(again));
  }
}

}  // namespace corpusd
