#include "daemon/jobs/job_queue.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "daemon/corpus_update.h"
#include "daemon/log.h"

namespace corpusd {
namespace {

void LogJob(const JobRecord& job) {
  const bool bad = job.state == JobState::kFailed;
  Log(bad ? LogLevel::kError : LogLevel::kInfo, "job",
      {{"id", job.id},
       {"kind", job.kind},
       {"corpus", job.corpus},
       {"state", JobStateText(job.state)},
       {"done_tokens", job.done_tokens},
       {"total_tokens", job.total_tokens},
       {"reused_tokens", job.reused_tokens},
       {"tokens_per_s", job.tokens_per_s},
       {"resumed_times", job.resumed_times},
       {"error", job.error}});
}

}  // namespace

JobQueue::JobQueue(Engine& engine, BlockStore& store, const JobQueueOptions& options, NowMs now_ms)
    : engine_(engine), store_(store), options_(options), now_ms_(std::move(now_ms)) {}

JobQueue::~JobQueue() { Stop(); }

JobQueue::Place::~Place() {
  if (queue_ == nullptr) return;
  std::lock_guard lock(queue_->mutex_);
  --queue_->reserved_;
}

void JobQueue::Start() {
  {
    std::lock_guard lock(mutex_);
    LoadStored();
  }
  thread_ = std::jthread([this] { Work(queue_); });
  scrub_thread_ = std::jthread([this] { Work(scrubs_); });
}

void JobQueue::RequestStop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    for (auto& [id, entry] : jobs_) {
      if (!IsFinished(entry.record.state)) entry.stop.request_stop();
    }
  }
  changed_.notify_all();
}

void JobQueue::Stop() {
  RequestStop();
  for (std::jthread* thread : {&thread_, &scrub_thread_}) {
    if (thread->joinable()) thread->join();
  }
}

void JobQueue::LoadStored() {
  std::vector<JobRecord> unfinished;
  for (const auto& [id, text] : store_.ListJobs()) {
    next_id_ = std::max(next_id_, id + 1);
    Result<JobRecord> decoded = DecodeJob(text);
    if (!decoded.ok()) {
      Log(LogLevel::kWarn, "job_dropped", {{"id", id}, {"error", decoded.status().message()}});
      (void)store_.RemoveJob(id);
      continue;
    }
    decoded->id = id;
    if (!IsFinished(decoded->state) || MayRetry(*decoded)) unfinished.push_back(*decoded);
    jobs_[id].record = *std::move(decoded);
  }
  for (JobRecord& record : unfinished) {
    Entry& entry = jobs_[record.id];
    if (record.scrub && record.cancel_asked) {
      Finish(entry, JobState::kCancelled, "");
      continue;
    }
    if (record.scrub) {
      if (record.started_at_ms != 0) ++record.resumed_times;
      record.state = JobState::kQueued;
      Enqueue(std::move(record));
      continue;
    }
    const Result<CorpusRecord> corpus = store_.GetCorpus(record.corpus);
    if (record.cancel_asked) {  // the daemon died before the job had ended
      if (corpus.ok()) MarkCorpus(record.corpus, CorpusState::kCancelled, "");
      Finish(entry, JobState::kCancelled, "");
    } else if (!corpus.ok()) {
      Finish(entry, JobState::kFailed, corpus.status().ToString());
    } else if (corpus->state == CorpusState::kReady) {
      entry.record.done_tokens = corpus->tokens;
      Finish(entry, JobState::kDone, "");
    } else {
      const bool cut_off = record.state != JobState::kFailed && record.started_at_ms != 0;
      if (cut_off) ++record.resumed_times;
      record.state = JobState::kQueued;
      record.retry_at_ms = 0;
      record.finished_at_ms = 0;
      record.done_tokens = corpus->durable_tokens;
      Enqueue(std::move(record));
    }
  }
  for (const CorpusRecord& corpus : store_.ListCorpora()) {
    const bool waits = corpus.state == CorpusState::kQueued ||
                       corpus.state == CorpusState::kPrefilling ||
                       corpus.state == CorpusState::kFailed;
    if (!waits || FindActive(corpus.name) != nullptr) continue;
    JobRecord record;
    record.id = next_id_++;
    record.corpus = corpus.name;
    record.total_tokens = corpus.tokens;
    record.done_tokens = corpus.durable_tokens;
    record.created_at_ms = now_ms_();
    Enqueue(std::move(record));
  }
  Prune();
}

