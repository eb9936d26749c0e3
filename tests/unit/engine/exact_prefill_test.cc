// Calls of several runs give the blocks of calls of one; what a call computed becomes durable while
// the next one computes over it, and what goes wrong there is told and made up for.
#include "engine/prefill/exact_prefill.h"

#include <gtest/gtest.h>

#include "engine/backend/forwarding_backend.h"
#include "store/base/fault_point.h"
#include "tests/unit/engine/hybrid_fixture.h"

namespace corpusd {
namespace {

constexpr uint32_t kBatch = 2048;

// The CPU as a device that wants more rows.
class WideBackend final : public ForwardingBackend {
 public:
  explicit WideBackend(Backend& local) : ForwardingBackend(local) {}
  uint32_t batch_rows() const override { return kBatch; }
  Result<std::unique_ptr<Buffer>> Allocate(uint64_t bytes, std::string_view purpose) override {
    if (purpose == "activations" && bytes > activations_max) {
      return ResourceExhaustedError("too many activations");
    }
    return ForwardingBackend::Allocate(bytes, purpose);
  }
  void Embed(MatrixView out, const Weight& table, std::span<const uint32_t> ids) override {
    rows.push_back(static_cast<uint32_t>(ids.size()));
    ForwardingBackend::Embed(out, table, ids);
  }
  std::vector<uint32_t> rows;  // of each call of the model
  uint64_t activations_max = UINT64_MAX;
};

class ExactPrefillTest : public HybridFixture {
 protected:
  void StartWide(const HybridModel& model) {
    Start(model);
    wide_ = std::make_unique<WideBackend>(*backend_);
    auto loaded = LoadModel(*source_, *wide_);
    ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
    wide_model_ = std::move(*loaded);
  }
  ComputeContext Context() { return {*wide_model_, *wide_, gate_}; }

  void CreateIds(const std::string& name, const std::vector<TokenId>& ids) {
    CorpusRequest request;
    request.name = name;
    request.mode = "exact";
    const auto created = engine_->CreateCorpus(request, std::make_unique<GivenTokens>(ids));
    ASSERT_TRUE(created.ok()) << created.status().ToString();
  }

  // All calls of a prefill; meanwhile is called after each.
  Status Prefill(
      const std::string& name, CorpusRecord* record,
      const std::function<void()>& meanwhile = [] {}) {
    *record = *store_->GetCorpus(name);
    const auto tokens = *store_->CorpusTokens(name);
    const auto chain = BuildChain(record->root, tokens, kBlockTokens);
    const KvLayout layout = Layout();
    PrefillProgress progress;
    progress.done_tokens = record->durable_tokens;
    ExactPrefill calls(Context(), *store_, {layout, tokens, chain}, record, &progress);
    while (!calls.done()) {
      const uint64_t before = record->durable_tokens;
      const Status status = calls.Next({});
      EXPECT_EQ(record->durable_tokens, progress.done_tokens);
      EXPECT_GE(record->durable_tokens, before);
      RETURN_IF_ERROR(status);
      meanwhile();
    }
    RETURN_IF_ERROR(calls.Finish());
    EXPECT_EQ(record->durable_tokens, tokens.size());
    EXPECT_EQ(progress.done_tokens, tokens.size());
    record->state = CorpusState::kReady;
    return store_->UpdateCorpus(*record).status();
  }

  // The bytes of chain and parts.
  std::string AllBytesOf(const std::string& name) {
    const CorpusRecord record = *store_->GetCorpus(name);
    std::string bytes = BytesOf(name);
    for (const HeldPart& part : HeldParts(record)) {
      std::vector<std::byte> payload;
      uint32_t sections = 0;
      EXPECT_TRUE(store_->ReadBlock(part.digest, &payload, &sections).ok());
      bytes.append(reinterpret_cast<const char*>(payload.data()), payload.size());
    }
    return bytes;
  }

  // What the engine, which computes run by run, makes of it.
  std::string Expected(const std::vector<TokenId>& ids) {
    IngestIds("expected", ids);
    const std::string bytes = AllBytesOf("expected");
    EXPECT_TRUE(store_->RemoveCorpus("expected").ok());
    return bytes;
  }

