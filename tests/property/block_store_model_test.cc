// Random operations on a BlockStore and on a plain map, compared after each, with reopenings in
// between.
#include <gtest/gtest.h>

#include <map>

#include "tests/property/store_invariants.h"

namespace corpusd {
namespace {

struct ModelCorpus {
  TestCorpus content;
  size_t published = 0;
};

class BlockStoreModelTest : public StoreFixture {
 protected:
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
    switch (random() % 10) {
      case 0:
      case 1: {
        const TestCorpus content = MakeCorpus(random() % 3, 1 + random() % 8, random() % 5);
        const auto created = Create(name, content);
        ASSERT_EQ(created.ok(), it == model_.end());
        if (created.ok()) model_[name] = {content, 0};
        break;
      }
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
      case 5: {
        const std::string to(1, static_cast<char>('a' + random() % 6));
        const bool possible = it != model_.end() && !model_.contains(to);
        ASSERT_EQ(store_->RenameCorpus(name, to).ok(), possible);
        if (possible) {
          model_[to] = it->second;
          model_.erase(name);
        }
        break;
      }
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
      default:
        if (random() % 4 == 0) Reopen();
    }
  }

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
