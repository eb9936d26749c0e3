// tests/unit/store/bundle_fixture.h -- bundles of made-up corpora, and stores to put them in. For
// store tests only; the writing store is StoreFixture's, the reading one has a folder beside it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "store/bundle_import.h"
#include "store/bundle_writer.h"
#include "tests/unit/store/store_fixture.h"

namespace corpusd {

inline std::vector<IdentityField> IdentityOfTenant(const std::string& tenant) {
  return {{"schema", "1"},
          {"weights", "ab12"},
          {"tokenizer", "cd34"},
          {"architecture", "llama;rope=1e4"},
          {"kv_format", "kv1;k=bf16"},
          {"mode", "exact"},
          {"tenant", tenant}};
}

// What the importing side serves.
inline CorpusShape ShapeOfTenant(const std::string& tenant) {
  CorpusShape shape;
  shape.identity = IdentityOfTenant(tenant);
  shape.root = ChainRoot(shape.identity);
  shape.mode = "exact";
  shape.kv_format = "bf16";
  shape.block_tokens = kTestBlockTokens;
  shape.sections = kTestSections;
  shape.block_bytes = kTestBlockBytes;
  shape.tokens_max = 1000;
  shape.vocabulary = 50000;
  return shape;
}

class BundleFixture : public StoreFixture {
 protected:
  void SetUp() override {
    StoreFixture::SetUp();
    OpenTarget();
  }
  void TearDown() override {
    target_.reset();
    StoreFixture::TearDown();
  }
  void OpenTarget() {
    target_.reset();
    BlockStoreOptions options = options_;
    options.data_dir = folder_ + "/target";
    auto store = BlockStore::Open(options);
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    target_ = std::move(*store);
  }

  // A ready corpus of the tenant in store_; the last block is partial.
  TestCorpus IngestFor(const std::string& name, const std::string& tenant, size_t blocks) {
    TestCorpus corpus = MakeCorpus(7, blocks);
    corpus.root = ChainRoot(IdentityOfTenant(tenant));
    corpus.chain = BuildChain(corpus.root, corpus.tokens, kTestBlockTokens);
    CorpusRecord record;
    record.name = name;
    record.mode = "exact";
    record.kv_format = "bf16";
    record.block_bytes = kTestBlockBytes;
    record.identity = IdentityOfTenant(tenant);
    record.root = corpus.root;
    record.sources = {{"a.txt", 0, corpus.tokens.size(), 99, "ff"}};
    auto created = store_->CreateCorpus(record, corpus.tokens);
    EXPECT_TRUE(created.ok()) << created.status().ToString();
    auto published = PublishTo(*created, corpus, corpus.chain.size());
    EXPECT_TRUE(published.ok()) << published.status().ToString();
    published->state = CorpusState::kReady;
    EXPECT_TRUE(store_->UpdateCorpus(*published).ok());
    return corpus;
  }

  std::string Export(const std::string& name) {
    auto writer = OpenExport(*store_, name, "tiny", kTestBlockTokens);
    EXPECT_TRUE(writer.ok()) << writer.status().ToString();
    std::string bytes;
    while (true) {
      const auto more = (*writer)->Next(&bytes);
      EXPECT_TRUE(more.ok()) << more.status().ToString();
      if (!more.ok() || !*more) return bytes;
    }
  }

  struct Imported {
    Status status;
    CorpusRecord record;
    uint64_t reused = 0;
  };
  // In pieces of `piece` bytes.
  Imported Import(std::string_view bytes, const std::string& name, const CorpusShape& shape,
                  size_t piece = 5000) {
    BundleImporter importer(
        *target_, [&](const BundleHead&) { return Result<CorpusShape>(shape); },
        [](const std::string&) { return OkStatus(); }, name);
    for (size_t at = 0; at < bytes.size(); at += piece) {
      const Status fed = importer.Feed(std::as_bytes(std::span(bytes.substr(at, piece))));
      if (!fed.ok()) return {fed, {}, importer.blocks_reused()};
    }
    auto record = importer.Finish();
    if (!record.ok()) return {record.status(), {}, importer.blocks_reused()};
    return {OkStatus(), *record, importer.blocks_reused()};
  }

  std::unique_ptr<BlockStore> target_;
};

}  // namespace corpusd
