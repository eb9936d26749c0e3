// Longest prefixes: found in memory among corpora that begin alike, and only with the same tokens.
#include <gtest/gtest.h>

#include "store/catalog.h"
#include "tests/unit/store/store_fixture.h"

namespace corpusd {
namespace {

using CatalogLookupTest = StoreFixture;

TEST_F(CatalogLookupTest, TheCorpusThatSharesMostIsFound) {
  const TestCorpus little = MakeCorpus(1, 8, 2);
  const TestCorpus much = MakeCorpus(2, 8, 6);
  Ingest("little", little);
  Ingest("much", much);
  const TestCorpus asked = MakeCorpus(3, 8, 6);
  EXPECT_EQ(*store_->LongestPrefix(asked.chain, asked.tokens), 6u);
  EXPECT_EQ(*store_->LongestPrefix(much.chain, much.tokens), 8u);
  EXPECT_EQ(*store_->LongestPrefix({asked.chain.data(), 3}, asked.tokens), 3u);
  EXPECT_EQ(*store_->LongestPrefix({asked.chain.data() + 6, 2}, asked.tokens), 0u);
  ASSERT_TRUE(store_->RemoveCorpus("much").ok());
  EXPECT_EQ(*store_->LongestPrefix(asked.chain, asked.tokens), 2u);
}

// A chunk of ids is compared one by one when it is met, and by its checksum later.
TEST_F(CatalogLookupTest, OtherTokensAreRefusedTheFirstTimeAndEveryTime) {
  store_.reset();
  auto catalog = Catalog::Open(folder_ + "/tokens");
  ASSERT_TRUE(catalog.ok());
  std::vector<TokenId> tokens(2 * kTokensPerChunk + 10);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<TokenId>(i * 7 % 50000);
  const auto put = [&](std::span<const TokenId> stored) {
    CorpusRecord record;
    record.id = 1;
    record.name = "a";
    Catalog::Change change;
    change.PutTokens(1, stored, 0);
    change.PutRecord(record, nullptr);
    ASSERT_TRUE((*catalog)->Commit(change, /*sync=*/false).ok());
  };
  put(tokens);
  for (const size_t wrong : {size_t{5}, kTokensPerChunk + 5, tokens.size() - 1}) {
    auto other = tokens;
    ++other[wrong];
    for (int time = 0; time < 2; ++time) {
      EXPECT_FALSE(*(*catalog)->BeginsWith(1, other)) << wrong;
      EXPECT_TRUE(*(*catalog)->BeginsWith(1, tokens)) << wrong;
      EXPECT_TRUE(*(*catalog)->BeginsWith(1, std::span(tokens).first(wrong)));
    }
  }
  auto replaced = tokens;
  ++replaced[3];
  put(replaced);
  EXPECT_FALSE(*(*catalog)->BeginsWith(1, tokens)) << "compared with what was there before";
  EXPECT_TRUE(*(*catalog)->BeginsWith(1, replaced));
  const std::vector<TokenId> longer(3 * kTokensPerChunk);
  EXPECT_FALSE((*catalog)->BeginsWith(1, longer).ok() && *(*catalog)->BeginsWith(1, longer));
  EXPECT_EQ((*catalog)->BeginsWith(2, tokens).status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace corpusd
