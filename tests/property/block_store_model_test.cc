// Random operations on a BlockStore with all its tiers and on a plain map, compared after each,
// with prefetches that are let go half way and reopenings in between.
#include <gtest/gtest.h>

#include <map>

#include "tests/property/store_invariants.h"
#include "tests/support/fake_device_memory.h"

namespace corpusd {
namespace {

struct ModelCorpus {
  TestCorpus content;
  size_t published = 0;
};

class BlockStoreModelTest : public StoreFixture {
 protected:
  void SetUp() override {
    // Tiers smaller than what the corpora take together, so that blocks come and go.
    options_.device = memory_;
    options_.device_bytes = 6 * kTestBlockBytes;
    StoreFixture::SetUp();
  }

  std::vector<Digest> PublishedOf(const ModelCorpus& corpus) {
    const auto end = corpus.content.chain.begin() + static_cast<ptrdiff_t>(corpus.published);
    return {corpus.content.chain.begin(), end};
  }

  // Reads some sections of a corpus and lets the rest go.
  void PrefetchPart(const ModelCorpus& corpus, uint32_t sections) {
    const auto prefetch = store_->Prefetch(PublishedOf(corpus), {});
    ASSERT_TRUE(prefetch.ok()) << prefetch.status().ToString();
    const size_t part = kTestBlockBytes / kTestSections;
    for (uint32_t s = 0; s < sections; ++s) {
      const Status status = (*prefetch)->WaitSection(s);
      ASSERT_TRUE(status.ok()) << status.ToString();
      for (size_t i = 0; i < (*prefetch)->blocks(); ++i) {
        const auto expected = PayloadOf(corpus.content.chain[i]);
        const auto first = expected.begin() + static_cast<ptrdiff_t>(s * part);
        EXPECT_TRUE(std::equal(first, first + static_cast<ptrdiff_t>(part),
                               (*prefetch)->bytes(i).begin() + static_cast<ptrdiff_t>(s * part)));
      }
    }
  }

  // To the device, out of the host tier, and back from wherever it is.
  void MoveThroughTheTiers(const std::string& name, const ModelCorpus& corpus) {
    const auto chain = PublishedOf(corpus);
    {
      FetchStats stats;
      const auto refs = store_->Fetch(chain, &stats);
      ASSERT_TRUE(refs.ok()) << refs.status().ToString();
      const Status promoted = store_->PromoteToDevice(chain, *refs, {}).status();
      ASSERT_TRUE(promoted.ok() || promoted.code() == StatusCode::kResourceExhausted)
          << promoted.ToString();
    }
    const uint64_t on_device = store_->UsageOf(*store_->GetCorpus(name)).device_bytes;
    ASSERT_EQ(store_->Evict(name, TierKind::kHost, false)->blocks, chain.size());
    FetchStats stats;
    ASSERT_TRUE(store_->Fetch(chain, &stats).ok());
    EXPECT_EQ(stats.device_bytes, on_device);
    EXPECT_EQ(stats.device_bytes + stats.disk_bytes, chain.size() * kTestBlockBytes);
    ExpectWhole(chain);
  }

  void Make(const std::string& name, std::mt19937& random) {
    const TestCorpus content = MakeCorpus(random() % 3, 1 + random() % 8, random() % 5);
    const auto created = Create(name, content);
    ASSERT_EQ(created.ok(), !model_.contains(name));
    if (!created.ok()) return;
    model_[name] = {content, 0};
    auto record = *created;
    record.state = CorpusState::kReady;  // else it would be a job's, which is not evicted
    ASSERT_TRUE(store_->UpdateCorpus(record).ok());
  }

  void Rename(const std::string& from, const std::string& to) {
    const auto it = model_.find(from);
    const bool possible = it != model_.end() && !model_.contains(to);
    ASSERT_EQ(store_->RenameCorpus(from, to).ok(), possible);
    if (!possible) return;
    model_[to] = it->second;
    model_.erase(from);
  }

  // `from` takes the place of `to`, which is `previous` from then on.
  void Replace(const std::string& from, const std::string& to, const std::string& previous) {
    if (from == to || from == previous || to == previous) return;
    if (const auto made = model_.find(from); made != model_.end()) {
      auto record = *store_->GetCorpus(from);
      record.replaces = to;
      record.state = CorpusState::kReady;
      ASSERT_TRUE(store_->UpdateCorpus(record).ok());
    }
    const bool possible = model_.contains(from) && model_.contains(to);
    ASSERT_EQ(store_->ReplaceCorpus(from, to, previous, 0).ok(), possible);
    if (!possible) return;
    model_[previous] = model_[to];
    model_[to] = model_[from];
    model_.erase(from);
  }

