// Engines whose ranks share the weights, alone and in a grid with ranks that share a text, as
// threads and as processes have them: what one engine with all weights stores and answers.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "engine/ranks/rank_crew.h"
#include "engine/ranks/weight_rank.h"
#include "store/base/fault_point.h"
#include "tests/unit/engine/ranks/separate_device.h"
#include "tests/unit/engine/segmented_fixture.h"

namespace corpusd {
namespace {

// Longer than a span of pages, so that a corpus lies with several ranks.
constexpr size_t kWords = 1400;

// What `corpusd --rank K --tensor-parallel N` runs, as threads of the test.
class GridRank {
 public:
  // devices: that share its weights, by their numbers; none: it is a CPU.
  GridRank(const std::string& model, const std::string& folder, const RankProcessOptions& process,
           const TestDevices* kind = nullptr, const std::vector<uint32_t>& devices = {}) {
    const uint32_t place = process.rank % process.stride;
    const auto stopped = [this] { return stop_.load(); };
    if (place != 0) {
      WeightRankOptions part;
      part.model_path = model;
      part.threads = 1;
      part.seat = {place, process.stride};
      weights_ = *WeightRank::Create(part);
      std::string bound;
      listener_ = *ListenTcp(process.addresses[process.rank], &bound);
      serving_ =
          std::jthread([this, stopped] { (void)weights_->ServeAll(listener_, stopped, {}); });
      return;
    }
    shelf_ = *RankShelf::Open(folder, uint64_t{1} << 30);
    RankWorkerOptions options;
    options.model_path = model;
    options.threads = 1;
    options.host_bytes = uint64_t{1} << 30;
    options.shelf = shelf_.get();
    const auto own = process.addresses.begin() + process.rank;
    options.shared.ranks = process.stride;
    options.shared.first_rank = process.rank;
    options.shared.addresses = {own + 1, own + process.stride};
    for (const uint32_t device : devices) options.tensor_devices.push_back(kind->NameOf(device));
    if (!devices.empty()) {
      options.device = options.tensor_devices.front();
      options.devices = kind->source;
      options.device_bytes = uint64_t{256} << 20;
    }
    auto worker = RankWorker::Create(options);
    EXPECT_TRUE(worker.ok()) << worker.status().ToString();
    worker_ = std::move(*worker);
    following_ = std::jthread(
        [this, process, stopped] { (void)FollowRankZero(*worker_, process, stopped); });
    serving_ = std::jthread(
        [this, process, stopped] { (void)ServeShelf(*shelf_, *worker_, process, stopped); });
  }
  ~GridRank() {
    stop_ = true;
    if (worker_ != nullptr) worker_->Abort(UnavailableError("killed"));
  }

 private:
  std::atomic<bool> stop_{false};
  std::unique_ptr<WeightRank> weights_;
  Socket listener_;
  std::unique_ptr<RankShelf> shelf_;
  std::unique_ptr<RankWorker> worker_;
  std::jthread following_, serving_;
};

class SharedEngineTest : public SegmentedFixture {
 protected:
  void SetUp() override {
    options_.threads = 1;
    SegmentedFixture::SetUp();
    // Its own sets 4096.
    model_.context_tokens = 24576;
    WriteTinyModel(options_.model_path, model_);
    OpenThreads(1, 1, "alone");
    IngestAll();
    text_ = BytesOf("text");
    documents_ = BytesOf("docs");
    answers_ = Answers();
  }
  void TearDown() override {
    engine_.reset();
    ranks_.clear();
    SegmentedFixture::TearDown();
  }

