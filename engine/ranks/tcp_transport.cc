#include "engine/ranks/tcp_transport.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "engine/ranks/tcp_peer.h"

namespace corpusd {
namespace {

std::string NameOfRank(const TcpJob& job, uint32_t rank) {
  return "rank " + std::to_string(rank) + " of " + std::to_string(job.addresses.size()) + " (" +
         job.addresses[rank] + ")";
}

class TcpTransport final : public Transport {
 public:
  TcpTransport(TcpJob job, std::vector<Socket> sockets, Socket wake)
      : job_(std::move(job)), wake_(std::move(wake)) {
    for (uint32_t r = 0; r < size(); ++r) {
      peers_.push_back(std::make_unique<TcpPeer>(std::move(sockets[r]), NameOf(r)));
    }
    io_ = std::thread([this] { MoveMessages(); });
  }

  ~TcpTransport() override {
    {
      const std::lock_guard lock(mutex_);
      for (const auto& peer : peers_) peer->Close(FrameKind::kBye, "");
      stopped_ = true;
    }
    Wake();
    io_.join();
  }

  uint32_t rank() const override { return job_.rank; }
  uint32_t size() const override { return static_cast<uint32_t>(job_.addresses.size()); }
  std::string NameOf(uint32_t rank) const override { return NameOfRank(job_, rank); }

  TransferPtr Send(uint32_t to, std::span<const std::byte> bytes) override {
    auto message = std::make_shared<TcpMessage>();
    message->source = bytes;
    return Post(to, std::move(message), &TcpPeer::Send);
  }
  TransferPtr Receive(uint32_t from, std::span<std::byte> bytes) override {
    auto message = std::make_shared<TcpMessage>();
    message->target = bytes;
    return Post(from, std::move(message), &TcpPeer::Receive);
  }
  void Abort(const Status& why) override {
    const std::string text = NameOf(rank()) + " ended the job: " + why.ToString();
    const std::lock_guard lock(mutex_);
    Fail(Status(StatusCode::kAborted, text), text);
  }
  void OnEnd(std::function<void(const Status& why)> told) override {
    const std::lock_guard lock(mutex_);
    if (!failure_.ok() && told) told(failure_);
    on_end_ = std::move(told);
  }

 private:
  class PostedTransfer final : public Transfer {
   public:
    PostedTransfer(TcpTransport& transport, TcpMessagePtr message, uint32_t other)
        : transport_(transport), message_(std::move(message)), other_(other) {}
    Status Wait() override { return transport_.Await(*message_, other_); }

   private:
    TcpTransport& transport_;
    TcpMessagePtr message_;
    uint32_t other_;
  };

  TransferPtr Post(uint32_t other, TcpMessagePtr message, void (TcpPeer::*post)(TcpMessagePtr)) {
    CHECK(other < size() && other != rank()) << other << " of " << size();
    auto transfer = std::make_unique<PostedTransfer>(*this, message, other);
    {
      const std::lock_guard lock(mutex_);
      const Status& ended = failure_.ok() ? peers_[other]->gone() : failure_;
      if (!ended.ok()) {
        message->status = ended;
        message->done = true;
        return transfer;
      }
      ((*peers_[other]).*post)(std::move(message));
    }
    Wake();
    return transfer;
  }

