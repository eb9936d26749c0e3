// Sidecars: whole or not there, checked, counted, and gone with their corpus.
#include <gtest/gtest.h>

#include <fstream>
#include <random>

#include "store/direct_file.h"
#include "store/sidecar_store.h"
#include "tests/support/faulty_file_system.h"
#include "tests/unit/store/store_fixture.h"

namespace corpusd {
namespace {

std::vector<std::byte> Bytes(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(count);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

class SidecarTest : public StoreFixture {
 protected:
  void SetUp() override {
    StoreFixture::SetUp();
    id_ = Ingest("a", MakeCorpus(1, 2)).id;
  }
  std::string Path() const { return folder_ + "/sidecars/" + std::to_string(id_) + ".index.side"; }
  std::vector<std::string> Files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_ + "/sidecars")) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }
  uint64_t DiskUsed() const { return store_->Usage()[1].used_bytes; }
  void Expect(const std::vector<std::byte>& bytes) {
    const auto read = store_->Sidecar(id_, "index");
    ASSERT_TRUE(read.ok()) << read.status().ToString();
    EXPECT_TRUE(*read == bytes);
  }
  void Flip(uint64_t offset) {
    std::fstream file(Path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(offset));
    const char byte = static_cast<char>(file.get() ^ 1);
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(byte);
  }

  uint64_t id_ = 0;
};

TEST_F(SidecarTest, AnySizeComesBackAndIsReplacedWhole) {
  EXPECT_EQ(store_->Sidecar(id_, "index").status().code(), StatusCode::kNotFound);
  uint32_t seed = 0;
  for (const size_t count : {0u, 1u, 4096u, 1'048'576u, 1'048'577u, 5'000'000u, 100u}) {
    const auto bytes = Bytes(count, ++seed);
    const Status put = store_->PutSidecar(id_, "index", bytes);
    ASSERT_TRUE(put.ok()) << put.ToString();
    Expect(bytes);
    EXPECT_EQ(Files().size(), 1u);
    EXPECT_EQ(std::filesystem::file_size(Path()), SidecarStore::DiskBytes(count));
    if (count % 2 == 0) Reopen();
    Expect(bytes);
  }
}

TEST_F(SidecarTest, PartsAreOneAndAnyRangeCanBeRead) {
  const auto bytes = Bytes(3'500'000, 1);
  const std::span<const std::byte> whole = bytes;
  const std::vector<std::span<const std::byte>> parts = {whole.first(10), whole.subspan(10, 0),
                                                         whole.subspan(10, 2'000'000),
                                                         whole.subspan(2'000'010)};
  ASSERT_TRUE(store_->PutSidecarParts(id_, "index", parts).ok());
  Expect(bytes);
  const auto reader = *store_->OpenSidecar(id_, "index");
  EXPECT_EQ(reader->bytes(), bytes.size());
  PageBuffer aligned(PagesOf(bytes.size()));
  ASSERT_TRUE(reader->Read(0, aligned.bytes().first(bytes.size())).ok());
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), aligned.data()));
  std::mt19937 random(2);
  for (int round = 0; round < 50; ++round) {
    const uint64_t offset = random() % bytes.size();
    std::vector<std::byte> part(random() % (bytes.size() - offset + 1));
    ASSERT_TRUE(reader->Read(offset, part).ok());
    EXPECT_TRUE(std::equal(part.begin(), part.end(), bytes.begin() + static_cast<long>(offset)));
  }
  std::vector<std::byte> part(2);
  EXPECT_EQ(reader->Read(bytes.size() - 1, part).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(reader->Read(bytes.size() + 1, {}).code(), StatusCode::kInvalidArgument);
}

