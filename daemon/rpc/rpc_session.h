// daemon/rpc/rpc_session.h -- RpcSession: the open calls of one connection. OnRequest and OnClosed
// come from the I/O thread and never block: what may block goes to a pool. Knows requests and
// responses, no bytes and no socket. Shared by the connection and the calls.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "corpusd/v1/corpusd.pb.h"
#include "daemon/access/principal.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/ingest_call.h"
#include "daemon/rpc/peer.h"
#include "daemon/rpc/services.h"
#include "daemon/rpc/stream_call.h"

namespace corpusd {

class RpcSession : public std::enable_shared_from_this<RpcSession> {
 public:
  // on_drained: called from any thread when waiting_bytes falls to the limit.
  RpcSession(const Services& services, const Peer& peer, std::shared_ptr<ResponseSink> sink,
             std::function<void()> on_drained);

  // False: the connection should not read on until on_drained.
  static constexpr uint64_t kWaitingBytesMax = uint64_t{8} << 20;
  bool WantsMore() const { return waiting_bytes_.load() <= kWaitingBytesMax; }

  void OnRequest(v1::Request request);
  // Nobody reads any more: everything in flight is asked to stop.
  void OnClosed();
  // The same while the client still listens: at the end of the daemon's grace.
  void CancelAll(const Status& why);
  size_t open_calls() const;

 private:
  // Calls that one connection may have open at once.
  static constexpr size_t kOpenCallsMax = 1024;
  static constexpr size_t kEndedIngestsMax = 64;

  std::shared_ptr<Call> Open(const v1::Request& request, const std::shared_ptr<ResponseSink>& sink);
  void Forget(uint64_t id);
  // Before a call is made of it. What belongs to the request and is on its way is dropped.
  void Refuse(const v1::Request& request, const Status& why);
  void Dispatch(const std::shared_ptr<Call>& call, const Principal& principal, v1::Request request);
  void OnIngest(v1::Request& request);
  void OnIngestBegin(const std::shared_ptr<Call>& call, const Peer& peer, v1::Request& request);
  // The first message of a call to which more belong, and those that follow it.
  void OnStreamBegin(const std::shared_ptr<Call>& call, const Peer& peer, v1::Request& request);
  void OnStream(v1::Request& request);
  std::function<void(uint64_t)> OnTaken();
  void OnCancel(const std::shared_ptr<Call>& call, uint64_t request_id);
  void OnAsk(const std::shared_ptr<Call>& call, const Principal& principal, v1::AskRequest request);
  void OnWatch(const std::shared_ptr<Call>& call, uint64_t job_id);
  // As handlers know him.
  Peer ActingAs(const Principal& principal) const;

  using Handler = std::function<Result<v1::Response>()>;
  // Runs the handler on the pool and answers the call with what it returns.
  void Answer(const std::shared_ptr<Call>& call, WorkerPool& pool, Handler handler);
  // Runs the function, which answers the call itself.
  void Run(const std::shared_ptr<Call>& call, WorkerPool& pool, std::function<void()> function);

  const Services& services_;
  const Peer peer_;  // as the kernel says
  const uint64_t session_id_;
  const std::shared_ptr<ResponseSink> sink_;
  const std::function<void()> on_drained_;
  std::atomic<uint64_t> waiting_bytes_{0};

  mutable std::mutex mutex_;
  bool closed_ = false;
  std::map<uint64_t, std::shared_ptr<Call>> calls_;
  std::map<uint64_t, std::shared_ptr<IngestCall>> ingests_;
  std::map<uint64_t, std::shared_ptr<StreamCall>> streams_;
  std::deque<uint64_t> ended_ingests_;  // whose IngestEnd may still come
};

}  // namespace corpusd
