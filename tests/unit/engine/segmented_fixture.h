// tests/unit/engine/segmented_fixture.h -- an engine with segmented corpora of the tiny model. One
// thread.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "kernels/kv_format.h"
#include "store/corpus_chain.h"
#include "tests/unit/engine/engine_fixture.h"

namespace corpusd {

struct TestDocument {
  std::string path;
  std::string text;
};

class SegmentedFixture : public EngineFixture {
 protected:
  void SetUp() override {
    options_.retrieval_heads = "1.0,1.1,1.2,1.3";  // looking for them takes a second
    EngineFixture::SetUp();
  }

  Result<CorpusRecord> CreateSegmented(const std::string& name,
                                       const std::vector<TestDocument>& documents,
                                       bool update = false) {
    auto tokenizer = engine_->NewCorpusTokenizer("", false, 0);
    for (const TestDocument& document : documents) {
      (*tokenizer)->BeginSource(document.path);
      (*tokenizer)->Append(document.text);
      (*tokenizer)->EndSource();
    }
    CorpusRequest request;
    request.name = name;
    request.mode = "segmented";
    request.kv_format = kv_format_;
    request.update = update;
    return engine_->CreateCorpus(request, *std::move(tokenizer));
  }

  PrefillProgress Prefill(const std::string& name) {
    PrefillProgress last;
    const Status status = engine_->Prefill(name, [&](const PrefillProgress& p) { last = p; }, {});
    EXPECT_TRUE(status.ok()) << status.ToString();
    return last;
  }

  PrefillProgress IngestSegmented(const std::string& name,
                                  const std::vector<TestDocument>& documents) {
    const auto record = CreateSegmented(name, documents);
    EXPECT_TRUE(record.ok()) << record.status().ToString();
    return Prefill(name);
  }

  PrefillProgress Update(const std::string& name, const std::vector<TestDocument>& documents) {
    const auto record = CreateSegmented(name, documents, /*update=*/true);
    EXPECT_TRUE(record.ok()) << record.status().ToString();
    return Prefill(record->name);
  }

  // Stored bytes of the blocks of one source.
  std::string BytesOfSource(const std::string& name, size_t source) {
    const CorpusRecord record = *store_->GetCorpus(name);
    const CorpusChain chain(record, kBlockTokens);
    std::vector<Digest> digests;
    for (const CorpusSegment& segment : chain.segments()) {
      if (segment.first_block == 0 || segment.source != source) continue;
      for (uint64_t i = 0; i < segment.blocks; ++i) {
        digests.push_back(record.chain[segment.first_block + i]);
      }
    }
    FetchStats stats;
    std::string bytes;
    const auto refs = store_->Fetch(digests, &stats);
    EXPECT_TRUE(refs.ok());
    for (const BlockRef& ref : *refs) {
      bytes.append(reinterpret_cast<const char*>(ref.bytes().data()), ref.bytes().size());
    }
    return bytes;
  }

  std::string kv_format_ = "bf16";  // of corpora made from now on

  // Sixty words that no other document has.
  static std::string Needle() {
    std::string text;
    for (int i = 0; i < 10; ++i) text += "The falcon of Lisbon wears a scarlet hat. ";
    return text;
  }
};

}  // namespace corpusd
