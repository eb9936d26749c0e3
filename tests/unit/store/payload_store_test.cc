// Blocks in segment files: odd sizes and addresses, space given back, folders of schema 1.
#include "store/payload_store.h"

#include <gtest/gtest.h>

#include "store/catalog.h"
#include "store/key_codec.h"
#include "tests/support/older_folder.h"
#include "tests/unit/store/store_fixture.h"

namespace corpusd {
namespace {

class PayloadStoreTest : public StoreFixture {
 protected:
  static std::vector<std::byte> Bytes(size_t count, uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<std::byte> bytes(count);
    for (std::byte& b : bytes) b = static_cast<std::byte>(random());
    return bytes;
  }
  std::unique_ptr<PayloadStore> OpenPayload(const std::map<uint64_t, uint64_t>& named = {}) {
    auto payload = PayloadStore::Open(folder_ + "/own", named);
    EXPECT_TRUE(payload.ok()) << payload.status().ToString();
    return std::move(*payload);
  }
  static PayloadStore::Extent Write(PayloadStore& payload, size_t bytes, uint32_t seed,
                                    uint32_t sections = 1) {
    const auto content = Bytes(bytes, seed);
    const BlockWrite block{{}, {1}, content, sections};
    const BlockWrite* const one = &block;
    const auto extent = payload.WriteExtent({&one, 1});
    EXPECT_TRUE(extent.ok()) << extent.status().ToString();
    return *extent;
  }
};

TEST_F(PayloadStoreTest, AnySizeAndAddressComesBack) {
  const auto payload = OpenPayload();
  for (const size_t bytes : {1, 511, 4095, 4096, 4097, 12288, 100000}) {
    const auto extent = Write(*payload, bytes, static_cast<uint32_t>(bytes));
    const auto expected = Bytes(bytes, static_cast<uint32_t>(bytes));
    PageBuffer memory(PagesOf(bytes) + 1);
    for (const size_t shift : {0, 64, 4096}) {  // aligned, not, aligned
      const auto target = memory.bytes().subspan(shift, bytes);
      ASSERT_TRUE(payload->Read(extent.locations[0], {}, 1, 1, target).ok())
          << bytes << "+" << shift;
      EXPECT_TRUE(std::equal(target.begin(), target.end(), expected.begin())) << bytes;
    }
  }
}

// What lies behind the target in its page belongs to somebody else.
TEST_F(PayloadStoreTest, AReadWritesNothingBehindItsTarget) {
  const auto payload = OpenPayload();
  const auto extent = Write(*payload, 5000, 1);
  PageBuffer memory(3);
  std::fill(memory.bytes().begin(), memory.bytes().end(), std::byte{7});
  ASSERT_TRUE(payload->Read(extent.locations[0], {}, 1, 1, memory.bytes().first(5000)).ok());
  for (size_t i = 5000; i < memory.bytes().size(); ++i) ASSERT_EQ(memory.bytes()[i], std::byte{7});
}

// Sections whose borders lie inside pages, read apart in any order, into memory aligned or not.
TEST_F(PayloadStoreTest, SectionsComeOneByOneAndTouchNoOther) {
  const auto payload = OpenPayload();
  const uint32_t sections = 7;
  const size_t bytes = size_t{7} * 5000;
  const auto expected = Bytes(bytes, 3);
  const auto extent = Write(*payload, bytes, 3, sections);
  PageBuffer memory(PagesOf(bytes) + 1);
  for (const size_t shift : {0, 64}) {
    const auto target = memory.bytes().subspan(shift, bytes);
    std::fill(target.begin(), target.end(), std::byte{7});
    std::vector<bool> there(sections);
    for (const uint32_t s : {3u, 0u, 6u, 4u, 1u, 2u, 5u}) {
      ASSERT_TRUE(
          payload->ReadSections(extent.locations[0], {}, 1, sections, {s, s + 1}, target).ok());
      there[s] = true;
      for (size_t i = 0; i < bytes; ++i) {
        ASSERT_EQ(target[i], there[i / 5000] ? expected[i] : std::byte{7}) << s << " " << i;
      }
    }
  }
}

TEST_F(PayloadStoreTest, AHeaderOfSeveralPagesComesBack) {
  const auto payload = OpenPayload();
  const auto extent = Write(*payload, size_t{4096} * 3, 5, kMaxSections);
  std::vector<std::byte> target(size_t{4096} * 3);
  ASSERT_TRUE(payload->Read(extent.locations[0], {}, 1, kMaxSections, target).ok());
  EXPECT_EQ(target, Bytes(size_t{4096} * 3, 5));
}

// Two corpora whose publishes lie alternately in one segment: removing one gives its half back at
// once and moves nothing of the other.
TEST_F(PayloadStoreTest, ARemovedCorpusIsPunchedOutOfSharedSegments) {
  const TestCorpus kept = MakeCorpus(1, 16);
  const TestCorpus removed = MakeCorpus(2, 16);
  auto first = Create("kept", kept);
  auto second = Create("removed", removed);
  for (size_t end = 4; end <= 16; end += 4) {
    first = PublishTo(*first, kept, end);
    second = PublishTo(*second, removed, end);
    ASSERT_TRUE(first.ok() && second.ok());
  }
  const uint64_t both = SegmentDiskBytes();
  ASSERT_TRUE(store_->RemoveCorpus("removed").ok());
  EXPECT_LT(SegmentDiskBytes(), both / 2 + 64 * 1024);
  EXPECT_LT(store_->Usage()[1].used_bytes, both);
  Reopen();
  ExpectWhole(kept.chain);
}

// As a kill leaves it between commit and punching: the next open gives the space back.
TEST_F(PayloadStoreTest, ExtentsThatNobodyNamesAreGivenBackAtOpenWhereverTheyLie) {
  auto payload = OpenPayload();
  std::vector<PayloadStore::Extent> extents;
  for (uint32_t i = 0; i < 5; ++i) extents.push_back(Write(*payload, 100'000, i));
  const uint64_t all = payload->PhysicalBytes();
  payload.reset();
  payload =
      OpenPayload({{extents[1].number, extents[1].bytes}, {extents[3].number, extents[3].bytes}});
  EXPECT_EQ(payload->PhysicalBytes(), all - 3 * extents[0].bytes);
  uint64_t disk_bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder_ + "/own/segments")) {
    struct stat info {};
    ASSERT_EQ(stat(entry.path().c_str(), &info), 0);
    disk_bytes += 512 * static_cast<uint64_t>(info.st_blocks);
  }
  EXPECT_LE(disk_bytes, 2 * extents[0].bytes + 3 * kDirectPage);
  for (const uint32_t i : {1u, 3u}) {
    std::vector<std::byte> target(100'000);
    ASSERT_TRUE(payload->Read(extents[i].locations[0], {}, 1, 1, target).ok());
    EXPECT_EQ(target, Bytes(100'000, i));
  }
}

TEST_F(PayloadStoreTest, ALostSegmentIsALossOfItsBlocksOnly) {
  const TestCorpus lost = MakeCorpus(1, 2);
  const TestCorpus kept = MakeCorpus(2, 2);
  Ingest("lost", lost);
  store_.reset();
  const auto segment = std::filesystem::directory_iterator(folder_ + "/segments")->path();
  Reopen();
  Ingest("kept", kept);
  store_.reset();
  std::filesystem::remove(segment);
  Reopen();
  FetchStats stats;
  ASSERT_TRUE(store_->Fetch(lost.chain, &stats).ok());
  EXPECT_EQ(stats.damaged.size() + stats.missing.size(), 2u);
  ExpectWhole(kept.chain);
  ASSERT_TRUE(store_->RemoveCorpus("lost").ok());
}

class SchemaOneTest : public PayloadStoreTest {
 protected:
  // Turns the store's folder into what schema 1 wrote: its blocks in ingested table files.
  void MakeSchemaOne() {
    store_.reset();
    std::filesystem::create_directories(folder_ + "/payload");
    auto catalog = Catalog::Open(folder_ + "/catalog");
    auto payload = PayloadStore::Open(folder_, (*catalog)->NamedExtents());
    auto tables =
        RocksDatabase::Open(folder_ + "/payload", RocksDatabase::Use::kPayload, {"blocks"});
    ASSERT_TRUE(catalog.ok() && payload.ok() && tables.ok());
    uint64_t extent = 0;
    Catalog::Change change;
    const auto records = (*catalog)->records();
    for (const auto& [name, record] : records) {
      ++extent;
      std::vector<std::string> values;
      for (const Digest& digest : record.chain) {
        auto entry = (*catalog)->Entry(digest);
        std::vector<std::byte> bytes(entry->payload_bytes);
        ASSERT_TRUE(
            (*payload)->Read(entry->location, digest, entry->tokens, entry->sections, bytes).ok());
        std::vector<std::byte> value;
        EncodeBlockHeader(MakeBlockHeader(digest, entry->tokens, bytes, entry->sections), &value);
        value.insert(value.end(), bytes.begin(), bytes.end());
        entry->location = {extent, static_cast<uint32_t>(values.size())};
        values.emplace_back(reinterpret_cast<const char*>(value.data()), value.size());
        change.PutEntry(digest, *entry);
      }
      std::vector<RocksDatabase::Row> rows;
      for (size_t i = 0; i < values.size(); ++i) {
        rows.push_back({KeyOf(extent, static_cast<uint32_t>(i)), {values[i]}});
      }
      ASSERT_TRUE((*tables)->IngestRows(0, rows).ok());
    }
    ASSERT_TRUE((*catalog)->Commit(change, /*sync=*/true).ok());
    payload->reset();
    catalog->reset();
    std::filesystem::remove_all(folder_ + "/segments");
    const Status older = MakeOlderCatalog(folder_, "1");
    ASSERT_TRUE(older.ok()) << older.ToString();
  }
};

TEST_F(SchemaOneTest, ItsBlocksAreServedGrownAndGivenBack) {
  const TestCorpus first = MakeCorpus(1, 6);
  const TestCorpus second = MakeCorpus(2, 5);
  const auto record = Create("first", first);
  ASSERT_TRUE(PublishTo(*record, first, 4).ok());
  Ingest("second", second);
  MakeSchemaOne();
  Reopen();
  ExpectWhole({first.chain.begin(), first.chain.begin() + 4});
  ExpectWhole(second.chain);
  ASSERT_TRUE(PublishTo(*store_->GetCorpus("first"), first, 6).ok());
  ASSERT_TRUE(store_->RemoveCorpus("second").ok());
  Reopen();
  ExpectWhole(first.chain);
  for (const std::string& line : store_->Diagnose())
    EXPECT_FALSE(line.starts_with("error")) << line;
  ASSERT_TRUE(store_->RemoveCorpus("first").ok());
  Reopen();
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/payload"));
}

}  // namespace
}  // namespace corpusd
