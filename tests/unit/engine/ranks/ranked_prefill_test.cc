// Prefill and questions over several ranks against one rank that has everything: every stored byte
// and every logit.
#include "engine/ranks/ranked_prefill.h"

#include <gtest/gtest.h>

#include <mutex>
#include <random>

#include "engine/backend/node_attention.h"
#include "engine/model/model_source.h"
#include "engine/prefill/prefill_runner.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"
#include "tests/unit/engine/plain_calibration.h"
#include "tests/unit/engine/ranks/rank_threads.h"

namespace corpusd {
namespace {

constexpr uint32_t kTestSpanPages = 4;  // 512 tokens, so that a short text has several spans
constexpr uint32_t kHeadDim = 64;
using Travel = RankedPrefillOptions::Travel;

// A model on one backend, and how a text of it is kept.
struct Device {
  Device(const std::string& path, const std::string& format, Transport* transport,
         std::span<const TokenId> ids) {
    local = *MakeCpuBackend({.threads = 1}, kTestSpanPages);
    if (transport != nullptr) ranked = std::make_unique<RankedBackend>(*local, *transport);
    Backend& backend = ranked == nullptr ? *local : *ranked;
    const auto source = *OpenModelSource(path);
    model = *LoadModel(*source, backend);
    layout.blocks = *model->Format(format);
    layout.own = *model->Format("bf16");
    if (!IsCoded(layout.blocks)) return;
    calibration = PlainCalibration({layout.blocks.layers, layout.blocks.kv_heads, kHeadDim}, 0.1);
    layout.calibration = calibration.get();
    layout.sinks =
        *ComputeSinks({*model, backend, gate}, ids, layout, ComputePriority::kPrefill, {});
  }
  Backend& backend() { return ranked == nullptr ? *local : *ranked; }

  std::unique_ptr<Backend> local;
  std::unique_ptr<RankedBackend> ranked;
  std::unique_ptr<Model> model;
  std::unique_ptr<KvCalibration> calibration;
  ComputeGate gate;
  KvLayout layout;
};

using Blocks = std::map<uint64_t, std::vector<std::byte>>;

class RankedPrefillTest : public ::testing::Test {
 protected:
  void SetUp() override {
    TinyModelOptions options;
    options.q_heads = 2;
    options.kv_heads = 1;
    options.head_dim = kHeadDim;
    options.context_tokens = 8192;
    path_ = folder_.File("tiny.gguf");
    WriteTinyModel(path_, options);
  }

  static std::vector<TokenId> Ids(size_t count) {
    std::mt19937 random(3);
    std::vector<TokenId> ids;
    for (size_t i = 0; i < count; ++i) ids.push_back(random() % 256 + 3);
    return ids;
  }

  // As the engine does it: runs of 512 tokens over the blocks before them.
  Blocks Alone(const std::string& format, std::span<const TokenId> ids) {
    Device device(path_, format, nullptr, ids);
    Blocks blocks;
    for (size_t first = 0; first < ids.size(); first += kRunTokens) {
      KvSequence kv(device.layout.OfBlocks());
      for (const auto& [block, bytes] : blocks) kv.AddShared(bytes.data(), kBlockTokens);
      const auto run = ids.subspan(first, std::min<size_t>(kRunTokens, ids.size() - first));
      const auto scratch = *ForwardScratch::Create(device.backend(), device.model->config(),
                                                   static_cast<uint32_t>(run.size()));
      const Status status = ComputeRun({*device.model, device.backend(), device.gate}, run, kv,
                                       *scratch, ComputePriority::kPrefill, {});
      EXPECT_TRUE(status.ok()) << status.ToString();
      for (const auto& own : kv.OwnBlocks()) {
        blocks[blocks.size()] = {own.bytes.begin(), own.bytes.end()};
      }
    }
    return blocks;
  }

  // The logits of a question of 18 tokens and three more, one after the other.
  static std::vector<float> Answer(Device& device, KvSequence& kv) {
    const std::vector<TokenId> question = Ids(21);
    const uint32_t vocabulary = device.model->config().vocabulary;
    const auto scratch = *ForwardScratch::Create(device.backend(), device.model->config(), 18);
    const auto memory = *device.backend().AllocateShared(uint64_t{vocabulary} * 4, "logits");
    const MatrixView logits = memory->Matrix(1, vocabulary);
    std::vector<float> all;
    for (size_t first = 0; first < question.size();) {
      const size_t count = first == 0 ? 18 : 1;
      const Status status = device.model->Forward(std::span(question).subspan(first, count), kv,
                                                  *scratch, [] { return true; });
      EXPECT_TRUE(status.ok()) << status.ToString();
      first += count;
      EXPECT_TRUE(device.model->Logits(*scratch, static_cast<uint32_t>(count - 1), logits).ok());
      all.insert(all.end(), logits.data, logits.data + vocabulary);
    }
    return all;
  }

  std::vector<float> AnswerAlone(const std::string& format, std::span<const TokenId> ids,
                                 const Blocks& blocks) {
    Device device(path_, format, nullptr, ids);
    KvSequence kv(device.layout);
    for (const auto& [block, bytes] : blocks) {
      kv.AddShared(bytes.data(), static_cast<uint32_t>(std::min<uint64_t>(
                                     kBlockTokens, ids.size() - block * kBlockTokens)));
    }
    return Answer(device, kv);
  }

