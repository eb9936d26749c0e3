// Sections read in turn, past the host tier.
#include "store/section_reader.h"

#include <algorithm>

#include "tests/unit/store/store_fixture.h"

namespace corpusd {
namespace {

constexpr size_t kPart = kTestBlockBytes / kTestSections;

class SectionReaderTest : public StoreFixture {
 protected:
  void ExpectSection(const SectionReader& reader, uint32_t slot, const TestCorpus& corpus,
                     size_t first, size_t count, uint32_t section) {
    for (size_t i = 0; i < count; ++i) {
      const auto payload = PayloadOf(corpus.chain[first + i]);
      const std::byte* const found = reader.block(slot, i) + section * kPart;
      EXPECT_TRUE(std::equal(found, found + kPart, payload.begin() + section * kPart))
          << first + i << " section " << section;
    }
  }
};

TEST_F(SectionReaderTest, OneSlotIsUsedWhileTheOtherIsFilled) {
  options_.host_bytes = 64 * kTestBlockBytes;
  Reopen();
  const TestCorpus corpus = MakeCorpus(1, 20);
  Ingest("a", corpus);
  ASSERT_TRUE(store_->Evict("a", TierKind::kHost, false).ok());
  const auto opened = SectionSourceOf(store_.get())->ReadInTurn(corpus.chain);
  ASSERT_TRUE(opened.ok()) << opened.status().ToString();
  SectionReader& reader = **opened;
  ASSERT_EQ(reader.slot_blocks(), 8u) << "an eighth of the host tier";
  for (uint32_t section = 0; section < kTestSections; ++section) {
    reader.Begin(0, 0, 8, section);
    reader.Begin(1, 8, 8, section);
    ASSERT_TRUE(reader.Wait(0).ok());
    ExpectSection(reader, 0, corpus, 0, 8, section);
    reader.Begin(0, 16, 4, section);
    ASSERT_TRUE(reader.Wait(1).ok());
    ExpectSection(reader, 1, corpus, 8, 8, section);
    ASSERT_TRUE(reader.Wait(0).ok());
    ExpectSection(reader, 0, corpus, 16, 4, section);
  }
  EXPECT_EQ(store_->UsageOf(*store_->GetCorpus("a")).host_bytes, 0u);
}

TEST_F(SectionReaderTest, AReaderGrowsAsItsChainIsPublished) {
  const TestCorpus corpus = MakeCorpus(1, 12);
  auto record = *PublishTo(*Create("a", corpus), corpus, 5);
  const auto opened =
      SectionSourceOf(store_.get())->ReadInTurn(std::span(corpus.chain).subspan(1, 4));
  ASSERT_TRUE(opened.ok()) << opened.status().ToString();
  SectionReader& reader = **opened;
  const auto chain = std::span(corpus.chain);
  EXPECT_EQ(reader.Append(chain.subspan(5, 1)).code(), StatusCode::kNotFound);
  EXPECT_EQ(reader.blocks(), 4u);
  record = *PublishTo(record, corpus, 9);
  ASSERT_TRUE(reader.Append(chain.subspan(5, 4)).ok());
  record = *PublishTo(record, corpus, 12);
  ASSERT_TRUE(reader.Append(chain.subspan(9)).ok());
  EXPECT_EQ(reader.blocks(), 11u);
  EXPECT_EQ(reader.reads().entries, 11u) << "each block is looked up once";
  reader.Begin(0, 3, 2, 1);
  reader.Begin(1, 9, 2, 0);
  ASSERT_TRUE(reader.Wait(0).ok());
  ASSERT_TRUE(reader.Wait(1).ok());
  ExpectSection(reader, 0, corpus, 4, 2, 1);
  ExpectSection(reader, 1, corpus, 10, 2, 0);
  EXPECT_EQ(reader.reads().bytes, 4 * kPart);
}

TEST_F(SectionReaderTest, DamageAndRemovalAreErrors) {
  const TestCorpus corpus = MakeCorpus(1, 6);
  Ingest("a", corpus);
  ASSERT_TRUE(FlipByteOf(corpus.chain[2]));
  Reopen();
  {
    const auto reader = SectionSourceOf(store_.get())->ReadInTurn(corpus.chain);
    ASSERT_TRUE(reader.ok());
    (*reader)->Begin(0, 0, 4, 0);
    EXPECT_EQ((*reader)->Wait(0).code(), StatusCode::kCorruption);
    (*reader)->Begin(1, 3, 3, 0);
    EXPECT_TRUE((*reader)->Wait(1).ok());
    ASSERT_TRUE(store_->RemoveCorpus("a").ok());
    (*reader)->Begin(0, 3, 3, 1);
    EXPECT_EQ((*reader)->Wait(0).code(), StatusCode::kNotFound);
  }
  EXPECT_EQ(SectionSourceOf(store_.get())->ReadInTurn(corpus.chain).status().code(),
            StatusCode::kNotFound);
  Ingest("a", corpus);
  EXPECT_TRUE(SectionSourceOf(store_.get())->ReadInTurn(corpus.chain).ok());
}

TEST_F(SectionReaderTest, ABlockThatMovesIsFollowed) {
  const TestCorpus corpus = MakeCorpus(1, 8), other = MakeCorpus(2, 8);
  auto record = *Create("a", corpus);
  // One extent of both: when the other goes, what is left of it is written anew.
  record = *PublishTo(record, corpus, 8);
  const auto reader = SectionSourceOf(store_.get())->ReadInTurn(std::span(corpus.chain).first(2));
  ASSERT_TRUE(reader.ok());
  record.chain.resize(2);
  record.durable_tokens = 2 * kTestBlockTokens;
  ASSERT_TRUE(store_->UpdateCorpus(record).ok());
  (*reader)->Begin(0, 0, 2, 3);
  ASSERT_TRUE((*reader)->Wait(0).ok());
  ExpectSection(**reader, 0, corpus, 0, 2, 3);
}

}  // namespace
}  // namespace corpusd
