// daemon/rpc/stream_call.h -- StreamCall: an open call to which the client sends more than one
// message. They are queued by the I/O thread and handled in order on a worker, one at a time, so
// that a slow client holds no worker. The session stops reading its connection while too many
// bytes wait here. What the messages mean is a subclass's matter.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>

#include "corpusd/v1/corpusd.pb.h"
#include "daemon/rpc/call.h"
#include "daemon/worker_pool.h"

namespace corpusd {

class StreamCall : public std::enable_shared_from_this<StreamCall> {
 public:
  // on_taken: called with the bytes of a message when it waits no more, from a worker.
  StreamCall(WorkerPool& pool, std::shared_ptr<Call> call,
             std::function<void(uint64_t bytes)> on_taken);
  virtual ~StreamCall() = default;

  // From the I/O thread; does not block. bytes: what the message counts against the connection.
  void Post(v1::Request request, uint64_t bytes);
  // The call is over: Stopped is called, on a worker. From any thread.
  void Stop();

 protected:
  // An error ends the call with it.
  virtual Status Handle(v1::Request& request) = 0;
  // The call has ended before its time: what is worth keeping is kept now. Called once at most.
  virtual void Stopped() = 0;
  Call& call() { return *call_; }

 private:
  struct Message {
    v1::Request request;
    uint64_t bytes = 0;
    bool stop = false;
  };
  void Queue(Message message);
  void Drain();  // on a worker

  WorkerPool& pool_;
  const std::shared_ptr<Call> call_;
  const std::function<void(uint64_t)> on_taken_;
  std::mutex mutex_;
  std::deque<Message> messages_;
  bool scheduled_ = false;
  bool stopped_ = false;  // only the task that runs touches it
};

}  // namespace corpusd
