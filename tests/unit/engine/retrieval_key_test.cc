// The index of keys: what it reads from blocks of every format, its scores and its byte form.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "engine/retrieval/block_keys.h"
#include "engine/retrieval/corpus_index.h"
#include "kernels/reference/coded_tile_codec.h"
#include "kernels/reference/kv_tile.h"
#include "tests/unit/engine/plain_calibration.h"

namespace corpusd {
namespace {

constexpr uint32_t kDim = 64;
constexpr HeadShape kShape{.layers = 2, .q_heads = 4, .kv_heads = 2, .head_dim = kDim};

std::vector<float> Random(size_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

RopeConfig TestRope() {
  RopeConfig rope;
  rope.dimensions = kDim;
  return rope;
}

// A corpus of random keys [block][layer][KV head][token][dim], stored in a format.
class TestCorpus {
 public:
  TestCorpus(KvCodec codec, std::vector<uint32_t> tokens, uint32_t seed)
      : format_{codec, codec, kShape.layers, kShape.kv_heads, kDim},
        tokens_(std::move(tokens)),
        calibration_(PlainCalibration({kShape.layers, kShape.kv_heads, kDim}, 0.25)),
        angles_(TestRope(), kBlockTokens) {
    for (size_t b = 0; b < tokens_.size(); ++b) {
      keys_.push_back(Random(size_t{4} * tokens_[b] * kDim, seed + static_cast<uint32_t>(b)));
      blocks_.emplace_back(format_.BlockBytes());
      for (uint32_t i = 0; i < 4; ++i) Store(b, {i / 2, i % 2});
    }
  }
  size_t blocks() const { return tokens_.size(); }
  CorpusIndex::StoredBlock block(size_t b) const {
    return {&format_, calibration_.get(), blocks_[b].data(), tokens_[b]};
  }
  float* key(size_t b, KeySource source, uint32_t token) {
    return &keys_[b][(size_t{source.layer * 2 + source.kv_head} * tokens_[b] + token) * kDim];
  }
  // After a change of its keys.
  void Store(size_t b, KeySource source) {
    const RopeTable rope = angles_.table();
    std::byte* tile = blocks_[b].data() + format_.KeyTileOffset(source.layer, source.kv_head);
    if (IsCoded(format_.key_codec)) {
      ReferenceEncodeTile(tile, format_.key_codec, /*is_key=*/true,
                          {.data = key(b, source, 0),
                           .stride = kDim,
                           .rows = tokens_[b],
                           .head_dim = kDim,
                           .rope = &rope,
                           .coordinates = &calibration_->layer(source.layer)[source.kv_head].key});
      return;
    }
    for (uint32_t t = 0; t < tokens_[b]; ++t) WriteKey(tile, format_, t, key(b, source, t), &rope);
  }
  Status AddTo(CorpusIndex* index, size_t b, std::string_view text = "") const {
    return index->AddBlock(DigestOf(b), block(b), text);
  }
  static Digest DigestOf(size_t b) {
    Digest digest;
    digest.bytes[3] = static_cast<uint8_t>(b + 1);
    return digest;
  }

 private:
  const KvFormat format_;
  const std::vector<uint32_t> tokens_;
  const std::unique_ptr<KvCalibration> calibration_;
  const RopeAngles angles_;
  std::vector<std::vector<float>> keys_;
  std::vector<std::vector<std::byte>> blocks_;
};

IndexLayout TestLayout() {
  return {*RetrievalHeads::Create(kShape, {{1, 3}, {0, 0}, {1, 2}}), TestRope()};
}

std::string BytesOf(const CorpusIndex& index) {
  std::string bytes;
  const auto form = index.Serialize();
  for (const auto& part : form->parts) {
    bytes.append(reinterpret_cast<const char*>(part.data()), part.size());
  }
  return bytes;
}

TEST(RetrievalHeads, SourcesAreTheKeysThatTheirHeadsRead) {
  const RetrievalHeads heads = *RetrievalHeads::Create(kShape, {{1, 3}, {0, 0}, {1, 2}});
  ASSERT_EQ(heads.sources().size(), 2u);
  EXPECT_EQ(heads.sources()[0], (KeySource{0, 0}));
  EXPECT_EQ(heads.sources()[1], (KeySource{1, 1}));
  EXPECT_EQ(heads.HeadsOf(1).size(), 2u);
  EXPECT_EQ(heads.HeadsOf(1)[0], 0u);
  EXPECT_EQ(heads.last_layer(), 1u);
  EXPECT_FALSE(RetrievalHeads::Create(kShape, {}).ok());
  EXPECT_FALSE(RetrievalHeads::Create(kShape, {{2, 0}}).ok());
  EXPECT_FALSE(RetrievalHeads::Create(kShape, {{0, 1}, {0, 1}}).ok());
  EXPECT_NE(heads.digest(), RetrievalHeads::Create(kShape, {{1, 3}})->digest());
}

TEST(RetrievalKeys, BlocksOfEveryFormatGiveKeysBeforePositions) {
  const IndexLayout layout = TestLayout();
  struct Case {
    KvCodec codec;
    double error;  // share of a key's deviation
  };
  for (const Case c : {Case{KvCodec::kBf16, 0.004}, Case{KvCodec::kInt8, 0.01},
                       Case{KvCodec::kCq8, 0.02}, Case{KvCodec::kCq4, 0.13}}) {
    TestCorpus corpus(c.codec, {100}, 5);
    const CorpusIndex::StoredBlock block = corpus.block(0);
    std::vector<float> keys(size_t{100} * kDim);
    ReadBlockKeys(keys.data(), *block.format, block.calibration, &layout.rope(), block.bytes,
                  {1, 0}, 100);
    double squares = 0;
    for (uint32_t t = 0; t < 100; ++t) {
      for (uint32_t i = 0; i < kDim; ++i) {
        squares += std::pow(keys[t * kDim + i] - corpus.key(0, {1, 0}, t)[i], 2);
      }
    }
    EXPECT_LT(std::sqrt(squares / (100 * kDim)), c.error) << KvCodecName(c.codec);
  }
}

// A block whose key agrees with the query is the best one, for every number of threads alike.
TEST(RetrievalKeys, FindsTheBlockOfTheKeyThatAQueryMeets) {
  const IndexLayout layout = TestLayout();
  TestCorpus corpus(KvCodec::kBf16, std::vector<uint32_t>(40, 128), 9);
  const std::vector<float> q = Random(size_t{2} * 3 * kDim, 77);
  // Row 1 of every head meets token 5 of block 33.
  const KeySource sources[] = {{1, 1}, {0, 0}, {1, 1}};
  for (uint32_t head = 0; head < 2; ++head) {
    for (uint32_t i = 0; i < kDim; ++i) {
      corpus.key(33, sources[head], 5)[i] += q[(3 + head) * kDim + i];
    }
  }
  corpus.Store(33, {1, 1});
  corpus.Store(33, {0, 0});
  CorpusIndex index(layout);
  for (size_t b = 0; b < corpus.blocks(); ++b) ASSERT_TRUE(corpus.AddTo(&index, b).ok());
  const RetrievalQuery query{q, 2, ""};
  const IndexScanner one(1);
  const std::vector<float> scores = index.Score(query, RetrievalPolicy::kFused, {}, one);
  ASSERT_EQ(scores.size(), 40u);
  EXPECT_EQ(std::max_element(scores.begin(), scores.end()) - scores.begin(), 33);
  for (const unsigned threads : {2u, 3u}) {
    const IndexScanner several(threads, "avx2");
    EXPECT_EQ(index.Score(query, RetrievalPolicy::kFused, {}, several), scores);
  }
  const CorpusIndex::Scores found = index.Search(query, RetrievalPolicy::kHeads, {}, one);
  EXPECT_EQ(index.HitToken(query, found, 33, one), 5u);
  const RetrievalQuery later{q, 2, "", 34};
  const std::vector<float> rest = index.Score(later, RetrievalPolicy::kHeads, {}, one);
  EXPECT_EQ(rest[33], -HUGE_VALF);
  EXPECT_GT(rest[34], -100);
  const std::vector<uint64_t> attended = {3, 33, 8};
  const std::vector<float> mass = index.Mass(q, 2, attended, one);
  EXPECT_NEAR(mass[0] + mass[1] + mass[2], 1, 1e-5);
  EXPECT_GT(mass[1], mass[0] + mass[2]);
}

TEST(CorpusIndex, BytesGiveTheSameIndexAndDamageIsFound) {
  const IndexLayout layout = TestLayout();
  TestCorpus corpus(KvCodec::kInt8, {128, 128, 17}, 4);
  CorpusIndex index(layout);
  ASSERT_TRUE(corpus.AddTo(&index, 0, "the first block").ok());
  ASSERT_TRUE(corpus.AddTo(&index, 1, "").ok());
  ASSERT_TRUE(corpus.AddTo(&index, 2, "and the third").ok());
  const std::string bytes = BytesOf(index);
  const auto parse = [&](const std::string& text) {
    return CorpusIndex::Parse(layout, std::as_bytes(std::span(text)));
  };
  const auto again = parse(bytes);
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_EQ(BytesOf(**again), bytes);
  EXPECT_EQ((*again)->tokens(2), 17u);
  EXPECT_TRUE((*again)->Has(TestCorpus::DigestOf(1)));
  for (size_t i = 0; i < bytes.size(); i += i < 100 ? 1 : 997) {
    std::string damaged = bytes;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    const auto result = parse(damaged);
    ASSERT_FALSE(result.ok()) << i;
    EXPECT_EQ(result.status().code(), StatusCode::kCorruption) << i;
    EXPECT_FALSE(parse(bytes.substr(0, i)).ok()) << i;
  }
  EXPECT_FALSE(parse(bytes + "x").ok());
  const IndexLayout other(*RetrievalHeads::Create(kShape, {{0, 0}}), TestRope());
  EXPECT_EQ(CorpusIndex::Parse(other, std::as_bytes(std::span(bytes))).status().code(),
            StatusCode::kFailedPrecondition);
}

// UBSan: the postings that are read first may be none, whose address is null.
TEST(CorpusIndex, TheFirstBlockMayHoldNoWord) {
  const IndexLayout layout = TestLayout();
  TestCorpus corpus(KvCodec::kInt8, {128, 9}, 5);
  CorpusIndex index(layout);
  ASSERT_TRUE(corpus.AddTo(&index, 0, "").ok());
  ASSERT_TRUE(corpus.AddTo(&index, 1, "").ok());
  const std::string bytes = BytesOf(index);
  const auto again = CorpusIndex::Parse(layout, std::as_bytes(std::span(bytes)));
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_EQ(BytesOf(**again), bytes);
}

TEST(CorpusIndex, AdoptedBlocksAreThoseThatWereAdded) {
  const IndexLayout layout = TestLayout();
  TestCorpus corpus(KvCodec::kCq4, {128, 90}, 4);
  CorpusIndex from(layout), whole(layout), adopting(layout);
  ASSERT_TRUE(corpus.AddTo(&from, 1, "old words").ok());
  ASSERT_TRUE(corpus.AddTo(&whole, 0, "a").ok());
  ASSERT_TRUE(corpus.AddTo(&whole, 1, "b c").ok());
  EXPECT_FALSE(*adopting.AdoptBlock(TestCorpus::DigestOf(0), from, "a"));
  EXPECT_EQ(adopting.blocks(), 0u);
  ASSERT_TRUE(corpus.AddTo(&adopting, 0, "a").ok());
  EXPECT_TRUE(*adopting.AdoptBlock(TestCorpus::DigestOf(1), from, "b c"));
  EXPECT_EQ(BytesOf(adopting), BytesOf(whole));
}

}  // namespace
}  // namespace corpusd
