#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <map>
#include <random>
#include <thread>

#include "engine/ranks/rank_crew.h"
#include "engine/ranks/tcp_transport.h"

namespace corpusd {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr uint64_t kMagic = 0x316b6e6172637071;  // no other protocol's first bytes
constexpr uint32_t kRanksMax = 64;
// A look at who knocks, and at whether all should stop.
constexpr milliseconds kLook{200};
constexpr milliseconds kHelloTimeout{2'000};
constexpr milliseconds kConnectTimeout{10'000};

// A rank asks to be in the next group, or offers its disk.
struct Hello {
  uint64_t magic = kMagic;
  uint32_t rank = 0, ranks = 0;  // of the rank file
  uint32_t shelf = 0;
  uint32_t stride = 1;  // ranks that share weights
  std::array<char, 64> weights{};
  std::array<char, 40> backend{};
};
static_assert(sizeof(Hello) == 128);

// Rank 0's answer: who is in it, or why this one is not.
struct Invite {
  uint64_t magic = kMagic;
  uint64_t job = 0;
  uint32_t members = 0;  // 0: refused
  uint32_t place = 0;    // of the rank among the members
  std::array<uint32_t, kRanksMax> ranks{};
  std::array<char, 232> refusal{};
};
static_assert(sizeof(Invite) == 512);

template <size_t N>
void PutText(std::string_view text, std::array<char, N>* into) {
  text = text.substr(0, N);
  std::copy(text.begin(), text.end(), into->begin());
}
template <size_t N>
std::string TextOf(const std::array<char, N>& from) {
  return {from.begin(), std::find(from.begin(), from.end(), '\0')};
}

template <typename T>
std::span<const std::byte> BytesOf(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}
template <typename T>
std::span<std::byte> WritableBytesOf(T& value) {
  return std::as_writable_bytes(std::span(&value, 1));
}

Socket Duplicate(const Socket& socket) { return Socket(dup(socket.fd())); }

TcpJob JobOf(const Invite& invite, std::span<const std::string> addresses, milliseconds timeout) {
  TcpJob job;
  job.rank = invite.place;
  job.number = invite.job;
  job.connect_timeout = kConnectTimeout;
  job.transfer_timeout = timeout;
  for (uint32_t i = 0; i < invite.members; ++i) job.addresses.push_back(addresses[invite.ranks[i]]);
  return job;
}

class ProcessCrew final : public RankCrew {
 public:
  ProcessCrew(const ProcessCrewOptions& options, Socket listener)
      : options_(options), listener_(std::move(listener)), random_(std::random_device()()) {}

  std::vector<std::string> names() const override { return options_.addresses; }

  Result<Group> Muster(const std::function<bool()>& stopped) override {
    auto since = steady_clock::now();
    while (!stopped()) {
      Look(steady_clock::now() + kLook);
      if (waiting_.empty()) {
        since = steady_clock::now();
        continue;
      }
      const bool all = waiting_.size() + 1 == options_.addresses.size() / options_.stride;
      if (!all && steady_clock::now() - since < options_.patience) continue;
      auto group = Form();
      if (group.ok()) return group;
      since = steady_clock::now();
    }
    return CancelledError("the daemon is stopping");
  }

  bool MoreWait() override {
    Look(steady_clock::now());
    return !waiting_.empty();
  }

 private:
  // Takes in who knocks until then, and lets go of who has gone.
  void Look(Deadline deadline) {
    while (true) {
      std::erase_if(waiting_, [](const auto& rank) { return HasClosed(rank.second); });
      auto socket = AcceptTcp(listener_, deadline);
      if (!socket.ok()) return;
      Hello hello;
      const Deadline heard = steady_clock::now() + kHelloTimeout;
      if (!ReceiveBytes(*socket, WritableBytesOf(hello), heard).ok()) continue;
      if (hello.magic != kMagic) continue;
      const Status fits = Check(hello);
      if (fits.ok() && hello.shelf != 0) {
        if (options_.on_shelf) options_.on_shelf(hello.rank, std::move(*socket));
        continue;
      }
      if (fits.ok()) {
        waiting_[hello.rank] = std::move(*socket);
        continue;
      }
      Invite refused;
      PutText(fits.message(), &refused.refusal);
      (void)SendBytes(*socket, BytesOf(refused), heard);
    }
  }

  Status Check(const Hello& hello) const {
    const std::string who = "rank " + std::to_string(hello.rank);
    if (hello.ranks != options_.addresses.size() || hello.rank == 0 || hello.rank >= hello.ranks) {
      return FailedPreconditionError(who + " has another rank file: it says " +
                                     std::to_string(hello.ranks) + " ranks, rank 0 " +
                                     std::to_string(options_.addresses.size()));
    }
    if (hello.stride != options_.stride || hello.rank % options_.stride != 0) {
      return FailedPreconditionError(who + " shares weights among " + std::to_string(hello.stride) +
                                     " ranks, rank 0 among " + std::to_string(options_.stride) +
                                     ": give all the same --tensor-parallel");
    }
    const RankIdentity& mine = options_.identity;
    if (TextOf(hello.weights) != mine.weights) {
      return FailedPreconditionError(who + " has other weights than rank 0");
    }
    if (TextOf(hello.backend) == mine.backend) return OkStatus();
    return FailedPreconditionError(who + " computes with '" + TextOf(hello.backend) +
                                   "', rank 0 with '" + mine.backend +
                                   "': give all the same --isa");
  }

  // A group of rank 0 and all who wait.
  Result<Group> Form() {
    Group group;
    group.members.push_back(0);
    Invite invite;
    invite.job = random_();
    for (const auto& [rank, socket] : waiting_) group.members.push_back(rank);
    invite.members = static_cast<uint32_t>(group.members.size());
    std::copy(group.members.begin(), group.members.end(), invite.ranks.begin());
    const std::map<uint32_t, Socket> invited = std::move(waiting_);
    waiting_.clear();
    for (const auto& [rank, socket] : invited) {
      ++invite.place;
      RETURN_IF_ERROR(SendBytes(socket, BytesOf(invite), steady_clock::now() + kHelloTimeout));
    }
    invite.place = 0;
    ASSIGN_OR_RETURN(
        group.channels.control,
        JoinTcpJob(Duplicate(listener_), JobOf(invite, options_.addresses, options_.timeout)));
    RETURN_IF_ERROR(
        group.channels.ConnectDevices(*options_.devices, options_.device, options_.timeout));
    return group;
  }

  const ProcessCrewOptions options_;
  const Socket listener_;
  std::map<uint32_t, Socket> waiting_;  // by rank
  std::mt19937_64 random_;
};

Result<Socket> SayHello(const RankWorker& worker, const RankProcessOptions& options, bool shelf) {
  ASSIGN_OR_RETURN(Socket socket,
                   ConnectTcp(options.addresses.front(), steady_clock::now() + kLook));
  Hello hello;
  hello.rank = options.rank;
  hello.ranks = static_cast<uint32_t>(options.addresses.size());
  hello.shelf = shelf ? 1 : 0;
  hello.stride = options.stride;
  PutText(worker.weights(), &hello.weights);
  PutText(worker.backend(), &hello.backend);
  RETURN_IF_ERROR(SendBytes(socket, BytesOf(hello), steady_clock::now() + kHelloTimeout));
  return socket;
}

// Asks rank 0, and waits for its answer as long as it takes.
Result<Invite> AskToJoin(const RankWorker& worker, const RankProcessOptions& options,
                         const std::function<bool()>& stopped) {
  ASSIGN_OR_RETURN(const Socket socket, SayHello(worker, options, /*shelf=*/false));
  while (!AwaitBytes(socket, steady_clock::now() + kLook)) {
    if (stopped()) return CancelledError("the rank is stopping");
  }
  Invite invite;
  RETURN_IF_ERROR(
      ReceiveBytes(socket, WritableBytesOf(invite), steady_clock::now() + kHelloTimeout));
  const uint64_t ranks = options.addresses.size();
  const bool sound =
      invite.magic == kMagic && invite.members <= ranks && invite.place < ranks &&
      std::all_of(invite.ranks.begin(), invite.ranks.end(), [&](uint32_t r) { return r < ranks; });
  if (!sound) return UnavailableError("who answers is no rank 0");
  if (invite.members > 0) return invite;
  return FailedPreconditionError("rank 0 refuses this rank: " + TextOf(invite.refusal));
}

}  // namespace

Result<std::unique_ptr<RankCrew>> MakeProcessCrew(const ProcessCrewOptions& options) {
  std::string bound;
  ASSIGN_OR_RETURN(Socket listener, ListenTcp(options.addresses.front(), &bound));
  return std::unique_ptr<RankCrew>(std::make_unique<ProcessCrew>(options, std::move(listener)));
}

Status FollowRankZero(RankWorker& worker, const RankProcessOptions& options,
                      const std::function<bool()>& stopped) {
  const auto tell = [&](const std::string& what) {
    if (options.on_change) options.on_change(what);
  };
  std::string bound;
  ASSIGN_OR_RETURN(const Socket listener, ListenTcp(options.addresses[options.rank], &bound));
  bool whole = true;
  while (!stopped()) {
    // Without all weights there is nothing that it could do.
    const Status weights = worker.CallWeights();
    if (!weights.ok()) {
      if (whole) tell(weights.message());
      whole = false;
      std::this_thread::sleep_for(kLook);
      continue;
    }
    whole = true;
    const auto invite = AskToJoin(worker, options, stopped);
    if (invite.status().code() == StatusCode::kFailedPrecondition) return invite.status();
    if (!invite.ok()) {
      std::this_thread::sleep_for(kLook);
      continue;
    }
    RankChannels channels;
    auto joined =
        JoinTcpJob(Duplicate(listener), JobOf(*invite, options.addresses, options.timeout));
    if (!joined.ok()) {
      tell("the group was not formed: " + joined.status().message());
      continue;
    }
    channels.control = *std::move(joined);
    if (const Status connected = worker.ConnectDevices(channels, options.timeout);
        !connected.ok()) {
      tell("the group was not formed: " + connected.message());
      continue;
    }
    tell("follows in a group of " + std::to_string(invite->members) + " ranks");
    const Status ended = worker.Follow(std::move(channels));
    tell("the group ended: " + ended.message());
    if (worker.lost()) return FailedPreconditionError("the device is lost: " + ended.message());
  }
  return OkStatus();
}

Status ServeShelf(RankShelf& shelf, const RankWorker& worker, const RankProcessOptions& options,
                  const std::function<bool()>& stopped) {
  while (!stopped()) {
    const auto socket = SayHello(worker, options, /*shelf=*/true);
    const Status served = socket.ok() ? shelf.Serve(*socket, stopped) : socket.status();
    if (served.code() == StatusCode::kFailedPrecondition) return served;
    std::this_thread::sleep_for(kLook);
  }
  return OkStatus();
}

Result<std::vector<std::string>> ReadRankFile(const std::string& path) {
  std::ifstream file(path);
  if (!file) return NotFoundError("the rank file '" + path + "' cannot be read");
  std::vector<std::string> addresses;
  std::string line;
  for (size_t number = 1; std::getline(file, line); ++number) {
    line = line.substr(0, line.find('#'));
    const size_t begin = line.find_first_not_of(" \t\r");
    if (begin == std::string::npos) continue;
    line = line.substr(begin, line.find_last_not_of(" \t\r") - begin + 1);
    const size_t colon = line.rfind(':');
    const bool port = colon != std::string::npos && colon > 0 && colon + 1 < line.size() &&
                      line.find_first_not_of("0123456789", colon + 1) == std::string::npos;
    if (!port) {
      return InvalidArgumentError("line " + std::to_string(number) + " of the rank file '" + path +
                                  "' is no address: host:port is");
    }
    addresses.push_back(line);
  }
  if (addresses.size() >= 2 && addresses.size() <= kRanksMax) return addresses;
  return InvalidArgumentError("the rank file '" + path + "' has " +
                              std::to_string(addresses.size()) + " ranks; from 2 to " +
                              std::to_string(kRanksMax) + " can be");
}

Status CheckStride(size_t ranks, uint32_t stride, const std::string& path) {
  if (stride > 0 && ranks % stride == 0) return OkStatus();
  return InvalidArgumentError("the rank file '" + path + "' has " + std::to_string(ranks) +
                              " ranks, which cannot share the weights " + std::to_string(stride) +
                              " by " + std::to_string(stride) +
                              ": --tensor-parallel must divide their number");
}

}  // namespace corpusd
