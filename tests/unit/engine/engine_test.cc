#include "engine/engine.h"

#include <gtest/gtest.h>

#include <thread>

#include "engine/prefill/prefill_runner.h"
#include "tests/unit/engine/engine_fixture.h"

namespace corpusd {
namespace {

using EngineTest = EngineFixture;

TEST_F(EngineTest, AFollowUpRecomputesNothingAndSaysTheSame) {
  for (const char* const format : {"bf16", "int8"}) {
    Ingest(format, Prose(300), format);
    const auto cold = Ask(format, /*no_cache=*/true);
    ASSERT_TRUE(cold.ok()) << cold.status().ToString();
    const auto warm = Ask(format);
    Restart();
    const auto restarted = Ask(format);
    ASSERT_TRUE(warm.ok() && restarted.ok());
    EXPECT_FALSE(cold->answer.empty());
    EXPECT_EQ(warm->answer, cold->answer);
    EXPECT_EQ(restarted->answer, cold->answer);
    EXPECT_EQ(cold->cached_tokens, 0u);
    EXPECT_EQ(cold->recomputed_tokens, store_->GetCorpus(format)->tokens);
    EXPECT_EQ(restarted->recomputed_tokens, 0u);
    EXPECT_EQ(warm->disk_bytes, 0u);
    EXPECT_EQ(restarted->host_bytes, 0u);
    EXPECT_EQ(restarted->disk_bytes, warm->host_bytes);
  }
}

// A corpus is the same bytes whether its prefill ran through or was stopped after every run.
TEST_F(EngineTest, AnInterruptedPrefillGivesTheBytesOfAnUndisturbedOne) {
  Ingest("through", Prose(400));
  const std::string expected = BytesOf("through");
  const auto chain = store_->GetCorpus("through")->chain;
  ASSERT_TRUE(store_->RemoveCorpus("through").ok());
  ASSERT_TRUE(Create("stopped", Prose(400)).ok());
  int rounds = 0;
  while (store_->GetCorpus("stopped")->state != CorpusState::kReady) {
    ASSERT_LT(++rounds, 50);
    std::stop_source stop;
    const Status status = engine_->Prefill(
        "stopped",
        [&, calls = 0](const PrefillProgress&) mutable {
          if (++calls == 2) stop.request_stop();
        },
        stop.get_token());
    ASSERT_TRUE(status.ok() || status.code() == StatusCode::kCancelled) << status.ToString();
    Restart();
  }
  EXPECT_GT(rounds, 2);
  EXPECT_EQ(store_->GetCorpus("stopped")->chain, chain);
  EXPECT_EQ(BytesOf("stopped"), expected);
}

TEST_F(EngineTest, AnAppendedCorpusIsOneIngest) {
  const std::string first = Prose(150, 1);
  const std::string second = Prose(150, 2);
  Ingest("grown", first);
  const uint64_t tokens = store_->GetCorpus("grown")->tokens;
  ASSERT_NE(tokens % kRunTokens, 0u) << "the case of a partial run is wanted";
  ASSERT_TRUE(engine_->AppendCorpus("grown", Tokens(second, true, tokens)).ok());
  EXPECT_EQ(Ask("grown").status().code(), StatusCode::kNotReady);
  ASSERT_TRUE(engine_->Prefill("grown", [](const PrefillProgress&) {}, {}).ok());

  auto whole = engine_->NewCorpusTokenizer("", false, 0);
  for (const std::string& text : {first, second}) {
    (*whole)->BeginSource("text");
    (*whole)->Append(text);
    (*whole)->EndSource();
  }
  CorpusRequest request;
  request.name = "whole";
  ASSERT_TRUE(engine_->CreateCorpus(request, std::move(*whole)).ok());
  PrefillProgress last;
  ASSERT_TRUE(engine_->Prefill("whole", [&](const PrefillProgress& p) { last = p; }, {}).ok());
  EXPECT_EQ(store_->GetCorpus("whole")->chain, store_->GetCorpus("grown")->chain);
  EXPECT_EQ(last.reused_tokens, last.total_tokens) << "equal chains share their blocks";
  EXPECT_EQ(last.written_bytes, 0u);
}

TEST_F(EngineTest, AppendingToAnEvictedCorpusComputesWhatLeftAsWell) {
  const std::string first = Prose(300, 1);
  const std::string second = Prose(50, 2);
  for (const bool wholly : {false, true}) {
    Ingest("grown", first);
    const CorpusRecord ready = *store_->GetCorpus("grown");
    ASSERT_GT(ready.tokens, 2 * kRunTokens);
    if (wholly) {
      ASSERT_TRUE(store_->Evict("grown", TierKind::kDisk, /*dry_run=*/false).ok());
    } else {
      ASSERT_TRUE(store_->EvictByPolicy(TierKind::kDisk, ready.block_bytes, false).ok());
    }
    const CorpusRecord evicted = *store_->GetCorpus("grown");
    ASSERT_EQ(evicted.state, CorpusState::kEvicted);
    ASSERT_EQ(evicted.chain.empty(), wholly);
    const auto appended = engine_->AppendCorpus("grown", Tokens(second, true, ready.tokens));
    ASSERT_TRUE(appended.ok()) << appended.status().ToString();
    EXPECT_EQ(appended->durable_tokens, appended->chain.size() * kBlockTokens);
    ASSERT_TRUE(engine_->Prefill("grown", [](const PrefillProgress&) {}, {}).ok());
    const std::string bytes = BytesOf("grown");
    ASSERT_TRUE(store_->RemoveCorpus("grown").ok());

    Ingest("grown", first);
    ASSERT_TRUE(engine_->AppendCorpus("grown", Tokens(second, true, ready.tokens)).ok());
    ASSERT_TRUE(engine_->Prefill("grown", [](const PrefillProgress&) {}, {}).ok());
    EXPECT_EQ(BytesOf("grown"), bytes);
    ASSERT_TRUE(store_->RemoveCorpus("grown").ok());
  }
}

TEST_F(EngineTest, ACorpusTooLongIsRefusedWithCountAndLimit) {
  CorpusRequest request;
  request.name = "long";
  request.mode = "exact";
  const auto refused = engine_->CreateCorpus(request, Tokens(Prose(3000)));
  EXPECT_EQ(refused.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(refused.status().message().find("at most 3584"), std::string::npos)
      << refused.status().message();
  EXPECT_TRUE(store_->ListCorpora().empty());
}

TEST_F(EngineTest, AnotherTenantOrModelIsRefusedByField) {
  options_.tenant_salt = "one";
  Restart();
  Ingest("a", Prose(50));
  options_.tenant_salt = "s3cret";
  Restart();
  auto refused = Ask("a");
  EXPECT_EQ(refused.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(refused.status().message().find("tenant"), std::string::npos);
  EXPECT_EQ(refused.status().message().find("s3cret"), std::string::npos) << "the salt is secret";
  options_.tenant_salt = "one";
  Restart();
  EXPECT_TRUE(Ask("a").ok());
  TinyModelOptions model;
  model.context_tokens = 4096;
  model.seed = 2;
  WriteTinyModel(options_.model_path, model);
  Restart();
  refused = Ask("a");
  EXPECT_EQ(refused.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(refused.status().message().find("weights"), std::string::npos);
}

// The daemon's secret comes later than its first corpora, which stay as they are; a tenant's are
// not among them.
TEST_F(EngineTest, CorporaWithoutASaltAreStillServed) {
  Ingest("old", Prose(300), "bf16");
  Ingest("acme/old", Prose(300), "bf16");
  const std::string before = Ask("old")->answer;
  options_.tenant_salt = "s3cret";
  Restart();
  const auto after = Ask("old");
  ASSERT_TRUE(after.ok()) << after.status().ToString();
  EXPECT_EQ(after->answer, before);
  EXPECT_EQ(after->recomputed_tokens, 0u);
  const uint64_t tokens = store_->GetCorpus("old")->tokens;
  ASSERT_TRUE(engine_->AppendCorpus("old", Tokens("more", true, tokens)).ok());
  ASSERT_TRUE(engine_->Prefill("old", [](const PrefillProgress&) {}, {}).ok());
  EXPECT_TRUE(Ask("old").ok());
  Ingest("new", Prose(300), "bf16");
  EXPECT_NE(store_->GetCorpus("new")->root, store_->GetCorpus("old")->root);
  Restart();
  EXPECT_TRUE(Ask("old").ok());
  EXPECT_TRUE(Ask("new").ok());
}

// The same text costs each tenant its own prefill: neither time nor counts tell who else has it.
TEST_F(EngineTest, TenantsShareNoBlock) {
  options_.tenant_salt = "s3cret";
  Restart();
  const auto reused = [&](const std::string& name) {
    EXPECT_TRUE(Create(name, Prose(400), "bf16").ok());
    PrefillProgress last;
    EXPECT_TRUE(engine_->Prefill(name, [&](const PrefillProgress& p) { last = p; }, {}).ok());
    return last.reused_tokens;
  };
  EXPECT_EQ(reused("acme/a"), 0u);
  EXPECT_EQ(reused("globex/a"), 0u);
  EXPECT_EQ(reused("a"), 0u);
  EXPECT_GT(reused("acme/b"), 0u);
  EXPECT_GT(reused("b"), 0u);
  const auto chain = [&](const std::string& name) { return store_->GetCorpus(name)->chain; };
  for (const Digest& digest : chain("acme/a")) {
    for (const std::string other : {"globex/a", "a"}) {
      const auto others = chain(other);
      EXPECT_EQ(std::count(others.begin(), others.end(), digest), 0) << other;
    }
  }
  EXPECT_EQ(Ask("acme/a")->answer, Ask("globex/a")->answer);
  // A record under another tenant's name is not served.
  ASSERT_TRUE(store_->RenameCorpus("acme/a", "globex/stolen").ok());
  EXPECT_EQ(Ask("globex/stolen").status().code(), StatusCode::kFailedPrecondition);
}

TEST_F(EngineTest, UnknownNamesAreRefusedEarly) {
  EXPECT_EQ(Create("a", "text", "cq9").status().code(), StatusCode::kInvalidArgument);
  CorpusRequest request;
  request.name = "a";
  request.mode = "sliced";
  EXPECT_EQ(engine_->CreateCorpus(request, Tokens("text")).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(Ask("nobody").status().code(), StatusCode::kNotFound);
  EngineOptions wrong = options_;
  wrong.device = "gpu";
  EXPECT_EQ(Engine::Create(wrong, store_.get()).status().code(), StatusCode::kInvalidArgument);
  wrong = options_;
  wrong.kv_format = "bf17";
  EXPECT_EQ(Engine::Create(wrong, store_.get()).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(EngineTest, AQuestionThatDoesNotFitSaysWhatWould) {
  Ingest("a", Prose(50));
  QuestionRequest request;
  request.corpus = "a";
  request.question = Prose(2000);
  const auto refused = engine_->Ask(request, [](std::string_view) { return true; }, {});
  EXPECT_EQ(refused.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(refused.status().message().find("leaves room for"), std::string::npos);
}

TEST_F(EngineTest, ASinkThatSaysNoCancels) {
  Ingest("a", Prose(50));
  QuestionRequest request;
  request.corpus = "a";
  request.question = "why?";
  request.max_tokens = 100;
  const auto report = engine_->Ask(request, [](std::string_view) { return false; }, {});
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->finish_reason, "cancelled");
  EXPECT_LT(report->completion_tokens, 100u);
}

// Sampling with a seed repeats itself, and another seed goes elsewhere.
TEST_F(EngineTest, SamplingIsAFunctionOfItsSeed) {
  Ingest("a", Prose(50));
  const auto sampled = [&](uint64_t seed) {
    QuestionRequest request;
    request.corpus = "a";
    request.question = "why?";
    request.max_tokens = 24;
    request.answers.sampling.temperature = 1.5;
    request.answers.sampling.seed = seed;
    return engine_->Ask(request, [](std::string_view) { return true; }, {})->answer;
  };
  EXPECT_EQ(sampled(1), sampled(1));
  EXPECT_NE(sampled(1), sampled(2));
}

TEST_F(EngineTest, QuestionsRunWhileAPrefillDoesAndAgree) {
  Ingest("a", Prose(100));
  const std::string expected = Ask("a")->answer;
  ASSERT_TRUE(Create("b", Prose(450)).ok());
  std::jthread prefill(
      [&] { EXPECT_TRUE(engine_->Prefill("b", [](const PrefillProgress&) {}, {}).ok()); });
  std::vector<std::jthread> askers;
  for (int i = 0; i < 4; ++i) {
    askers.emplace_back([&] {
      for (int k = 0; k < 3; ++k) EXPECT_EQ(Ask("a")->answer, expected);
    });
  }
  askers.clear();
  prefill.join();
  EXPECT_EQ(store_->GetCorpus("b")->state, CorpusState::kReady);
}

}  // namespace
}  // namespace corpusd
