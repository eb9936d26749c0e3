#include "daemon/rpc/rpc_session.h"

#include <utility>
#include <vector>

#include "daemon/access/access_control.h"
#include "daemon/access/reply_scope.h"
#include "daemon/log.h"
#include "daemon/metrics/daemon_metrics.h"
#include "daemon/metrics/exposition.h"
#include "daemon/rpc/admin_handler.h"
#include "daemon/rpc/admission.h"
#include "daemon/rpc/answer_request.h"
#include "daemon/rpc/call_runner.h"
#include "daemon/rpc/corpus_handler.h"
#include "daemon/rpc/corpus_message.h"
#include "daemon/rpc/doctor.h"
#include "daemon/rpc/export_call.h"
#include "daemon/rpc/import_call.h"
#include "daemon/rpc/method_name.h"
#include "daemon/rpc/query_handler.h"
#include "daemon/rpc/retention_handler.h"
#include "daemon/rpc/status_mapping.h"
#include "daemon/rpc/tier_handler.h"

namespace corpusd {
namespace {

// Numbers connections, for logs and leases.
std::atomic<uint64_t> next_session_id{1};
// A timeout beyond this is as good as none, and no clock overflows.
constexpr uint64_t kTimeoutMsMax = uint64_t{365} * 24 * 3600 * 1000;

Status Stopping() { return UnavailableError("the daemon is stopping; try again when it runs"); }

// What a client may still ask while the daemon waits for its last questions.
bool AllowedWhileStopping(v1::Request::BodyCase body) {
  switch (body) {
    case v1::Request::kPing:
    case v1::Request::kVersion:
    case v1::Request::kCancel:
    case v1::Request::kJob:
    case v1::Request::kJobs:
      return true;
    default:
      return false;
  }
}

}  // namespace

RpcSession::RpcSession(const Services& services, const Peer& peer,
                       std::shared_ptr<ResponseSink> sink, std::function<void()> on_drained)
    : services_(services),
      peer_(peer),
      session_id_(next_session_id.fetch_add(1)),
      sink_(std::move(sink)),
      on_drained_(std::move(on_drained)) {}

size_t RpcSession::open_calls() const {
  std::lock_guard lock(mutex_);
  return calls_.size();
}

void RpcSession::OnClosed() { CancelAll(CancelledError("the client has gone")); }

void RpcSession::CancelAll(const Status& why) {
  std::vector<std::shared_ptr<Call>> calls;
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    for (const auto& [id, call] : calls_) calls.push_back(call);
  }
  for (const std::shared_ptr<Call>& call : calls) call->Cancel(why);
}

void RpcSession::Forget(uint64_t id) {
  std::shared_ptr<Call> call;  // both die outside the lock
  std::shared_ptr<IngestCall> ingest;
  std::shared_ptr<StreamCall> stream;
  std::lock_guard lock(mutex_);
  if (const auto entry = calls_.find(id); entry != calls_.end()) {
    call = std::move(entry->second);
    calls_.erase(entry);
  }
  if (const auto entry = ingests_.find(id); entry != ingests_.end()) {
    ingest = std::move(entry->second);
    ingests_.erase(entry);
    ended_ingests_.push_back(id);
    if (ended_ingests_.size() > kEndedIngestsMax) ended_ingests_.pop_front();
  }
  if (const auto entry = streams_.find(id); entry != streams_.end()) {
    stream = std::move(entry->second);
    streams_.erase(entry);
    ended_ingests_.push_back(id);
    if (ended_ingests_.size() > kEndedIngestsMax) ended_ingests_.pop_front();
  }
}

Peer RpcSession::ActingAs(const Principal& principal) const {
  return ActingPeer(principal, {peer_, std::nullopt, ""}, services_.access.table()->restricts());
}

std::shared_ptr<Call> RpcSession::Open(const v1::Request& request,
                                       const std::shared_ptr<ResponseSink>& sink) {
  const uint64_t id = request.id(), timeout_ms = request.timeout_ms();
  const std::string_view method = MethodOf(request);
  const auto refuse = [&](const Status& why) {
    services_.metrics.OnRequest("rpc", method, why.code());
    sink->Send(ErrorResponse(id, why));
    return nullptr;
  };
  if (id == 0) return refuse(InvalidArgumentError("a request's id must not be 0"));
  auto call = std::make_shared<Call>(
      id, sink, services_.timers,
      [weak = weak_from_this(), &metrics = services_.metrics, method, id](StatusCode code) {
        metrics.OnRequest("rpc", method, code);
        if (const auto session = weak.lock()) session->Forget(id);
      });
  call->set_label("rpc-" + std::to_string(session_id_) + "-" + std::to_string(id));
  {
    std::lock_guard lock(mutex_);
    if (closed_) return nullptr;
    if (calls_.size() >= kOpenCallsMax) {
      return refuse(UnavailableError("this connection has " + std::to_string(kOpenCallsMax) +
                                     " open requests, which is the limit; wait for answers"));
    }
    if (!calls_.emplace(id, call).second) {
      return refuse(InvalidArgumentError("a request with id " + std::to_string(id) +
                                         " is open on this connection"));
    }
  }
  if (timeout_ms != 0 && timeout_ms <= kTimeoutMsMax) {
    call->SetTimeout(std::chrono::milliseconds(timeout_ms));
  }
  return call;
}

