// The words of blocks: parts and pairs of them, and BM25 over them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/retrieval/block_selector.h"
#include "engine/retrieval/case_folding.h"
#include "engine/retrieval/lexical_index.h"
#include "engine/retrieval/lexical_terms.h"

namespace corpusd {
namespace {

// The parts alone: every second term.
std::vector<uint32_t> Parts(std::string_view text) {
  const std::vector<uint32_t> terms = TermsOf(text);
  std::vector<uint32_t> parts;
  for (size_t i = 0; i < terms.size(); i += i == 0 ? 1 : 2) parts.push_back(terms[i]);
  return parts;
}

LexicalIndex IndexOf(const std::vector<std::string_view>& texts) {
  LexicalIndex index;
  for (const std::string_view text : texts) {
    const BlockTerms terms = CountTerms(text);
    index.Append(terms.postings, terms.length);
  }
  return index;
}

TEST(LexicalTerms, WordsSplitWhereWritersJoinThem) {
  EXPECT_EQ(Parts("readHTTPPage_v2"), Parts("read http page v 2"));
  EXPECT_EQ(Parts("Misty-OWL"), Parts("misty owl"));
  EXPECT_EQ(Parts("ÜBER Straße ΌΣΟΣ ЁЖ"), Parts("über straße όσος ёж"));
  EXPECT_EQ(Parts("漢字かな").size(), 4u);
  EXPECT_EQ(Parts("a\xff\xfe b"), Parts("a b"));
  EXPECT_TRUE(TermsOf("").empty());
  EXPECT_TRUE(TermsOf(" .,; ").empty());
}

TEST(LexicalTerms, NeighboursMakePairs) {
  const std::vector<uint32_t> terms = TermsOf("misty owl");
  ASSERT_EQ(terms.size(), 3u);  // misty, owl, both
  const std::vector<uint32_t> turned = TermsOf("owl misty");
  EXPECT_EQ(turned[0], terms[1]);
  EXPECT_NE(turned[2], terms[2]);
  const std::vector<uint32_t> joined = TermsOf("mistyowl");
  EXPECT_EQ(std::count(joined.begin(), joined.end(), terms[2]), 0);
}

TEST(CaseFolding, LettersOfAlphabetsWithCapitals) {
  EXPECT_EQ(FoldCase('Q'), uint32_t{'q'});
  EXPECT_EQ(FoldCase(0xd7), 0xd7u);      // the multiplication sign
  EXPECT_EQ(FoldCase(0x141), 0x142u);    // L with stroke
  EXPECT_EQ(FoldCase(0x17d), 0x17eu);    // Z with caron
  EXPECT_EQ(FoldCase(0x178), 0xffu);     // Y with diaeresis
  EXPECT_EQ(FoldCase(0x416), 0x436u);    // Cyrillic Zhe
  EXPECT_EQ(FoldCase(0x3c2), 0x3c3u);    // the final sigma
  EXPECT_EQ(FoldCase(0x4e00), 0x4e00u);  // a Han character
}

TEST(LexicalIndex, PairsTellRecordsApart) {
  const IndexScanner scanner(1);
  const LexicalIndex index = IndexOf(
      {"The code of misty fox is 17. The code of grey owl is 4.", "The code of misty owl is 23.",
       "The code of red owl is 9. The code of misty hen is 8.", "The owl is of the code."});
  const std::vector<float> scores = index.Score("What is the code of Misty Owl?", {}, scanner);
  EXPECT_EQ(std::max_element(scores.begin(), scores.end()) - scores.begin(), 1);
}

TEST(LexicalIndex, ScoresAreThoseOfTheFormula) {
  const IndexScanner scanner(2);
  const LexicalIndex index = IndexOf({"owl owl", "cat", ""});
  const std::vector<float> scores = index.Score("Owl, zebra", {.k1 = 1, .b = 0.5}, scanner);
  // "owl owl" has 3 terms, the mean is 4 / 3; one block of three has the word.
  const double rarity = std::log1p((3 - 1 + 0.5) / 1.5);
  const double damping = 0.5 + 0.5 * 3 / (4.0 / 3);
  EXPECT_NEAR(scores[0], rarity * 2 * 2 / (2 + damping), 1e-6);
  EXPECT_EQ(scores[1], 0);
  EXPECT_EQ(scores[2], 0);
}

TEST(LexicalIndex, ScoresDoNotDependOnThreads) {
  LexicalIndex index;
  for (int i = 0; i < 3000; ++i) {
    const std::string text = "word" + std::to_string(i % 71) + " and " + std::to_string(i);
    const BlockTerms terms = CountTerms(text);
    index.Append(terms.postings, terms.length);
  }
  const auto scores = index.Score("word 33 and 2005", {}, IndexScanner(1));
  EXPECT_EQ(index.Score("word 33 and 2005", {}, IndexScanner(3)), scores);
  EXPECT_EQ(std::max_element(scores.begin(), scores.end()) - scores.begin(), 2005);
}

TEST(BlockSelector, TheBestBehindThePreamble) {
  const std::vector<float> scores = {9, 1, 5, 4.5, 5, -3};
  const Candidates candidates{scores, 1};
  EXPECT_EQ(BestBlocks(candidates, 3), (std::vector<uint64_t>{2, 4, 3}));
  EXPECT_EQ(BestBlocks(candidates, 100).size(), 5u);
  EXPECT_TRUE(BestBlocks({{}, 0}, 10).empty());
}

TEST(BlockSelector, PiecesAroundHitsCrossBlocksOfOneDocument) {
  const std::vector<uint32_t> tokens = {128, 128, 50, 128};
  const auto document_of = [](uint64_t block) { return block / 3; };  // 0 1 2 | 3
  const RetrievalRule rule;
  using Pieces = std::vector<BlockPiece>;
  const auto pieces = [&](std::vector<BlockHit> hits, uint32_t budget = 1000) {
    return PiecesAround(hits, tokens, document_of, budget, rule).pieces;
  };
  EXPECT_EQ(pieces({{0, 64}}), (Pieces{{0, 32, 96}}));
  EXPECT_EQ(pieces({{0, 3}}), (Pieces{{0, 0, 35}}));
  EXPECT_EQ(pieces({{1, 10}}), (Pieces{{0, 106, 128}, {1, 0, 42}}));
  EXPECT_EQ(pieces({{1, 120}}), (Pieces{{1, 88, 128}, {2, 0, 24}}));
  EXPECT_EQ(pieces({{2, 49}}), (Pieces{{2, 17, 50}}));  // the document ends there
  EXPECT_EQ(pieces({{3, 0}}), (Pieces{{3, 0, 32}}));    // and this one begins
  // The better hit keeps what both want, the best comes last.
  EXPECT_EQ(pieces({{0, 64}, {0, 80}, {3, 64}}), (Pieces{{3, 32, 96}, {0, 96, 112}, {0, 32, 96}}));
  EXPECT_EQ(pieces({{0, 64}, {3, 64}, {1, 127}}, 100), (Pieces{{0, 32, 96}}));
  EXPECT_EQ(pieces({{0, 64}, {0, 64}}), (Pieces{{0, 32, 96}}));
  const auto of_best = [&](std::vector<BlockHit> hits) {
    return PiecesAround(hits, tokens, document_of, 1000, rule).of_best;
  };
  EXPECT_EQ(of_best({}), 0u);
  EXPECT_EQ(of_best({{1, 10}, {0, 20}}), 2u);  // it reaches into the block before
  EXPECT_EQ(of_best({{0, 64}, {0, 80}, {3, 64}}), 1u);
}

}  // namespace
}  // namespace corpusd
