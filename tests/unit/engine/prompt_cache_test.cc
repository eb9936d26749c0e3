// What is kept of prompts: within its bytes, tails before heads, and no tenant's share for another.
#include <gtest/gtest.h>

#include "engine/decode/prompt_cache.h"

namespace corpusd {
namespace {

constexpr uint32_t kRun = 512;

class Page : public Buffer {
 public:
  explicit Page(uint64_t bytes) : bytes_(bytes) {}
  std::byte* data() override { return bytes_.data(); }
  uint64_t bytes() const override { return bytes_.size(); }

 private:
  std::vector<std::byte> bytes_;
};

class PromptCacheTest : public ::testing::Test {
 protected:
  static KvFormat Small() {
    KvFormat format;
    format.layers = 1;
    format.kv_heads = 1;
    format.head_dim = 64;
    return format;
  }
  // A prompt of so many times one token.
  std::vector<Digest> Chain(size_t tokens, TokenId token) const {
    return cache_.ChainOf(Digest(), std::vector<TokenId>(tokens, token));
  }
  void Keep(std::string_view tenant, size_t tokens, TokenId token) {
    KvSequence kv(format_, format_);
    for (size_t i = 0; i < tokens / format_.block_tokens; ++i) {
      kv.AddOwn(std::make_shared<Page>(format_.BlockBytes()));
    }
    cache_.Keep(tenant, Chain(tokens, token), kv);
  }
  uint64_t Found(size_t tokens, TokenId token) {
    KvSequence kv(format_, format_);
    const uint64_t found = cache_.Find(Chain(tokens, token), tokens, &kv);
    EXPECT_EQ(kv.tokens(), found);
    return found;
  }

  const KvFormat format_ = Small();
  const uint64_t run_bytes_ = kRun / format_.block_tokens * format_.BlockBytes();
  PromptCache cache_{3 * run_bytes_, kRun};
};

TEST_F(PromptCacheTest, KeepsWithinItsBytesAndDropsTailsFirst) {
  Keep("", 1100, 1);
  EXPECT_EQ(cache_.usage().used_bytes, 2 * run_bytes_);
  Keep("", 600, 2);
  EXPECT_EQ(Found(1100, 1), 1024u);
  EXPECT_EQ(Found(600, 2), 512u);
  // Of the first prompt, used longest ago, the tail goes.
  Keep("", 600, 4);
  EXPECT_EQ(cache_.usage().used_bytes, 3 * run_bytes_);
  EXPECT_EQ(cache_.usage().evicted_bytes, run_bytes_);
  EXPECT_EQ(Found(1100, 1), 512u);
  EXPECT_EQ(Found(600, 4), 512u);
  // Never all of a prompt, and of one that is too long for the cache its beginning.
  EXPECT_EQ(Found(512, 4), 0u);
  Keep("", 5000, 3);
  EXPECT_EQ(Found(5000, 3), 3u * 512);
  EXPECT_EQ(cache_.usage().used_bytes, 3 * run_bytes_);
}

TEST_F(PromptCacheTest, ATenantWithinItsShareLosesNothingToAnother) {
  Keep("quiet", 600, 1);
  for (TokenId token = 10; token < 30; ++token) Keep("loud", 1100, token);
  EXPECT_EQ(Found(600, 1), 512u);
  EXPECT_EQ(Found(1100, 29), 1024u);
  EXPECT_EQ(cache_.usage().used_bytes, 3 * run_bytes_);
  // Once it holds the most, its own goes first, and nobody is driven below an equal share.
  Keep("quiet", 1600, 2);
  EXPECT_EQ(Found(600, 1), 0u);
  EXPECT_EQ(Found(1600, 2), 1024u);
  EXPECT_EQ(Found(1100, 29), 512u);
}

TEST_F(PromptCacheTest, WithoutMemoryNothingIsKept) {
  const PromptCache none(0, kRun);
  EXPECT_TRUE(none.ChainOf(Digest(), std::vector<TokenId>(5000, 1)).empty());
}

}  // namespace
}  // namespace corpusd
