// daemon/jobs/job_record.h -- JobRecord: what is known about one job, and how it is kept: a JSON
// object under the job's id in the store, so that a later version may add fields. Plain data; any
// thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "daemon/jobs/scrub_state.h"
#include "store/base/result.h"

namespace corpusd {

enum class JobState : uint8_t { kQueued, kRunning, kDone, kFailed, kCancelled };
std::string_view JobStateText(JobState state);  // "queued", ...
inline bool IsFinished(JobState state) {
  return state != JobState::kQueued && state != JobState::kRunning;
}

struct JobRecord {
  uint64_t id = 0;
  std::string kind = "prefill";
  std::string corpus;  // of a scrub: empty, for it goes over all
  JobState state = JobState::kQueued;
  uint64_t done_tokens = 0;  // durable
  uint64_t total_tokens = 0;
  uint64_t reused_tokens = 0;  // found in the store, not computed
  uint64_t written_bytes = 0;
  double tokens_per_s = 0;  // while it runs: of late; afterwards: over the whole run
  double eta_s = -1;        // < 0: unknown
  std::string error;        // why it failed
  int64_t created_at_ms = 0;
  int64_t started_at_ms = 0;  // of the latest run; 0: never ran
  int64_t finished_at_ms = 0;
  uint32_t resumed_times = 0;       // runs that a restart cut off
  uint32_t failed_times = 0;        // runs that failed for a cause that may pass
  int64_t retry_at_ms = 0;          // of a failed one: tried again then at the earliest; 0: not
  bool cancel_asked = false;        // by a user: a restart does not take it up again
  std::optional<ScrubState> scrub;  // of a scrub
};

std::string EncodeJob(const JobRecord& job);
// kCorruption if the text is no job of ours.
Result<JobRecord> DecodeJob(std::string_view text);

}  // namespace corpusd
