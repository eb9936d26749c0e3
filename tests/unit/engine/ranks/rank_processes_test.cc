// An engine that is rank 0 of a rank file, with the others over TCP, each with a model, memory and
// disk of its own: what one engine alone stores and answers, also when a rank goes and comes.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "engine/ranks/rank_crew.h"
#include "tests/unit/engine/engine_fixture.h"
#include "tests/unit/engine/ranks/separate_device.h"

namespace corpusd {
namespace {

// Longer than a span of pages, so that a corpus lies with several ranks.
constexpr size_t kWords = 1400;

// What `corpusd --rank K` runs, as threads of the test.
class Rank {
 public:
  Rank(const std::string& model, const std::string& folder, const TestDevices& devices,
       std::vector<std::string> addresses, uint32_t rank) {
    auto shelf = RankShelf::Open(folder, uint64_t{1} << 30);
    EXPECT_TRUE(shelf.ok()) << shelf.status().ToString();
    shelf_ = std::move(*shelf);
    RankWorkerOptions options;
    options.model_path = model;
    options.threads = 1;
    options.host_bytes = uint64_t{1} << 30;
    options.shelf = shelf_.get();
    options.device = devices.NameOf(rank);
    options.devices = devices.source;
    auto worker = RankWorker::Create(options);
    EXPECT_TRUE(worker.ok()) << worker.status().ToString();
    worker_ = std::move(*worker);
    RankProcessOptions process;
    process.addresses = std::move(addresses);
    process.rank = rank;
    const auto stopped = [this] { return stop_.load(); };
    following_ = std::jthread(
        [this, process, stopped] { (void)FollowRankZero(*worker_, process, stopped); });
    serving_ = std::jthread(
        [this, process, stopped] { (void)ServeShelf(*shelf_, *worker_, process, stopped); });
  }
  ~Rank() {
    stop_ = true;
    worker_->Abort(UnavailableError("killed"));
  }

 private:
  std::atomic<bool> stop_{false};
  std::unique_ptr<RankShelf> shelf_;
  std::unique_ptr<RankWorker> worker_;
  std::jthread following_, serving_;
};

class RankProcessesTest : public EngineFixture, public ::testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    options_.threads = 1;
    EngineFixture::SetUp();
    model_.context_tokens = 24576;
    WriteTinyModel(options_.model_path, model_);
    Open("alone");
    Ingest("text", Prose(kWords));
    alone_ = *store_->GetCorpus("text");
    bytes_ = BytesOf("text");
    answer_ = Ask("text")->answer;
    ASSERT_GT(alone_.chain.size(), 68u);
  }
  void TearDown() override {
    ranks_.clear();
    EngineFixture::TearDown();
  }

