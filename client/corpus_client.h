// client/corpus_client.h -- CorpusClient: every verb of a running corpusd as one blocking call over
// its Unix socket. Not thread-safe: one thread at a time; open one client per thread. Owns its
// connection. No exception leaves it. Messages are the protocol's own (corpusd/v1/corpusd.pb.h).
//
//   auto client = CorpusClient::Connect({.socket_path = CorpusClient::DefaultSocketPath()});
//   if (!client.ok()) { ... client.error().message ... }
//   auto reply = (*client)->Ask(request, [](std::string_view text) { std::cout << text; return
//   true; });
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "client/client_error.h"
#include "corpusd/v1/corpusd.pb.h"

namespace corpusd {

class TokenStream;
class UnixChannel;

struct ClientOptions {
  std::string socket_path;
  // A call that lasts longer fails with "deadline_exceeded" (the daemon cancels it too); 0: no
  // limit.
  std::chrono::milliseconds timeout{30000};
  std::chrono::milliseconds connect_timeout{5000};
  size_t frame_bytes_max = size_t{16} << 20;
  // Polled while waiting (a signal that interrupts the wait is enough to notice it): once true, the
  // running call is cancelled at the daemon and fails with "interrupted". May be null. Not owned.
  const std::atomic<bool>* interrupted = nullptr;
};

// Sends pieces of sources. Given to the feeder of Ingest and Append; valid only inside it.
class IngestWriter {
 public:
  virtual ~IngestWriter() = default;
  // One source is BeginSource, any number of Write, EndSource. Write takes any size and cuts it
  // into frames. false: stop feeding, the call has failed (the daemon refused, a timeout, an
  // interrupt); Ingest returns why.
  virtual bool BeginSource(std::string_view path) = 0;
  virtual bool Write(std::string_view bytes) = 0;
  virtual bool EndSource() = 0;
  // Files that were found inside the sources and left out, on top of those that the begin counts.
  virtual void set_skipped_files(uint64_t files) = 0;
};
// Feeds every source through the writer. RETURNS true to go on, false to give up: the daemon then
// forgets what it got, and the call returns "cancelled".
using IngestFeeder = std::function<bool(IngestWriter& writer)>;
// Takes a piece of a bundle, of any size. RETURNS false once the call has failed; Import says why.
using PieceSender = std::function<bool(std::string_view piece)>;
// Sends a bundle's bytes in order, all of them. An error gives the import up; what has come as
// whole blocks stays at the daemon for the next try.
using ImportFeeder = std::function<ClientResult<Done>(const PieceSender& send)>;

class CorpusClient {
 public:
  // "unreachable" if nothing listens; the text names the path and what to start.
  static ClientResult<std::unique_ptr<CorpusClient>> Connect(const ClientOptions& options);
  // $CORPUSD_SOCKET, else $XDG_RUNTIME_DIR/corpusd/corpusd.sock, else /run/corpusd/corpusd.sock.
  static std::string DefaultSocketPath();
  ~CorpusClient();
  CorpusClient(const CorpusClient&) = delete;
  CorpusClient& operator=(const CorpusClient&) = delete;

  // For the calls that follow; 0: no limit. Ingest, Wait and Ask of a whole corpus want 0 or much.
  void set_timeout(std::chrono::milliseconds timeout);

  ClientResult<v1::PingReply> Ping();
  ClientResult<v1::VersionReply> Version();

  // Creates a corpus and its prefill job; returns once the job is queued (follow it with WatchJob).
  // begin.append must be false here and is set by Append.
  ClientResult<v1::IngestReply> Ingest(const v1::IngestBegin& begin, const IngestFeeder& feeder);
  // Grows the ready corpus begin.name.
  ClientResult<v1::IngestReply> Append(const v1::IngestBegin& begin, const IngestFeeder& feeder);

  // on_text gets the answer as it comes (complete UTF-8; of several answers the first) and returns
  // false to cancel; then the
  // reply has finish_reason "cancelled". Empty on_text: no streaming. request.stream is set
  // accordingly.
  ClientResult<v1::AskReply> Ask(const v1::AskRequest& request,
                                 const std::function<bool(std::string_view text)>& on_text);
  // The same with all that a piece says: which of several answers it goes on with, how likely its
  // tokens are. request.stream is set.
  ClientResult<v1::AskReply> AskInDeltas(
      const v1::AskRequest& request,
      const std::function<bool(const v1::AskDelta& delta)>& on_delta);
  // The same, pulled by the caller piece by piece (client/token_stream.h). One at a time: no other
  // call may be made while the stream lives.
  ClientResult<std::unique_ptr<TokenStream>> StartAsk(const v1::AskRequest& request);

