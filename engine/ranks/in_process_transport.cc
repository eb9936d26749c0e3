#include "engine/ranks/in_process_transport.h"

#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <optional>

namespace corpusd {
namespace {

struct Message {
  std::byte* target = nullptr;        // of a receiver
  const std::byte* source = nullptr;  // of a sender
  size_t bytes = 0;
  bool sends = false;
  bool done = false;
  Status status;
};
using MessagePtr = std::shared_ptr<Message>;

std::string NameOfRank(uint32_t rank, uint32_t size) {
  return "rank " + std::to_string(rank) + " of " + std::to_string(size);
}

// What the ranks share.
struct Group {
  Group(uint32_t ranks, std::chrono::milliseconds wait)
      : size(ranks), timeout(wait), queues(size_t{ranks} * ranks), gone(ranks), on_end(ranks) {}

  // REQUIRES for all: the mutex is held.
  std::deque<MessagePtr>& Queue(uint32_t from, uint32_t to) { return queues[from * size + to]; }
  void End(const MessagePtr& message, const Status& status) {
    message->status = status;
    message->done = true;
  }
  void EndAll(std::deque<MessagePtr>& queue, const Status& status) {
    for (const MessagePtr& message : queue) End(message, status);
    queue.clear();
  }
  // The job is over.
  void Fail(const Status& status) {
    const bool first = failure.ok();
    if (first) failure = status;
    for (auto& queue : queues) EndAll(queue, failure);
    for (const auto& told : on_end) {
      if (first && told) told(failure);
    }
    changed.notify_all();
  }

  const uint32_t size;
  const std::chrono::milliseconds timeout;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::deque<MessagePtr>> queues;  // waiting senders, or waiting receivers
  std::vector<bool> gone;
  std::vector<std::function<void(const Status&)>> on_end;  // by rank
  Status failure;
};

class InProcessTransfer final : public Transfer {
 public:
  InProcessTransfer(std::shared_ptr<Group> group, MessagePtr message, std::string waited_for)
      : group_(std::move(group)),
        message_(std::move(message)),
        waited_for_(std::move(waited_for)) {}

  Status Wait() override {
    std::unique_lock lock(group_->mutex);
    if (!group_->changed.wait_for(lock, group_->timeout, [&] { return message_->done; })) {
      group_->Fail(Status(StatusCode::kDeadlineExceeded,
                          waited_for_ + " was waited for in vain for " +
                              std::to_string(group_->timeout.count()) + " ms"));
    }
    return message_->status;
  }

 private:
  std::shared_ptr<Group> group_;
  MessagePtr message_;
  std::string waited_for_;
};

class InProcessTransport final : public Transport {
 public:
  InProcessTransport(std::shared_ptr<Group> group, uint32_t rank)
      : group_(std::move(group)), rank_(rank) {}

  ~InProcessTransport() override {
    const std::lock_guard lock(group_->mutex);
    group_->gone[rank_] = true;
    group_->on_end[rank_] = {};
    const Status lost = Lost(rank_);
    for (uint32_t other = 0; other < size(); ++other) {
      group_->EndAll(group_->Queue(rank_, other), lost);
      group_->EndAll(group_->Queue(other, rank_), lost);
    }
    group_->changed.notify_all();
  }

  uint32_t rank() const override { return rank_; }
  uint32_t size() const override { return group_->size; }
  std::string NameOf(uint32_t rank) const override { return NameOfRank(rank, size()); }

  TransferPtr Send(uint32_t to, std::span<const std::byte> bytes) override {
    auto message = std::make_shared<Message>();
    message->source = bytes.data();
    message->bytes = bytes.size();
    message->sends = true;
    return Post(rank_, to, to, std::move(message));
  }
  TransferPtr Receive(uint32_t from, std::span<std::byte> bytes) override {
    auto message = std::make_shared<Message>();
    message->target = bytes.data();
    message->bytes = bytes.size();
    return Post(from, rank_, from, std::move(message));
  }

  void Abort(const Status& why) override {
    const std::lock_guard lock(group_->mutex);
    group_->Fail(Status(StatusCode::kAborted, NameOf(rank_) + " ended the job: " + why.ToString()));
  }
  void OnEnd(std::function<void(const Status& why)> told) override {
    const std::lock_guard lock(group_->mutex);
    if (!group_->failure.ok() && told) told(group_->failure);
    group_->on_end[rank_] = std::move(told);
  }

 private:
  Status Lost(uint32_t rank) const {
    return UnavailableError(NameOf(rank) + " was lost: it has ended");
  }

  TransferPtr Post(uint32_t from, uint32_t to, uint32_t other, MessagePtr message) {
    CHECK(other < size() && other != rank_) << other << " of " << size();
    const std::lock_guard lock(group_->mutex);
    auto transfer = std::make_unique<InProcessTransfer>(group_, message, NameOf(other));
    if (!group_->failure.ok()) {
      group_->End(message, group_->failure);
      return transfer;
    }
    if (group_->gone[other]) {
      group_->End(message, Lost(other));
      return transfer;
    }
    std::deque<MessagePtr>& queue = group_->Queue(from, to);
    const bool sends = message->sends;
    if (queue.empty() || queue.front()->sends == sends) {
      queue.push_back(std::move(message));
      return transfer;
    }
    const MessagePtr waiting = std::move(queue.front());
    queue.pop_front();
    Message& sender = sends ? *message : *waiting;
    Message& receiver = sends ? *waiting : *message;
    Status status;
    if (sender.bytes == receiver.bytes) {
      if (sender.bytes > 0) std::memcpy(receiver.target, sender.source, sender.bytes);
    } else {
      status = InternalError(NameOf(from) + " sent " + std::to_string(sender.bytes) + " bytes to " +
                             NameOf(to) + ", which expected " + std::to_string(receiver.bytes));
    }
    group_->End(message, status);
    group_->End(waiting, status);
    if (!status.ok()) group_->Fail(status);
    group_->changed.notify_all();
    return transfer;
  }

  const std::shared_ptr<Group> group_;
  const uint32_t rank_;
};

}  // namespace

std::vector<std::unique_ptr<Transport>> MakeInProcessTransports(uint32_t size,
                                                                std::chrono::milliseconds timeout) {
  auto group = std::make_shared<Group>(size, timeout);
  std::vector<std::unique_ptr<Transport>> transports;
  for (uint32_t rank = 0; rank < size; ++rank) {
    transports.push_back(std::make_unique<InProcessTransport>(group, rank));
  }
  return transports;
}

}  // namespace corpusd