void RpcSession::Refuse(const v1::Request& request, const Status& why) {
  if (request.has_ingest_begin() || request.has_import_begin()) {
    std::lock_guard lock(mutex_);
    ended_ingests_.push_back(request.id());
    if (ended_ingests_.size() > kEndedIngestsMax) ended_ingests_.pop_front();
  }
  services_.metrics.OnRequest("rpc", MethodOf(request), why.code());
  sink_->Send(ErrorResponse(request.id(), why));
}

void RpcSession::OnRequest(v1::Request request) {
  const v1::Request::BodyCase body = request.body_case();
  if (body == v1::Request::kIngestData || body == v1::Request::kIngestEnd) {
    return OnIngest(request);
  }
  if (body == v1::Request::kImportData || body == v1::Request::kImportEnd ||
      body == v1::Request::kExportNext) {
    return OnStream(request);
  }
  const Result<Principal> principal = AdmitRequest(services_, {peer_, std::nullopt, ""}, &request);
  if (!principal.ok()) return Refuse(request, principal.status());
  const std::shared_ptr<Call> call = Open(request, ScopedSink(*principal, sink_));
  if (call == nullptr) return;
  if (services_.stopping && !AllowedWhileStopping(body)) return call->Fail(Stopping());
  Dispatch(call, *principal, std::move(request));
}

void RpcSession::OnIngest(v1::Request& request) {
  std::shared_ptr<IngestCall> ingest;
  bool answered = false;  // the ingest was refused while this was on its way
  {
    std::lock_guard lock(mutex_);
    const auto entry = ingests_.find(request.id());
    if (entry != ingests_.end()) ingest = entry->second;
    answered = ingest == nullptr && request.has_ingest_end() &&
               std::erase(ended_ingests_, request.id()) > 0;
  }
  if (ingest != nullptr && request.has_ingest_data()) {
    const v1::IngestData& data = request.ingest_data();
    waiting_bytes_ += data.content().size() + data.path().size();
    ingest->Data(std::move(*request.mutable_ingest_data()));
  } else if (ingest != nullptr) {
    ingest->End(request.ingest_end());
  } else if (request.has_ingest_end() && !answered) {
    // Pieces without an ingest are dropped in silence; its end is not, so that a client which never
    // began one learns it.
    sink_->Send(ErrorResponse(
        request.id(), InvalidArgumentError("no ingest with id " + std::to_string(request.id()) +
                                           " is open on this connection")));
  }
}

std::function<void(uint64_t)> RpcSession::OnTaken() {
  return [weak = weak_from_this()](uint64_t bytes) {
    const auto session = weak.lock();
    if (session == nullptr || bytes == 0) return;
    const uint64_t before = session->waiting_bytes_.fetch_sub(bytes);
    if (before > kWaitingBytesMax && before - bytes <= kWaitingBytesMax) session->on_drained_();
  };
}

void RpcSession::OnStreamBegin(const std::shared_ptr<Call>& call, const Peer& peer,
                               v1::Request& request) {
  std::shared_ptr<StreamCall> stream;
  if (request.has_import_begin()) {
    stream = std::make_shared<ImportCall>(services_, peer, call, OnTaken());
  } else {
    stream = std::make_shared<ExportCall>(services_, call, OnTaken());
  }
  {
    std::lock_guard lock(mutex_);
    if (calls_.count(call->id()) == 0) return;  // its time was over before it began
    streams_.emplace(call->id(), stream);
  }
  // Between its messages nobody works on it, so it must end by itself when cancelled.
  call->OnStop([weak = std::weak_ptr<Call>(call), of = std::weak_ptr<StreamCall>(stream)] {
    if (const auto stopped = of.lock()) stopped->Stop();
    if (const auto self = weak.lock()) self->Fail(CancelledError("the transfer was cancelled"));
  });
  stream->Post(std::move(request), 0);
}

void RpcSession::OnStream(v1::Request& request) {
  const uint64_t id = request.id();
  std::shared_ptr<StreamCall> stream;
  bool answered = false;  // it was refused while this was on its way
  {
    std::lock_guard lock(mutex_);
    const auto entry = streams_.find(id);
    if (entry != streams_.end()) stream = entry->second;
    answered = stream == nullptr && request.has_import_end() && std::erase(ended_ingests_, id) > 0;
  }
  if (stream != nullptr) {
    const uint64_t bytes = request.has_import_data() ? request.import_data().content().size() : 0;
    waiting_bytes_ += bytes;
    stream->Post(std::move(request), bytes);
  } else if (request.has_import_end() && !answered) {
    sink_->Send(ErrorResponse(id, InvalidArgumentError("no import with id " + std::to_string(id) +
                                                       " is open on this connection")));
  }
}

