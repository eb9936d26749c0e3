// A BlockStore in a temporary folder, with small made-up corpora whose payload bytes follow from
// their digests. For store tests only; owns the folder and removes it.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "store/base/fault_point.h"
#include "store/block_store.h"

namespace corpusd {

inline constexpr uint32_t kTestSections = 4;
inline constexpr uint64_t kTestBlockBytes = 64 * 1024;
inline constexpr uint32_t kTestBlockTokens = 8;
inline constexpr const char* kTestPartKind = "c32";
inline constexpr uint64_t kTestPartBytes = 16 * 1024;
inline constexpr uint32_t kTestPartSections = 2;

// Payload bytes that depend on the digest alone, so that any copy can be checked.
inline std::vector<std::byte> PayloadOf(const Digest& digest,
                                        uint64_t payload_bytes = kTestBlockBytes) {
  std::vector<std::byte> bytes(payload_bytes);
  uint64_t state = DigestHash()(digest);
  for (std::byte& b : bytes) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    b = static_cast<std::byte>(state >> 56);
  }
  return bytes;
}

struct TestCorpus {
  std::vector<TokenId> tokens;
  std::vector<Digest> chain;
  Digest root;
};

// seed decides the tokens; equal prefixes of tokens give equal prefixes of chains.
inline TestCorpus MakeCorpus(uint32_t seed, size_t blocks, size_t shared_blocks = 0) {
  TestCorpus corpus;
  std::mt19937 shared(1);
  std::mt19937 own(seed);
  for (size_t i = 0; i < blocks * kTestBlockTokens; ++i) {
    corpus.tokens.push_back((i < shared_blocks * kTestBlockTokens ? shared() : own()) % 50000);
  }
  const std::vector<IdentityField> identity = {{"schema", "1"}};
  corpus.root = ChainRoot(identity);
  corpus.chain = BuildChain(corpus.root, corpus.tokens, kTestBlockTokens);
  return corpus;
}

class StoreFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "corpusd-store-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    options_.data_dir = folder_;
    options_.host_bytes = 16 * kTestBlockBytes;
    Reopen();
  }
  void TearDown() override {
    DisarmFaults();
    store_.reset();
    std::filesystem::remove_all(folder_);
  }
  void Reopen() {
    store_.reset();
    auto store = BlockStore::Open(options_);
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    store_ = std::move(*store);
  }

  Result<CorpusRecord> Create(const std::string& name, const TestCorpus& corpus) {
    CorpusRecord record;
    record.name = name;
    record.mode = "exact";
    record.root = corpus.root;
    record.kv_format = "bf16";
    record.block_bytes = kTestBlockBytes;
    record.whole_blocks = chunk_blocks_ == 0 ? 0 : corpus.chain.size();
    record.identity = {{"schema", "1"}};
    if (chunk_blocks_ > 0) {
      record.parts = {{kTestPartKind, kTestPartBytes, kTestPartSections, chunk_blocks_, {}}};
    }
    return store_->CreateCorpus(record, corpus.tokens);
  }

  // What a corpus of so many blocks keeps the part of: its last chunk, until that has ended.
  static std::vector<BlockRange> ChunkTail(uint64_t blocks, uint64_t chunk_blocks) {
    const uint64_t first = blocks / chunk_blocks * chunk_blocks;
    return first == blocks ? std::vector<BlockRange>{} : std::vector<BlockRange>{{first, blocks}};
  }

  // Publishes blocks [record.chain.size(), end) of the corpus.
  Result<CorpusRecord> PublishTo(CorpusRecord record, const TestCorpus& corpus, size_t end) {
    std::vector<std::vector<std::byte>> payloads, parts;
    std::vector<BlockWrite> writes;
    for (size_t i = record.chain.size(); i < end; ++i) {
      payloads.push_back(PayloadOf(corpus.chain[i]));
      parts.push_back(PayloadOf(PartDigest(corpus.chain[i], kTestPartKind), kTestPartBytes));
      const auto first = corpus.tokens.begin() + static_cast<ptrdiff_t>(i * kTestBlockTokens);
      writes.push_back({corpus.chain[i], {first, first + kTestBlockTokens}, {}, kTestSections});
    }
    for (size_t i = 0; i < writes.size(); ++i) {
      writes[i].payload = payloads[i];
      if (!record.parts.empty()) writes[i].parts = {parts[i]};
    }
    if (!record.parts.empty()) {
      // Of older blocks no more than it has.
      std::vector<BlockRange>& held = record.parts[0].held;
      const uint64_t size = record.chain.size();
      const uint64_t first = !held.empty() && held.back().end == size ? held.back().first : size;
      held = ChunkTail(end, record.parts[0].blocks_max);
      if (!held.empty()) held.back().first = std::max(held.back().first, first);
    }
    return store_->Publish(record, writes);
  }

  CorpusRecord Ingest(const std::string& name, const TestCorpus& corpus) {
    auto record = Create(name, corpus);
    EXPECT_TRUE(record.ok()) << record.status().ToString();
    auto published = PublishTo(*record, corpus, corpus.chain.size());
    EXPECT_TRUE(published.ok()) << published.status().ToString();
    published->state = CorpusState::kReady;
    auto ready = store_->UpdateCorpus(*published);
    EXPECT_TRUE(ready.ok()) << ready.status().ToString();
    return *ready;
  }

  // Every block of the chain arrives with the right bytes.
  void ExpectWhole(const std::vector<Digest>& chain) {
    FetchStats stats;
    const auto refs = store_->Fetch(chain, &stats);
    ASSERT_TRUE(refs.ok()) << refs.status().ToString();
    EXPECT_TRUE(stats.damaged.empty());
    EXPECT_TRUE(stats.missing.empty());
    for (size_t i = 0; i < chain.size(); ++i) {
      ASSERT_TRUE((*refs)[i].valid()) << i;
      const auto expected = PayloadOf(chain[i]);
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), (*refs)[i].bytes().begin())) << i;
    }
  }

  // What the blocks take on the disk, by the file system's own account.
  uint64_t SegmentDiskBytes() const {
    uint64_t bytes = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder_ + "/segments")) {
      struct stat info {};
      if (stat(entry.path().c_str(), &info) == 0)
        bytes += 512 * static_cast<uint64_t>(info.st_blocks);
    }
    return bytes;
  }

  // Flips one byte of a payload inside the closed store's files. RETURNS whether it was found.
  bool FlipByteOf(const Digest& digest) {
    store_.reset();
    const auto payload = PayloadOf(digest);
    const std::string needle(reinterpret_cast<const char*>(payload.data()) + 100, 32);
    for (const auto& entry : std::filesystem::directory_iterator(folder_ + "/segments")) {
      FILE* const file = fopen(entry.path().c_str(), "r+b");
      std::string bytes(entry.file_size(), '\0');
      EXPECT_EQ(fread(bytes.data(), 1, bytes.size(), file), bytes.size());
      const size_t at = bytes.find(needle);
      if (at != std::string::npos) {
        const char flipped = static_cast<char>(bytes[at] ^ 1);
        EXPECT_EQ(fseek(file, static_cast<long>(at), SEEK_SET), 0);
        EXPECT_EQ(fwrite(&flipped, 1, 1, file), 1u);
      }
      fclose(file);
      if (at != std::string::npos) return true;
    }
    return false;
  }

  // Of new corpora: tokens see chunks of so many blocks on the layers of one part; 0: no parts.
  uint64_t chunk_blocks_ = 0;
  std::string folder_;
  BlockStoreOptions options_;
  std::unique_ptr<BlockStore> store_;
};

}  // namespace corpusd
