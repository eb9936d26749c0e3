#include "client/corpus_client.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "client/token_stream.h"
#include "client/unix_channel.h"
#include "client/wire/utf8.h"

namespace corpusd {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// A piece of a source in one frame; the daemon refuses larger ones.
constexpr size_t kPieceBytes = size_t{256} << 10;
// The daemon keeps the deadline and says what was too slow; this side waits so much longer for that
// sentence.
constexpr milliseconds kDeadlineGrace{1000};
constexpr milliseconds kCancelPatience{200};

ClientError FromWire(const v1::Error& error) {
  return {error.code(), error.code_text(), error.message()};
}

ClientError UnexpectedAnswer(const char* verb) {
  return {
      kClientProtocol, "protocol",
      std::string("corpusd answered '") + verb + "' with something else; are the versions equal?"};
}

// A text that is not UTF-8 would make the daemon refuse the whole frame.
std::optional<ClientError> CheckText(const char* what, const std::string& text) {
  if (IsUtf8(text)) return std::nullopt;
  return ClientError{kClientInvalidArgument, "invalid_argument",
                     std::string("the ") + what + " is not UTF-8"};
}

}  // namespace

ClientResult<std::unique_ptr<CorpusClient>> CorpusClient::Connect(const ClientOptions& options) {
  ClientDeadline deadline = kNoDeadline;
  if (options.connect_timeout.count() > 0) deadline = steady_clock::now() + options.connect_timeout;
  auto channel = UnixChannel::Connect(options.socket_path, deadline, options.frame_bytes_max,
                                      options.interrupted);
  if (!channel.ok()) return channel.error();
  return std::unique_ptr<CorpusClient>(new CorpusClient(options, *std::move(channel)));
}

std::string CorpusClient::DefaultSocketPath() {
  const char* socket = std::getenv("CORPUSD_SOCKET");
  if (socket != nullptr && *socket != '\0') return socket;
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  if (runtime != nullptr && *runtime != '\0') {
    return std::string(runtime) + "/corpusd/corpusd.sock";
  }
  return "/run/corpusd/corpusd.sock";
}

CorpusClient::CorpusClient(const ClientOptions& options, std::unique_ptr<UnixChannel> channel)
    : options_(options), channel_(std::move(channel)) {}

CorpusClient::~CorpusClient() = default;

void CorpusClient::set_timeout(milliseconds timeout) { options_.timeout = timeout; }

ClientResult<CorpusClient::OpenCall> CorpusClient::Start(v1::Request request) {
  OpenCall call;
  call.id = next_id_++;
  call.deadline = kNoDeadline;
  request.set_id(call.id);
  if (options_.timeout.count() > 0) {
    request.set_timeout_ms(static_cast<uint64_t>(options_.timeout.count()));
    call.deadline = steady_clock::now() + options_.timeout + kDeadlineGrace;
  }
  auto sent = channel_->Send(request, call.deadline);
  if (!sent.ok()) {
    // A daemon that closes the connection says why first.
    auto last_words = channel_->TryReceive();
    if (last_words && last_words->has_error()) return FromWire(last_words->error());
    return sent.error();
  }
  return call;
}

ClientResult<v1::Response> CorpusClient::Next(const OpenCall& call) {
  for (;;) {
    auto response = channel_->Receive(call.deadline);
    if (!response.ok()) {
      const uint32_t code = response.error().code;
      if (code == kClientDeadlineExceeded || code == kClientInterrupted) SendCancel(call.id);
      return response.error();
    }
    // Answers to calls that were given up may still come. Id 0 speaks of the connection.
    if (response->id() != call.id && response->id() != 0) continue;
    if (response->has_error()) return FromWire(response->error());
    if (response->id() == call.id) return response;
  }
}

void CorpusClient::SendCancel(uint64_t id) {
  v1::Request request;
  request.set_id(next_id_++);
  request.mutable_cancel()->set_request_id(id);
  (void)channel_->Send(request, steady_clock::now() + kCancelPatience);
}

ClientResult<v1::Response> CorpusClient::RoundTrip(v1::Request request) {
  auto call = Start(std::move(request));
  if (!call.ok()) return call.error();
  return Next(*call);
}

