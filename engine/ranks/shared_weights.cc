#include "engine/ranks/shared_weights.h"

#include <atomic>
#include <utility>

#include "engine/ranks/rank_message.h"

namespace corpusd {
namespace {

constexpr std::chrono::milliseconds kBeat{1'000};
constexpr std::chrono::milliseconds kLook{200};
constexpr std::chrono::milliseconds kGreetTimeout{10'000};
constexpr std::chrono::milliseconds kCallTimeout{2'000};

Deadline After(std::chrono::milliseconds time) { return std::chrono::steady_clock::now() + time; }

}  // namespace

// One that is a thread of this process.
class SharedWeights::ThreadRank {
 public:
  ThreadRank(std::unique_ptr<WeightRank> rank, Socket socket)
      : rank_(std::move(rank)), socket_(std::move(socket)), thread_([this] {
          (void)rank_->Serve(socket_, [this] { return stop_.load(); });
          socket_.Close();  // whoever waits for it is told at once
        }) {}
  ~ThreadRank() { stop_ = true; }

 private:
  const std::unique_ptr<WeightRank> rank_;
  Socket socket_;  // the thread's
  std::atomic<bool> stop_{false};
  std::jthread thread_;
};

Result<std::unique_ptr<SharedWeights>> SharedWeights::Open(Backend& local,
                                                           const SharedWeightsOptions& options) {
  if (!local.host_addressable()) {
    return UnimplementedError("'" + std::string(local.name()) +
                              "': ranks that share weights are CPUs in this version");
  }
  std::unique_ptr<SharedWeights> shared(new SharedWeights(options));
  const uint32_t ranks = options.part.seat.ranks;
  shared->bytes_.resize(ranks);
  shared->backend_ = std::make_unique<WeightBackend>(local, ranks, options.timeout);
  if (options.addresses.empty()) {
    RETURN_IF_ERROR(shared->StartThreads());
    return shared;
  }
  CHECK(options.addresses.size() + 1 == ranks) << options.addresses.size() << " + 1 of " << ranks;
  ASSIGN_OR_RETURN(auto peers, shared->CallAll(options.patience));
  shared->backend_->Join(std::move(peers));
  return shared;
}

SharedWeights::SharedWeights(const SharedWeightsOptions& options) : options_(options) {}

SharedWeights::~SharedWeights() {
  watch_.request_stop();
  if (watch_.joinable()) watch_.join();
  // Their ends of the connections close, and threads return.
  backend_->Join({});
}

std::string SharedWeights::NameOf(uint32_t rank) const {
  const std::string number = std::to_string(options_.first_rank + rank);
  if (options_.addresses.empty()) return "thread " + number;
  return "rank " + number + " (" + options_.addresses[rank - 1] + ")";
}

void SharedWeights::Tell(const std::string& what) const {
  if (options_.on_change) options_.on_change(what);
}

Status SharedWeights::StartThreads() {
  std::vector<WeightBackend::Peer> peers;
  for (uint32_t rank = 1; rank < options_.part.seat.ranks; ++rank) {
    WeightRankOptions part = options_.part;
    part.seat.rank = rank;
    ASSIGN_OR_RETURN(auto loaded, WeightRank::Create(part));
    ASSIGN_OR_RETURN(auto ends, MakeSocketPair());
    threads_.push_back(std::make_unique<ThreadRank>(std::move(loaded), std::move(ends.second)));
    RETURN_IF_ERROR(Greet(rank, ends.first));
    peers.push_back({std::move(ends.first), NameOf(rank)});
  }
  backend_->Join(std::move(peers));
  return OkStatus();
}

Status SharedWeights::Greet(uint32_t rank, const Socket& socket) {
  WeightHello hello;
  hello.rank = rank;
  hello.ranks = options_.part.seat.ranks;
  hello.weights = PaddedText<64>(options_.digest);
  hello.backend = PaddedText<40>(backend_->name());
  const Deadline deadline = After(kGreetTimeout);
  RETURN_IF_ERROR(SendBytes(socket, std::as_bytes(std::span(&hello, 1)), deadline));
  RankReply reply;
  RETURN_IF_ERROR(ReceiveBytes(socket, std::as_writable_bytes(std::span(&reply, 1)), deadline));
  RETURN_IF_ERROR(reply.status());
  uint64_t bytes = 0;
  RETURN_IF_ERROR(ReceiveBytes(socket, std::as_writable_bytes(std::span(&bytes, 1)), deadline));
  const std::lock_guard lock(mutex_);
  bytes_[rank] = bytes;
  return OkStatus();
}

Result<WeightBackend::Peer> SharedWeights::Call(uint32_t rank, Deadline deadline) {
  auto socket = ConnectTcp(options_.addresses[rank - 1], deadline);
  const Status greeted = socket.ok() ? Greet(rank, *socket) : socket.status();
  if (greeted.ok()) return WeightBackend::Peer{*std::move(socket), NameOf(rank)};
  if (greeted.code() == StatusCode::kFailedPrecondition) return greeted.WithContext(NameOf(rank));
  return UnavailableError(NameOf(rank) +
                          ", which has a part of the weights, is not there: " + greeted.message());
}

Result<std::vector<WeightBackend::Peer>> SharedWeights::CallAll(
    std::chrono::milliseconds patience) {
  const Deadline end = After(patience);
  std::vector<WeightBackend::Peer> peers;
  bool told = false;
  while (peers.size() < options_.addresses.size()) {
    auto peer = Call(static_cast<uint32_t>(peers.size() + 1), After(std::min(patience, kLook)));
    if (peer.ok()) {
      peers.push_back(*std::move(peer));
      continue;
    }
    const bool refused = peer.status().code() == StatusCode::kFailedPrecondition;
    if (refused || std::chrono::steady_clock::now() >= end) return peer.status();
    if (!told) Tell("waits: " + peer.status().message());
    told = true;
    std::this_thread::sleep_for(kLook);
  }
  return peers;
}

Status SharedWeights::CallAgain(const Alone& alone) {
  alone([&] { backend_->Join({}); });  // those that are left serve one connection at a time
  ASSIGN_OR_RETURN(auto peers, CallAll(kCallTimeout));
  alone([&] { backend_->Join(std::move(peers)); });
  return OkStatus();
}

void SharedWeights::CallAgainWhenLost(Alone alone) {
  if (options_.addresses.empty()) return;
  watch_ = std::jthread([this, alone = std::move(alone)](const std::stop_token& stop) {
    bool lost = false;
    while (!stop.stop_requested()) {
      std::this_thread::sleep_for(lost ? kLook : kBeat);
      const Status seen = Look();
      if (seen.ok()) continue;
      if (!lost) Tell(seen.message());
      lost = true;
      if (!CallAgain(alone).ok()) continue;
      Tell("all parts of the weights are there again");
      lost = false;
    }
  });
}

std::vector<SharedWeights::Peer> SharedWeights::peers() const {
  const std::lock_guard lock(mutex_);
  std::vector<Peer> peers;
  for (uint32_t rank = 1; rank < bytes_.size(); ++rank) {
    peers.push_back({options_.first_rank + rank, NameOf(rank), bytes_[rank]});
  }
  return peers;
}

}  // namespace corpusd