  Status Await(TcpMessage& message, uint32_t other) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, job_.transfer_timeout, [&] { return message.done; })) {
      const Status late(StatusCode::kDeadlineExceeded,
                        NameOf(other) + " was waited for in vain for " +
                            std::to_string(job_.transfer_timeout.count()) + " ms");
      Fail(late, NameOf(rank()) + " ended the job: " + late.ToString());
    }
    return message.status;
  }

  // REQUIRES: the mutex is held. The first failure is the job's.
  void Fail(const Status& status, const std::string& text) {
    if (!failure_.ok()) return;
    failure_ = status;
    for (const auto& peer : peers_) {
      peer->EndAll(status);
      peer->Close(FrameKind::kAbort, text);
    }
    if (on_end_) on_end_(failure_);
    changed_.notify_all();
  }

  void Wake() {
    const uint64_t one = 1;
    (void)!write(wake_.fd(), &one, sizeof(one));
  }

  void MoveMessages() {
    std::vector<pollfd> waiting(size() + 1);
    while (true) {
      {
        const std::lock_guard lock(mutex_);
        if (stopped_) return;
        for (uint32_t r = 0; r < size(); ++r) {
          const short wanted = peers_[r]->Wanted();
          waiting[r] = {wanted == 0 ? -1 : peers_[r]->fd(), wanted, 0};
        }
      }
      waiting[size()] = {wake_.fd(), POLLIN, 0};
      (void)poll(waiting.data(), waiting.size(), -1);
      if (waiting[size()].revents != 0) {
        uint64_t count = 0;
        (void)!read(wake_.fd(), &count, sizeof(count));
      }
      const std::lock_guard lock(mutex_);
      bool moved = false;
      for (uint32_t r = 0; r < size(); ++r) {
        if (waiting[r].revents == 0 || peers_[r]->fd() != waiting[r].fd) continue;
        const Status status = peers_[r]->Move(waiting[r].revents, &moved);
        if (status.ok()) continue;
        // What another rank aborted for is passed on in its words.
        Fail(status, status.code() == StatusCode::kAborted
                         ? status.message()
                         : NameOf(rank()) + " ended the job: " + status.ToString());
      }
      if (moved) changed_.notify_all();
    }
  }

  const TcpJob job_;
  const Socket wake_;  // an event counter
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::unique_ptr<TcpPeer>> peers_;  // of this rank: closed
  Status failure_;
  std::function<void(const Status&)> on_end_;
  bool stopped_ = false;
  std::thread io_;
};

struct Greeting {
  uint64_t magic = 0x736b6e6172637071;  // no other protocol's first bytes
  uint64_t job = 0;
  uint32_t rank = 0;
  uint32_t size = 0;
};
static_assert(sizeof(Greeting) == 24);

// Each end tells the other who it is. RETURNS the other's rank.
Result<uint32_t> Greet(const Socket& socket, const TcpJob& job, Deadline deadline) {
  Greeting own;
  own.job = job.number;
  own.rank = job.rank;
  own.size = static_cast<uint32_t>(job.addresses.size());
  RETURN_IF_ERROR(SendBytes(socket, std::as_bytes(std::span(&own, 1)), deadline));
  Greeting other;
  RETURN_IF_ERROR(ReceiveBytes(socket, std::as_writable_bytes(std::span(&other, 1)), deadline));
  if (other.magic != own.magic || other.job != own.job || other.size != own.size ||
      other.rank >= own.size || other.rank == own.rank) {
    return FailedPreconditionError("who answers is no rank of job " + std::to_string(job.number) +
                                   " of " + std::to_string(own.size) + " ranks");
  }
  return other.rank;
}

}  // namespace

Result<std::unique_ptr<Transport>> JoinTcpJob(Socket listener, const TcpJob& job) {
  const auto size = static_cast<uint32_t>(job.addresses.size());
  CHECK(job.rank < size) << job.rank << " of " << size;
  const Deadline deadline = std::chrono::steady_clock::now() + job.connect_timeout;
  std::vector<Socket> sockets(size);
  for (uint32_t r = 0; r < job.rank; ++r) {
    auto socket = ConnectTcp(job.addresses[r], deadline);
    if (!socket.ok()) return socket.status().WithContext(NameOfRank(job, r));
    const auto other = Greet(*socket, job, deadline);
    if (!other.ok()) return other.status().WithContext(NameOfRank(job, r));
    if (*other != r) {
      return FailedPreconditionError(NameOfRank(job, r) + " says it is rank " +
                                     std::to_string(*other));
    }
    sockets[r] = std::move(*socket);
  }
  for (uint32_t missing = size - 1 - job.rank; missing > 0;) {
    auto socket = AcceptTcp(listener, deadline);
    if (!socket.ok()) {
      return socket.status().WithContext(std::to_string(missing) + " ranks above " +
                                         std::to_string(job.rank) + " are missing");
    }
    const auto other = Greet(*socket, job, deadline);
    // Whoever else knocks is sent away.
    if (!other.ok() || *other < job.rank || sockets[*other].open()) continue;
    sockets[*other] = std::move(*socket);
    --missing;
  }
  Socket wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake.open()) return IoError("eventfd could not be made");
  return std::unique_ptr<Transport>(
      std::make_unique<TcpTransport>(job, std::move(sockets), std::move(wake)));
}

}  // namespace corpusd
