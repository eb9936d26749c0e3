// Attention in nodes, and over ranks that have some of the pages, against the same backend with all
// of them: every bit.
#include "engine/ranks/ranked_attention.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/backend/reference_backend.h"
#include "tests/unit/engine/ranks/rank_threads.h"
#include "tests/unit/kernels/kernel_fixture.h"

namespace corpusd {
namespace {

constexpr AttentionShape kShape = {.q_heads = 4, .kv_heads = 2, .head_dim = 16, .scale = 0.25F};
constexpr uint32_t kColumns = 64;
constexpr uint32_t kTestSpanPages = 4;

std::unique_ptr<Backend> TestBackend() {
  auto backend = MakeCpuBackend({.threads = 1}, kTestSpanPages);
  EXPECT_TRUE(backend.ok()) << backend.status().ToString();
  return std::move(*backend);
}

// Random pages of a text, the last one part full, and queries at its end.
struct Scene {
  Scene(uint32_t page_count, uint32_t row_count)
      : rope(page_count * kBlockTokens, 8),
        pages({.layers = 1, .kv_heads = 2, .head_dim = 16}, Tokens(page_count), 0, rope.table(),
              0.7F, 5),
        queries(RandomFloats(size_t{row_count} * kColumns, 2.0F, 9)),
        rows(row_count) {}

  static std::vector<uint32_t> Tokens(uint32_t page_count) {
    std::vector<uint32_t> tokens(page_count, kBlockTokens);
    tokens.back() = 77;
    return tokens;
  }
  MatrixView q() { return {queries.data(), rows, kColumns, kColumns}; }
  AttentionInput Input(std::span<const KvPageList> lists) const {
    return {.shape = kShape,
            .first_position = pages.end_position() - rows,
            .lists = lists,
            .rope = rope.table()};
  }

  TestRope rope;
  RandomPages pages;
  std::vector<float> queries;
  uint32_t rows;
};

std::vector<float> AttendAlone(Backend& backend, Scene& scene) {
  std::vector<float> out(scene.queries.size());
  const KvPageList lists[] = {scene.pages.list()};
  backend.Attention({out.data(), scene.rows, kColumns, kColumns}, scene.q(), scene.Input(lists));
  return out;
}

TEST(NodeAttentionTest, ManySpansAreWhatTheReferenceComputes) {
  for (const uint32_t page_count : {3u, 37u, 560u}) {  // of 560 pages some strands have two spans
    Scene scene(page_count, 40);
    const auto backend = TestBackend();
    const auto got = AttendAlone(*backend, scene);
    const auto expected = AttendAlone(*MakeReferenceBackend(), scene);
    double error = 0, norm = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      error += std::pow(double{got[i]} - expected[i], 2);
      norm += std::pow(double{expected[i]}, 2);
    }
    EXPECT_LT(std::sqrt(error / norm), 0.01) << page_count;
  }
}

TEST(NodeAttentionTest, MergedNodesOfAnyNumberOfRanksAreTheWhole) {
  for (const uint32_t page_count : {1u, 37u, 560u}) {
    for (const uint32_t rows : {1u, 60u}) {
      Scene scene(page_count, rows);
      const auto backend = TestBackend();
      NodeAttention& nodes = *NodeAttentionOf(*backend);
      const auto alone = AttendAlone(*backend, scene);
      const KvPageList lists[] = {scene.pages.list()};
      for (const uint32_t ranks : {1u, 2u, 3u, 4u, 5u, 8u, 64u}) {
        const Placement placement{ranks, kTestSpanPages};
        std::vector<MergeNode> all;
        std::vector<float> states;
        for (uint32_t rank = 0; rank < ranks; ++rank) {
          const auto own = placement.NodesOf(rank, page_count);
          std::vector<float> here(own.size() * NodeStateFloats(kShape, rows));
          ASSERT_TRUE(nodes.AttendNodes(here, scene.q(), scene.Input(lists), own).ok());
          states.insert(states.end(), here.begin(), here.end());
          all.insert(all.end(), own.begin(), own.end());
        }
        std::vector<float> merged(alone.size());
        const MatrixView out{merged.data(), rows, kColumns, kColumns};
        ASSERT_TRUE(nodes.MergeNodes(out, states, scene.Input(lists), all).ok());
        EXPECT_EQ(merged, alone) << page_count << " pages, " << ranks << " ranks";
      }
    }
  }
}

// Groups of so many pages; the whole shows none of its bytes.
class Groups final : public PagePieces {
 public:
  Groups(KvPageList whole, size_t pages) : whole_(whole), pages_(pages) {}
  Result<std::span<const KvPageList>> Next() override {
    const size_t count = std::min(pages_, whole_.pages.size() - first_);
    piece_ = {whole_.format, whole_.pages.subspan(first_, count)};
    first_ += count;
    return count == 0 ? std::span<const KvPageList>() : std::span<const KvPageList>(&piece_, 1);
  }

