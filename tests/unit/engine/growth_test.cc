// Corpora larger than the host tier: prefilled over a history that is read in turn, to the same
// bytes as with all of it in memory, in memory that does not grow with them.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>

#include "engine/prefill/history_in_turn.h"
#include "store/base/fault_point.h"
#include "tests/support/corrupt_block.h"
#include "tests/unit/engine/hybrid_fixture.h"

namespace corpusd {
namespace {

class GrowthTest : public HybridFixture {
 protected:
  // The bytes of chain and parts, read past the host tier.
  std::string AllBytesOf(const std::string& name) {
    std::string bytes;
    for (const Digest& digest : AllDigests(*store_->GetCorpus(name))) {
      std::vector<std::byte> payload;
      uint32_t sections = 0;
      EXPECT_TRUE(store_->ReadBlock(digest, &payload, &sections).ok());
      bytes.append(reinterpret_cast<const char*>(payload.data()), payload.size());
    }
    return bytes;
  }
  void SetHostBytes(uint64_t bytes) {
    store_options_.host_bytes = bytes;
    Restart();
  }
};

TEST_F(GrowthTest, ACorpusLargerThanMemoryGetsTheSameBytes) {
  head_dim_ = 64;
  struct Case {
    HybridModel model;
    const char* format;
    uint64_t host_bytes;
  };
  // Of blocks of 64 KiB in bf16 and 17 in cq4, or two and three layers of them; a third or less of
  // each corpus fits.
  const std::vector<Case> cases = {{{"llama4 as Scout", 512}, "bf16", 2 << 20},
                                   {{"llama4 as Scout", 200}, "cq4", 512 << 10},
                                   {{"llama4 another pattern", 384}, "bf16", 3 << 20},
                                   {{"gemma 3", 150}, "cq4", 512 << 10}};
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << c.model.family << ", " << c.format);
    Start(c.model);
    const auto ids = Ids(9000);
    SetHostBytes(uint64_t{256} << 20);
    IngestIds("a", ids, c.format);
    const std::string expected = AllBytesOf("a");
    const auto expected_answer = Ask("a");
    ASSERT_TRUE(expected_answer.ok()) << expected_answer.status().ToString();
    ASSERT_TRUE(store_->RemoveCorpus("a").ok());
    SetHostBytes(c.host_bytes);
    IngestIds("a", ids, c.format);
    EXPECT_GT(store_->UsageOf(*store_->GetCorpus("a")).stored_bytes, 3 * c.host_bytes / 2);
    EXPECT_TRUE(AllBytesOf("a") == expected);
    const auto answer = Ask("a");
    ASSERT_TRUE(answer.ok()) << answer.status().ToString();
    EXPECT_EQ(answer->answer, expected_answer->answer);
    EXPECT_EQ(answer->cached_tokens, ids.size());
    // Each token reads what is not leased, of one layer after the other.
    EXPECT_GT(answer->disk_bytes, answer->completion_tokens * c.host_bytes / 2);
    EXPECT_TRUE(store_->HeldWithoutLease().empty());
    // What was damaged in the part that is read in turn ends the prefill, not the daemon.
    const auto longer = Ids(9600);
    ASSERT_TRUE(engine_
                    ->AppendCorpus("a", std::make_unique<GivenTokens>(std::vector<TokenId>(
                                            longer.begin() + 9000, longer.end())))
                    .ok());
    // Of one layer that sees everything, the last, a prefill reads nothing.
    const LayerParts& parts = *Layout().parts;
    if (parts.parts.front().layers > 1 || parts.places.back().part != 0) {
      ArmFault("payload.read", FaultKind::kIoError, /*after=*/4, /*times=*/1);
      EXPECT_EQ(PrefillAll("a").code(), StatusCode::kIoError);
      DisarmFaults();
    }
    ASSERT_TRUE(PrefillAll("a").ok());
    SetHostBytes(uint64_t{256} << 20);
    const std::string grown = AllBytesOf("a");
    ASSERT_TRUE(store_->RemoveCorpus("a").ok());
    IngestIds("a", longer, c.format);
    EXPECT_TRUE(AllBytesOf("a") == grown);
  }
}

TEST_F(GrowthTest, AppendsAfterRestartsAndBranchesAreExact) {
  head_dim_ = 64;
  Start({"llama4 as Scout", 1024});
  SetHostBytes(2 << 20);
  const auto ids = Ids(9700);
  const auto branch = Ids(9000, /*seed=*/5, /*same=*/6900);  // leaves in the middle of a chunk
  size_t end = 6001;
  IngestIds("a", {ids.begin(), ids.begin() + 6001});
  for (const size_t next : {6002u, 6144u, 7003u, 9700u}) {
    Restart();
    AppendIds("a", {ids.begin() + static_cast<ptrdiff_t>(end),
                    ids.begin() + static_cast<ptrdiff_t>(next)});
    end = next;
    const auto answer = Ask("a");
    ASSERT_TRUE(answer.ok()) << answer.status().ToString();
  }
  uint64_t reused = 0;
  IngestIds("b", branch, "", &reused);
  EXPECT_EQ(reused, 6144u);
  const std::string bytes[] = {AllBytesOf("a"), AllBytesOf("b")};
  const auto answer = Ask("a"), branch_answer = Ask("b");
  ASSERT_TRUE(answer.ok() && branch_answer.ok());
  ASSERT_TRUE(store_->RemoveCorpus("a").ok());
  ASSERT_TRUE(store_->RemoveCorpus("b").ok());
  SetHostBytes(uint64_t{256} << 20);
  IngestIds("a", ids);
  EXPECT_TRUE(AllBytesOf("a") == bytes[0]);
  EXPECT_EQ(Ask("a")->answer, answer->answer);
  ASSERT_TRUE(store_->RemoveCorpus("a").ok());
  IngestIds("b", branch);
  EXPECT_TRUE(AllBytesOf("b") == bytes[1]);
  EXPECT_EQ(Ask("b")->answer, branch_answer->answer);
}

