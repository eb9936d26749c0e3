// A disk that is full or broken: the store goes read-only, says so, and comes back by itself.
#include "store/write_gate.h"

#include <gmock/gmock.h>

#include <atomic>
#include <thread>

#include "store/base/fault_point.h"
#include "tests/support/faulty_file_system.h"
#include "tests/unit/store/store_fixture.h"

namespace corpusd {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A disk that a test fills and frees.
struct Disk {
  uint64_t free_bytes = 0;
  std::vector<bool> told;
  WriteGate gate{[this](uint64_t needed_bytes) {
                   return needed_bytes <= free_bytes ? OkStatus() : ResourceExhaustedError("full");
                 },
                 [this](const WriteState& state) { told.push_back(state.read_only); }};
};

TEST(WriteGate, AFullDiskShutsItOnceAndFreedSpaceOpensIt) {
  Disk disk;
  EXPECT_TRUE(disk.gate.Admit("storing").ok());
  EXPECT_EQ(disk.gate.Observe(ResourceExhaustedError("no space left"), 100).code(),
            StatusCode::kResourceExhausted);
  (void)disk.gate.Observe(ResourceExhaustedError("again"), 50);
  const Status refused = disk.gate.Admit("ingest of 'a'");
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(refused.message(), AllOf(HasSubstr("ingest of 'a'"), HasSubstr("read-only"),
                                       HasSubstr("no space left"), HasSubstr("free space")));
  EXPECT_EQ(disk.gate.state().refused, 1u);
  EXPECT_GT(disk.gate.state().since_ms, 0);
  disk.free_bytes = 99;  // less than what was wanted: it would only fail again
  EXPECT_FALSE(disk.gate.TryOpen());
  disk.free_bytes = 100;
  EXPECT_TRUE(disk.gate.Admit("ingest of 'a'").ok());
  EXPECT_EQ(disk.gate.state(), WriteState{});
  EXPECT_THAT(disk.told, ElementsAre(true, false));
}

TEST(WriteGate, ABrokenDiskHasItsOwnAdviceAndOtherErrorsShutNothing) {
  Disk disk;
  for (const StatusCode code : {StatusCode::kAborted, StatusCode::kCorruption,
                                StatusCode::kNotFound, StatusCode::kFailedPrecondition}) {
    (void)disk.gate.Observe(Status(code, "no matter of the disk"), 0);
  }
  EXPECT_FALSE(disk.gate.state().read_only);
  (void)disk.gate.Observe(IoError("input/output error"), 1);
  EXPECT_THAT(disk.gate.Admit("storing").message(),
              AllOf(HasSubstr("input/output error"), HasSubstr("dmesg")));
}

class ReadOnlyStoreTest : public StoreFixture {
 protected:
  // The store over a disk that this test fills and breaks.
  void OpenOnFaultyDisk() {
    store_.reset();
    disk_ = std::make_unique<FaultyFileSystem>();
    options_.on_write_state = [this](const WriteState& state) { told_.push_back(state.read_only); };
    Reopen();
  }
  void TearDown() override {
    store_.reset();
    disk_.reset();
    StoreFixture::TearDown();
  }
  WriteState State() { return store_->write_gate().state(); }

  std::unique_ptr<FaultyFileSystem> disk_;
  std::vector<bool> told_;
};

TEST_F(ReadOnlyStoreTest, AFullDiskStopsIngestAndNothingElse) {
  OpenOnFaultyDisk();
  const TestCorpus kept = MakeCorpus(1, 4);
  CorpusRecord record = Ingest("kept", kept);
  const TestCorpus corpus = MakeCorpus(2, 4);
  const auto half = PublishTo(*Create("half", corpus), corpus, 2);
  disk_->SetState(DiskState::kFull);
  EXPECT_FALSE(PublishTo(*half, corpus, 4).ok());
  EXPECT_TRUE(State().read_only);
  EXPECT_FALSE(State().reason.empty());

  const auto refused = PublishTo(*half, corpus, 4);
  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(refused.status().message(), HasSubstr("read-only"));
  EXPECT_EQ(Create("new", corpus).status().code(), StatusCode::kResourceExhausted);
  ASSERT_TRUE(store_->Evict("kept", TierKind::kHost, false).ok());
  ExpectWhole(kept.chain);
  EXPECT_EQ(store_->ListCorpora().size(), 2u);
  EXPECT_EQ(*store_->LongestPrefix(corpus.chain, corpus.tokens), 2u);

  disk_->SetState(DiskState::kFine);
  EXPECT_TRUE(store_->write_gate().TryOpen());
  EXPECT_EQ(told_, (std::vector<bool>{true, false}));
  const auto whole = PublishTo(*half, corpus, 4);
  ASSERT_TRUE(whole.ok()) << whole.status().ToString();
  ExpectWhole(corpus.chain);
}

TEST_F(ReadOnlyStoreTest, ABrokenDiskIsNotedAndRecoveredFromByTheNextWrite) {
  OpenOnFaultyDisk();
  const TestCorpus corpus = MakeCorpus(1, 4);
  const auto half = PublishTo(*Create("a", corpus), corpus, 2);
  disk_->SetState(DiskState::kBroken);
  EXPECT_FALSE(PublishTo(*half, corpus, 4).ok());
  EXPECT_TRUE(State().read_only);
  EXPECT_FALSE(store_->write_gate().TryOpen());
  ExpectWhole({corpus.chain.begin(), corpus.chain.begin() + 2});
  disk_->SetState(DiskState::kFine);
  // Nobody has looked since: the write itself does.
  const auto current = store_->GetCorpus("a");
  const auto whole = PublishTo(*current, corpus, 4);
  ASSERT_TRUE(whole.ok()) << whole.status().ToString();
  EXPECT_FALSE(State().read_only);
  Reopen();
  ExpectWhole(corpus.chain);
}

TEST_F(ReadOnlyStoreTest, TheConfiguredCapRefusesOnePublishNotAllWriting) {
  options_.disk_bytes = uint64_t{4} << 20;
  Reopen();
  const TestCorpus large = MakeCorpus(1, 80);
  const auto refused = PublishTo(*Create("large", large), large, 80);
  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  EXPECT_FALSE(State().read_only);
  Ingest("small", MakeCorpus(2, 2));
}

TEST_F(ReadOnlyStoreTest, RemovingAndUnpinningWorkWhileNothingIsTaken) {
  CorpusRecord record = Ingest("a", MakeCorpus(1, 4));
  record.pin = CorpusPin{2, 0, "alice"};
  ASSERT_TRUE(store_->UpdateCorpus(record).ok());
  ArmFault("payload.write", FaultKind::kNoSpace, 0, UINT64_MAX);
  const TestCorpus other = MakeCorpus(2, 2);
  EXPECT_FALSE(PublishTo(*Create("b", other), other, 2).ok());
  ASSERT_TRUE(State().read_only);
  record = *store_->GetCorpus("a");
  record.pin.reset();
  EXPECT_TRUE(store_->UpdateCorpus(record).ok());
  EXPECT_TRUE(store_->RemoveCorpus("a").ok());
  DisarmFaults();
  EXPECT_TRUE(PublishTo(*store_->GetCorpus("b"), other, 2).ok());
}

}  // namespace
}  // namespace corpusd