 private:
  const KvPageList whole_;
  const size_t pages_;
  size_t first_ = 0;
  KvPageList piece_;
};

TEST(NodeAttentionTest, PagesThatComePieceAfterPieceAreTheWhole) {
  for (const uint32_t page_count : {1u, 37u, 560u}) {
    for (const uint32_t rows : {1u, 60u}) {
      Scene scene(page_count, rows);
      const auto backend = TestBackend();
      const auto alone = AttendAlone(*backend, scene);
      const KvPageList whole = scene.pages.list();
      std::vector<KvPage> absent(whole.pages.begin(), whole.pages.end());
      for (KvPage& page : absent) page.bytes = RemotePage();
      const KvPageList lists[] = {{whole.format, absent}};
      for (const size_t pages : {4u, 12u, 600u}) {
        Groups groups(whole, pages);
        std::vector<float> out(alone.size());
        ASSERT_TRUE(backend
                        ->AttentionInPieces({out.data(), rows, kColumns, kColumns}, scene.q(),
                                            scene.Input(lists), groups)
                        .ok());
        EXPECT_EQ(out, alone) << page_count << " pages, " << pages << " at once";
      }
    }
  }
}

class RankedAttentionTest : public ::testing::TestWithParam<RankJob> {};

// A question over pages dealt to the ranks: each has none but its own.
TEST_P(RankedAttentionTest, RowsThatAllHaveAlikeSeeAllPages) {
  for (const uint32_t rows : {1u, 5u, 33u}) {
    Scene scene(45, rows);
    const auto alone = AttendAlone(*TestBackend(), scene);
    RunRanks(GetParam(), [&](Transport& transport) {
      const auto backend = TestBackend();
      RankedAttention attention(*backend, transport);
      attention.Begin({});
      const KvPageList whole = scene.pages.list();
      std::vector<KvPage> here(whole.pages.begin(), whole.pages.end());
      for (size_t i = 0; i < here.size(); ++i) {
        if (attention.placement().RankOfPage(i) != transport.rank()) here[i].bytes = RemotePage();
      }
      const KvPageList lists[] = {{whole.format, here}};
      std::vector<float> out(alone.size());
      const AttentionPart part{scene.Input(lists), rows};
      const Status status =
          attention.Attend({out.data(), rows, kColumns, kColumns},
                           {scene.queries.data(), rows, kColumns, kColumns}, {&part, 1});
      EXPECT_TRUE(status.ok()) << status.ToString();
      EXPECT_EQ(out, alone) << "rank " << transport.rank();
    });
  }
}

INSTANTIATE_TEST_SUITE_P(
    Jobs, RankedAttentionTest,
    ::testing::Values(RankJob{TransportKind::kInProcess, 2}, RankJob{TransportKind::kInProcess, 3},
                      RankJob{TransportKind::kInProcess, 4}, RankJob{TransportKind::kInProcess, 8},
                      RankJob{TransportKind::kTcp, 2}, RankJob{TransportKind::kTcp, 4}),
    [](const auto& job) { return NameOf(job.param); });

}  // namespace
}  // namespace corpusd