  void Open(const std::string& folder) {
    engine_.reset();
    store_.reset();
    store_options_.data_dir = folder_.File(folder);
    Restart();
  }
  // Addresses of so many ranks; the engine over the folder is the first.
  void OpenGroup(uint32_t ranks, const std::string& folder) {
    options_.ranks.addresses.clear();
    for (uint32_t rank = 0; rank < ranks; ++rank) {
      std::string address;
      const auto free_port = ListenTcp("127.0.0.1:0", &address);
      ASSERT_TRUE(free_port.ok());
      options_.ranks.addresses.push_back(address);
    }
    devices_.Use(1, &options_, &store_options_);
    options_.ranks.store_id = folder;
    store_options_.shelves = ranks - 1;
    Open(folder);
    for (uint32_t rank = 1; rank < ranks; ++rank) StartRank(rank, folder);
    AwaitRanks(ranks - 1);
  }
  void StartRank(uint32_t rank, const std::string& folder) {
    ranks_[rank] = std::make_unique<Rank>(options_.model_path,
                                          folder_.File(folder + "-" + std::to_string(rank)),
                                          devices_, options_.ranks.addresses, rank);
  }
  // So many follow, and have their disks attached.
  void AwaitRanks(uint32_t count) {
    const auto there = [&] {
      uint32_t follow = 0;
      for (const RankStatus& rank : engine_->ranks().ranks) {
        follow += rank.state == "follows" && rank.disk_capacity_bytes > 0;
      }
      return follow;
    };
    for (int i = 0; i < 3000 && there() != count; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ASSERT_EQ(there(), count);
  }
  size_t BlocksOnShelves() {
    size_t count = 0;
    const auto locations = store_->Locations(std::span(store_->GetCorpus("text")->chain));
    for (const auto& location : *locations) count += location && ShelfOf(location->extent) != 0;
    return count;
  }

  CorpusRecord alone_;
  std::string bytes_, answer_;
  std::map<uint32_t, std::unique_ptr<Rank>> ranks_;
  const TestDevices devices_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Devices, RankProcessesTest, ::testing::Values("cpu", "device"));

TEST_P(RankProcessesTest, ACorpusIsThatOfOneRankAndLiesOnTheDisksOfAll) {
  OpenGroup(3, "three");
  Ingest("text", Prose(kWords));
  EXPECT_EQ(store_->GetCorpus("text")->chain, alone_.chain);
  const size_t shelved = BlocksOnShelves();
  EXPECT_GT(shelved, 0u);
  EXPECT_LT(shelved, alone_.chain.size());
  EXPECT_EQ(Ask("text")->answer, answer_);
  EXPECT_EQ(BytesOf("text"), bytes_);
  const auto verified = engine_->Verify("text", false, {});
  ASSERT_TRUE(verified.ok());
  EXPECT_TRUE(verified->report.damaged.empty() && verified->report.missing.empty());
  EXPECT_EQ(engine_->ranks().lost, 0u);
  // All begin anew: each loads its own blocks.
  ranks_.clear();
  Open("three");
  StartRank(1, "three");
  StartRank(2, "three");
  AwaitRanks(2);
  const uint64_t passes = engine_->ranks().passes;
  EXPECT_EQ(Ask("text")->answer, answer_);
  EXPECT_GT(engine_->ranks().passes, passes);
}

TEST_P(RankProcessesTest, ALostRankIsNamedAndItsBlocksAreAwayUntilTheyAreComputedAgain) {
  OpenGroup(2, "two");
  Ingest("text", Prose(kWords));
  ASSERT_GT(BlocksOnShelves(), 0u);
  // In a question.
  QuestionRequest request;
  request.corpus = "text";
  request.question = "why?";
  request.max_tokens = 4000;
  const auto cut_off = engine_->Ask(request,
                                    [&](const auto&) {
                                      ranks_.clear();
                                      return true;
                                    },
                                    {});
  EXPECT_EQ(cut_off.status().code(), StatusCode::kUnavailable) << cut_off.status().ToString();
  EXPECT_NE(cut_off.status().message().find("rank 1 of 2"), std::string::npos)
      << cut_off.status().ToString();
  AwaitRanks(0);
  ASSERT_TRUE(store_->Evict("text", TierKind::kHost, false).ok());
  EXPECT_EQ(Ask("text").status().code(), StatusCode::kUnavailable);
  // It comes back.
  StartRank(1, "two");
  AwaitRanks(1);
  EXPECT_EQ(Ask("text")->answer, answer_);
  // It does not.
  ranks_.clear();
  for (int i = 0; i < 1000 && engine_->ranks().ranks[1].disk_capacity_bytes > 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  ASSERT_TRUE(store_->Evict("text", TierKind::kHost, false).ok());
  const auto repaired = engine_->Verify("text", true, {});
  ASSERT_TRUE(repaired.ok()) << repaired.status().ToString();
  EXPECT_GT(repaired->repaired, 0u);
  EXPECT_EQ(BlocksOnShelves(), 0u);
  EXPECT_EQ(Ask("text")->answer, answer_);
  EXPECT_EQ(BytesOf("text"), bytes_);
}

TEST_P(RankProcessesTest, APrefillGoesOnOverThoseThatAreLeft) {
  OpenGroup(3, "three");
  ASSERT_TRUE(Create("text", Prose(kWords)).ok());
  const Status cut_off = engine_->Prefill("text",
                                          [&](const PrefillProgress& progress) {
                                            if (progress.done_tokens > 4096) ranks_.erase(1);
                                          },
                                          {});
  EXPECT_EQ(cut_off.code(), StatusCode::kUnavailable) << cut_off.ToString();
  EXPECT_NE(cut_off.message().find("rank 1 of 3"), std::string::npos) << cut_off.ToString();
  EXPECT_EQ(store_->GetCorpus("text")->state, CorpusState::kFailed);
  EXPECT_GT(store_->GetCorpus("text")->durable_tokens, 4096u);
  AwaitRanks(1);
  const Status finished = engine_->Prefill("text", [](const PrefillProgress&) {}, {});
  ASSERT_TRUE(finished.ok()) << finished.ToString();
  EXPECT_EQ(store_->GetCorpus("text")->chain, alone_.chain);
  EXPECT_EQ(BytesOf("text"), bytes_);
  EXPECT_EQ(Ask("text")->answer, answer_);
  // The lost one is let in while the others are together.
  StartRank(1, "three");
  AwaitRanks(2);
  EXPECT_EQ(Ask("text")->answer, answer_);
}

TEST_P(RankProcessesTest, APrefillGoesOnAloneWhenAllOthersAreLost) {
  OpenGroup(2, "two");
  ASSERT_TRUE(Create("text", Prose(kWords)).ok());
  const Status cut_off = engine_->Prefill("text",
                                          [&](const PrefillProgress& progress) {
                                            if (progress.done_tokens > 1024) ranks_.clear();
                                          },
                                          {});
  EXPECT_EQ(cut_off.code(), StatusCode::kUnavailable) << cut_off.ToString();
  const Status finished = engine_->Prefill("text", [](const PrefillProgress&) {}, {});
  ASSERT_TRUE(finished.ok()) << finished.ToString();
  EXPECT_EQ(store_->GetCorpus("text")->chain, alone_.chain);
  EXPECT_EQ(BytesOf("text"), bytes_);
}

}  // namespace
}  // namespace corpusd