  void OpenThreads(uint32_t ranks, uint32_t tensor_ranks, const std::string& folder) {
    options_.ranks.addresses.clear();
    options_.ranks.devices.clear();
    if (ranks > 1) options_.ranks.devices.assign(ranks, "cpu");
    store_options_.shelves = 0;
    Reopen(tensor_ranks, folder);
    AwaitRanks(ranks > 1 ? ranks : 0);
  }
  // Ranks of devices whose memory the CPU must not touch, the first of each so many with a tier.
  void OpenDevices(const TestDevices& devices, uint32_t count, uint32_t tensor_ranks,
                   const std::string& folder) {
    options_.ranks.addresses.clear();
    devices.Use(count, &options_, &store_options_);
    options_.ranks.device_bytes = uint64_t{256} << 20;
    store_options_.shelves = 0;
    Reopen(tensor_ranks, folder);
    AwaitRanks(count > 1 ? count : 0);
  }
  void OpenProcesses(uint32_t ranks, uint32_t tensor_ranks, const std::string& folder) {
    options_.ranks.devices.clear();
    SetProcesses(ranks, tensor_ranks, folder);
    // Those that have weights alone, and then those that call them.
    for (uint32_t rank = 1; rank < ranks; ++rank) {
      if (rank % tensor_ranks != 0) Start(rank, folder);
    }
    for (uint32_t rank = tensor_ranks; rank < ranks; rank += tensor_ranks) Start(rank, folder);
    Reopen(tensor_ranks, folder);
    AwaitRanks(ranks);
  }
  void SetProcesses(uint32_t ranks, uint32_t tensor_ranks, const std::string& folder) {
    ranks_.clear();
    process_ = {};
    for (uint32_t rank = 0; rank < ranks; ++rank) {
      std::string address;
      const auto free_port = ListenTcp("127.0.0.1:0", &address);
      ASSERT_TRUE(free_port.ok());
      process_.addresses.push_back(address);
    }
    process_.stride = tensor_ranks;
    options_.ranks.addresses = process_.addresses;
    options_.ranks.store_id = folder;
    store_options_.shelves = ranks - 1;
    const uint32_t text_ranks = ranks / tensor_ranks;
    store_options_.shelf_of = [=](const CorpusRecord& record, uint64_t position) {
      return KeeperOf(record, position, text_ranks, tensor_ranks);
    };
  }
  void Start(uint32_t rank, const std::string& folder) {
    process_.rank = rank;
    ranks_[rank] = std::make_unique<GridRank>(
        options_.model_path, folder_.File(folder + "-" + std::to_string(rank)), process_);
  }
  void Reopen(uint32_t tensor_ranks, const std::string& folder) {
    engine_.reset();
    store_.reset();
    options_.ranks.tensor_ranks = tensor_ranks;
    store_options_.data_dir = folder_.File(folder);
    Restart();
  }
  // All are there, and have their disks attached.
  void AwaitRanks(uint32_t count) {
    const auto there = [&] {
      uint32_t ranks = 0;
      for (const RankStatus& rank : engine_->ranks().ranks) {
        const bool disk = options_.ranks.addresses.empty() || rank.state != "follows" ||
                          rank.disk_capacity_bytes > 0;
        ranks += rank.state != "missing" && disk;
      }
      return ranks;
    };
    for (int i = 0; i < 3000 && there() < count; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ASSERT_EQ(there(), count);
  }

  void IngestAll() {
    Ingest("text", Prose(kWords));
    std::vector<TestDocument> documents;
    for (int i = 0; i < 5; ++i) {
      documents.push_back(
          {"d" + std::to_string(i), Prose(20 + static_cast<size_t>(i) * 37, i + 1)});
    }
    IngestSegmented("docs", documents);
  }
  // Over an exact corpus, a segmented one, and none.
  std::vector<std::string> Answers() {
    std::vector<std::string> answers;
    for (const char* const corpus : {"text", "docs", ""}) {
      QuestionRequest request;
      request.corpus = corpus;
      request.question = "why?";
      request.max_tokens = 8;
      const auto report = engine_->Ask(request, [](const auto&) { return true; }, {});
      EXPECT_TRUE(report.ok()) << corpus << ": " << report.status().ToString();
      answers.push_back(report.ok() ? report->answer : "");
    }
    return answers;
  }
  // Every block lies with whom the placement says, in the rank file's numbers.
  void ExpectKept(const std::string& corpus) {
    const CorpusRecord record = *store_->GetCorpus(corpus);
    const auto locations = *store_->Locations(std::span(record.chain));
    const auto text_ranks = static_cast<uint32_t>(process_.addresses.size() / process_.stride);
    for (size_t i = 0; i < locations.size(); ++i) {
      ASSERT_TRUE(locations[i].has_value()) << corpus << ", block " << i;
      EXPECT_EQ(ShelfOf(locations[i]->extent), KeeperOf(record, i, text_ranks, process_.stride))
          << corpus << ", block " << i;
    }
  }
  void ExpectSame() {
    EXPECT_EQ(BytesOf("text"), text_);
    EXPECT_EQ(BytesOf("docs"), documents_);
    EXPECT_EQ(Answers(), answers_);
    EXPECT_EQ(engine_->ranks().lost, 0u);
  }

  std::string text_, documents_;
  std::vector<std::string> answers_;
  RankProcessOptions process_;
  std::map<uint32_t, std::unique_ptr<GridRank>> ranks_;
};

TEST_F(SharedEngineTest, ThreadsThatShareTheWeightsStoreAndAnswerAsOne) {
  for (const auto& [ranks, tensor_ranks] : {std::pair{3u, 3u}, {4u, 2u}}) {
    SCOPED_TRACE(std::to_string(tensor_ranks) + " of " + std::to_string(ranks));
    OpenThreads(ranks, tensor_ranks, "threads" + std::to_string(ranks));
    IngestAll();
    ExpectSame();
    uint32_t with_weights = 0;
    for (const RankStatus& rank : engine_->ranks().ranks) {
      with_weights += rank.state == "weights" ? 1 : 0;
    }
    EXPECT_EQ(with_weights, ranks - ranks / tensor_ranks);
    EXPECT_EQ(engine_->ranks().passes > 0, ranks > tensor_ranks);
  }
  // One with all weights goes on with it.
  OpenThreads(1, 1, "threads4");
  EXPECT_EQ(Answers(), answers_);
}

TEST_F(SharedEngineTest, AGridOfDevicesDoesToo) {
  const TestDevices devices("device");
  OpenDevices(devices, 4, 2, "devices");
  IngestAll();
  ExpectSame();
  const RanksReport report = engine_->ranks();
  EXPECT_GT(report.passes, 0u);
  ASSERT_EQ(report.ranks.size(), 4u);
  const char* const states[] = {"leads", "weights", "follows", "weights"};
  for (size_t rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(report.ranks[rank].state, states[rank]) << rank;
    EXPECT_EQ(report.ranks[rank].name,
              "thread " + std::to_string(rank) + ", device:" + std::to_string(rank));
  }
  EXPECT_GT(report.ranks[1].weight_bytes, 0u);
  // One device serves what the grid made, and the grid what one made.
  OpenDevices(devices, 1, 1, "devices");
  EXPECT_EQ(Answers(), answers_);
  OpenDevices(devices, 1, 1, "one device");
  IngestAll();
  OpenDevices(devices, 4, 2, "one device");
  ExpectSame();
  // A rank that fails ends the question, and its devices are there for the next one.
  ArmFault("rank.compute", FaultKind::kIoError, /*after=*/2, /*times=*/1);
  QuestionRequest request;
  request.corpus = "text";
  request.question = "why?";
  request.max_tokens = 8;
  const auto failed = engine_->Ask(request, [](const auto&) { return true; }, {});
  EXPECT_EQ(failed.status().code(), StatusCode::kUnavailable) << failed.status().ToString();
  EXPECT_NE(failed.status().message().find("rank 1 of 2"), std::string::npos)
      << failed.status().ToString();
  DisarmFaults();
  AwaitRanks(4);
  EXPECT_EQ(Answers(), answers_);
}

// Every line of the rank file has devices of its own, and not as many as another.
TEST_F(SharedEngineTest, ProcessesWithDevicesThatShareWeightsDoToo) {
  const TestDevices devices("device");
  SetProcesses(2, 1, "pairs");
  devices.Use(2, &options_, &store_options_);
  process_.rank = 1;
  ranks_[1] = std::make_unique<GridRank>(options_.model_path, folder_.File("pairs-1"), process_,
                                         &devices, std::vector<uint32_t>{2, 3, 4, 5});
  Reopen(2, "pairs");
  AwaitRanks(2);
  IngestAll();
  ExpectSame();
  ExpectKept("text");
  const RanksReport report = engine_->ranks();
  ASSERT_EQ(report.ranks.size(), 2u);
  EXPECT_EQ(report.ranks[1].state, "follows");
  EXPECT_GT(report.ranks[0].weight_bytes, 0u);
  EXPECT_GT(report.passes, 0u);
}

TEST_F(SharedEngineTest, AGridOfProcessesDoesToo) {
  OpenProcesses(4, 2, "grid");
  IngestAll();
  ExpectSame();
  EXPECT_GT(engine_->ranks().passes, 0u);
  ExpectKept("text");
  ExpectKept("docs");
}

TEST_F(SharedEngineTest, BlocksLieWithTheirKeepersLeaveAllDisksAndAreDealtAnew) {
  for (const uint32_t ranks : {2u, 3u, 4u}) {
    SCOPED_TRACE(std::to_string(ranks) + " ranks");
    const std::string folder = "keep" + std::to_string(ranks);
    OpenProcesses(ranks, 1, folder);
    IngestAll();
    ExpectSame();
    ExpectKept("text");
    ExpectKept("docs");
    const auto dealt = *store_->BytesByShelf(*store_->GetCorpus("text"));
    EXPECT_EQ(dealt.size(), 2u);  // as many as it has spans
    ASSERT_TRUE(store_->Evict("text", TierKind::kDisk, false).ok());
    EXPECT_TRUE(store_->BytesByShelf(*store_->GetCorpus("text"))->empty());
    const Status again = engine_->Prefill("text", [](const PrefillProgress&) {}, {});
    ASSERT_TRUE(again.ok()) << again.ToString();
    ExpectKept("text");
    ExpectSame();
    // More ranks find all of it; of fewer, what lay with those that are no more is computed again.
    ranks_.clear();
    if (ranks == 2) {
      OpenProcesses(3, 1, folder);
    } else {
      OpenThreads(1, 1, folder);
      process_ = {};
      process_.addresses.resize(1);
    }
    const auto repaired = engine_->Verify("text", true, {});
    ASSERT_TRUE(repaired.ok()) << repaired.status().ToString();
    EXPECT_EQ(repaired->repaired > 0, ranks != 2);
    ExpectSame();
    ExpectKept("text");
  }
}

TEST_F(SharedEngineTest, ARankWithWeightsThatIsLostIsNamedAndWhatItWasPartOfGoesOn) {
  OpenProcesses(2, 2, "two");
  ASSERT_TRUE(Create("text", Prose(kWords)).ok());
  const Status cut_off = engine_->Prefill("text",
                                          [&](const PrefillProgress& progress) {
                                            if (progress.done_tokens > 1024) ranks_.clear();
                                          },
                                          {});
  EXPECT_EQ(cut_off.code(), StatusCode::kUnavailable) << cut_off.ToString();
  EXPECT_NE(cut_off.message().find("rank 1 (" + process_.addresses[1] + "), which has a part"),
            std::string::npos)
      << cut_off.ToString();
  EXPECT_GT(store_->GetCorpus("text")->durable_tokens, 1024u);
  Start(1, "two");
  Status finished = UnavailableError("not tried");
  for (int i = 0; i < 200 && finished.code() == StatusCode::kUnavailable; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    finished = engine_->Prefill("text", [](const PrefillProgress&) {}, {});
  }
  ASSERT_TRUE(finished.ok()) << finished.ToString();
  EXPECT_EQ(BytesOf("text"), text_);
  EXPECT_EQ(engine_->ranks().ranks[1].state, "weights");
}

}  // namespace
}  // namespace corpusd
