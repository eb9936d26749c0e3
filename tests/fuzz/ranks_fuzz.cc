// Any bytes where ranks listen to each other. The first byte says who reads them: a rank file's
// parser, the reader of messages, a follower of rank 0 (whatever it says and sends), a shelf, a
// rank with a part of the weights, or the frames of a connection. Nothing may crash, abort or take
// more memory than the input can ask for; what is refused is refused in words.
#include <cstdint>
#include <string>
#include <string_view>
#include <thread>

#include "engine/ranks/rank_crew.h"
#include "engine/ranks/tcp_peer.h"
#include "engine/ranks/weight_rank.h"
#include "store/base/check.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace corpusd {
namespace {

// What all inputs are read against, made once.
struct World {
  World() {
    TinyModelOptions options;
    options.layers = 1;
    options.kv_heads = 1;
    options.head_dim = 64;
    options.context_tokens = 4096;
    model = dir.File("tiny.gguf");
    WriteTinyModel(model, options);
    RankWorkerOptions worker_options;
    worker_options.model_path = model;
    worker_options.threads = 1;
    worker_options.host_bytes = uint64_t{64} << 20;
    shelf = *RankShelf::Open(dir.File("shelf"), uint64_t{64} << 20);
    worker_options.shelf = shelf.get();
    worker = *RankWorker::Create(worker_options);
    WeightRankOptions part;
    part.model_path = model;
    part.threads = 1;
    part.seat = {1, 2};
    weights = *WeightRank::Create(part);
  }
  TempDir dir;
  std::string model;
  std::unique_ptr<RankShelf> shelf;
  std::unique_ptr<RankWorker> worker;
  std::unique_ptr<WeightRank> weights;
};

World& TheWorld() {
  static World* const kWorld = new World;
  return *kWorld;
}

// Rank 0 as an input has it: what is received are its bytes, what is sent nobody reads.
class InputTransport final : public Transport {
 public:
  explicit InputTransport(std::string_view input) : input_(input) {}
  uint32_t rank() const override { return 1; }
  uint32_t size() const override { return 2; }
  std::string NameOf(uint32_t rank) const override { return "rank " + std::to_string(rank); }
  TransferPtr Send(uint32_t /*to*/, std::span<const std::byte> /*bytes*/) override {
    return std::make_unique<Done>(status_);
  }
  TransferPtr Receive(uint32_t /*from*/, std::span<std::byte> bytes) override {
    if (input_.size() < bytes.size() && status_.ok()) {
      status_ = UnavailableError("rank 0 was lost");
    }
    if (!status_.ok()) return std::make_unique<Done>(status_);
    std::memcpy(bytes.data(), input_.data(), bytes.size());
    input_.remove_prefix(bytes.size());
    return std::make_unique<Done>(status_);
  }
  void Abort(const Status& why) override {
    if (status_.ok()) status_ = why;
  }

 private:
  class Done final : public Transfer {
   public:
    explicit Done(Status status) : status_(std::move(status)) {}
    Status Wait() override { return status_; }

   private:
    const Status status_;
  };

  std::string_view input_;
  Status status_;
};

void FollowInput(std::string_view input) {
  RankChannels channels;
  channels.control = std::make_unique<InputTransport>(input);
  const Status ended = TheWorld().worker->Follow(std::move(channels));
  CHECK(!ended.ok() && !ended.message().empty()) << ended.ToString();
}

// Calls serve with a socket from which the input comes, then its end.
template <typename Serve>
void ServeInput(std::string_view input, const Serve& serve) {
  auto ends = *MakeSocketPair();
  std::jthread feeder([here = std::move(ends.first), input] {
    const auto soon = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    (void)SendBytes(here, std::as_bytes(std::span(input.data(), input.size())), soon);
  });
  const Status ended = serve(ends.second);
  CHECK(!ended.ok() && ended.message().size() < 4096) << ended.ToString();
  ends.second.Close();
}

void ReadMessage(std::string_view input) {
  RankMessageReader message(input);
  for (int i = 0; i < 8; ++i) {
    CHECK(message.Text().size() <= input.size());
    CHECK(message.Array<uint64_t>().size() * sizeof(uint64_t) <= input.size());
    CHECK(message.Array<Digest>().size() * sizeof(Digest) <= input.size());
    (void)message.Number();
  }
  (void)message.Finish();
  RankReply reply;
  std::memcpy(&reply, input.data(), std::min(input.size(), sizeof(reply)));
  CHECK(reply.status().message().size() <= reply.text.size());
}

// The input as the frames of a peer, of which one message of 64 bytes is expected.
void ReadFrames(std::string_view input) {
  auto ends = *MakeSocketPair();
  const auto soon = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  const auto bytes = std::as_bytes(std::span(input.data(), std::min<size_t>(input.size(), 4096)));
  CHECK(SendBytes(ends.first, bytes, soon).ok());
  ends.first.Close();
  TcpPeer peer(std::move(ends.second), "rank 0");
  std::vector<std::byte> target(64);
  const auto message = std::make_shared<TcpMessage>();
  message->target = target;
  peer.Receive(message);
  Status status;
  for (int i = 0; i < 64 && status.ok() && !message->done; ++i) {
    bool moved = false;
    status = peer.Move(peer.Wanted(), &moved);
  }
}

void Check(std::string_view input) {
  if (input.empty()) return;
  const char who = input.front();
  input.remove_prefix(1);
  const auto never = [] { return false; };
  World& world = TheWorld();
  switch (who) {
    case 'f': {
      world.dir.Write("ranks", input);
      const auto addresses = ReadRankFile(world.dir.File("ranks"));
      CHECK(!addresses.ok() || (addresses->size() >= 2 && addresses->size() <= 64));
      return;
    }
    case 'm':
      return ReadMessage(input);
    case 'w':
      return FollowInput(input);
    case 's':
      return ServeInput(input, [&](Socket& socket) { return world.shelf->Serve(socket, never); });
    case 'p':
      return ServeInput(input, [&](Socket& socket) { return world.weights->Serve(socket, never); });
    case 't':
      return ReadFrames(input);
    default:
      return;
  }
}

}  // namespace
}  // namespace corpusd

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  corpusd::Check({reinterpret_cast<const char*>(data), size});
  return 0;
}