void JobQueue::Enqueue(JobRecord record) {
  const uint64_t id = record.id;
  if (!record.scrub) DropRetries(record.corpus);
  Entry& entry = jobs_[id];
  entry.record = std::move(record);
  (entry.record.scrub ? scrubs_ : queue_).push_back(id);
  Persist(entry.record);
  LogJob(entry.record);
  changed_.notify_all();
}

size_t JobQueue::OpenJobs() const {
  size_t open = reserved_;
  for (const auto& [id, entry] : jobs_) open += IsFinished(entry.record.state) ? 0 : 1;
  return open;
}

Result<JobQueue::Place> JobQueue::Reserve() {
  std::lock_guard lock(mutex_);
  if (stopping_) return UnavailableError("the daemon is stopping; try again when it runs");
  const size_t open = OpenJobs();
  if (open >= options_.queued_max) {
    return UnavailableError(std::to_string(open) + " jobs wait already, the limit is " +
                            std::to_string(options_.queued_max) + "; try again later");
  }
  ++reserved_;
  return Place(this);
}

JobRecord JobQueue::SubmitPrefill(std::string_view corpus, Place place) {
  const Result<CorpusRecord> stored = store_.GetCorpus(corpus);
  std::lock_guard lock(mutex_);
  place.queue_ = nullptr;
  --reserved_;
  if (const Entry* const active = FindActive(corpus); active != nullptr) return active->record;
  JobRecord record;
  record.id = next_id_++;
  record.corpus = corpus;
  record.created_at_ms = now_ms_();
  if (stored.ok()) {
    record.total_tokens = stored->tokens;
    record.done_tokens = stored->durable_tokens;
  }
  Enqueue(record);
  return record;
}

Result<JobRecord> JobQueue::Get(uint64_t id) const {
  std::lock_guard lock(mutex_);
  const auto job = jobs_.find(id);
  if (job == jobs_.end()) return NotFoundError("job " + std::to_string(id) + " does not exist");
  return job->second.record;
}

std::vector<JobRecord> JobQueue::List() const {
  std::lock_guard lock(mutex_);
  std::vector<JobRecord> records;
  records.reserve(jobs_.size());
  for (const auto& [id, entry] : jobs_) records.push_back(entry.record);
  return records;
}

const JobQueue::Entry* JobQueue::FindActive(std::string_view corpus) const {
  for (const auto& [id, entry] : jobs_) {
    if (entry.record.corpus == corpus && !IsFinished(entry.record.state)) return &entry;
  }
  return nullptr;
}

std::optional<JobRecord> JobQueue::ActiveJob(std::string_view corpus) const {
  std::lock_guard lock(mutex_);
  const Entry* entry = FindActive(corpus);
  if (entry == nullptr) return std::nullopt;
  return entry->record;
}

Result<JobRecord> JobQueue::Cancel(uint64_t id) {
  std::lock_guard lock(mutex_);
  const auto job = jobs_.find(id);
  if (job == jobs_.end()) return NotFoundError("job " + std::to_string(id) + " does not exist");
  Entry& entry = job->second;
  if (IsFinished(entry.record.state) && !MayRetry(entry.record)) {
    return FailedPreconditionError("job " + std::to_string(id) + " is " +
                                   std::string(JobStateText(entry.record.state)) + " already");
  }
  entry.record.cancel_asked = true;
  if (entry.record.state == JobState::kRunning) {
    Persist(entry.record);
    entry.stop.request_stop();
    return entry.record;
  }
  std::erase(entry.record.scrub ? scrubs_ : queue_, id);
  if (!entry.record.scrub) MarkCorpus(entry.record.corpus, CorpusState::kCancelled, "");
  Finish(entry, JobState::kCancelled, "");
  return job->second.record;
}