void RpcSession::OnIngestBegin(const std::shared_ptr<Call>& call, const Peer& peer,
                               v1::Request& request) {
  auto ingest = std::make_shared<IngestCall>(services_, peer, call,
                                             std::move(*request.mutable_ingest_begin()), OnTaken());
  {
    std::lock_guard lock(mutex_);
    if (calls_.count(call->id()) == 0) return;  // its time was over before it began
    ingests_.emplace(call->id(), ingest);
  }
  // Between its pieces nobody works on an ingest, so it must end by itself when cancelled.
  call->OnStop([weak = std::weak_ptr<Call>(call)] {
    if (const auto self = weak.lock()) self->Fail(CancelledError("the ingest was cancelled"));
  });
  ingest->Begin();
}

void RpcSession::OnCancel(const std::shared_ptr<Call>& call, uint64_t request_id) {
  std::shared_ptr<Call> target;
  {
    std::lock_guard lock(mutex_);
    const auto entry = calls_.find(request_id);
    if (entry != calls_.end()) target = entry->second;
  }
  if (target == nullptr) {
    return call->Fail(
        NotFoundError("no request with id " + std::to_string(request_id) + " is open"));
  }
  target->Cancel(CancelledError("the client cancelled the request"));
  v1::Response response;
  response.mutable_empty();
  call->Finish(std::move(response));
}

void RpcSession::Run(const std::shared_ptr<Call>& call, WorkerPool& pool,
                     std::function<void()> function) {
  RunCall(pool, call,
          "connection " + std::to_string(session_id_) + ", " + PeerText(peer_) + ", request " +
              std::to_string(call->id()),
          std::move(function));
}

void RpcSession::Answer(const std::shared_ptr<Call>& call, WorkerPool& pool, Handler handler) {
  Run(call, pool, [call, handler = std::move(handler)] {
    if (!call->Begin()) return;
    Result<v1::Response> response = handler();
    if (!response.ok()) return call->Fail(response.status());
    call->Finish(*std::move(response));
  });
}

void RpcSession::OnAsk(const std::shared_ptr<Call>& call, const Principal& principal,
                       v1::AskRequest request) {
  Run(call, services_.queries,
      [this, self = shared_from_this(), call, tenant = principal.tenant,
       request = std::move(request)] { RunQuery(services_, call, tenant, request); });
}

void RpcSession::OnWatch(const std::shared_ptr<Call>& call, uint64_t job_id) {
  if (!call->Begin()) return;
  const auto watcher = [call, &services = services_](const JobRecord& job) {
    v1::Response response;
    *response.mutable_job() = ToMessage(job);
    if (IsFinished(job.state)) return call->Finish(std::move(response));
    call->Send(std::move(response));
    if (services.stopping) call->Fail(Stopping());
  };
  const Result<uint64_t> watch = services_.jobs.Watch(job_id, watcher);
  if (!watch.ok()) return call->Fail(watch.status());
  call->OnStop([&jobs = services_.jobs, id = *watch, weak = std::weak_ptr<Call>(call)] {
    jobs.Unwatch(id);
    const auto watching = weak.lock();
    if (watching == nullptr) return;
    watching->Fail(CancelledError("the watch was ended; the job goes on"));
  });
}

namespace {

// Whether a request may take long: reads or frees many blocks.
bool IsSlow(const v1::Request& request) {
  return request.has_warm() || request.has_pin() || request.has_remove() ||
         (request.has_evict() && request.evict().name().empty());
}

}  // namespace

void RpcSession::Dispatch(const std::shared_ptr<Call>& call, const Principal& principal,
                          v1::Request request) {
  const Services& services = services_;
  const Peer peer = ActingAs(principal);
  const std::stop_token stop = call->stop_token();
  // Handlers get the request by value: it outlives this function.
  switch (request.body_case()) {
    case v1::Request::kPing:
      return call->Finish(HandlePing(services));
    case v1::Request::kVersion:
      return call->Finish(HandleVersion(services));
    case v1::Request::kCancel:
      return OnCancel(call, request.cancel().request_id());
    case v1::Request::kIngestBegin:
      return OnIngestBegin(call, peer, request);
    case v1::Request::kImportBegin:
    case v1::Request::kExportBegin:
      return OnStreamBegin(call, peer, request);
    case v1::Request::kAsk:
      return OnAsk(call, principal, std::move(*request.mutable_ask()));
    case v1::Request::kWatchJob:
      return Run(call, services.admin,
                 [this, self = shared_from_this(), call, id = request.watch_job().id()] {
                   OnWatch(call, id);
                 });
    case v1::Request::kVerify:
      return Run(call, services.slow, [&services, call, verify = request.verify()] {
        RunVerify(services, call, verify);
      });
    default:
      break;
  }
  WorkerPool& pool = IsSlow(request) ? services.slow : services.admin;
  using Reply = Result<v1::Response>;
  Answer(call, pool, [&services, peer, principal, stop, request = std::move(request)]() -> Reply {
    return AnswerRequest(services, principal, peer, request, stop);
  });
}

}  // namespace corpusd
