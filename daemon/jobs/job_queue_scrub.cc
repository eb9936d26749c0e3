// The scrubs of a JobQueue: on a thread of their own, so that no prefill waits for one.
#include <exception>
#include <string>

#include "daemon/jobs/job_queue.h"
#include "daemon/jobs/scrub_pass.h"
#include "daemon/log.h"

namespace corpusd {
namespace {

using std::chrono::steady_clock;

// So much work is done again after a crash.
constexpr std::chrono::seconds kPersistInterval{5};

void LogScrub(const JobRecord& job) {
  const ScrubState& scrub = *job.scrub;
  const bool whole = scrub.damaged + scrub.missing + scrub.contradictions == 0;
  Log(whole && job.error.empty() ? LogLevel::kInfo : LogLevel::kWarn, "scrub",
      {{"job", job.id},
       {"state", JobStateText(job.state)},
       {"blocks", scrub.blocks},
       {"bytes", scrub.bytes},
       {"damaged", scrub.damaged},
       {"missing", scrub.missing},
       {"repaired", scrub.repaired},
       {"contradictions", scrub.contradictions},
       {"error", job.error}});
}

}  // namespace

Result<JobRecord> JobQueue::SubmitScrub(uint64_t bytes_per_s) {
  std::lock_guard lock(mutex_);
  if (stopping_) return UnavailableError("the daemon is stopping; try again when it runs");
  for (const auto& [id, entry] : jobs_) {
    if (entry.record.scrub && !IsFinished(entry.record.state)) return entry.record;
  }
  JobRecord record;
  record.id = next_id_++;
  record.kind = "scrub";
  record.created_at_ms = now_ms_();
  record.scrub = ScrubState{};
  record.scrub->bytes_per_s = bytes_per_s;
  Enqueue(record);
  return record;
}

std::optional<JobRecord> JobQueue::LastScrub() const {
  std::lock_guard lock(mutex_);
  const Entry* const last = LastDoneScrub();
  if (last == nullptr) return std::nullopt;
  return last->record;
}

const JobQueue::Entry* JobQueue::LastDoneScrub() const {
  const Entry* last = nullptr;
  for (const auto& [id, entry] : jobs_) {
    if (entry.record.scrub && entry.record.state == JobState::kDone) last = &entry;
  }
  return last;
}

void JobQueue::RunScrub(std::unique_lock<std::mutex>& lock, uint64_t id) {
  Entry& entry = jobs_.at(id);  // stays: only finished jobs are pruned
  entry.record.state = JobState::kRunning;
  entry.record.started_at_ms = now_ms_();
  Persist(entry.record);
  Tell(entry, true);
  ScrubState state = *entry.record.scrub;
  const std::stop_token stop = entry.stop.get_token();
  lock.unlock();

  RateMeter rate;
  auto persisted_at = steady_clock::now();
  rate.Add(persisted_at, state.blocks);
  const auto on_progress = [&] {
    const auto now = steady_clock::now();
    rate.Add(now, state.blocks);
    std::lock_guard progress_lock(mutex_);
    entry.record.scrub = state;
    entry.record.eta_s =
        rate.SecondsFor(state.total_blocks - std::min(state.blocks, state.total_blocks));
    if (now - persisted_at >= kPersistInterval) {
      persisted_at = now;
      Persist(entry.record);
    }
    Tell(entry, false);
  };
  Status status;
  try {
    status = ScrubPass(store_, engine_, options_.yield).Run(&state, on_progress, stop);
  } catch (const std::exception& error) {  // out of memory: the root of this thread
    status = InternalError(std::string("the scrub failed: ") + error.what());
  }

  lock.lock();
  entry.record.scrub = state;
  if (status.ok()) {
    Finish(entry, JobState::kDone, "");
  } else if (entry.record.cancel_asked) {
    Finish(entry, JobState::kCancelled, "");
  } else if (stopping_ && status.code() == StatusCode::kCancelled) {
    entry.record.state = JobState::kQueued;
    Persist(entry.record);
    Tell(entry, true);
  } else {
    Finish(entry, JobState::kFailed, status.ToString());
  }
  LogScrub(entry.record);
}

}  // namespace corpusd
