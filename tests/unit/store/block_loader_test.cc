#include "store/block_loader.h"

#include <gtest/gtest.h>

#include <thread>

#include "store/base/clock.h"
#include "store/block_store.h"
#include "tests/unit/store/gated_source.h"

namespace corpusd {
namespace {

constexpr uint64_t kLargeBytes = uint64_t{3} << 20;  // of several pieces
constexpr uint32_t kLargeSections = 4;

class BlockLoaderTest : public ::testing::Test {
 protected:
  void SetUp() override { source_.Add(corpus_, kLargeBytes, kLargeSections); }
  std::unique_ptr<BlockPrefetch> Prefetch(const PrefetchOptions& options = {}) {
    auto prefetch = loader_.Prefetch(corpus_.chain, options);
    EXPECT_TRUE(prefetch.ok()) << prefetch.status().ToString();
    return prefetch.ok() ? std::move(*prefetch) : nullptr;
  }
  void ExpectBytes(std::span<const std::byte> bytes, size_t block) {
    const auto expected = PayloadOf(corpus_.chain[block], kLargeBytes);
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), bytes.begin(), bytes.end())) << block;
  }

  const TestCorpus corpus_ = MakeCorpus(1, 4);
  GatedSource source_;
  HostTier host_{8 * kLargeBytes};
  BlockLoader loader_{source_, host_, queue_};
  TransferQueue queue_{{.threads = 1}};
};

TEST_F(BlockLoaderTest, AttentionCanStartBeforeTheLastLayerHasArrived) {
  source_.Hold();
  const auto prefetch = Prefetch();
  ASSERT_EQ(prefetch->blocks(), 4u);
  EXPECT_FALSE(prefetch->HasSection(0));
  source_.Let(4);  // the first section of every block
  ASSERT_TRUE(prefetch->WaitSection(0).ok());
  EXPECT_FALSE(prefetch->HasSection(kLargeSections - 1));
  for (size_t i = 0; i < 4; ++i) {
    const auto expected = PayloadOf(corpus_.chain[i], kLargeBytes);
    const size_t part = kLargeBytes / kLargeSections;
    EXPECT_TRUE(std::equal(expected.begin(), expected.begin() + static_cast<ptrdiff_t>(part),
                           prefetch->bytes(i).begin()));
    EXPECT_EQ(prefetch->tokens(i), kTestBlockTokens);
  }
  EXPECT_EQ(host_.Find(corpus_.chain[0]).valid(), false) << "found before it was whole";
  source_.LetAll();
  FetchStats stats;
  const auto refs = prefetch->Finish(&stats);
  ASSERT_TRUE(refs.ok()) << refs.status().ToString();
  for (size_t i = 0; i < 4; ++i) ExpectBytes((*refs)[i].bytes(), i);
  EXPECT_EQ(stats.disk_bytes, 4 * kLargeBytes);
  // In layer order: every block's first piece before any block's second.
  const auto reads = source_.reads();
  ASSERT_EQ(reads.size(), 16u);
  for (size_t i = 0; i < reads.size(); ++i) EXPECT_EQ(reads[i].second, i / 4) << i;
}

TEST_F(BlockLoaderTest, TwoSessionsThatWantOneBlockReadItOnce) {
  source_.Hold();
  const auto first = Prefetch();
  source_.WaitForReads(1);
  const auto second = Prefetch();
  EXPECT_EQ(host_.used_bytes(), 4 * kLargeBytes);
  EXPECT_EQ(first->bytes(2).data(), second->bytes(2).data());
  source_.LetAll();
  FetchStats stats;
  ASSERT_TRUE(second->Finish(&stats).ok());
  ASSERT_TRUE(first->Finish(&stats).ok());
  EXPECT_EQ(source_.reads().size(), 16u);
}

TEST_F(BlockLoaderTest, AQuestionOvertakesTheBackgroundThatReadsTheSameBlocks) {
  source_.Hold();
  const TestCorpus other = MakeCorpus(2, 4);
  source_.Add(other, kLargeBytes, kLargeSections);
  auto warm_other = loader_.Prefetch(other.chain, {.priority = TransferPriority::kBackground});
  ASSERT_TRUE(warm_other.ok());
  const auto warm = Prefetch({.priority = TransferPriority::kBackground});
  source_.WaitForReads(1);
  const auto question = Prefetch();
  source_.LetAll();
  FetchStats stats;
  ASSERT_TRUE(question->Finish(&stats).ok());
  const auto reads = source_.reads();
  // One read of the other corpus had begun.
  for (size_t i = 1; i < 17; ++i) {
    EXPECT_NE(std::find(corpus_.chain.begin(), corpus_.chain.end(), reads[i].first),
              corpus_.chain.end())
        << i;
  }
  ASSERT_TRUE(warm->Finish(&stats).ok());
  ASSERT_TRUE((*warm_other)->Finish(&stats).ok());
  EXPECT_EQ(source_.reads().size(), 32u);
}

TEST_F(BlockLoaderTest, APrefetchNobodyWantsIsDroppedAndItsMemoryIsFree) {
  source_.Hold();
  auto prefetch = Prefetch();
  source_.WaitForReads(1);
  prefetch.reset();
  EXPECT_LE(host_.used_bytes(), kLargeBytes) << "only what is being read may stay";
  // The read that had begun is taken over by the next who wants the block.
  const auto again = Prefetch();
  source_.LetAll();
  FetchStats stats;
  ASSERT_TRUE(again->Finish(&stats).ok());
  EXPECT_EQ(source_.reads().size(), 16u);
  EXPECT_EQ(host_.used_bytes(), 4 * kLargeBytes);
}

