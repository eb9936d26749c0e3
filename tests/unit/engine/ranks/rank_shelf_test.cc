// A store of which some blocks lie in the folder of another rank, over a real connection: they are
// the store's own while the rank is there, away while it is not, and lost when it never comes
// again.
#include "engine/ranks/rank_shelf.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

#include "tests/unit/store/store_fixture.h"

namespace corpusd {
namespace {

using std::chrono::milliseconds;

class RankShelfTest : public StoreFixture {
 protected:
  void SetUp() override {
    options_.shelves = 1;
    StoreFixture::SetUp();
    shelves_ = std::make_unique<RankShelves>(*store_, "a store", milliseconds(10'000));
    Connect();
  }
  void TearDown() override {
    Disconnect();
    shelves_.reset();
    StoreFixture::TearDown();
  }

  // The rank starts and rank 0 attaches its disk.
  void Connect(const std::string& owner = "a store") {
    shelf_ = *RankShelf::Open(folder_ + "/rank1", shelf_bytes_);
    std::string address;
    const Socket listener = *ListenTcp("127.0.0.1:0", &address);
    const auto soon = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    auto here = ConnectTcp(address, soon);
    auto there = AcceptTcp(listener, soon);
    ASSERT_TRUE(here.ok() && there.ok());
    stop_ = false;
    serving_ = std::async(std::launch::async, [this, socket = std::move(*there)] {
      return shelf_->Serve(socket, [this] { return stop_.load(); });
    });
    if (owner != "a store") {
      RankShelves others(*store_, owner, milliseconds(10'000));
      attached_ = others.Attach(1, std::move(*here));
    } else {
      attached_ = shelves_->Attach(1, std::move(*here));
    }
  }
  void Disconnect() {
    stop_ = true;
    if (serving_.valid()) (void)serving_.get();
    shelf_.reset();
  }

  // Blocks of odd numbers lie with rank 1.
  Result<CorpusRecord> PublishDealt(const CorpusRecord& record, const TestCorpus& corpus,
                                    uint64_t epoch) {
    std::vector<std::vector<std::byte>> payloads;
    std::vector<BlockWrite> writes;
    for (size_t i = 0; i < corpus.chain.size(); ++i) {
      payloads.push_back(PayloadOf(corpus.chain[i]));
      const auto first = corpus.tokens.begin() + static_cast<ptrdiff_t>(i * kTestBlockTokens);
      writes.push_back({corpus.chain[i], {first, first + kTestBlockTokens}, {}, kTestSections});
    }
    for (size_t i = 0; i < writes.size(); ++i) writes[i].payload = payloads[i];
    std::vector<const BlockWrite*> theirs;
    for (size_t i = 1; i < writes.size(); i += 2) theirs.push_back(&writes[i]);
    ASSIGN_OR_RETURN(const auto extent, shelf_->Write(theirs));
    for (size_t i = 1; i < writes.size(); i += 2) {
      writes[i].payload = {};
      writes[i].shelved = {1, epoch, extent.locations[i / 2], extent.bytes, kTestBlockBytes};
    }
    return store_->Publish(record, writes);
  }

  CorpusRecord IngestDealt(const std::string& name, const TestCorpus& corpus) {
    const auto record = Create(name, corpus);
    EXPECT_TRUE(record.ok()) << record.status().ToString();
    auto published = PublishDealt(*record, corpus, *shelves_->Epoch(1));
    EXPECT_TRUE(published.ok()) << published.status().ToString();
    published->state = CorpusState::kReady;
    return *store_->UpdateCorpus(*published);
  }

  void DropFromMemory(const std::string& name) {
    ASSERT_TRUE(store_->Evict(name, TierKind::kHost, false).ok());
  }

  uint64_t shelf_bytes_ = uint64_t{1} << 30;
  std::unique_ptr<RankShelves> shelves_;
  std::unique_ptr<RankShelf> shelf_;
  std::atomic<bool> stop_{false};
  std::future<Status> serving_;
  Status attached_;
};

TEST_F(RankShelfTest, BlocksOfARankAreReadVerifiedAndDroppedAsAllOthers) {
  ASSERT_TRUE(attached_.ok()) << attached_.ToString();
  const TestCorpus corpus = MakeCorpus(1, 8);
  IngestDealt("text", corpus);
  DropFromMemory("text");
  ExpectWhole(corpus.chain);
  const auto locations = store_->Locations(corpus.chain);
  ASSERT_TRUE(locations.ok());
  for (size_t i = 0; i < corpus.chain.size(); ++i) {
    EXPECT_EQ(ShelfOf((*locations)[i]->extent), i % 2) << i;
  }
  const auto verified = store_->Verify("text", nullptr);
  ASSERT_TRUE(verified.ok());
  EXPECT_TRUE(verified->damaged.empty() && verified->missing.empty());
  EXPECT_GE(shelves_->Usage(1)->used_bytes, 4 * kTestBlockBytes);
  ASSERT_TRUE(store_->RemoveCorpus("text").ok());
  (void)shelves_->Usage(1);  // carries what is to be dropped
  EXPECT_LT(shelves_->Usage(1)->used_bytes, kTestBlockBytes);
}

TEST_F(RankShelfTest, ARankThatIsAwayIsNoDamage) {
  const TestCorpus corpus = MakeCorpus(2, 6);
  IngestDealt("text", corpus);
  DropFromMemory("text");
  Disconnect();
  FetchStats stats;
  EXPECT_FALSE(shelves_->Usage(1).has_value());  // finds out
  const auto refs = store_->Fetch(corpus.chain, &stats);
  EXPECT_EQ(refs.status().code(), StatusCode::kUnavailable) << refs.status().ToString();
  EXPECT_NE(refs.status().message().find("rank 1"), std::string::npos);
  const auto verified = store_->Verify("text", nullptr);
  ASSERT_TRUE(verified.ok()) << verified.status().ToString();
  EXPECT_TRUE(verified->damaged.empty());
  EXPECT_EQ(verified->missing.size(), 3u);
  // It comes back with its blocks, and with nothing that nobody names.
  Connect();
  ASSERT_TRUE(attached_.ok()) << attached_.ToString();
  ExpectWhole(corpus.chain);
}

TEST_F(RankShelfTest, WhatIsGivenUpIsComputedAgainAndLiesHere) {
  const TestCorpus corpus = MakeCorpus(3, 6);
  IngestDealt("text", corpus);
  DropFromMemory("text");
  Disconnect();
  EXPECT_FALSE(shelves_->Usage(1).has_value());
  ASSERT_TRUE(store_->GiveUp(corpus.chain).ok());
  FetchStats stats;
  ASSERT_TRUE(store_->Fetch(corpus.chain, &stats).ok());
  EXPECT_EQ(stats.damaged.size() + stats.missing.size(), 3u);
  for (size_t i = 1; i < corpus.chain.size(); i += 2) {
    const auto payload = PayloadOf(corpus.chain[i]);
    const auto first = corpus.tokens.begin() + static_cast<ptrdiff_t>(i * kTestBlockTokens);
    const Status repaired = store_->Repair(
        {corpus.chain[i], {first, first + kTestBlockTokens}, payload, kTestSections});
    ASSERT_TRUE(repaired.ok()) << repaired.ToString();
  }
  ExpectWhole(corpus.chain);
}

TEST_F(RankShelfTest, ARankThatThereIsNoMoreHasLostItsBlocks) {
  const TestCorpus corpus = MakeCorpus(4, 6);
  IngestDealt("text", corpus);
  Disconnect();
  shelves_.reset();
  options_.shelves = 0;
  Reopen();
  FetchStats stats;
  ASSERT_TRUE(store_->Fetch(corpus.chain, &stats).ok());
  EXPECT_EQ(stats.damaged.size() + stats.missing.size(), 3u);
}

TEST_F(RankShelfTest, WhatWasWrittenBeforeAReturnIsNotNamedAfterIt) {
  const TestCorpus corpus = MakeCorpus(5, 4);
  const auto record = Create("text", corpus);
  const uint64_t before = *shelves_->Epoch(1);
  Disconnect();
  Connect();
  const auto published = PublishDealt(*record, corpus, before);
  EXPECT_EQ(published.status().code(), StatusCode::kUnavailable) << published.status().ToString();
  EXPECT_TRUE(store_->GetCorpus("text")->chain.empty());
}

TEST_F(RankShelfTest, AFolderServesOneStore) {
  Disconnect();
  Connect("another store");
  EXPECT_EQ(attached_.code(), StatusCode::kFailedPrecondition) << attached_.ToString();
  EXPECT_EQ(serving_.get().code(), StatusCode::kFailedPrecondition);
  // And not a daemon's own folder.
  EXPECT_EQ(RankShelf::Open(folder_, 1 << 20).status().code(), StatusCode::kFailedPrecondition);
}

// A store that deals blocks by itself: those of odd places belong to rank 1.
class DealtBlocksTest : public RankShelfTest {
 protected:
  void SetUp() override {
    options_.shelf_of = [](const CorpusRecord& /*record*/, uint64_t position) {
      return static_cast<uint32_t>(position % 2);
    };
    options_.evict_disk = true;
    shelf_bytes_ = 12 * (kTestBlockBytes + 8192);
    RankShelfTest::SetUp();
  }

  // Of the corpus's blocks, how many lie with rank 1.
  size_t Shelved(const TestCorpus& corpus) {
    size_t count = 0;
    const auto locations = store_->Locations(corpus.chain);
    for (const auto& location : *locations) count += location && ShelfOf(location->extent) == 1;
    return count;
  }
};

TEST_F(DealtBlocksTest, EveryBlockAndItsPartLieWithWhoKeepsThem) {
  chunk_blocks_ = 32;
  const TestCorpus corpus = MakeCorpus(1, 9);
  const CorpusRecord record = Ingest("text", corpus);
  EXPECT_EQ(Shelved(corpus), 4u);
  const auto parts = store_->Locations(PartDigests(record));
  ASSERT_TRUE(parts.ok());
  ASSERT_EQ(parts->size(), 9u);
  for (size_t i = 0; i < parts->size(); ++i) EXPECT_EQ(ShelfOf((*parts)[i]->extent), i % 2) << i;
  const auto bytes = store_->BytesByShelf(record);
  ASSERT_TRUE(bytes.ok());
  EXPECT_EQ(bytes->at(0), 5 * (kTestBlockBytes + kTestPartBytes));
  EXPECT_EQ(bytes->at(1), 4 * (kTestBlockBytes + kTestPartBytes));
  DropFromMemory("text");
  ExpectWhole(corpus.chain);
  // All of it goes, on every disk.
  ASSERT_TRUE(store_->Evict("text", TierKind::kDisk, false).ok());
  (void)shelves_->Usage(1);  // carries what is to be dropped
  EXPECT_LT(shelves_->Usage(1)->used_bytes, kTestBlockBytes);
}

TEST_F(DealtBlocksTest, WhatIsRepairedLiesWhereItWas) {
  const TestCorpus corpus = MakeCorpus(2, 6);
  Ingest("text", corpus);
  DropFromMemory("text");
  Disconnect();
  EXPECT_FALSE(shelves_->Usage(1).has_value());
  ASSERT_TRUE(store_->GiveUp(corpus.chain).ok());
  Connect();
  for (size_t i = 1; i < corpus.chain.size(); i += 2) {
    const auto payload = PayloadOf(corpus.chain[i]);
    const auto first = corpus.tokens.begin() + static_cast<ptrdiff_t>(i * kTestBlockTokens);
    const Status repaired = store_->Repair(
        {corpus.chain[i], {first, first + kTestBlockTokens}, payload, kTestSections});
    ASSERT_TRUE(repaired.ok()) << repaired.ToString();
  }
  EXPECT_EQ(Shelved(corpus), 3u);
  DropFromMemory("text");
  ExpectWhole(corpus.chain);
}

TEST_F(DealtBlocksTest, WhereARankIsAwayOrFullRankZeroKeepsItsBlocks) {
  Disconnect();
  EXPECT_FALSE(shelves_->Usage(1).has_value());
  const TestCorpus away = MakeCorpus(3, 4);
  Ingest("away", away);
  EXPECT_EQ(Shelved(away), 0u);
  Connect();
  const TestCorpus pinned = MakeCorpus(4, 20);
  CorpusRecord record = Ingest("pinned", pinned);
  EXPECT_EQ(Shelved(pinned), 10u);
  record.pin = CorpusPin{};
  record.pin->tier = static_cast<uint8_t>(TierKind::kDisk);
  ASSERT_TRUE(store_->UpdateCorpus(record).ok());
  EXPECT_EQ(store_->PinnedByShelf()->at(1), 10 * kTestBlockBytes);
  const TestCorpus more = MakeCorpus(5, 10);
  Ingest("more", more);
  EXPECT_EQ(Shelved(more), 0u);
  DropFromMemory("more");
  DropFromMemory("pinned");
  ExpectWhole({pinned.chain.begin(), pinned.chain.begin() + 10});
  EXPECT_EQ(store_->GetCorpus("away")->chain.size(), 4u);  // no room of rank 1's
}

TEST_F(DealtBlocksTest, AFullDiskOfARankTakesTailsFromThatDiskAndAllOthers) {
  const TestCorpus old = MakeCorpus(6, 16), used = MakeCorpus(7, 4), added = MakeCorpus(8, 8);
  Disconnect();
  EXPECT_FALSE(shelves_->Usage(1).has_value());
  const TestCorpus elsewhere = MakeCorpus(9, 6);
  Ingest("elsewhere", elsewhere);  // the oldest, but of no use to rank 1
  Connect();
  Ingest("old", old);
  Ingest("used", used);
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(store_->NoteUse("used").ok());
  Ingest("added", added);  // 14 blocks of rank 1's 12
  EXPECT_EQ(Shelved(added), 4u);
  EXPECT_EQ(store_->GetCorpus("elsewhere")->chain.size(), 6u);
  EXPECT_EQ(store_->GetCorpus("used")->chain.size(), 4u);
  const CorpusRecord cut = *store_->GetCorpus("old");
  EXPECT_EQ(cut.state, CorpusState::kEvicted);
  EXPECT_LT(cut.chain.size(), 14u);
  EXPECT_GT(cut.chain.size(), 0u);
  // What is left of it is whole, on both disks.
  EXPECT_EQ(Shelved(old), cut.chain.size() / 2);
  DropFromMemory("added");
  ExpectWhole(added.chain);
  const auto verified = store_->Verify("old", nullptr);
  ASSERT_TRUE(verified.ok());
  EXPECT_TRUE(verified->damaged.empty() && verified->missing.empty());
}

TEST_F(DealtBlocksTest, SparseExtentsOfARankAreWrittenAnew) {
  const TestCorpus whole = MakeCorpus(10, 16, /*shared_blocks=*/4);
  const TestCorpus begin = MakeCorpus(11, 4, /*shared_blocks=*/4);
  Ingest("whole", whole);
  const auto adopted = store_->AdoptBlocks(*Create("begin", begin), begin.chain);
  ASSERT_TRUE(adopted.ok()) << adopted.status().ToString();
  const uint64_t before = shelves_->Usage(1)->used_bytes;
  ASSERT_TRUE(store_->RemoveCorpus("whole").ok());
  (void)shelves_->Usage(1);  // carries what is to be dropped
  EXPECT_LT(shelves_->Usage(1)->used_bytes, before / 2);
  EXPECT_EQ(Shelved(begin), 2u);
  DropFromMemory("begin");
  ExpectWhole(begin.chain);
}

}  // namespace
}  // namespace corpusd