// The body of every verb that is one request and one response of a fixed kind.
#define CORPUSD_REPLY(verb, field)                             \
  auto response = RoundTrip(std::move(request));               \
  if (!response.ok()) return response.error();                 \
  if (!response->has_##field()) return UnexpectedAnswer(verb); \
  return std::move(*response->mutable_##field())

ClientResult<v1::PingReply> CorpusClient::Ping() {
  v1::Request request;
  request.mutable_ping();
  CORPUSD_REPLY("ping", ping);
}

ClientResult<v1::VersionReply> CorpusClient::Version() {
  v1::Request request;
  request.mutable_version();
  CORPUSD_REPLY("version", version);
}

ClientResult<v1::ListReply> CorpusClient::List() {
  v1::Request request;
  request.mutable_list();
  CORPUSD_REPLY("list", list);
}

ClientResult<v1::Corpus> CorpusClient::Show(std::string_view name) {
  v1::Request request;
  request.mutable_show()->set_name(std::string(name));
  CORPUSD_REPLY("show", corpus);
}

ClientResult<Done> CorpusClient::Remove(std::string_view name) {
  v1::Request request;
  request.mutable_remove()->set_name(std::string(name));
  auto response = RoundTrip(std::move(request));
  if (!response.ok()) return response.error();
  return Done{};
}

ClientResult<Done> CorpusClient::Rename(std::string_view from, std::string_view to) {
  v1::Request request;
  request.mutable_rename()->set_from(std::string(from));
  request.mutable_rename()->set_to(std::string(to));
  auto response = RoundTrip(std::move(request));
  if (!response.ok()) return response.error();
  return Done{};
}

ClientResult<v1::Corpus> CorpusClient::Pin(std::string_view name, std::string_view tier,
                                           milliseconds ttl) {
  v1::Request request;
  request.mutable_pin()->set_name(std::string(name));
  request.mutable_pin()->set_tier(std::string(tier));
  request.mutable_pin()->set_ttl_ms(static_cast<uint64_t>(std::max<int64_t>(ttl.count(), 0)));
  CORPUSD_REPLY("pin", corpus);
}

ClientResult<v1::Corpus> CorpusClient::Pin(const v1::PinRequest& pin) {
  v1::Request request;
  *request.mutable_pin() = pin;
  CORPUSD_REPLY("pin", corpus);
}

ClientResult<v1::Corpus> CorpusClient::Unpin(std::string_view name) {
  v1::Request request;
  request.mutable_unpin()->set_name(std::string(name));
  CORPUSD_REPLY("unpin", corpus);
}

ClientResult<v1::EvictReply> CorpusClient::Evict(std::string_view name, std::string_view from,
                                                 bool dry_run) {
  v1::EvictRequest request;
  request.set_name(std::string(name));
  request.set_from(std::string(from));
  request.set_dry_run(dry_run);
  return Evict(request);
}

ClientResult<v1::EvictReply> CorpusClient::Evict(const v1::EvictRequest& evict) {
  v1::Request request;
  *request.mutable_evict() = evict;
  CORPUSD_REPLY("evict", evict);
}

ClientResult<v1::WarmReply> CorpusClient::Warm(std::string_view name, std::string_view to) {
  v1::Request request;
  request.mutable_warm()->set_name(std::string(name));
  request.mutable_warm()->set_to(std::string(to));
  CORPUSD_REPLY("warm", warm);
}

ClientResult<v1::Corpus> CorpusClient::Touch(std::string_view name, milliseconds ttl) {
  v1::Request request;
  request.mutable_touch()->set_name(std::string(name));
  request.mutable_touch()->set_ttl_ms(static_cast<uint64_t>(std::max<int64_t>(ttl.count(), 0)));
  CORPUSD_REPLY("touch", corpus);
}

ClientResult<v1::Corpus> CorpusClient::Touch(const v1::TouchRequest& touch) {
  v1::Request request;
  *request.mutable_touch() = touch;
  CORPUSD_REPLY("touch", corpus);
}

ClientResult<v1::JobsReply> CorpusClient::Jobs() {
  v1::Request request;
  request.mutable_jobs();
  CORPUSD_REPLY("jobs", jobs);
}

ClientResult<v1::Job> CorpusClient::Job(uint64_t id) {
  v1::Request request;
  request.mutable_job()->set_id(id);
  CORPUSD_REPLY("job", job);
}

ClientResult<v1::Job> CorpusClient::CancelJob(uint64_t id) {
  v1::Request request;
  request.mutable_cancel_job()->set_id(id);
  CORPUSD_REPLY("cancel", job);
}

ClientResult<v1::DiskUsageReply> CorpusClient::DiskUsage() {
  v1::Request request;
  request.mutable_disk_usage();
  CORPUSD_REPLY("df", disk_usage);
}

ClientResult<v1::DoctorReply> CorpusClient::Doctor() {
  v1::Request request;
  request.mutable_doctor();
  CORPUSD_REPLY("doctor", doctor);
}

ClientResult<v1::Job> CorpusClient::Scrub(uint64_t bytes_per_s) {
  v1::Request request;
  request.mutable_scrub()->set_bytes_per_s(bytes_per_s);
  CORPUSD_REPLY("scrub", job);
}

ClientResult<v1::ExplainMissReply> CorpusClient::ExplainMiss(const v1::ExplainMissRequest& asked) {
  if (auto error = CheckText("name", asked.name())) return *error;
  if (auto error = CheckText("preamble", asked.preamble())) return *error;
  v1::Request request;
  *request.mutable_explain_miss() = asked;
  CORPUSD_REPLY("explain-miss", explain_miss);
}

ClientResult<v1::PlanReply> CorpusClient::Plan(const v1::PlanRequest& asked) {
  if (auto error = CheckText("preamble", asked.preamble())) return *error;
  v1::Request request;
  *request.mutable_plan() = asked;
  CORPUSD_REPLY("plan", plan);
}

ClientResult<v1::StatsReply> CorpusClient::Stats() {
  v1::Request request;
  request.mutable_stats();
  CORPUSD_REPLY("stats", stats);
}

#undef CORPUSD_REPLY

ClientResult<v1::Job> CorpusClient::WatchJob(uint64_t id,
                                             const std::function<bool(const v1::Job&)>& on_job) {
  v1::Request request;
  request.mutable_watch_job()->set_id(id);
  auto call = Start(std::move(request));
  if (!call.ok()) return call.error();
  for (;;) {
    auto response = Next(*call);
    if (!response.ok()) return response.error();
    if (!response->has_job()) return UnexpectedAnswer("watch");
    const bool go_on = !on_job || on_job(response->job());
    if (!go_on && !response->end_of_stream()) SendCancel(call->id);
    if (!go_on || response->end_of_stream()) return std::move(*response->mutable_job());
  }
}

ClientResult<v1::VerifyReply> CorpusClient::Verify(
    std::string_view name, bool repair,
    const std::function<bool(uint64_t done, uint64_t total)>& on_progress) {
  v1::Request request;
  request.mutable_verify()->set_name(std::string(name));
  request.mutable_verify()->set_repair(repair);
  auto call = Start(std::move(request));
  if (!call.ok()) return call.error();
  for (;;) {
    auto response = Next(*call);
    if (!response.ok()) return response.error();
    if (response->has_verify()) return std::move(*response->mutable_verify());
    if (!response->has_progress()) return UnexpectedAnswer("verify");
    const v1::Progress& progress = response->progress();
    if (on_progress && !on_progress(progress.done(), progress.total())) SendCancel(call->id);
  }
}

// --- ask
// ---------------------------------------------------------------------------------------------

ClientResult<v1::AskReply> CorpusClient::Ask(
    const v1::AskRequest& request, const std::function<bool(std::string_view text)>& on_text) {
  v1::AskRequest asked = request;
  asked.set_stream(static_cast<bool>(on_text));
  auto stream = StartAsk(asked);
  if (!stream.ok()) return stream.error();
  for (;;) {
    auto piece = (*stream)->Next();
    if (!piece.ok()) return piece.error();
    if (!piece->has_value()) return (*stream)->reply();
    if (on_text && (*stream)->delta().index() == 0 && !on_text(**piece)) (*stream)->Cancel();
  }
}

ClientResult<v1::AskReply> CorpusClient::AskInDeltas(
    const v1::AskRequest& request, const std::function<bool(const v1::AskDelta& delta)>& on_delta) {
  v1::AskRequest asked = request;
  asked.set_stream(true);
  auto stream = StartAsk(asked);
  if (!stream.ok()) return stream.error();
  for (;;) {
    auto piece = (*stream)->Next();
    if (!piece.ok()) return piece.error();
    if (!piece->has_value()) return (*stream)->reply();
    if (!on_delta((*stream)->delta())) (*stream)->Cancel();
  }
}

ClientResult<std::unique_ptr<TokenStream>> CorpusClient::StartAsk(const v1::AskRequest& request) {
  if (auto error = CheckText("name", request.name())) return *error;
  if (auto error = CheckText("question", request.question())) return *error;
  v1::Request wrapped;
  *wrapped.mutable_ask() = request;
  auto call = Start(std::move(wrapped));
  if (!call.ok()) return call.error();
  return std::unique_ptr<TokenStream>(new TokenStream(this, *call));
}

// --- ingest
// ------------------------------------------------------------------------------------------

// The writer of one Ingest or Append. Remembers the first error; after it every call says false.
class CorpusClient::IngestCall : public IngestWriter {
 public:
  IngestCall(CorpusClient* client, OpenCall call) : client_(client), call_(call) {}

  bool BeginSource(std::string_view path) override {
    path_ = ToUtf8(path);
    first_piece_ = true;
    return !failed();
  }

  bool Write(std::string_view bytes) override {
    while (!bytes.empty() && !failed()) {
      const size_t taken = std::min(kPieceBytes - piece_.size(), bytes.size());
      piece_.append(bytes.data(), taken);
      bytes.remove_prefix(taken);
      if (piece_.size() == kPieceBytes) SendPiece(false);
    }
    return !failed();
  }

  bool EndSource() override {
    SendPiece(true);
    return !failed();
  }

  void set_skipped_files(uint64_t files) override { skipped_files_ = files; }

  void SendEnd() {
    v1::Request request;
    request.set_id(call_.id);
    request.mutable_ingest_end()->set_skipped_files(skipped_files_);
    auto sent = client_->channel_->Send(request, call_.deadline);
    if (sent.ok()) return;  // what comes now is the answer
    auto last_words = client_->channel_->TryReceive();
    const bool refused = last_words && last_words->has_error();
    error_ = refused ? FromWire(last_words->error()) : sent.error();
  }

  bool failed() const { return error_.has_value(); }
  const ClientError& error() const { return *error_; }

 private:
  void SendPiece(bool last) {
    v1::Request request;
    v1::IngestData* data = request.mutable_ingest_data();
    if (first_piece_) data->set_path(path_);
    first_piece_ = false;
    data->set_content(std::move(piece_));
    piece_.clear();
    data->set_last(last);
    SendRequest(std::move(request));
  }

  void SendRequest(v1::Request request) {
    if (failed()) return;
    request.set_id(call_.id);
    auto sent = client_->channel_->Send(request, call_.deadline);
    // The daemon refuses early: a corpus that is too long should not be read to its end.
    while (auto response = client_->channel_->TryReceive()) {
      if (response->id() != call_.id && response->id() != 0) continue;
      error_ = response->has_error() ? FromWire(response->error()) : UnexpectedAnswer("ingest");
      return;
    }
    if (sent.ok()) return;
    error_ = sent.error();
    client_->SendCancel(call_.id);
  }

  CorpusClient* client_;
  OpenCall call_;
  std::string path_;
  bool first_piece_ = false;
  std::string piece_;
  uint64_t skipped_files_ = 0;
  std::optional<ClientError> error_;
};

ClientResult<v1::IngestReply> CorpusClient::SendIngest(const v1::IngestBegin& begin, bool append,
                                                       const IngestFeeder& feeder) {
  if (auto error = CheckText("name", begin.name())) return *error;
  if (auto error = CheckText("preamble", begin.preamble())) return *error;
  v1::Request request;
  *request.mutable_ingest_begin() = begin;
  request.mutable_ingest_begin()->set_append(append);
  auto call = Start(std::move(request));
  if (!call.ok()) return call.error();
  IngestCall ingest(this, *call);
  const bool complete = feeder(ingest);
  if (ingest.failed()) return ingest.error();
  if (!complete) {
    SendCancel(call->id);
    return ClientError{kClientCancelled, "cancelled",
                       "ingest of '" + begin.name() + "' was given up by its reader"};
  }
  ingest.SendEnd();
  if (ingest.failed()) return ingest.error();
  auto response = Next(*call);
  if (!response.ok()) return response.error();
  if (!response->has_ingest()) return UnexpectedAnswer("ingest");
  return std::move(*response->mutable_ingest());
}

ClientResult<v1::IngestReply> CorpusClient::Ingest(const v1::IngestBegin& begin,
                                                   const IngestFeeder& feeder) {
  return SendIngest(begin, false, feeder);
}

ClientResult<v1::IngestReply> CorpusClient::Append(const v1::IngestBegin& begin,
                                                   const IngestFeeder& feeder) {
  return SendIngest(begin, true, feeder);
}

}  // namespace corpusd