Status JobQueue::CancelAndWait(std::string_view corpus, const std::stop_token& stop) {
  const std::optional<JobRecord> job = ActiveJob(corpus);
  if (!job) return OkStatus();
  const Result<JobRecord> cancelled = Cancel(job->id);
  if (!cancelled.ok() && cancelled.status().code() != StatusCode::kFailedPrecondition) {
    return cancelled.status();
  }
  std::unique_lock lock(mutex_);
  const bool ended = changed_.wait(lock, stop, [&] {
    const auto entry = jobs_.find(job->id);
    return entry == jobs_.end() || IsFinished(entry->second.record.state) || stopping_;
  });
  if (!ended) return CancelledError("given up while job " + std::to_string(job->id) + " stops");
  const auto entry = jobs_.find(job->id);
  if (entry == jobs_.end() || IsFinished(entry->second.record.state)) return OkStatus();
  return UnavailableError("the daemon is stopping; try again when it runs");
}

Result<uint64_t> JobQueue::Watch(uint64_t job_id, Watcher watcher) {
  std::lock_guard lock(mutex_);
  const auto job = jobs_.find(job_id);
  if (job == jobs_.end()) {
    return NotFoundError("job " + std::to_string(job_id) + " does not exist");
  }
  const uint64_t id = next_watch_id_++;
  watcher(job->second.record);
  if (!IsFinished(job->second.record.state)) {
    subscriptions_.emplace(id, Subscription{job_id, std::move(watcher)});
  }
  return id;
}

void JobQueue::Unwatch(uint64_t watch_id) {
  std::lock_guard lock(mutex_);
  subscriptions_.erase(watch_id);
}

void JobQueue::Tell(Entry& entry, bool always) {
  if (!always) {  // a change of state does not delay the progress that follows it
    const auto now = std::chrono::steady_clock::now();
    if (now - entry.told_at < options_.watch_interval) return;
    entry.told_at = now;
  }
  for (auto& [id, subscription] : subscriptions_) {
    if (subscription.job_id == entry.record.id) subscription.watcher(entry.record);
  }
}

void JobQueue::Persist(const JobRecord& record) {
  const Status status = store_.PutJob(record.id, EncodeJob(record));
  if (status.ok()) return;
  // The job goes on: at the next start its corpus, still unfinished, gets a new one.
  Log(LogLevel::kWarn, "job_not_stored", {{"id", record.id}, {"error", status.message()}});
}

void JobQueue::Finish(Entry& entry, JobState state, const std::string& error) {
  entry.record.state = state;
  entry.record.error = error;
  if (state != JobState::kFailed) entry.record.retry_at_ms = 0;
  entry.record.eta_s = state == JobState::kDone ? 0 : -1;
  entry.record.finished_at_ms = now_ms_();
  Persist(entry.record);
  LogJob(entry.record);
  if (options_.on_ended) options_.on_ended(entry.record);
  Tell(entry, true);
  std::erase_if(subscriptions_,
                [&](const auto& item) { return item.second.job_id == entry.record.id; });
  changed_.notify_all();
}

void JobQueue::Prune() {
  size_t finished = 0;
  for (const auto& [id, entry] : jobs_) finished += IsFinished(entry.record.state) ? 1 : 0;
  const Entry* const last_scrub = LastDoneScrub();  // doctor tells of it
  for (auto job = jobs_.begin(); job != jobs_.end() && finished > options_.finished_max;) {
    const JobRecord& record = job->second.record;
    if (!IsFinished(record.state) || record.retry_at_ms != 0 || &job->second == last_scrub) {
      ++job;
      continue;
    }
    (void)store_.RemoveJob(job->first);
    job = jobs_.erase(job);
    --finished;
  }
}

