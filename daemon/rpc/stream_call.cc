#include "daemon/rpc/stream_call.h"

#include <exception>
#include <string>
#include <utility>

namespace corpusd {

StreamCall::StreamCall(WorkerPool& pool, std::shared_ptr<Call> call,
                       std::function<void(uint64_t bytes)> on_taken)
    : pool_(pool), call_(std::move(call)), on_taken_(std::move(on_taken)) {}

void StreamCall::Post(v1::Request request, uint64_t bytes) {
  Queue({std::move(request), bytes, false});
}

void StreamCall::Stop() { Queue({{}, 0, true}); }

void StreamCall::Queue(Message message) {
  {
    std::lock_guard lock(mutex_);
    messages_.push_back(std::move(message));
    if (std::exchange(scheduled_, true)) return;
  }
  if (pool_.Submit([self = shared_from_this()] { self->Drain(); })) return;
  uint64_t bytes = 0;
  {
    std::lock_guard lock(mutex_);
    for (const Message& waiting : messages_) bytes += waiting.bytes;
    messages_.clear();
    scheduled_ = false;
  }
  on_taken_(bytes);
  call_->Fail(UnavailableError("too many transfers are under way; try again later"));
}

void StreamCall::Drain() {
  for (;;) {
    Message message;
    {
      std::lock_guard lock(mutex_);
      if (messages_.empty()) {
        scheduled_ = false;
        return;
      }
      message = std::move(messages_.front());
      messages_.pop_front();
    }
    // What came before the stop is still handled: of a transfer that breaks off all is kept.
    Status status;
    try {
      if (!message.stop && !stopped_) status = Handle(message.request);
    } catch (const std::exception& error) {  // out of memory: the root of a worker's task
      status = InternalError(std::string("the request failed: ") + error.what());
    }
    if ((message.stop || !status.ok()) && !std::exchange(stopped_, true)) Stopped();
    if (!status.ok()) call_->Fail(status);
    on_taken_(message.bytes);
  }
}

}  // namespace corpusd
