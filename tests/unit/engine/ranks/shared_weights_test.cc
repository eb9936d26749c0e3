// Ranks that have parts of another's weights against one that has all: hidden states, logits and
// stored keys and values, bit for bit; what is lost with one of them, and what it refuses.
#include "engine/ranks/shared_weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>

#include "engine/backend/cpu_backend.h"
#include "engine/ranks/rank_message.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/engine/hybrid_fixture.h"
#include "tests/unit/engine/ranks/model_outcome.h"

namespace corpusd {
namespace {

// What `corpusd --rank K` runs for a rank that has no text.
class ServedRank {
 public:
  ServedRank(const std::string& model, const WeightSeat& seat, const std::string& at) {
    WeightRankOptions options;
    options.model_path = model;
    options.threads = 1;
    options.seat = seat;
    auto rank = WeightRank::Create(options);
    EXPECT_TRUE(rank.ok()) << rank.status().ToString();
    rank_ = std::move(*rank);
    auto listener = ListenTcp(at, &address_);
    EXPECT_TRUE(listener.ok()) << listener.status().ToString();
    listener_ = std::move(*listener);
    thread_ = std::jthread(
        [this] { (void)rank_->ServeAll(listener_, [this] { return stop_.load(); }, {}); });
  }
  ~ServedRank() { stop_ = true; }
  const std::string& address() const { return address_; }

