// A made-up segmented corpus: a preamble and documents whose tokens follow from their seeds. For
// store tests only.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "store/corpus_chain.h"
#include "tests/unit/store/store_fixture.h"

namespace corpusd {

inline constexpr SegmentRule kTestRule = {4 * kTestBlockTokens, 2 * kTestBlockTokens};

inline std::vector<TokenId> MakeDocument(uint32_t seed, size_t tokens) {
  std::mt19937 random(seed);
  std::vector<TokenId> ids(tokens);
  for (TokenId& id : ids) id = random() % 50000;
  return ids;
}

struct SegmentedCorpus {
  CorpusRecord record;
  std::vector<TokenId> tokens;

  explicit SegmentedCorpus(size_t preamble_tokens = 11, SegmentRule rule = kTestRule)
      : tokens(MakeDocument(0, preamble_tokens)) {
    record.name = "c";
    record.mode = rule.window_tokens == 0 ? "exact" : "segmented";
    record.identity = {{"schema", "1"}, {"mode", record.mode}};
    record.root = ChainRoot(record.identity);
    record.kv_format = "bf16";
    record.block_bytes = kTestBlockBytes;
    record.segments = rule;
    record.tokens = preamble_tokens;
  }
  SegmentedCorpus& Add(const std::vector<TokenId>& document) {
    const std::string path = std::to_string(record.sources.size());
    record.sources.push_back({path, tokens.size(), document.size(), 0, ""});
    tokens.insert(tokens.end(), document.begin(), document.end());
    record.tokens = tokens.size();
    return *this;
  }
  CorpusChain chain() const { return {record, kTestBlockTokens}; }
  std::vector<Digest> digests() const { return chain().Digests(record.root, tokens); }
};

// A store that takes them.
class SegmentedFixture : public StoreFixture {
 protected:
  // Publishes blocks [record.chain.size(), end).
  Result<CorpusRecord> PublishTo(const CorpusRecord& record, const SegmentedCorpus& corpus,
                                 size_t end) {
    const CorpusChain chain = corpus.chain();
    const auto digests = corpus.digests();
    std::vector<std::vector<std::byte>> payloads;
    std::vector<BlockWrite> writes;
    for (size_t i = record.chain.size(); i < end; ++i) {
      const BlockSpan span = chain.block(i);
      const auto first = corpus.tokens.begin() + static_cast<ptrdiff_t>(span.first_token);
      payloads.push_back(PayloadOf(digests[i]));
      writes.push_back({digests[i], {first, first + span.tokens}, {}, kTestSections});
    }
    for (size_t i = 0; i < writes.size(); ++i) writes[i].payload = payloads[i];
    return store_->Publish(record, writes);
  }
  CorpusRecord Ingest(const std::string& name, const SegmentedCorpus& corpus) {
    CorpusRecord record = corpus.record;
    record.name = name;
    auto made = store_->CreateCorpus(record, corpus.tokens);
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    made = PublishTo(*made, corpus, corpus.chain().blocks());
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    made->state = CorpusState::kReady;
    auto ready = store_->UpdateCorpus(*made);
    EXPECT_TRUE(ready.ok()) << ready.status().ToString();
    return *ready;
  }
  void ExpectSound() {
    for (const std::string& line : store_->Diagnose()) {
      EXPECT_FALSE(line.starts_with("error")) << line;
    }
  }
};

}  // namespace corpusd
