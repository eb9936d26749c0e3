// A grid of ranks, some of which share the weights and some the text, against one rank that has
// everything: every stored byte and every logit.
#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <random>

#include "engine/backend/node_attention.h"
#include "engine/prefill/prefill_runner.h"
#include "engine/ranks/group_transport.h"
#include "engine/ranks/head_tiles.h"
#include "engine/ranks/ranked_prefill.h"
#include "engine/ranks/tensor_backend.h"
#include "engine/ranks/tensor_source.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"
#include "tests/unit/engine/plain_calibration.h"
#include "tests/unit/engine/ranks/rank_threads.h"

namespace corpusd {
namespace {

constexpr uint32_t kTestSpanPages = 4;  // 512 tokens, so that a short text has several spans
using Blocks = std::map<uint64_t, std::vector<std::byte>>;

std::vector<TokenId> SomeIds(size_t count) {
  std::mt19937 random(3);
  std::vector<TokenId> ids;
  for (size_t i = 0; i < count; ++i) ids.push_back(random() % 256 + 3);
  return ids;
}

// One rank of a grid; the first of a job of one has everything.
class GridRank {
 public:
  GridRank(const ModelSource& source, const std::string& format, Transport& job,
           uint32_t tensor_ranks, std::span<const TokenId> ids)
      : tensor_group_(job, TensorGroupOf(job, tensor_ranks)),
        text_group_(job, TextGroupOf(job, tensor_ranks)),
        share_(*TensorShare::Make(source.config(), tensor_group_.rank(), tensor_ranks)),
        local_(*MakeCpuBackend({.threads = 1}, kTestSpanPages)),
        ranked_(*local_, text_group_),
        backend_(ranked_, tensor_group_, share_),
        model_(*LoadModel(*MakeTensorSource(source, share_), backend_)) {
    layout_.blocks = *model_->Format(format);
    layout_.own = *model_->Format("bf16");
    whole_ = layout_.blocks;
    whole_.kv_heads = source.config().kv_heads;
    if (!IsCoded(whole_)) return;
    calibration_ = PlainCalibration({whole_.layers, whole_.kv_heads, whole_.head_dim}, 0.1)
                       ->OfHeads(share_.kv_heads().first, share_.kv_heads().count);
    layout_.calibration = calibration_.get();
    layout_.sinks =
        *ComputeSinks({*model_, backend_, gate_}, ids, layout_, ComputePriority::kPrefill, {});
  }

  // kept(block, bytes): of whole blocks, by turns in the ranks that share the weights.
  void Prefill(std::span<const TokenId> ids,
               const std::function<void(uint64_t, const std::vector<std::byte>&)>& kept) {
    prefill_ = *RankedPrefill::Create(*model_, ranked_, text_group_, layout_, {.rank_tokens = 384});
    const Status status = prefill_->Run(ids, 0, [&](const KeptBlock& part) {
      const auto root = static_cast<uint32_t>(part.block % share_.ranks());
      std::vector<std::byte> block(whole_.BlockBytes());
      RETURN_IF_ERROR(
          GatherHeads(tensor_group_, share_, root, whole_, part.parts[0], std::span(block)));
      if (tensor_group_.rank() == root) kept(part.block, block);
      return OkStatus();
    });
    ASSERT_TRUE(status.ok()) << status.ToString();
  }

  // Of whole blocks that are there already, those that lie with this rank.
  void Take(const Blocks& blocks) {
    prefill_ = *RankedPrefill::Create(*model_, ranked_, text_group_, layout_, {});
    for (const auto& [block, bytes] : blocks) {
      if (!prefill_->Keeps(block)) continue;
      auto& part = taken_[block];
      part.resize(layout_.blocks.BlockBytes());
      TakeHeads(part, bytes, whole_, share_.kv_heads());
      prefill_->AddHistory(block, part.data());
    }
  }

  // The logits of a question of 18 tokens and three more, one after the other.
  std::vector<float> Answer(uint64_t tokens) {
    const auto kv = prefill_->QuestionSequence(tokens);
    const std::vector<TokenId> question = SomeIds(21);
    const uint32_t vocabulary = model_->config().vocabulary;
    const auto scratch = *ForwardScratch::Create(backend_, model_->config(), 18);
    const auto memory = *backend_.AllocateShared(uint64_t{vocabulary} * 4, "logits");
    const MatrixView logits = memory->Matrix(1, vocabulary);
    std::vector<float> all;
    for (size_t first = 0; first < question.size();) {
      const size_t count = first == 0 ? 18 : 1;
      const Status status = model_->Forward(std::span(question).subspan(first, count), *kv,
                                            *scratch, [] { return true; });
      EXPECT_TRUE(status.ok()) << status.ToString();
      first += count;
      EXPECT_TRUE(model_->Logits(*scratch, static_cast<uint32_t>(count - 1), logits).ok());
      all.insert(all.end(), logits.data, logits.data + vocabulary);
    }
    return all;
  }