  static void Keep(const KeptBlock& kept, std::mutex& mutex, Blocks* blocks) {
    const std::lock_guard lock(mutex);
    ASSERT_FALSE(kept.parts[0].empty());
    const auto [at, fresh] =
        blocks->try_emplace(kept.block, kept.parts[0].begin(), kept.parts[0].end());
    ASSERT_TRUE(fresh) << "block " << at->first << " is kept twice";
  }

  TempDir folder_;
  std::string path_;
};

TEST_F(RankedPrefillTest, AnyNumberOfRanksMakesTheBytesOfOneAndAnswersAsOne) {
  const RankJob jobs[] = {{TransportKind::kInProcess, 2}, {TransportKind::kInProcess, 3},
                          {TransportKind::kInProcess, 4}, {TransportKind::kInProcess, 8},
                          {TransportKind::kTcp, 2},       {TransportKind::kTcp, 4}};
  // A part-filled last block; and a last run so short that its arithmetic is another.
  for (const auto& [format, tokens] :
       {std::pair{"bf16", 2900u}, {"cq4", 2567u}, {"cq4+1:cq2", 2567u}}) {
    const auto ids = Ids(tokens);
    const Blocks alone = Alone(format, ids);
    const auto answer = AnswerAlone(format, ids, alone);
    for (const RankJob& job : jobs) {
      for (const Travel travel : {Travel::kKeys, Travel::kQueries}) {
        SCOPED_TRACE(NameOf(job) + " " + format + (travel == Travel::kKeys ? " keys" : " queries"));
        std::mutex mutex;
        Blocks blocks;
        RunRanks(job, [&](Transport& transport) {
          Device device(path_, format, &transport, ids);
          const auto prefill =
              *RankedPrefill::Create(*device.model, *device.ranked, transport, device.layout,
                                     {.rank_tokens = 384, .travel = travel});
          const Status status = prefill->Run(ids, 0, [&](const KeptBlock& kept) {
            Keep(kept, mutex, &blocks);
            return OkStatus();
          });
          ASSERT_TRUE(status.ok()) << status.ToString();
          const auto kv = prefill->QuestionSequence(ids.size());
          EXPECT_EQ(Answer(device, *kv), answer) << "rank " << transport.rank();
        });
        EXPECT_EQ(blocks, alone);
      }
    }
  }
}

TEST_F(RankedPrefillTest, AnyOtherNumberServesWhatSomeMade) {
  const auto ids = Ids(2300);
  const Blocks blocks = Alone("cq4", ids);
  const auto answer = AnswerAlone("cq4", ids, blocks);
  for (const uint32_t ranks : {2u, 5u}) {
    RunRanks({TransportKind::kInProcess, ranks}, [&](Transport& transport) {
      Device device(path_, "cq4", &transport, ids);
      const auto prefill =
          *RankedPrefill::Create(*device.model, *device.ranked, transport, device.layout, {});
      for (const auto& [block, bytes] : blocks) {
        if (prefill->Keeps(block)) prefill->AddHistory(block, bytes.data());
      }
      const auto kv = prefill->QuestionSequence(ids.size());
      EXPECT_EQ(Answer(device, *kv), answer) << "rank " << transport.rank() << " of " << ranks;
    });
  }
}

TEST_F(RankedPrefillTest, ALostRankIsNamedAndTheOthersGoOnFromWhatIsWhole) {
  const auto ids = Ids(3000);
  const Blocks alone = Alone("bf16", ids);
  std::mutex mutex;
  Blocks durable;
  // Rank 1 ends after the first segment of 3 x 512 tokens.
  RunRanks({TransportKind::kTcp, 3}, [&](Transport& transport) {
    Device device(path_, "bf16", &transport, ids);
    const auto prefill = *RankedPrefill::Create(*device.model, *device.ranked, transport,
                                                device.layout, {.rank_tokens = 512});
    const auto tokens = std::span(ids).first(transport.rank() == 1 ? 1536 : ids.size());
    const Status status = prefill->Run(tokens, 0, [&](const KeptBlock& kept) {
      Keep(kept, mutex, &durable);
      return OkStatus();
    });
    if (transport.rank() == 1) {
      EXPECT_TRUE(status.ok()) << status.ToString();
      return;
    }
    EXPECT_FALSE(status.ok());
    EXPECT_NE(status.message().find("rank 1 of 3"), std::string::npos) << status.ToString();
  });
  uint64_t whole = 0;  // runs whose blocks are all there
  while (durable.contains(whole) && whole < 12) ++whole;
  whole = whole / kRunBlocks * kRunBlocks;
  durable.erase(durable.lower_bound(whole), durable.end());
  RunRanks({TransportKind::kInProcess, 2}, [&](Transport& transport) {
    Device device(path_, "bf16", &transport, ids);
    const auto prefill = *RankedPrefill::Create(*device.model, *device.ranked, transport,
                                                device.layout, {.rank_tokens = 512});
    for (uint64_t block = 0; block < whole; ++block) {
      if (prefill->Keeps(block)) prefill->AddHistory(block, alone.at(block).data());
    }
    const Status status = prefill->Run(ids, whole * kBlockTokens, [&](const KeptBlock& kept) {
      Keep(kept, mutex, &durable);
      return OkStatus();
    });
    EXPECT_TRUE(status.ok()) << status.ToString();
  });
  EXPECT_EQ(durable, alone);
}

}  // namespace
}  // namespace corpusd