  std::unique_ptr<WideBackend> wide_;
  std::unique_ptr<Model> wide_model_;
  ComputeGate gate_;
};

TEST_F(ExactPrefillTest, CallsOfSeveralRunsGiveTheBlocksOfOneRunEach) {
  struct Case {
    HybridModel model;
    bool joined;
  };
  // Runs cut chunks of 200 tokens into pieces of 8 rows, which have another arithmetic.
  for (const Case& c : {Case{{"llama4 as Scout", 512}, true},
                        {{"llama4 another pattern", 384}, true},
                        {{"llama4 as Scout", 8192}, true},
                        {{"llama4 as Scout", 200}, false},
                        {{"gemma 3", 150}, false}}) {
    SCOPED_TRACE(testing::Message() << c.model.family << ", " << c.model.span);
    StartWide(c.model);
    for (const size_t length : {4096u, 5000u, 300u}) {
      const auto ids = Ids(length);
      const std::string expected = Expected(ids);
      CreateIds("a", ids);
      wide_->rows.clear();
      CorpusRecord record;
      const Status status = Prefill("a", &record);
      ASSERT_TRUE(status.ok()) << status.ToString();
      EXPECT_TRUE(AllBytesOf("a") == expected) << length;
      EXPECT_EQ(record.prefill_tokens, length);
      const uint32_t call = c.joined ? kBatch : kRunTokens;
      std::vector<uint32_t> rows(length / kRunTokens * kRunTokens / call, call);
      if (const auto left = static_cast<uint32_t>(length / kRunTokens * kRunTokens % call)) {
        rows.push_back(left);
      }
      // A last run of few rows is alone, as if the others had been stored before.
      if (length % kRunTokens > 0) rows.push_back(length % kRunTokens);
      EXPECT_EQ(wide_->rows, rows);
      ASSERT_TRUE(store_->RemoveCorpus("a").ok());
    }
  }
}

TEST_F(ExactPrefillTest, ACallHasFewerRunsWhereTheHistoryIsLongOrMemoryShort) {
  StartWide({"llama4 as Scout", 512});
  EXPECT_EQ(TokensOfCall(Context(), Layout(), 0), kBatch);
  // 4 heads of 16: 256 operations a row and token before it.
  EXPECT_EQ(TokensOfCall(Context(), Layout(), 100'000'000), kBatch);
  EXPECT_EQ(TokensOfCall(Context(), Layout(), 400'000'000), 512u);
  EXPECT_EQ(TokensOfCall(Context(), Layout(), 4'000'000'000), kRunTokens) << "one run at least";
  const auto ids = Ids(4096);
  const std::string expected = Expected(ids);
  CreateIds("a", ids);
  const ModelConfig& config = wide_model_->config();
  const uint64_t widest = std::max({uint64_t{config.hidden}, 2 * uint64_t{config.FeedForwardMax()},
                                    uint64_t{config.q_heads + 2 * config.kv_heads} * head_dim_});
  wide_->activations_max = widest * sizeof(float) * kRunTokens;
  wide_->rows.clear();
  CorpusRecord record;
  const Status status = Prefill("a", &record);
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_TRUE(AllBytesOf("a") == expected);
  EXPECT_EQ(wide_->rows, std::vector<uint32_t>(ids.size() / kRunTokens, kRunTokens));
}

TEST_F(ExactPrefillTest, AWriteThatFailsIsToldAndWhatItHeldComputedAgain) {
  StartWide({"llama4 as Scout", 512});
  const auto ids = Ids(9000);
  const std::string expected = Expected(ids);
  for (const uint64_t after : {0u, 1u, 3u}) {
    CreateIds("a", ids);
    ArmFault("payload.write", FaultKind::kIoError, after, /*times=*/1);
    CorpusRecord record;
    const Status failed = Prefill("a", &record);
    DisarmFaults();
    EXPECT_EQ(failed.code(), StatusCode::kIoError) << failed.ToString();
    EXPECT_EQ(record.durable_tokens, after * kBatch) << "those before it stay";
    const Status status = Prefill("a", &record);
    ASSERT_TRUE(status.ok()) << status.ToString();
    EXPECT_EQ(record.prefill_tokens, ids.size()) << "of what was stored";
    EXPECT_TRUE(AllBytesOf("a") == expected) << after;
    ASSERT_TRUE(store_->RemoveCorpus("a").ok());
  }
}

TEST_F(ExactPrefillTest, ACorpusThatIsTouchedMeanwhileKeepsWhatWasComputed) {
  StartWide({"llama4 another pattern", 384});
  const auto ids = Ids(9000);
  const std::string expected = Expected(ids);
  CreateIds("a", ids);
  wide_->rows.clear();
  CorpusRecord record;
  const Status status = Prefill("a", &record, [&] {
    CorpusRecord now = *store_->GetCorpus("a");
    now.priority = RetentionPriority::kHigh;
    (void)store_->UpdateCorpus(now);  // the one or the other comes first
  });
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(wide_->rows.size(), 6u) << "nothing twice";
  EXPECT_EQ(store_->GetCorpus("a")->priority, RetentionPriority::kHigh);
  EXPECT_TRUE(AllBytesOf("a") == expected);
}

}  // namespace
}  // namespace corpusd