TEST_F(GrowthTest, DamageIsMendedOverAHistoryThatIsReadInTurn) {
  head_dim_ = 64;
  Start({"llama4 another pattern", 512});
  const auto ids = Ids(9600);
  SetHostBytes(3 << 20);
  IngestIds("a", ids);
  const std::string expected = AllBytesOf("a");
  const auto expected_answer = Ask("a");
  ASSERT_TRUE(expected_answer.ok());
  ASSERT_TRUE(store_->RemoveCorpus("a").ok());
  IngestIds("a", {ids.begin(), ids.begin() + 9000});
  const auto damage = [&](uint64_t block) {
    engine_.reset();
    store_.reset();
    ASSERT_TRUE(CorruptBlock(store_options_.data_dir, "a", block, /*payload_byte=*/7).ok());
    Restart();
  };
  // A prefill finds it, then a question, then who looks for it.
  damage(50);
  AppendIds("a", {ids.begin() + 9000, ids.end()});
  EXPECT_TRUE(AllBytesOf("a") == expected);
  damage(1);
  damage(45);
  damage(61);
  const auto answer = Ask("a");
  ASSERT_TRUE(answer.ok()) << answer.status().ToString();
  EXPECT_EQ(answer->answer, expected_answer->answer);
  EXPECT_GT(answer->recomputed_tokens, 0u);
  EXPECT_EQ(answer->cached_tokens + answer->recomputed_tokens, ids.size());
  EXPECT_TRUE(AllBytesOf("a") == expected);
  damage(33);
  damage(70);
  const auto verified = engine_->Verify("a", /*repair=*/true, [](auto, auto) { return true; });
  ASSERT_TRUE(verified.ok()) << verified.status().ToString();
  EXPECT_EQ(verified->repaired, 2u);
  EXPECT_TRUE(AllBytesOf("a") == expected);
}

// What a prefill reads in turn: of every layer that attends, each block once a run; and each
// block's place in the store is looked up once. The last layer of a prefill attends to nothing.
TEST_F(GrowthTest, ARunReadsItsHistoryOnce) {
  const std::vector<HybridModel> models = {{"llama4 as Scout", 512},
                                           {"llama4 another pattern", 384}};
  for (const HybridModel& model : models) {
    SCOPED_TRACE(model.family);
    store_options_.host_bytes = 1 << 20;
    Start(model);
    CorpusRequest request;
    request.name = "a";
    request.mode = "exact";
    ASSERT_TRUE(engine_->CreateCorpus(request, std::make_unique<GivenTokens>(Ids(9000))).ok());
    std::vector<PrefillProgress> runs;
    ASSERT_TRUE(
        engine_->Prefill("a", [&](const PrefillProgress& now) { runs.push_back(now); }, {}).ok());
    const CorpusRecord record = *store_->GetCorpus("a");
    const KvLayout layout = Layout();
    const uint64_t layer_bytes = layout.blocks.LayerBytes(0);
    const uint64_t stored_layers = record.block_bytes / layer_bytes;
    const bool last_attends = layout.parts->places.back().part != 0;
    const uint64_t leased = LeasedBlocksMax(*backend_, *store_, layout, record.chain.size());
    uint64_t bytes = 0, blocks = 0;
    for (size_t run = 0; run + 1 < runs.size(); ++run) {
      blocks = runs[run].done_tokens / kBlockTokens;
      if (blocks <= leased) continue;
      bytes += (blocks - leased) * layer_bytes * (stored_layers - (last_attends ? 0 : 1));
      EXPECT_EQ(runs[run + 1].history.bytes, bytes) << "after " << blocks << " blocks";
    }
    EXPECT_EQ(bytes > 0, last_attends || stored_layers > 1);
    EXPECT_EQ(runs.back().history.entries, blocks - leased);
  }
}

uint64_t StatusKib(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(field)) return std::stoull(line.substr(field.size()));
  }
  return 0;
}

// By hand, or with CORPUSD_GROWTH_TOKENS=262144: peak memory beside the length of the corpus.
TEST_F(GrowthTest, MemoryDoesNotGrowWithTheCorpus) {
  const char* const wanted = std::getenv("CORPUSD_GROWTH_TOKENS");
  const size_t most = wanted == nullptr ? 16384 : std::stoul(wanted);
  context_tokens_ = static_cast<uint32_t>(most + 1024);
  store_options_.host_bytes = uint64_t{1} << 20;
  Start({"llama4 as Scout", 1024});
  uint64_t first_peak = 0;
  for (size_t tokens = most / 4; tokens <= most; tokens *= 2) {
    std::ofstream("/proc/self/clear_refs") << 5;  // the peak begins anew
    const auto start = std::chrono::steady_clock::now();
    IngestIds("a" + std::to_string(tokens), Ids(tokens));
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const CorpusUsage usage = store_->UsageOf(*store_->GetCorpus("a" + std::to_string(tokens)));
    const uint64_t peak = StatusKib("VmHWM:");
    std::cout << tokens << " tokens: " << seconds << " s, peak " << peak / 1024 << " MiB, stored "
              << (usage.stored_bytes >> 20) << " MiB\n";
    ASSERT_TRUE(store_->RemoveCorpus("a" + std::to_string(tokens)).ok());
    if (first_peak == 0) first_peak = peak;
    // Token ids and digests, 5 bytes a token, are all that grows.
    EXPECT_LT(peak, first_peak + 20 * 1024);
  }
}

}  // namespace
}  // namespace corpusd
