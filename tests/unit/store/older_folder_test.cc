// Folders of schema 2, whose catalogue had a row a block and counted everything at each opening:
// they are read, and become today's when they are opened, whenever that is cut off.
#include "tests/support/older_folder.h"

#include <gtest/gtest.h>

#include "store/catalog_families.h"
#include "store/key_codec.h"
#include "store/rocks_database.h"
#include "tests/unit/store/store_fixture.h"

namespace corpusd {
namespace {

class OlderFolderTest : public StoreFixture {
 protected:
  void ExpectSound() {
    for (const std::string& line : store_->Diagnose()) {
      EXPECT_FALSE(line.starts_with("error")) << line;
    }
  }
};

TEST_F(OlderFolderTest, AFolderOfSchema2IsReadGrownAndGivenBack) {
  const TestCorpus large = MakeCorpus(1, 300);  // several rows of its chain
  const TestCorpus small = MakeCorpus(2, 5);
  options_.host_bytes = 400 * kTestBlockBytes;
  Reopen();
  const auto record = Create("large", large);
  ASSERT_TRUE(PublishTo(*record, large, 290).ok());
  Ingest("small", small);
  ASSERT_TRUE(FlipByteOf(small.chain[2]));
  Reopen();
  EXPECT_EQ(store_->Verify("small", nullptr)->damaged.size(), 1u);
  store_.reset();
  ASSERT_TRUE(MakeOlderCatalog(folder_, "2").ok());
  Reopen();
  EXPECT_EQ(store_->GetCorpus("large")->chain.size(), 290u);
  EXPECT_EQ(*store_->LongestPrefix(large.chain, large.tokens), 290u);
  EXPECT_EQ(*store_->LongestPrefix(small.chain, small.tokens), 2u) << "its quarantine is forgotten";
  EXPECT_EQ(*store_->CorpusTokens("large"), large.tokens);
  ASSERT_TRUE(PublishTo(*store_->GetCorpus("large"), large, 300).ok());
  ExpectSound();
  Reopen();
  ExpectWhole(large.chain);
  ASSERT_TRUE(store_->RemoveCorpus("large").ok());
  ASSERT_TRUE(store_->RemoveCorpus("small").ok());
  EXPECT_TRUE(std::filesystem::is_empty(folder_ + "/segments"));
  ExpectSound();
}

// As if the first part of bringing it up to date was written, and then the machine died.
TEST_F(OlderFolderTest, AnUpgradeThatWasCutOffBeginsAgain) {
  const TestCorpus corpus = MakeCorpus(1, 10);
  Ingest("a", corpus);
  store_.reset();
  ASSERT_TRUE(MakeOlderCatalog(folder_, "2").ok());
  {
    auto database =
        RocksDatabase::Open(folder_ + "/catalog", RocksDatabase::Use::kCatalog, FamilyNames());
    RocksBatch batch;
    batch.Put(kChainRows, KeyOf(1, 0), std::string(64, 'x'));
    batch.Put(kChainRows, KeyOf(1, 7), std::string(32, 'y'));
    ASSERT_TRUE((*database)->Write(batch, /*sync=*/true).ok());
  }
  Reopen();
  ExpectWhole(corpus.chain);
  Reopen();
  ExpectWhole(corpus.chain);
  ExpectSound();
}

}  // namespace
}  // namespace corpusd