void JobQueue::MarkCorpus(const std::string& name, CorpusState state, const std::string& error) {
  const Result<CorpusRecord> marked = UpdateCorpusRecord(store_, name, [&](CorpusRecord& record) {
    record.state = state;
    record.error = error;
    return OkStatus();
  });
  if (marked.ok() || marked.status().code() == StatusCode::kNotFound) return;
  Log(LogLevel::kWarn, "corpus_state_not_stored",
      {{"corpus", name}, {"error", marked.status().message()}});
}

void JobQueue::Work(std::deque<uint64_t>& queue) {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || !queue.empty(); });
    if (stopping_) return;
    const uint64_t id = queue.front();
    queue.pop_front();
    if (jobs_.at(id).record.scrub) {
      RunScrub(lock, id);
    } else {
      RunOne(lock, id);
    }
    Prune();
  }
}

void JobQueue::OnProgress(uint64_t id, const PrefillProgress& progress, uint64_t first_done,
                          RateMeter& rate) {
  // What was durable before this run, and what the store already had, was not computed now.
  const uint64_t found = std::max(progress.reused_tokens, first_done);
  const uint64_t computed = progress.done_tokens - std::min(found, progress.done_tokens);
  rate.Add(std::chrono::steady_clock::now(), computed);
  std::lock_guard lock(mutex_);
  Entry& entry = jobs_.at(id);
  entry.record.done_tokens = progress.done_tokens;
  entry.record.total_tokens = progress.total_tokens;
  entry.record.reused_tokens = progress.reused_tokens;
  entry.record.written_bytes = progress.written_bytes;
  entry.record.tokens_per_s = rate.PerSecond();
  entry.record.eta_s = rate.SecondsFor(progress.total_tokens -
                                       std::min(progress.done_tokens, progress.total_tokens));
  Tell(entry, false);
}

void JobQueue::RunOne(std::unique_lock<std::mutex>& lock, uint64_t id) {
  Entry& entry = jobs_.at(id);  // stays: only finished jobs are pruned, and only by this thread
  entry.record.state = JobState::kRunning;
  entry.record.started_at_ms = now_ms_();
  Persist(entry.record);
  LogJob(entry.record);
  Tell(entry, true);
  const std::string corpus = entry.record.corpus;
  const uint64_t first_done = entry.record.done_tokens;
  const std::stop_token stop = entry.stop.get_token();
  lock.unlock();

  RateMeter rate;
  const auto begin = std::chrono::steady_clock::now();
  rate.Add(begin, 0);
  Status status;
  const LeaseScope scope(std::make_shared<LeaseHolder>("job " + std::to_string(id), 0, nullptr));
  try {
    status = engine_.Prefill(
        corpus,
        [&](const PrefillProgress& progress) { OnProgress(id, progress, first_done, rate); }, stop);
  } catch (const std::exception& error) {  // out of memory: the root of this thread
    status = InternalError("prefill of '" + corpus + "' failed: " + error.what());
  }
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;

  lock.lock();
  const uint64_t found = std::max(entry.record.reused_tokens, first_done);
  const uint64_t computed = entry.record.done_tokens - std::min(found, entry.record.done_tokens);
  if (spent.count() > 0) entry.record.tokens_per_s = static_cast<double>(computed) / spent.count();
  if (status.ok()) {
    entry.record.done_tokens = entry.record.total_tokens;
    Finish(entry, JobState::kDone, "");
  } else if (entry.record.cancel_asked) {
    MarkCorpus(corpus, CorpusState::kCancelled, "");
    Finish(entry, JobState::kCancelled, "");
  } else if (stopping_ && status.code() == StatusCode::kCancelled) {
    entry.record.state = JobState::kQueued;
    Persist(entry.record);
    LogJob(entry.record);
    Tell(entry, true);
  } else {
    MarkCorpus(corpus, CorpusState::kFailed, status.ToString());
    SetRetry(entry.record, status);
    Finish(entry, JobState::kFailed, status.ToString());
  }
}

}  // namespace corpusd
