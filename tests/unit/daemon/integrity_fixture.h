// tests/unit/daemon/integrity_fixture.h -- a daemon over a real store and a fake engine: for
// scrubs, bundles and misses, whose subject is the store. One thread drives it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/daemon_fixture.h"
#include "tests/unit/store/store_fixture.h"

namespace corpusd {

class IntegrityFixture : public DaemonTest {
 protected:
  static constexpr const char* kWeights = "00ff";  // of the fake engine

  IntegrityFixture() {
    options_.disk_bytes = uint64_t{1} << 30;
    options_.host_bytes = 16 * kTestBlockBytes;
    OpenStore();
  }
  ~IntegrityFixture() override { controls_.ReleasePrefill(); }

  void OpenStore() {
    BlockStoreOptions options;
    options.data_dir = folder_ + "/data";
    options.host_bytes = options_.host_bytes;
    auto store = BlockStore::Open(options);
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    owned_ = *std::move(store);
    store_ = owned_.get();
  }
  // The daemon owns the store from now on; store_ still points to it.
  void StartDaemonOverStore() {
    auto engine = std::make_unique<FakeEngine>(*store_, controls_);
    auto daemon = Daemon::Start(options_, std::move(owned_), std::move(engine));
    ASSERT_TRUE(daemon.ok()) << daemon.status().ToString();
    daemon_ = *std::move(daemon);
  }

  // A ready corpus of the fake engine's model, in the open store. parts: one or none, which it
  // keeps of a chunk that has not ended.
  TestCorpus Put(const std::string& name, uint32_t seed, size_t blocks, size_t shared = 0,
                 const std::string& weights = kWeights, const std::vector<CorpusPart>& parts = {}) {
    TestCorpus corpus = MakeCorpus(seed, blocks, shared);
    CorpusRecord record;
    record.name = name;
    record.mode = "";
    record.identity = {{"weights", weights}};
    record.root = corpus.root = ChainRoot(record.identity);
    corpus.chain = BuildChain(corpus.root, corpus.tokens, kTestBlockTokens);
    record.kv_format = "";
    record.block_bytes = kTestBlockBytes;
    record.parts = parts;
    auto created = store_->CreateCorpus(record, corpus.tokens);
    EXPECT_TRUE(created.ok()) << created.status().ToString();
    std::vector<std::vector<std::byte>> payloads, part_payloads;
    std::vector<BlockWrite> writes;
    for (size_t i = 0; i < corpus.chain.size(); ++i) {
      payloads.push_back(PayloadOf(corpus.chain[i]));
      part_payloads.push_back(
          PayloadOf(PartDigest(corpus.chain[i], kTestPartKind), kTestPartBytes));
      const auto first = corpus.tokens.begin() + static_cast<ptrdiff_t>(i * kTestBlockTokens);
      writes.push_back(
          {corpus.chain[i], {first, first + kTestBlockTokens}, payloads.back(), kTestSections});
      if (!parts.empty()) writes.back().parts = {part_payloads.back()};
    }
    if (!parts.empty()) {
      created->parts[0].held = {{blocks / parts[0].blocks_max * parts[0].blocks_max, blocks}};
    }
    auto published = store_->Publish(*created, writes);
    EXPECT_TRUE(published.ok()) << published.status().ToString();
    published->state = CorpusState::kReady;
    EXPECT_TRUE(store_->UpdateCorpus(*published).ok());
    return corpus;
  }

  std::unique_ptr<BlockStore> owned_;
  BlockStore* store_ = nullptr;
};

}  // namespace corpusd