  ClientResult<v1::ListReply> List();
  ClientResult<v1::Corpus> Show(std::string_view name);
  ClientResult<Done> Remove(std::string_view name);  // cancels its running job first
  ClientResult<Done> Rename(std::string_view from, std::string_view to);
  ClientResult<v1::Corpus> Pin(std::string_view name, std::string_view tier,
                               std::chrono::milliseconds ttl);  // ttl 0: never expires
  ClientResult<v1::Corpus> Pin(const v1::PinRequest& request);
  ClientResult<v1::Corpus> Unpin(std::string_view name);
  ClientResult<v1::EvictReply> Evict(std::string_view name, std::string_view from, bool dry_run);
  // Also of all corpora, or of as much as frees a size.
  ClientResult<v1::EvictReply> Evict(const v1::EvictRequest& request);
  ClientResult<v1::WarmReply> Warm(std::string_view name, std::string_view to);
  ClientResult<v1::Corpus> Touch(std::string_view name, std::chrono::milliseconds ttl);
  ClientResult<v1::Corpus> Touch(const v1::TouchRequest& request);

  ClientResult<v1::JobsReply> Jobs();
  ClientResult<v1::Job> Job(uint64_t id);
  // Calls on_job with the job as it moves, at once and then several times a second at most, until
  // it is done, failed or cancelled (see state), or on_job returns false (the job runs on). RETURNS
  // the last one seen.
  ClientResult<v1::Job> WatchJob(uint64_t id, const std::function<bool(const v1::Job&)>& on_job);
  ClientResult<v1::Job> CancelJob(uint64_t id);

  ClientResult<v1::DiskUsageReply> DiskUsage();
  // on_progress (may be empty) gets blocks done and in all, and returns false to cancel.
  ClientResult<v1::VerifyReply> Verify(
      std::string_view name, bool repair,
      const std::function<bool(uint64_t done, uint64_t total)>& on_progress);
  ClientResult<v1::DoctorReply> Doctor();
  // Begins to check everything stored, or joins the scrub under way. 0: at the daemon's rate.
  ClientResult<v1::Job> Scrub(uint64_t bytes_per_s);
  ClientResult<v1::ExplainMissReply> ExplainMiss(const v1::ExplainMissRequest& request);
  // Every metric that the daemon has, by name.
  ClientResult<v1::StatsReply> Stats();
  ClientResult<v1::PlanReply> Plan(const v1::PlanRequest& request);

  // A corpus as one file. on_piece gets its bytes in order and returns false to give up.
  ClientResult<v1::ExportReply> Export(
      std::string_view name, const std::function<bool(const v1::ExportData& piece)>& on_piece);
  // name: of the corpus to make; "": the bundle's own. on_progress may be empty.
  ClientResult<v1::ImportReply> Import(
      std::string_view name, const ImportFeeder& feeder,
      const std::function<void(uint64_t done, uint64_t total)>& on_progress);

 private:
  friend class TokenStream;
  class IngestCall;
  struct OpenCall {
    uint64_t id = 0;
    std::chrono::steady_clock::time_point deadline;
  };

  CorpusClient(const ClientOptions& options, std::unique_ptr<UnixChannel> channel);

  // Sends a request under a new id.
  ClientResult<OpenCall> Start(v1::Request request);
  // RETURNS the call's next response; an Error response, a deadline and an interrupt become
  // ClientErrors.
  ClientResult<v1::Response> Next(const OpenCall& call);
  // Tells the daemon that nobody waits for the call any more; best effort.
  void SendCancel(uint64_t id);
  // One request, one response.
  ClientResult<v1::Response> RoundTrip(v1::Request request);
  ClientResult<v1::IngestReply> SendIngest(const v1::IngestBegin& begin, bool append,
                                           const IngestFeeder& feeder);

  ClientOptions options_;
  std::unique_ptr<UnixChannel> channel_;
  uint64_t next_id_ = 1;
};

}  // namespace corpusd
