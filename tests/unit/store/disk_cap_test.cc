// Caps are hard: what is reported is what the file system says, and it stays under the cap while
// corpora are taken until there is no more room. Stores that only count payload, or clean up later,
// fill disks (kv-stores 3.9).
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <atomic>
#include <thread>

#include "tests/unit/store/store_fixture.h"

namespace corpusd {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

// What the folder's files take on disk; and how many they are.
std::pair<uint64_t, uint64_t> OnDisk(const std::string& folder) {
  uint64_t bytes = 0, files = 0;
  std::error_code error;
  std::filesystem::recursive_directory_iterator it(folder, error);
  for (; !error && it != std::filesystem::recursive_directory_iterator(); it.increment(error)) {
    struct stat info {};
    // Files come and go while this looks.
    if (stat(it->path().c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
    bytes += uint64_t{512} * static_cast<uint64_t>(info.st_blocks);
    ++files;
  }
  return {bytes, files};
}

class DiskCapTest : public StoreFixture {
 protected:
  uint64_t DiskBytes() const { return store_->Usage()[1].used_bytes; }

  // A corpus whose blocks weigh nearly as much in the catalogue as on their own, published one by
  // one. RETURNS how taking it ended.
  Status Take(const std::string& name, uint32_t seed, size_t blocks) {
    const TestCorpus corpus = MakeCorpus(seed, blocks);
    std::vector<TokenId> tokens(20000);
    std::mt19937 chance(seed);
    for (TokenId& token : tokens) token = chance() % 50000;
    CorpusRecord record;
    record.name = name;
    record.root = corpus.root;
    record.block_bytes = kTestBlockBytes;
    ASSIGN_OR_RETURN(record, store_->CreateCorpus(record, corpus.tokens));
    for (const Digest& digest : corpus.chain) {
      const auto payload = PayloadOf(digest);
      const BlockWrite block{digest, tokens, payload, kTestSections};
      ASSIGN_OR_RETURN(record, store_->Publish(record, {&block, 1}));
    }
    return OkStatus();
  }
};

TEST_F(DiskCapTest, WhatIsReportedIsWhatTheFileSystemSays) {
  for (uint32_t round = 0; round < 12; ++round) {
    ASSERT_TRUE(Take("c" + std::to_string(round), round + 1, 8).ok());
    if (round % 3 != 2) continue;
    ASSERT_TRUE(store_->RemoveCorpus("c" + std::to_string(round - 1)).ok());
  }
  const auto [bytes, files] = OnDisk(folder_);
  // Lengths against whole blocks of the file system: at most one page a file, either way.
  EXPECT_LE(DiskBytes(), bytes + files * 4096);
  EXPECT_LE(bytes, DiskBytes() + files * 4096);
  EXPECT_GT(bytes, 8 * 8 * kTestBlockBytes);
}

TEST_F(DiskCapTest, TheCapIsNotPassedForAMomentWhileCorporaAreTakenUntilTheyAreRefused) {
  options_.disk_bytes = 24 * kMiB;
  Reopen();
  std::atomic<uint64_t> most_on_disk{0};
  std::atomic<uint64_t> most_reported{0};
  std::jthread watcher([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      most_on_disk = std::max(most_on_disk.load(), OnDisk(folder_).first);
      most_reported = std::max(most_reported.load(), DiskBytes());
    }
  });
  int refused = 0;
  for (uint32_t round = 0; refused < 12; ++round) {
    ASSERT_LT(round, 200u) << "nothing was ever refused";
    const Status taken = Take("c" + std::to_string(round), round + 1, 8);
    if (taken.ok()) continue;
    EXPECT_EQ(taken.code(), StatusCode::kResourceExhausted) << taken.ToString();
    EXPECT_FALSE(store_->write_gate().state().read_only);
    ++refused;
    // Room again, so that files are dropped and rewritten on the way, too.
    if (round >= 2) (void)store_->RemoveCorpus("c" + std::to_string(round / 2));
  }
  watcher.request_stop();
  watcher.join();
  EXPECT_LE(most_on_disk.load(), options_.disk_bytes);
  EXPECT_LE(most_reported.load(), options_.disk_bytes);
  EXPECT_GT(most_on_disk.load(), options_.disk_bytes / 3);
}

TEST_F(DiskCapTest, TheHostCapHoldsWhileReadersComeTogether) {
  std::vector<TestCorpus> corpora;
  for (uint32_t c = 0; c < 4; ++c) {
    corpora.push_back(MakeCorpus(c + 1, 6));
    Ingest("c" + std::to_string(c), corpora.back());
  }
  std::atomic<uint64_t> most{0};
  std::jthread watcher([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) most = std::max(most.load(), store_->Usage()[0].used_bytes);
  });
  std::vector<std::jthread> readers;
  for (uint32_t seed = 0; seed < 4; ++seed) {
    readers.emplace_back([&, seed] {
      for (uint32_t round = 0; round < 50; ++round) {
        FetchStats stats;
        (void)store_->Fetch(corpora[(seed + round) % 4].chain, &stats);  // may be refused
      }
    });
  }
  readers.clear();
  watcher.request_stop();
  watcher.join();
  EXPECT_LE(most.load(), options_.host_bytes);
  EXPECT_GE(most.load(), 6 * kTestBlockBytes);
}

}  // namespace
}  // namespace corpusd