 private:
  GroupTransport tensor_group_, text_group_;
  const TensorShare share_;
  const std::unique_ptr<Backend> local_;
  RankedBackend ranked_;
  TensorBackend backend_;
  const std::unique_ptr<Model> model_;
  std::unique_ptr<KvCalibration> calibration_;
  ComputeGate gate_;
  KvFormat whole_;
  KvLayout layout_;
  std::unique_ptr<RankedPrefill> prefill_;
  Blocks taken_;
};

struct Grid {
  TransportKind kind;
  uint32_t tensor_ranks, text_ranks;
};

class TensorGridTest : public ::testing::Test {
 protected:
  void SetUp() override {
    TinyModelOptions options;
    options.q_heads = 8;
    options.kv_heads = 2;
    options.head_dim = 64;
    options.context_tokens = 8192;
    path_ = folder_.File("tiny.gguf");
    WriteTinyModel(path_, options);
    source_ = *OpenModelSource(path_);
  }

  void RunGrid(const Grid& grid, const std::string& format, std::span<const TokenId> ids,
               const std::function<void(GridRank&)>& body) {
    RunRanks({grid.kind, grid.tensor_ranks * grid.text_ranks}, [&](Transport& job) {
      GridRank rank(*source_, format, job, grid.tensor_ranks, ids);
      body(rank);
    });
  }

  struct Made {
    Blocks blocks;
    std::vector<float> answer;
  };
  Made Make(const Grid& grid, const std::string& format, std::span<const TokenId> ids) {
    std::mutex mutex;
    Made made;
    RunGrid(grid, format, ids, [&](GridRank& rank) {
      rank.Prefill(ids, [&](uint64_t block, const std::vector<std::byte>& bytes) {
        const std::lock_guard lock(mutex);
        EXPECT_TRUE(made.blocks.try_emplace(block, bytes).second) << block << " is kept twice";
      });
      const auto answer = rank.Answer(ids.size());
      const std::lock_guard lock(mutex);
      if (made.answer.empty()) made.answer = answer;
      EXPECT_EQ(answer, made.answer);
    });
    return made;
  }

  TempDir folder_;
  std::string path_;
  std::unique_ptr<ModelSource> source_;
};

TEST_F(TensorGridTest, AnyGridMakesTheBytesOfOneRankAndAnswersAsOne) {
  constexpr auto kThreads = TransportKind::kInProcess;
  const Grid grids[] = {{kThreads, 2, 1}, {kThreads, 2, 2}, {kThreads, 4, 2},
                        {kThreads, 2, 3}, {kThreads, 8, 1}, {TransportKind::kTcp, 2, 2}};
  for (const auto& [format, tokens] : {std::pair{"bf16", 2900u}, {"cq4", 2567u}}) {
    const auto ids = SomeIds(tokens);
    const Made alone = Make({kThreads, 1, 1}, format, ids);
    EXPECT_EQ(alone.blocks.size(), (tokens + kBlockTokens - 1) / kBlockTokens);
    for (const Grid& grid : grids) {
      SCOPED_TRACE(std::to_string(grid.tensor_ranks) + " x " + std::to_string(grid.text_ranks) +
                   (grid.kind == kThreads ? " threads " : " tcp ") + format);
      const Made made = Make(grid, format, ids);
      EXPECT_EQ(made.blocks, alone.blocks);
      EXPECT_EQ(made.answer, alone.answer);
    }
  }
}

TEST_F(TensorGridTest, AnyOtherGridServesWhatOneMade) {
  constexpr auto kThreads = TransportKind::kInProcess;
  const auto ids = SomeIds(2300);
  const Made made = Make({kThreads, 2, 2}, "cq4", ids);
  for (const Grid& grid : {Grid{kThreads, 1, 1}, {kThreads, 4, 1}, {kThreads, 1, 3}}) {
    RunGrid(grid, "cq4", ids, [&](GridRank& rank) {
      rank.Take(made.blocks);
      EXPECT_EQ(rank.Answer(ids.size()), made.answer)
          << grid.tensor_ranks << " x " << grid.text_ranks;
    });
  }
}

}  // namespace
}  // namespace corpusd
