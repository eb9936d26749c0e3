// daemon/jobs/job_queue.h -- JobQueue: prefills, one after the other on one thread of its own, each
// known by an id, persistent through the store: what a restart cut off is queued again at the next
// Start, what a full or broken disk cut off when RetryFailed says so. Bounded. Knows no socket.
// Every call may come from any thread. Owns its thread; engine and store are borrowed.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "daemon/jobs/job_record.h"
#include "daemon/jobs/rate_meter.h"
#include "engine/engine.h"
#include "store/block_store.h"

namespace corpusd {

struct JobQueueOptions {
  size_t queued_max = 1024;   // running one and reserved places included
  size_t finished_max = 256;  // records of finished jobs that are kept
  // A watcher is not told of progress more often than this; changes of state always.
  std::chrono::milliseconds watch_interval{200};
  // Called by a scrub before each block: returns when questions leave room. May be empty.
  std::function<void(const std::stop_token&)> yield;
  // Told of each job that ends, with the queue locked: as a Watcher. May be empty.
  std::function<void(const JobRecord&)> on_ended;
};

class JobQueue {
 public:
  // Called with the queue locked: must be quick and must not call the queue.
  using Watcher = std::function<void(const JobRecord&)>;
  using NowMs = std::function<int64_t()>;

  JobQueue(Engine& engine, BlockStore& store, const JobQueueOptions& options, NowMs now_ms);
  ~JobQueue();
  JobQueue(const JobQueue&) = delete;
  JobQueue& operator=(const JobQueue&) = delete;

  // Queues again what an earlier daemon left, and every corpus that waits for a prefill without a
  // job or whose prefill failed (its cause may be gone, such as a full disk or another model), but
  // not what a user cancelled; then begins to work. Once, before any other call.
  void Start();
  // Stops the running prefill at its next checkpoint; it and what is queued stay queued for the
  // next Start. Returns when the thread has ended.
  void Stop();
  // Asks for the same without waiting.
  void RequestStop();

  // A place in the queue, kept while a corpus is being received; given back if dropped.
  class Place {
   public:
    Place(Place&& other) noexcept : queue_(std::exchange(other.queue_, nullptr)) {}
    Place& operator=(Place&&) = delete;
    ~Place();

   private:
    friend class JobQueue;
    explicit Place(JobQueue* queue) : queue_(queue) {}
    JobQueue* queue_;
  };
  // kUnavailable when the queue is full or the daemon stops.
  Result<Place> Reserve();
  // RETURNS the corpus's unfinished job if it has one. REQUIRES: the corpus is in the store.
  JobRecord SubmitPrefill(std::string_view corpus, Place place);
  // Queues failed prefills again, under their ids, whose cause may have passed (kResourceExhausted,
  // kIoError, kUnavailable) and whose time has come: 5 s after the first failure, then twice as
  // long each time, 10 minutes at most. To be called every few seconds while the store takes
  // blocks.
  void RetryFailed();

  // Scrubs run beside prefills, one at a time: RETURNS the one under way if there is one.
  // kUnavailable when the daemon stops.
  Result<JobRecord> SubmitScrub(uint64_t bytes_per_s);
  // The last scrub that came to its end.
  std::optional<JobRecord> LastScrub() const;

  Result<JobRecord> Get(uint64_t id) const;
  std::vector<JobRecord> List() const;  // by id
  // The unfinished job of a corpus.
  std::optional<JobRecord> ActiveJob(std::string_view corpus) const;
  // A queued job and one that waits to be tried again are cancelled at once, a running one at its
  // next checkpoint. kFailedPrecondition if it has finished.
  Result<JobRecord> Cancel(uint64_t id);
  // Cancels the corpus's job, if it has one, and waits for its end. kCancelled if stop came first.
  Status CancelAndWait(std::string_view corpus, const std::stop_token& stop);

  // Calls the watcher now and at every change, the last time with a finished job. RETURNS an id for
  // Unwatch.
  Result<uint64_t> Watch(uint64_t job_id, Watcher watcher);
  // After it returned the watcher is not called any more.
  void Unwatch(uint64_t watch_id);

 private:
  struct Entry {
    JobRecord record;
    std::stop_source stop;
    std::chrono::steady_clock::time_point told_at{};
  };
  struct Subscription {
    uint64_t job_id;
    Watcher watcher;
  };

  void Work(std::deque<uint64_t>& queue);
  void RunScrub(std::unique_lock<std::mutex>& lock, uint64_t id);
  const Entry* LastDoneScrub() const;
  void RunOne(std::unique_lock<std::mutex>& lock, uint64_t id);
  void OnProgress(uint64_t id, const PrefillProgress& progress, uint64_t first_computed,
                  RateMeter& rate);
  void Finish(Entry& entry, JobState state, const std::string& error);
  void MarkCorpus(const std::string& name, CorpusState state, const std::string& error);
  void Enqueue(JobRecord record);
  size_t OpenJobs() const;
  // The corpus has a new job: what failed before need not be tried again.
  void DropRetries(std::string_view corpus);
  void SetRetry(JobRecord& record, const Status& failure) const;
  // Whether the corpus still is as the failed job left it.
  bool MayRetry(const JobRecord& record) const;
  void LoadStored();
  void Persist(const JobRecord& record);
  void Tell(Entry& entry, bool always);
  void Prune();
  const Entry* FindActive(std::string_view corpus) const;

  Engine& engine_;
  BlockStore& store_;
  const JobQueueOptions options_;
  const NowMs now_ms_;

  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::map<uint64_t, Entry> jobs_;
  std::deque<uint64_t> queue_;
  std::deque<uint64_t> scrubs_;  // waiting ones
  uint64_t next_id_ = 1;
  size_t reserved_ = 0;
  bool stopping_ = false;
  std::map<uint64_t, Subscription> subscriptions_;
  uint64_t next_watch_id_ = 1;
  std::jthread thread_;
  std::jthread scrub_thread_;
};

}  // namespace corpusd