TEST_F(BlockLoaderTest, WaitingEndsWithACancelOrAtTheDeadline) {
  source_.Hold();
  std::stop_source stop;
  const auto cancelled = Prefetch({.stop = stop.get_token()});
  std::jthread canceller([&] {
    source_.WaitForReads(1);
    stop.request_stop();
  });
  EXPECT_EQ(cancelled->WaitSection(0).code(), StatusCode::kCancelled);
  const auto late = Prefetch({.deadline = SteadySeconds() + 0.01});
  EXPECT_EQ(late->WaitSection(0).code(), StatusCode::kDeadlineExceeded);
  FetchStats stats;
  EXPECT_EQ(late->Finish(&stats).status().code(), StatusCode::kDeadlineExceeded);
  source_.LetAll();
}

TEST_F(BlockLoaderTest, ADamagedSectionIsAMissForItsBlockOnly) {
  source_.Fail(corpus_.chain[1], 2, CorruptionError("checksum of section 2 differs"));
  const auto prefetch = Prefetch();
  Status status;
  for (uint32_t s = 0; s < kLargeSections && status.ok(); ++s) status = prefetch->WaitSection(s);
  EXPECT_EQ(status.code(), StatusCode::kCorruption);
  FetchStats stats;
  const auto refs = prefetch->Finish(&stats);
  ASSERT_TRUE(refs.ok());
  EXPECT_EQ(stats.damaged, std::vector<size_t>{1});
  EXPECT_EQ(source_.quarantined(), std::vector<Digest>{corpus_.chain[1]});
  EXPECT_FALSE((*refs)[1].valid());
  ExpectBytes((*refs)[3].bytes(), 3);
  EXPECT_FALSE(host_.Contains(corpus_.chain[1]));
  // And known from the start the next time.
  const auto again = Prefetch();
  EXPECT_TRUE(again->bytes(1).empty());
  EXPECT_EQ(again->WaitSection(0).code(), StatusCode::kCorruption);
}

TEST_F(BlockLoaderTest, AReadErrorIsNoDamageAndTheNextPrefetchReadsAgain) {
  source_.Fail(corpus_.chain[1], 0, IoError("the disk says no"));
  FetchStats stats;
  EXPECT_EQ(Prefetch()->Finish(&stats).status().code(), StatusCode::kIoError);
  EXPECT_TRUE(source_.quarantined().empty());
  EXPECT_TRUE(Prefetch()->Finish(&stats).ok());
}

TEST_F(BlockLoaderTest, ABlockThatMovedOrWentWhileItWasReadIsNoDamage) {
  source_.Hold();
  source_.Fail(corpus_.chain[0], 1, NotFoundError("no such extent"));
  source_.Fail(corpus_.chain[3], 1, NotFoundError("no such extent"));
  const auto prefetch = Prefetch();
  source_.WaitForReads(1);
  source_.Move(corpus_.chain[0], {7, 7});
  source_.Move(corpus_.chain[3], {1, 3}, /*references=*/0);
  source_.LetAll();
  FetchStats stats;
  const auto refs = prefetch->Finish(&stats);
  ASSERT_TRUE(refs.ok());
  EXPECT_EQ(stats.missing, std::vector<size_t>{3});
  EXPECT_TRUE(stats.damaged.empty());
  EXPECT_TRUE(source_.quarantined().empty());
  ExpectBytes((*refs)[0].bytes(), 0);
}

TEST_F(BlockLoaderTest, NoRoomIsSaidAtOnceAndNothingIsRead) {
  const TestCorpus large = MakeCorpus(3, 12);
  source_.Add(large, kLargeBytes, kLargeSections);
  EXPECT_EQ(loader_.Prefetch(large.chain, {}).status().code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(source_.reads().empty());
  EXPECT_EQ(host_.used_bytes(), 0u);
}

TEST_F(BlockLoaderTest, ASourceThatReadsWholeBlocksIsAskedForWholeBlocks) {
  GatedSource whole(/*in_parts=*/false);
  whole.Add(corpus_, kLargeBytes, kLargeSections);
  BlockLoader loader(whole, host_, queue_);
  FetchStats stats;
  ASSERT_TRUE((*loader.Prefetch(corpus_.chain, {}))->Finish(&stats).ok());
  EXPECT_EQ(whole.reads().size(), 4u);
}

TEST_F(BlockLoaderTest, AnAbsentBlockAndADigestTwiceInAListAreOrdinary) {
  const std::vector<Digest> chain = {corpus_.chain[0], MakeCorpus(9, 1).chain[0], corpus_.chain[0]};
  FetchStats stats;
  const auto refs = (*loader_.Prefetch(chain, {}))->Finish(&stats);
  ASSERT_TRUE(refs.ok());
  EXPECT_EQ(stats.missing, std::vector<size_t>{1});
  ExpectBytes((*refs)[2].bytes(), 0);
  EXPECT_EQ(source_.reads().size(), 4u);
}

}  // namespace
}  // namespace corpusd