  // By policy: what the plan says is what happens, and no one else loses a block.
  void EvictSome(uint64_t bytes, bool dry_run) {
    const uint64_t before = store_->evictions().bytes;
    const auto plan = store_->EvictByPolicy(TierKind::kDisk, bytes, dry_run);
    ASSERT_TRUE(plan.ok()) << plan.status().ToString();
    if (dry_run) return;
    for (const EvictStep& step : plan->steps) {
      ModelCorpus& corpus = model_.at(step.corpus);
      ASSERT_EQ(corpus.published, step.keep_blocks + step.blocks);
      corpus.published = step.keep_blocks;
    }
    EXPECT_EQ(store_->evictions().bytes - before, plan->bytes);
  }

  void Check() {
    ASSERT_EQ(store_->ListCorpora().size(), model_.size());
    for (const auto& [name, expected] : model_) {
      const auto record = store_->GetCorpus(name);
      ASSERT_TRUE(record.ok()) << name;
      ASSERT_EQ(record->chain.size(), expected.published) << name;
      EXPECT_TRUE(
          std::equal(record->chain.begin(), record->chain.end(), expected.content.chain.begin()));
      EXPECT_EQ(*store_->CorpusTokens(name), expected.content.tokens);
    }
    ExpectInvariants(*store_);
  }

  void Step(std::mt19937& random) {
    const std::string name(1, static_cast<char>('a' + random() % 6));
    const auto it = model_.find(name);
    const bool filled = it != model_.end() && it->second.published > 0;
    switch (random() % 15) {
      case 0:
      case 1:
        Make(name, random);
        break;
      case 2:
      case 3: {
        if (it == model_.end() || it->second.published == it->second.content.chain.size()) break;
        const size_t end = it->second.published + 1 +
                           random() % (it->second.content.chain.size() - it->second.published);
        ASSERT_TRUE(PublishTo(*store_->GetCorpus(name), it->second.content, end).ok());
        it->second.published = end;
        break;
      }
      case 4:
        ASSERT_EQ(store_->RemoveCorpus(name).ok(), it != model_.end());
        model_.erase(name);
        break;
      case 5:
        Rename(name, std::string(1, static_cast<char>('a' + random() % 6)));
        break;
      case 6:
        if (it != model_.end() && it->second.published > 0) {
          auto chain = it->second.content.chain;
          chain.resize(it->second.published);
          ExpectWhole(chain);
        }
        break;
      case 7: {  // evicted to its tokens
        ASSERT_EQ(store_->Evict(name, TierKind::kDisk, false).ok(), it != model_.end());
        if (it != model_.end()) it->second.published = 0;
        break;
      }
      case 8: {  // a shorter chain, as an append that replaces the tail makes
        if (it == model_.end() || it->second.published == 0) break;
        auto record = *store_->GetCorpus(name);
        record.chain.pop_back();
        record.durable_tokens -= kTestBlockTokens;
        ASSERT_TRUE(store_->UpdateCorpus(record).ok());
        --it->second.published;
        break;
      }
      case 9:
        if (filled) PrefetchPart(it->second, random() % (kTestSections + 1));
        break;
      case 10:
        if (filled) MoveThroughTheTiers(name, it->second);
        break;
      case 11: {
        const auto tier = random() % 2 == 0 ? TierKind::kHost : TierKind::kDevice;
        ASSERT_EQ(store_->Evict(name, tier, random() % 2 == 0).ok(), it != model_.end());
        break;
      }
      case 12:
        EvictSome(random() % (12 * kTestBlockBytes), random() % 3 == 0);
        break;
      case 13:
        Replace(name, std::string(1, static_cast<char>('a' + random() % 6)),
                std::string(1, static_cast<char>('a' + random() % 6)));
        break;
      default:
        if (random() % 4 == 0) Reopen();
    }
  }

  const std::shared_ptr<FakeDeviceMemory> memory_ =
      std::make_shared<FakeDeviceMemory>(8 * kTestBlockBytes);
  std::map<std::string, ModelCorpus> model_;
};

TEST_F(BlockStoreModelTest, AgreesWithAPlainMap) {
  std::mt19937 random(TestSeed());
  for (int step = 0; step < 250; ++step) {
    Step(random);
    if (HasFatalFailure()) return;
    if (step % 10 == 0) Check();
  }
  Reopen();
  Check();
  for (const auto& [name, expected] : model_) {
    auto chain = expected.content.chain;
    chain.resize(expected.published);
    if (!chain.empty()) ExpectWhole(chain);
  }
}

}  // namespace
}  // namespace corpusd
