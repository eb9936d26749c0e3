// Layers that see chunks or windows are kept only where something can still see them: every corpus
// is compared with a model that keeps everything, at borders of blocks, runs, chunks and windows.
#include <gtest/gtest.h>

#include "store/bundle_import.h"
#include "store/bundle_writer.h"
#include "tests/support/corrupt_block.h"
#include "tests/unit/engine/hybrid_fixture.h"

namespace corpusd {
namespace {

// Chunks and windows shorter than a block, as long, around runs of 512, and longer than all.
const std::vector<HybridModel> kModels = {{"llama4 as Scout", 16},
                                          {"llama4 as Scout", 128},
                                          {"llama4 another pattern", 200},
                                          {"llama4 as Scout", 384},
                                          {"llama4 as Scout", 512},
                                          {"llama4 as Scout", 1024},
                                          {"llama4 as Scout", 8192},
                                          {"gemma 3", 24},
                                          {"gemma 3", 128},
                                          {"gemma 3", 600},
                                          {"mistral: a window", 40},
                                          {"mistral: a window", 512},
                                          {"qwen2: a window on the", 129}};

class HybridPartsTest : public HybridFixture {
 protected:
  void Damage(const Digest& digest) {
    engine_.reset();
    store_.reset();
    const Status status = CorruptDigest(store_options_.data_dir, digest, 5);
    ASSERT_TRUE(status.ok()) << status.ToString();
    Restart();
  }
};

// The corpus grows by appends, over a restart each, and is asked at each length.
TEST_F(HybridPartsTest, AFollowUpAtAnyPlaceAndAnAppendAreExact) {
  for (const HybridModel& model : kModels) {
    SCOPED_TRACE(testing::Message() << model.family << ", " << model.span);
    Start(model);
    std::vector<TokenId> ids = Ids(1);
    IngestIds("a", ids);
    std::vector<size_t> lengths = {129, 512, 640, 1600};
    if (model.span > 1 && model.span < 1600) {
      lengths.insert(lengths.end(), {model.span - 1, model.span, model.span + 1});
    }
    std::sort(lengths.begin(), lengths.end());
    for (const size_t length : lengths) {
      if (length <= ids.size()) continue;
      const std::vector<TokenId> longer = Ids(length);
      Restart();
      AppendIds("a", {longer.begin() + static_cast<ptrdiff_t>(ids.size()), longer.end()});
      ids = longer;
      ExpectExact("a", ids);
    }
    IngestIds("at once", ids);
    EXPECT_EQ(store_->GetCorpus("at once")->chain, store_->GetCorpus("a")->chain);
    EXPECT_EQ(store_->GetCorpus("at once")->parts, store_->GetCorpus("a")->parts);
  }
}

// What a chunk of 512 keeps of a corpus, and what a corpus costs then.
TEST_F(HybridPartsTest, NothingIsKeptAtAMultipleOfAChunk) {
  Start({"llama4 as Scout", 512});
  const uint64_t layer_bytes = Layout().blocks.LayerBytes(0);
  for (const size_t length : {512, 700, 1023, 1024, 1025, 1536}) {
    SCOPED_TRACE(length);
    IngestIds("a", Ids(length));
    const CorpusRecord record = *store_->GetCorpus("a");
    ASSERT_EQ(record.parts.size(), 1u);
    EXPECT_EQ(record.parts[0].kind, "c512");
    const uint64_t tail_blocks = (length % 512 + kBlockTokens - 1) / kBlockTokens;
    EXPECT_EQ(HeldParts(record).size(), tail_blocks);
    const CorpusUsage usage = store_->UsageOf(record);
    EXPECT_EQ(usage.part_bytes, tail_blocks * 3 * layer_bytes);
    EXPECT_EQ(usage.stored_bytes, record.chain.size() * layer_bytes + usage.part_bytes);
    EXPECT_LE(tail_blocks, record.parts[0].blocks_max);
    ASSERT_TRUE(store_->RemoveCorpus("a").ok());
  }
}

// A window keeps a point every 64 windows, so that a cut does not cost the whole corpus.
TEST_F(HybridPartsTest, AWindowKeepsItsPoints) {
  Start({"gemma 3", 24});
  const auto ids = Ids(3300);
  IngestIds("a", ids);
  const CorpusRecord record = *store_->GetCorpus("a");
  // 64 windows of 24 are three runs.
  EXPECT_EQ(record.parts[0].held, (std::vector<BlockRange>{{11, 12}, {23, 24}, {25, 26}}));
  CorpusRecord cut = record;
  cut.chain.resize(16);
  cut.durable_tokens = 2048;
  cut.state = CorpusState::kEvicted;
  ASSERT_TRUE(store_->UpdateCorpus(cut).ok());
  ASSERT_TRUE(PrefillAll("a").ok());
  EXPECT_EQ(store_->GetCorpus("a")->prefill_tokens, 3300u + (3300 - 1536));
  ExpectExact("a", ids);
}

TEST_F(HybridPartsTest, ABranchFromTheMiddleOfAChunkIsExact) {
  struct Branch {
    HybridModel model;
    size_t same;
    uint64_t reused;  // chunks are gone into again from their begin, windows from a point
  };
  const std::vector<Branch> branches = {
      {{"llama4 as Scout", 1024}, 1700, 1024}, {{"llama4 as Scout", 512}, 1700, 1536},
      {{"llama4 as Scout", 200}, 1700, 0},     {{"gemma 3", 24}, 1700, 1536},
      {{"mistral: a window", 40}, 1700, 0},    {{"llama4 as Scout", 1024}, 2300, 2048}};
  for (const Branch& branch : branches) {
    SCOPED_TRACE(testing::Message() << branch.model.family << ", " << branch.model.span);
    Start(branch.model);
    const auto trunk = Ids(2500), other = Ids(2400, 5, branch.same);
    IngestIds("trunk", trunk);
    uint64_t reused = 0;
    IngestIds("other", other, "", &reused);
    EXPECT_EQ(reused, branch.reused);
    ExpectExact("other", other);
    ExpectExact("trunk", trunk);
    // Each lives on when the other goes.
    ASSERT_TRUE(store_->RemoveCorpus("trunk").ok());
    Restart();
    ExpectExact("other", other);
  }
}

TEST_F(HybridPartsTest, APrefillThatStopsOrDiesGoesOnAsIfItHadNot) {
  for (const HybridModel& model : {HybridModel{"llama4 as Scout", 1024}, {"gemma 3", 600}}) {
    SCOPED_TRACE(model.family);
    Start(model);
    const auto ids = Ids(2300);
    CorpusRequest request;
    request.name = "a";
    ASSERT_TRUE(engine_->CreateCorpus(request, std::make_unique<GivenTokens>(ids)).ok());
    for (int run = 1; run <= 4; ++run) {
      std::stop_source stop;
      const Status status = engine_->Prefill(
          "a",
          [&](const PrefillProgress& progress) {
            if (progress.done_tokens >= static_cast<uint64_t>(run) * kRunTokens) {
              stop.request_stop();
            }
          },
          stop.get_token());
      ASSERT_EQ(status.code(), StatusCode::kCancelled) << status.ToString();
      Restart();
    }
    ASSERT_TRUE(PrefillAll("a").ok());
    EXPECT_EQ(store_->GetCorpus("a")->prefill_tokens, ids.size()) << "nothing twice";
    ExpectExact("a", ids);
  }
}

TEST_F(HybridPartsTest, WhatIsDamagedIsComputedAgain) {
  for (const HybridModel& model : {HybridModel{"llama4 as Scout", 1024},
                                   {"llama4 another pattern", 200},
                                   {"gemma 3", 24},
                                   {"mistral: a window", 512}}) {
    SCOPED_TRACE(testing::Message() << model.family << ", " << model.span);
    Start(model);
    const auto ids = Ids(1990);
    IngestIds("a", ids);
    const auto before = Ask("a");
    ASSERT_TRUE(before.ok()) << before.status().ToString();
    const CorpusRecord record = *store_->GetCorpus("a");
    // The last part is one that a question reads.
    std::vector<Digest> victims = {PartDigests(record).back()};
    // Nobody reads a chain that holds no layer.
    if (own_model_->parts()->parts[0].layers > 0) victims.push_back(record.chain[6]);
    for (const Digest& victim : victims) {
      Damage(victim);
      const auto mended = Ask("a");
      ASSERT_TRUE(mended.ok()) << mended.status().ToString();
      EXPECT_EQ(mended->answer, before->answer);
      EXPECT_GT(mended->recomputed_tokens, 0u);
      const auto after = Ask("a");
      ASSERT_TRUE(after.ok());
      EXPECT_EQ(after->recomputed_tokens, 0u);
      ExpectExact("a", ids);
    }
    victims.push_back(PartDigests(record).front());
    for (const Digest& victim : victims) Damage(victim);
    const auto verified = engine_->Verify("a", /*repair=*/true, nullptr);
    ASSERT_TRUE(verified.ok()) << verified.status().ToString();
    EXPECT_EQ(verified->report.damaged.size(), victims.size());
    EXPECT_EQ(verified->repaired, victims.size());
    ExpectExact("a", ids);
  }
}

TEST_F(HybridPartsTest, AnEvictedTailIsPrefilledAgain) {
  for (const HybridModel& model : {HybridModel{"llama4 as Scout", 1024}, {"gemma 3", 24}}) {
    SCOPED_TRACE(model.family);
    store_options_.evict_run_blocks = kRunBlocks;
    Start(model);
    const auto ids = Ids(2500);
    IngestIds("a", ids);
    for (const uint64_t bytes : {uint64_t{1}, uint64_t{200} << 10, UINT64_MAX}) {
      const auto plan = store_->EvictByPolicy(TierKind::kDisk, bytes, false);
      ASSERT_TRUE(plan.ok());
      ASSERT_EQ(plan->steps.size(), 1u);
      EXPECT_EQ(plan->bytes, plan->steps[0].bytes);
      ASSERT_TRUE(PrefillAll("a").ok());
      ExpectExact("a", ids);
    }
  }
}

TEST_F(HybridPartsTest, AnExportedCorpusIsExactWhereItIsImported) {
  for (const HybridModel& model :
       {HybridModel{"llama4 as Scout", 1024}, {"gemma 3", 24}, {"mistral: a window", 150}}) {
    SCOPED_TRACE(model.family);
    Start(model);
    const auto ids = Ids(1900);
    IngestIds("a", ids);
    auto writer = OpenExport(*store_, "a", "tiny", kBlockTokens);
    ASSERT_TRUE(writer.ok()) << writer.status().ToString();
    std::string bundle;
    while (true) {
      const auto more = (*writer)->Next(&bundle);
      ASSERT_TRUE(more.ok()) << more.status().ToString();
      if (!*more) break;
    }
    ASSERT_TRUE(store_->RemoveCorpus("a").ok());
    BundleImporter importer(
        *store_,
        [&](const BundleHead& head) { return engine_->ShapeOf(head.kv_format, head.segments); },
        [](const std::string&) { return OkStatus(); }, "copy");
    const Status fed = importer.Feed(std::as_bytes(std::span(bundle)));
    ASSERT_TRUE(fed.ok()) << fed.ToString();
    ASSERT_TRUE(importer.Finish().ok());
    ExpectExact("copy", ids);
    const auto longer = Ids(2100);
    AppendIds("copy", {longer.begin() + 1900, longer.end()});
    ExpectExact("copy", longer);
  }
}

// Coded formats have exact first tokens beside the parts, which chunks see in the first only.
TEST_F(HybridPartsTest, CodedCorporaAnswerAsWhenNothingIsStored) {
  head_dim_ = 64;
  for (const HybridModel& model :
       {HybridModel{"llama4 as Scout", 384}, {"gemma 3", 150}, {"mistral: a window", 40}}) {
    SCOPED_TRACE(model.family);
    Start(model);
    for (const size_t length : {90, 700, 1100}) {
      const std::string name = "c" + std::to_string(length);
      IngestIds(name, Ids(length), "cq4");
      const auto cold = Ask(name, /*no_cache=*/true);
      const auto warm = Ask(name);
      Restart();
      const auto restarted = Ask(name);
      ASSERT_TRUE(cold.ok() && warm.ok() && restarted.ok()) << warm.status().ToString();
      EXPECT_FALSE(cold->answer.empty());
      EXPECT_EQ(warm->answer, cold->answer);
      EXPECT_EQ(restarted->answer, cold->answer);
      EXPECT_EQ(restarted->recomputed_tokens, 0u);
    }
  }
}

}  // namespace
}  // namespace corpusd
