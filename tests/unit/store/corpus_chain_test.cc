// Which tokens a block of a corpus holds, and what its digest depends on.
#include "store/corpus_chain.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "tests/unit/store/segmented_corpus.h"

namespace corpusd {
namespace {

constexpr uint32_t kBlock = kTestBlockTokens;
constexpr SegmentRule kRule = kTestRule;
using Corpus = SegmentedCorpus;

TEST(CorpusChain, AnExactCorpusIsOneSegmentWithTheDigestsOfBuildChain) {
  for (const size_t tokens : {1u, 7u, 8u, 9u, 100u}) {
    Corpus corpus(0, {});
    corpus.Add(MakeDocument(1, tokens / 2)).Add(MakeDocument(2, tokens - tokens / 2));
    const CorpusChain chain = corpus.chain();
    ASSERT_EQ(chain.segments().size(), 1u);
    EXPECT_EQ(corpus.digests(), BuildChain(corpus.record.root, corpus.tokens, kBlock));
    EXPECT_EQ(chain.block(chain.blocks() - 1).tokens, (tokens - 1) % kBlock + 1);
  }
}

TEST(CorpusChain, APreambleAlone) {
  const Corpus corpus(11, kRule);
  EXPECT_EQ(corpus.chain().blocks(), 2u);
  EXPECT_EQ(corpus.digests(), BuildChain(corpus.record.root, corpus.tokens, kBlock));
}

TEST(CorpusChain, PartialBlocksStandInsideTheChain) {
  Corpus corpus(11, kRule);
  corpus.Add(MakeDocument(1, 13)).Add(MakeDocument(2, 16)).Add(MakeDocument(3, 1));
  const CorpusChain chain = corpus.chain();
  ASSERT_EQ(chain.segments().size(), 4u);
  const std::vector<BlockSpan> expected = {{0, 8},  {8, 3},  {11, 8}, {19, 5},
                                           {24, 8}, {32, 8}, {40, 1}};
  ASSERT_EQ(chain.blocks(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(chain.block(i).first_token, expected[i].first_token) << i;
    EXPECT_EQ(chain.block(i).tokens, expected[i].tokens) << i;
    EXPECT_EQ(chain.TokensOfBlocks(i), expected[i].first_token) << i;
  }
  EXPECT_EQ(chain.TokensOfBlocks(chain.blocks()), corpus.record.tokens);
  EXPECT_EQ(chain.SegmentOfBlock(3).source, 0u);
  EXPECT_EQ(chain.SegmentOfBlock(6).source, 2u);
}

// A digest of a segmented corpus, told without CorpusChain.
TEST(CorpusChain, DigestsFollowFromPreambleContextAndOwnTokens) {
  Corpus corpus(11, kRule);
  corpus.Add(MakeDocument(1, 70));  // windows of 32, 32 and 6 tokens
  const CorpusChain chain = corpus.chain();
  ASSERT_EQ(chain.segments().size(), 4u);
  EXPECT_EQ(chain.segments()[1].context_tokens, 0u);
  EXPECT_EQ(chain.segments()[2].context_tokens, 16u);
  EXPECT_EQ(chain.segments()[3].tokens, 6u);
  EXPECT_EQ(chain.segments()[3].first_token, 11u + 64);
  const std::span<const TokenId> tokens = corpus.tokens;
  const Digest preamble = BuildChain(corpus.record.root, tokens.first(11), kBlock).back();
  const std::vector<Digest> digests = corpus.digests();
  EXPECT_EQ(digests[2], ExtendChain(preamble, tokens.subspan(11, 8)));
  EXPECT_EQ(digests[3], ExtendChain(digests[2], tokens.subspan(19, 8)));
  const Digest second = ExtendChain(preamble, tokens.subspan(11 + 16, 16));
  EXPECT_EQ(digests[6], ExtendChain(second, tokens.subspan(11 + 32, 8)));
  const Digest third = ExtendChain(preamble, tokens.subspan(11 + 48, 16));
  EXPECT_EQ(digests[10], ExtendChain(third, tokens.subspan(11 + 64, 6)));
  EXPECT_EQ(digests.size(), 11u);
}

TEST(CorpusChain, DocumentsWithoutTokensHaveNoBlocks) {
  Corpus with(11, kRule), without(11, kRule);
  with.Add({}).Add(MakeDocument(1, 9)).Add({}).Add({}).Add(MakeDocument(2, 40)).Add({});
  without.Add(MakeDocument(1, 9)).Add(MakeDocument(2, 40));
  EXPECT_EQ(with.digests(), without.digests());
  EXPECT_TRUE(CheckSegmented(with.record, kBlock).ok());
  const CorpusChain chain = with.chain();
  EXPECT_EQ(chain.SegmentOfBlock(2).source, 1u);
  EXPECT_EQ(chain.segments().back().source, 4u);
}

TEST(CorpusChain, ADocumentsDigestsDoNotDependOnItsPlace) {
  const std::vector<std::vector<TokenId>> documents = {MakeDocument(1, 70), MakeDocument(2, 8),
                                                       MakeDocument(3, 33), MakeDocument(4, 1),
                                                       MakeDocument(5, 64)};
  std::vector<size_t> order = {0, 1, 2, 3, 4};
  std::set<Digest> expected;
  do {
    Corpus corpus(11, kRule);
    for (const size_t i : order) corpus.Add(documents[i]);
    const auto digests = corpus.digests();
    const std::set<Digest> found(digests.begin(), digests.end());
    if (expected.empty()) expected = found;
    ASSERT_EQ(found, expected);
  } while (std::next_permutation(order.begin(), order.end()));
  EXPECT_EQ(expected.size(), 2u + 9 + 1 + 5 + 1 + 8);
}

TEST(CorpusChain, TwoCorporaShareThePreambleAndTheDocumentsThatBothHave) {
  Corpus one(11, kRule), other(11, kRule);
  one.Add(MakeDocument(1, 70)).Add(MakeDocument(2, 20)).Add(MakeDocument(3, 9));
  other.Add(MakeDocument(4, 5)).Add(MakeDocument(2, 20)).Add(MakeDocument(1, 69));
  const auto a = one.digests(), b = other.digests();
  const std::set<Digest> in_one(a.begin(), a.end());
  const auto shared =
      std::count_if(b.begin(), b.end(), [&](const Digest& d) { return in_one.contains(d); });
  // Preamble, the document that is the same, and the other one but for its last block.
  EXPECT_EQ(shared, 2 + 3 + 8);
  Corpus elsewhere(12, kRule);
  elsewhere.Add(MakeDocument(1, 70));
  for (const Digest& digest : elsewhere.digests()) {
    if (digest == a[0]) continue;  // the first block of a longer preamble
    EXPECT_FALSE(in_one.contains(digest));
  }
}

TEST(CorpusChain, CheckSegmentedRefusesWhatIsNotInOnePiece) {
  Corpus good(11, kRule);
  good.Add(MakeDocument(1, 13)).Add(MakeDocument(2, 16));
  EXPECT_TRUE(CheckSegmented(good.record, kBlock).ok());
  const auto refuses = [&](const auto& spoil, std::string_view text) {
    CorpusRecord record = good.record;
    std::vector<CorpusSource> sources = record.sources;
    spoil(record, sources);
    record.sources = sources;
    const Status status = CheckSegmented(record, kBlock);
    EXPECT_EQ(status.code(), StatusCode::kCorruption);
    EXPECT_NE(status.message().find(text), std::string::npos) << status.message();
  };
  refuses([](auto& r, auto&) { r.segments.window_tokens = 33; }, "windows of 33");
  refuses([](auto& r, auto&) { r.segments.overlap_tokens = 9; }, "overlap by 9");
  refuses([](auto& r, auto&) { r.segments.overlap_tokens = 32; }, "overlap by 32");
  refuses([](auto&, auto& s) { s.clear(); }, "no preamble");
  refuses([](auto&, auto& s) { s.front().first_token = 0; }, "no preamble");
  refuses([](auto&, auto& s) { s.front().first_token = 99; }, "no preamble");
  refuses([](auto&, auto& s) { s[1].first_token = 25; }, "source '1' begins at token 25");
  refuses([](auto&, auto& s) { s[0].tokens = 12; }, "source '1' begins at token 24");
  refuses([](auto&, auto& s) { s[1].tokens = UINT64_MAX; }, "ends behind its last token");
  refuses([](auto&, auto& s) { s[1].tokens = 15; }, "end at token 39 of 40");
  refuses([](auto& r, auto&) { r.tokens = 41; }, "end at token 40 of 41");
  CorpusRecord exact;
  exact.sources = {{"anywhere", 5, 6, 0, ""}};
  EXPECT_TRUE(CheckSegmented(exact, kBlock).ok());
}

TEST(CorpusChain, EveryTokenIsInExactlyOneBlockOfTheSegmentThatSaysSo) {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 shape(seed);
    const auto pick = [&](uint32_t below) { return static_cast<uint32_t>(shape() % below); };
    const uint32_t window = (1 + pick(5)) * kBlock;
    Corpus corpus(1 + pick(20), {window, pick(window / kBlock) * kBlock});
    for (uint32_t left = 1 + pick(12); left > 0; --left) {
      corpus.Add(MakeDocument(shape(), pick(4) == 0 ? 0 : pick(100)));
    }
    ASSERT_TRUE(CheckSegmented(corpus.record, kBlock).ok());
    const CorpusChain chain = corpus.chain();
    uint64_t token = 0;
    for (uint64_t i = 0; i < chain.blocks(); ++i) {
      const BlockSpan span = chain.block(i);
      ASSERT_EQ(span.first_token, token);
      ASSERT_GT(span.tokens, 0u);
      ASSERT_LE(span.tokens, kBlock);
      ASSERT_EQ(chain.TokensOfBlocks(i), token);
      token += span.tokens;
      ASSERT_EQ(chain.TokensOfBlocks(i + 1), token);
      const CorpusSegment& segment = chain.SegmentOfBlock(i);
      ASSERT_LE(segment.first_block, i);
      ASSERT_GT(segment.first_block + segment.blocks, i);
      ASSERT_GE(span.first_token, segment.first_token);
      ASSERT_LE(token, segment.first_token + segment.tokens);
      ASSERT_LE(segment.tokens, i < chain.segments()[0].blocks ? UINT64_MAX : window);
      const bool last = segment.first_block + segment.blocks == i + 1;
      ASSERT_TRUE(span.tokens == kBlock || last) << "a partial block inside a segment";
      if (i < chain.segments()[0].blocks) continue;
      const CorpusSource& source = corpus.record.sources[segment.source];
      ASSERT_GE(span.first_token, source.first_token + segment.context_tokens);
      ASSERT_LE(token, source.first_token + source.tokens);
    }
    ASSERT_EQ(token, corpus.record.tokens);
    const auto digests = corpus.digests();
    ASSERT_EQ(digests.size(), chain.blocks());
    ASSERT_EQ(std::set<Digest>(digests.begin(), digests.end()).size(), digests.size());
  }
}

}  // namespace
}  // namespace corpusd