 private:
  std::unique_ptr<WeightRank> rank_;
  std::string address_;
  Socket listener_;
  std::atomic<bool> stop_{false};
  std::jthread thread_;
};

SharedWeightsOptions OptionsFor(const std::string& model, const ModelSource& source,
                                uint32_t ranks) {
  SharedWeightsOptions options;
  options.part.model_path = model;
  options.part.threads = 1;
  options.part.seat = {0, ranks};
  options.digest = *source.WeightsDigestHex("");
  options.timeout = std::chrono::milliseconds(20'000);
  options.patience = std::chrono::milliseconds(500);
  return options;
}

class SharedWeightsTest : public ::testing::Test {
 protected:
  void Write(const TinyModelOptions& options) {
    path_ = folder_.File("tiny.gguf");
    WriteTinyModel(path_, options);
    source_ = *OpenModelSource(path_);
  }
  KvLayout LayoutOf(const Model& model) const {
    KvLayout layout;
    layout.blocks = layout.own = *model.Format("bf16");
    return layout;
  }
  Outcome Alone() {
    const auto backend = *MakeCpuBackend({.threads = 1});
    const auto model = *LoadModel(*source_, *backend);
    return RunModel(*model, *backend, LayoutOf(*model), 300);
  }
  // Ranks 1 .. ranks - 1 as processes have them.
  void Serve(uint32_t ranks) {
    served_.clear();
    for (uint32_t rank = 1; rank < ranks; ++rank) {
      served_.push_back(
          std::make_unique<ServedRank>(path_, WeightSeat{rank, ranks}, "127.0.0.1:0"));
    }
  }
  SharedWeightsOptions Calling(uint32_t ranks) const {
    SharedWeightsOptions options = OptionsFor(path_, *source_, ranks);
    for (const auto& rank : served_) options.addresses.push_back(rank->address());
    return options;
  }

  TempDir folder_;
  std::string path_;
  std::unique_ptr<ModelSource> source_;
  std::vector<std::unique_ptr<ServedRank>> served_;
};

// No number of ranks has to divide anything: 5 ranks share 3 KV heads and 96 hidden numbers.
TEST_F(SharedWeightsTest, AnyNumberOfRanksHasTheBitsOfOne) {
  for (const TinyModelOptions& tiny : {Heads(8, 4, 128, 256), Heads(6, 3, 96, 224)}) {
    Write(tiny);
    const Outcome alone = Alone();
    for (const uint32_t ranks : {2u, 3u, 5u}) {
      SCOPED_TRACE(std::to_string(ranks) + " threads");
      const auto local = *MakeCpuBackend({.threads = 1});
      const auto shared = SharedWeights::Open(*local, OptionsFor(path_, *source_, ranks));
      ASSERT_TRUE(shared.ok()) << shared.status().ToString();
      WeightBackend& backend = (*shared)->backend();
      const auto model = *LoadModel(*source_, backend);
      const Outcome outcome = RunModel(*model, backend, LayoutOf(*model), 300);
      EXPECT_EQ(outcome.numbers, alone.numbers);
      EXPECT_EQ(outcome.blocks, alone.blocks);
    }
  }
}

TEST_F(SharedWeightsTest, EachRankHoldsItsPart) {
  Write(Heads(8, 4, 512, 1024));
  const auto whole = *MakeCpuBackend({.threads = 1});
  PartBackend all(*whole, {0, 1});
  const auto model = *LoadModel(*source_, all);
  for (const uint32_t ranks : {2u, 4u, 8u}) {
    const auto local = *MakeCpuBackend({.threads = 1});
    const auto shared = *SharedWeights::Open(*local, OptionsFor(path_, *source_, ranks));
    const auto part = *LoadModel(*source_, shared->backend());
    std::vector<uint64_t> bytes = {shared->backend().weight_bytes()};
    for (const SharedWeights::Peer& peer : shared->peers()) bytes.push_back(peer.weight_bytes);
    ASSERT_EQ(bytes.size(), ranks);
    for (const uint64_t some : bytes) {
      EXPECT_NEAR(static_cast<double>(some) * ranks / static_cast<double>(all.weight_bytes()), 1,
                  0.05)
          << ranks << " ranks";
    }
  }
}

class SharedFamiliesTest : public HybridFixture {
 protected:
  void Compare(const char* family, uint32_t span, uint32_t ranks) {
    Start({family, span});
    const Outcome alone = RunShort(*own_model_, *backend_, Layout());
    const auto local = *MakeCpuBackend({.threads = 1});
    const auto shared =
        SharedWeights::Open(*local, OptionsFor(options_.model_path, *source_, ranks));
    ASSERT_TRUE(shared.ok()) << shared.status().ToString();
    const auto model = *LoadModel(*source_, (*shared)->backend());
    EXPECT_EQ(RunShort(*model, (*shared)->backend(), Layout()).numbers, alone.numbers)
        << family << ", " << ranks << " ranks";
  }
};

TEST_F(SharedFamiliesTest, ExpertsBiasesWindowsAndChunksAreSharedAsWell) {
  Compare("llama4 as Scout", 128, 2);
  Compare("llama4 interleaved", 128, 3);  // two experts a token
  Compare("llama4 tied output, biases", 128, 2);
  Compare("qwen2: biases", 0, 3);
  Compare("gemma 3", 128, 4);
}

TEST_F(SharedWeightsTest, ALostRankIsNamedAndItsReturnIsTakenIn) {
  Write(Heads(8, 4, 128, 256));
  const Outcome alone = Alone();
  Serve(3);
  ComputeGate gate;
  const auto local = *MakeCpuBackend({.threads = 1});
  const auto opened = SharedWeights::Open(*local, Calling(3));
  ASSERT_TRUE(opened.ok()) << opened.status().ToString();
  SharedWeights& shared = **opened;
  const auto model = *LoadModel(*source_, shared.backend());
  EXPECT_EQ(RunModel(*model, shared.backend(), LayoutOf(*model), 300).numbers, alone.numbers);
  const std::string address = served_[1]->address();
  served_[1].reset();
  const auto scratch = *ForwardScratch::Create(shared.backend(), model->config(), 40);
  const auto forward = [&] {
    const KvFormat format = *model->Format("bf16");
    KvSequence kv(format, format);
    return model->Forward(SomeIds(40, 1), kv, *scratch, [] { return true; });
  };
  const Status lost = forward();
  EXPECT_EQ(lost.code(), StatusCode::kUnavailable) << lost.ToString();
  EXPECT_NE(lost.message().find("rank 2 (" + address + "), which has a part of the weights"),
            std::string::npos)
      << lost.ToString();
  EXPECT_EQ(forward().message(), lost.message());
  EXPECT_EQ(shared.CallAgain().code(), StatusCode::kUnavailable);
  served_[1] = std::make_unique<ServedRank>(path_, WeightSeat{2, 3}, address);
  const Status again = shared.CallAgain();
  ASSERT_TRUE(again.ok()) << again.ToString();
  EXPECT_EQ(RunModel(*model, shared.backend(), LayoutOf(*model), 300).numbers, alone.numbers);
  // In the background, whoever computes.
  shared.CallAgainWhenLost([&](const std::function<void()>& change) {
    const ComputeGate::Turn turn(gate, ComputePriority::kQuestion);
    change();
  });
  const std::string first = served_[0]->address();
  served_[0].reset();
  served_[0] = std::make_unique<ServedRank>(path_, WeightSeat{1, 3}, first);
  Status there = UnavailableError("not tried");
  for (int i = 0; i < 400 && !there.ok(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    const ComputeGate::Turn turn(gate, ComputePriority::kQuestion);
    there = forward();
  }
  EXPECT_TRUE(there.ok()) << there.ToString();
}

TEST_F(SharedWeightsTest, WhoHasOtherWeightsOrAnotherPartIsRefusedByName) {
  Write(Heads(8, 4, 128, 256));
  served_.push_back(std::make_unique<ServedRank>(path_, WeightSeat{1, 2}, "127.0.0.1:0"));
  const auto local = *MakeCpuBackend({.threads = 1});
  SharedWeightsOptions options = Calling(2);
  options.digest[0] = options.digest[0] == '0' ? '1' : '0';
  const Status other = SharedWeights::Open(*local, options).status();
  EXPECT_EQ(other.code(), StatusCode::kFailedPrecondition) << other.ToString();
  EXPECT_NE(other.message().find("rank 1 (" + served_[0]->address() + "): it has other weights"),
            std::string::npos)
      << other.ToString();
  options = Calling(2);
  options.part.seat.ranks = 3;
  options.addresses.push_back("127.0.0.1:1");
  const Status part = SharedWeights::Open(*local, options).status();
  EXPECT_NE(part.message().find("part 1 of 2, and part 1 of 3 is wanted"), std::string::npos)
      << part.ToString();
  options = Calling(2);
  options.addresses[0] = "127.0.0.1:1";
  const Status nobody = SharedWeights::Open(*local, options).status();
  EXPECT_EQ(nobody.code(), StatusCode::kUnavailable) << nobody.ToString();
  EXPECT_NE(nobody.message().find("rank 1 (127.0.0.1:1), which has a part of the weights, is not"),
            std::string::npos)
      << nobody.ToString();
}

// One that is a thread and ends what it does is noticed at once, not when its time is up.
TEST_F(SharedWeightsTest, AThreadThatCannotGoOnIsLostAtOnce) {
  Write(Heads(4, 2, 32, 64));
  const auto local = *MakeCpuBackend({.threads = 1});
  const auto shared = *SharedWeights::Open(*local, OptionsFor(path_, *source_, 2));
  WeightBackend& backend = shared->backend();
  const auto model = *LoadModel(*source_, backend);
  const auto part =
      std::find_if(backend.weights().begin(), backend.weights().end(),
                   [](const PartWeight* one) { return !one->is_expert() && one->CountOf(1) > 0; });
  ASSERT_NE(part, backend.weights().end());
  const uint32_t rows = kWeightRowsMax + 1;  // more than it takes
  const uint64_t x_bytes = uint64_t{rows} * (*part)->cols() * sizeof(float);
  const uint64_t out_bytes = uint64_t{rows} * (*part)->rows() * sizeof(float);
  const auto x = *backend.Allocate(x_bytes, "x"), out = *backend.Allocate(out_bytes, "out");
  const auto start = std::chrono::steady_clock::now();
  backend.MatMul(out->Matrix(rows, (*part)->rows()), x->Matrix(rows, (*part)->cols()), **part,
                 /*accumulate=*/false);
  const Status lost = backend.Synchronize();
  EXPECT_LT(std::chrono::steady_clock::now() - start, OptionsFor(path_, *source_, 2).timeout / 2);
  EXPECT_EQ(lost.code(), StatusCode::kUnavailable) << lost.ToString();
  EXPECT_NE(lost.message().find("thread 1, which has a part of the weights, was lost"),
            std::string::npos)
      << lost.ToString();
}

// Whatever is asked, the rank answers what there is or ends the connection.
TEST_F(SharedWeightsTest, RequestsThatAreNoneEndTheConnection) {
  Write(Heads(8, 4, 128, 256));
  WeightRankOptions options;
  options.model_path = path_;
  options.threads = 1;
  options.seat = {1, 2};
  const auto rank = *WeightRank::Create(options);
  const auto ended = [&](const WeightRequest& request) {
    auto [here, there] = *MakeSocketPair();
    WeightHello hello;
    hello.rank = 1;
    hello.ranks = 2;
    hello.weights = PaddedText<64>(*source_->WeightsDigestHex(""));
    hello.backend = PaddedText<40>(rank->backend());
    const Deadline soon = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    EXPECT_TRUE(SendBytes(here, std::as_bytes(std::span(&hello, 1)), soon).ok());
    EXPECT_TRUE(SendBytes(here, std::as_bytes(std::span(&request, 1)), soon).ok());
    std::vector<std::byte> zeros(4096);
    EXPECT_TRUE(SendBytes(here, zeros, soon).ok());
    return rank->Serve(there, [] { return false; });
  };
  const WeightRequest requests[] = {
      {.op = WeightOp::kProduct, .weight = 1000, .rows = 1, .cols = 128},
      {.op = WeightOp::kProduct, .weight = 1, .rows = 1, .cols = 64},
      {.op = WeightOp::kProduct, .weight = 1, .rows = 0, .cols = 128},
      {.op = WeightOp::kProduct, .weight = 1, .rows = UINT32_MAX, .cols = 128},
      {.op = WeightOp::kTable, .weight = 0, .count = 0},
      {.op = WeightOp::kTable, .weight = 0, .count = UINT32_MAX},
      {.op = WeightOp::kExperts, .rows = 1, .cols = 128, .count = 1, .width = 4, .used = 1},
      {.op = WeightOp::kExperts, .rows = 1, .cols = 128, .count = 9, .width = 4, .used = 1},
      {.op = static_cast<WeightOp>(77)},
  };
  for (const WeightRequest& request : requests) {
    const Status status = ended(request);
    EXPECT_EQ(status.code(), StatusCode::kInternal)
        << static_cast<uint32_t>(request.op) << ": " << status.ToString();
  }
}

}  // namespace
}  // namespace corpusd