TEST_F(SidecarTest, DamageAnywhereIsToldAndAnotherPutHeals) {
  const auto bytes = Bytes(2'500'000, 1);
  ASSERT_TRUE(store_->PutSidecar(id_, "index", bytes).ok());
  const uint64_t header = SidecarStore::DiskBytes(0);  // a page here
  for (const uint64_t offset : {uint64_t{0}, uint64_t{5}, uint64_t{9}, uint64_t{17}, uint64_t{25},
                                uint64_t{30}, uint64_t{41}, header, header + 2'499'999}) {
    Flip(offset);
    EXPECT_EQ(store_->Sidecar(id_, "index").status().code(), StatusCode::kCorruption) << offset;
    Flip(offset);
    Expect(bytes);
  }
  // Damage in one MiB is no damage of another.
  Flip(header + 2'400'000);
  const auto reader = *store_->OpenSidecar(id_, "index");
  std::vector<std::byte> part(100);
  EXPECT_TRUE(reader->Read(1'000'000, part).ok());
  EXPECT_EQ(reader->Read(2'499'000, part).code(), StatusCode::kCorruption);
  for (const uint64_t size : {uint64_t{0}, uint64_t{100}, header, header + 4096}) {
    std::filesystem::resize_file(Path(), size);
    EXPECT_EQ(store_->Sidecar(id_, "index").status().code(), StatusCode::kCorruption) << size;
  }
  Reopen();
  EXPECT_EQ(store_->Sidecar(id_, "index").status().code(), StatusCode::kCorruption);
  ASSERT_TRUE(store_->PutSidecar(id_, "index", bytes).ok());
  Expect(bytes);
}

TEST_F(SidecarTest, OneOfAnotherCorpusIsNotTakenForOnesOwn) {
  const uint64_t other = Ingest("b", MakeCorpus(2, 2)).id;
  ASSERT_TRUE(store_->PutSidecar(other, "index", Bytes(10, 1)).ok());
  std::filesystem::copy_file(folder_ + "/sidecars/" + std::to_string(other) + ".index.side",
                             Path());
  EXPECT_EQ(store_->Sidecar(id_, "index").status().code(), StatusCode::kCorruption);
}

