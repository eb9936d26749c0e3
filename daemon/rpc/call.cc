#include "daemon/rpc/call.h"

#include <string>
#include <utility>

#include "daemon/rpc/status_mapping.h"

namespace corpusd {

Call::Call(uint64_t id, std::shared_ptr<ResponseSink> sink, TimerQueue& timers, OnEnd on_end)
    : id_(id), sink_(std::move(sink)), timers_(timers), on_end_(std::move(on_end)) {}

Call::~Call() {
  if (timer_id_ != 0) timers_.Cancel(timer_id_);
}

bool Call::ended() const {
  std::lock_guard lock(mutex_);
  return ended_;
}

void Call::SetTimeout(std::chrono::milliseconds timeout) {
  const uint64_t id = timers_.Schedule(came_at_ + timeout, [weak = weak_from_this(), timeout] {
    const std::shared_ptr<Call> call = weak.lock();
    if (call == nullptr) return;
    call->Fail({StatusCode::kDeadlineExceeded,
                "the request's time of " + std::to_string(timeout.count()) + " ms is over"});
    call->stop_.request_stop();
  });
  std::lock_guard lock(mutex_);
  timer_id_ = id;
}

void Call::OnStop(std::function<void()> function) {
  // Before any other thread can end the call, or by the one that works for it: never twice.
  on_stop_.emplace(stop_.get_token(), std::move(function));
}

bool Call::Begin() {
  std::lock_guard lock(mutex_);
  if (ended_) return false;
  begun_ = true;
  return true;
}

bool Call::Send(v1::Response response) {
  response.set_id(id_);
  std::lock_guard lock(mutex_);  // held while sending: nothing may follow the last response
  return !ended_ && sink_->Send(response);
}

void Call::Finish(v1::Response response) {
  response.set_id(id_);
  response.set_end_of_stream(true);
  End(std::move(response));
}

void Call::Fail(const Status& status) { End(ErrorResponse(id_, status)); }

void Call::End(v1::Response response) {
  OnEnd on_end;
  uint64_t timer_id = 0;
  {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    ended_ = true;
    on_end = std::move(on_end_);
    timer_id = std::exchange(timer_id_, 0);
  }
  if (timer_id != 0) timers_.Cancel(timer_id);
  // The id is free before the client can know that the call has ended, for it may use it again.
  if (on_end) on_end(static_cast<StatusCode>(response.error().code()));
  sink_->Send(response);
}

void Call::Cancel(const Status& why) {
  const std::shared_ptr<Call> self = shared_from_this();  // outlives what its stopping sets off
  stop_.request_stop();
  bool begun = false;
  {
    std::lock_guard lock(mutex_);
    begun = begun_;
  }
  if (!begun) Fail(why);
}

}  // namespace corpusd