TEST_F(SidecarTest, FollowsItsCorpusByIdAndGoesWithIt) {
  const auto bytes = Bytes(1000, 1), next = Bytes(2000, 2);
  ASSERT_TRUE(store_->PutSidecar(id_, "index", bytes).ok());
  ASSERT_TRUE(store_->PutSidecar(id_, "words", Bytes(10, 3)).ok());
  ASSERT_TRUE(store_->RenameCorpus("a", "b").ok());
  Expect(bytes);
  CorpusRecord update = Ingest("b~update", MakeCorpus(2, 2));
  update.replaces = "b";
  ASSERT_TRUE(store_->UpdateCorpus(update).ok());
  ASSERT_TRUE(store_->PutSidecar(update.id, "index", next).ok());
  ASSERT_TRUE(store_->ReplaceCorpus("b~update", "b", "b~previous", 0).ok());
  Expect(bytes);
  EXPECT_TRUE(*store_->Sidecar(store_->GetCorpus("b")->id, "index") == next);
  const auto open = *store_->OpenSidecar(id_, "index");
  ASSERT_TRUE(store_->RemoveCorpus("b~previous").ok());
  EXPECT_EQ(store_->Sidecar(id_, "index").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(Files().size(), 1u);
  std::vector<std::byte> still(1000);
  ASSERT_TRUE(open->Read(0, still).ok()) << "who has it open goes on reading";
  EXPECT_TRUE(still == bytes);
  EXPECT_EQ(store_->PutSidecar(id_, "index", bytes).code(), StatusCode::kNotFound);
  EXPECT_EQ(Files().size(), 1u);
}

TEST_F(SidecarTest, WhatNobodyOwnsGoesAtTheNextOpening) {
  ASSERT_TRUE(store_->PutSidecar(id_, "index", Bytes(1000, 1)).ok());
  store_.reset();
  for (const char* const name : {"99.index.side", "0.draft", "x.side", "1..side", "note.txt"}) {
    std::ofstream(folder_ + "/sidecars/" + name) << "x";
  }
  Reopen();
  auto files = Files();
  std::sort(files.begin(), files.end());
  EXPECT_EQ(files, (std::vector<std::string>{std::to_string(id_) + ".index.side", "note.txt"}));
  Expect(Bytes(1000, 1));
}

TEST_F(SidecarTest, CountsAsUsedAndStaysWithinTheCap) {
  const uint64_t before = DiskUsed();
  ASSERT_TRUE(store_->PutSidecar(id_, "index", Bytes(2'000'000, 1)).ok());
  EXPECT_EQ(DiskUsed() - before, SidecarStore::DiskBytes(2'000'000));
  const CorpusUsage usage = store_->UsageOf(*store_->GetCorpus("a"));
  EXPECT_EQ(usage.disk_bytes - usage.stored_bytes, SidecarStore::DiskBytes(2'000'000));
  Reopen();
  EXPECT_GE(DiskUsed(), SidecarStore::DiskBytes(2'000'000));
  options_.disk_bytes = DiskUsed() + (uint64_t{4} << 20);
  Reopen();
  const Status refused = store_->PutSidecar(id_, "index", Bytes(8'000'000, 2));
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_NE(refused.message().find("the disk tier is full"), std::string::npos);
  Expect(Bytes(2'000'000, 1));
  EXPECT_EQ(Files().size(), 1u);
  EXPECT_FALSE(store_->write_gate().state().read_only) << "one refusal, not all";
}

TEST_F(SidecarTest, TheCapMakesRoomByEviction) {
  options_.evict_disk = true;
  options_.disk_bytes = uint64_t{8} << 20;
  Reopen();
  for (uint32_t i = 0; i < 5; ++i) Ingest("old" + std::to_string(i), MakeCorpus(50 + i, 12));
  ASSERT_TRUE(store_->PutSidecar(id_, "index", Bytes(3'000'000, 1)).ok());
  EXPECT_GT(store_->evictions().passes, 0u);
  EXPECT_LE(DiskUsed(), options_.disk_bytes);
  EXPECT_EQ(store_->GetCorpus("a")->state, CorpusState::kReady) << "not who asks for the room";
}

TEST_F(SidecarTest, BadKindsAreRefused) {
  for (const char* const kind :
       {"", "A", "a.b", "a/b", "../a", "a-b", "abcdefghijklmnopqrstuvwxyz0123456"}) {
    EXPECT_EQ(store_->PutSidecar(id_, kind, {}).code(), StatusCode::kInvalidArgument) << kind;
    EXPECT_EQ(store_->OpenSidecar(id_, kind).status().code(), StatusCode::kInvalidArgument);
  }
}

TEST_F(SidecarTest, AFailedWriteLeavesTheOneBefore) {
  ASSERT_TRUE(store_->PutSidecar(id_, "index", Bytes(1000, 1)).ok());
  const uint64_t before = DiskUsed();
  for (const char* const point : {"sidecar.write", "sidecar.written"}) {
    for (const FaultKind kind : {FaultKind::kNoSpace, FaultKind::kIoError}) {
      ArmFault(point, kind, 0, 1);
      EXPECT_FALSE(store_->PutSidecar(id_, "index", Bytes(9000, 2)).ok()) << point;
      Expect(Bytes(1000, 1));
      EXPECT_EQ(Files().size(), 1u);
      EXPECT_EQ(DiskUsed(), before);
      EXPECT_TRUE(store_->write_gate().state().read_only);
      ASSERT_TRUE(store_->write_gate().TryOpen());
    }
  }
}

// Power lost at each change of a file: the one before or the new one is there, whole.
TEST(SidecarPowerLoss, LeavesOldOrNew) {
  struct Fixture : SidecarTest {
    void TestBody() override {}
    using SidecarTest::folder_;
    using SidecarTest::id_;
    using SidecarTest::Reopen;
    using SidecarTest::SetUp;
    using SidecarTest::store_;
    using SidecarTest::TearDown;
  };
  const auto old = Bytes(5000, 1), next = Bytes(1'200'000, 2);
  for (uint64_t changes = 0, done = 0; done == 0; ++changes) {
    ASSERT_LT(changes, 100u);
    SCOPED_TRACE("power lost at change " + std::to_string(changes));
    FaultyFileSystem disk;
    Fixture fixture;
    fixture.SetUp();
    ASSERT_TRUE(fixture.store_->PutSidecar(fixture.id_, "index", old).ok());
    disk.BreakAfter(changes);
    done = fixture.store_->PutSidecar(fixture.id_, "index", next).ok() ? 1 : 0;
    fixture.store_.reset();
    disk.LosePowerUnevenly(static_cast<uint32_t>(changes));
    disk.SetState(DiskState::kFine);
    fixture.Reopen();
    const auto read = fixture.store_->Sidecar(fixture.id_, "index");
    ASSERT_TRUE(read.ok()) << read.status().ToString();
    EXPECT_TRUE(*read == next || (done == 0 && *read == old));
    size_t files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(fixture.folder_ + "/sidecars")) {
      files += entry.is_regular_file() ? 1 : 0;
    }
    EXPECT_EQ(files, 1u) << "a draft was left";
    fixture.TearDown();
  }
}

}  // namespace
}  // namespace corpusd
