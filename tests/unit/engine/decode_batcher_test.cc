// Answers that are computed together are those computed alone.
#include <gtest/gtest.h>

#include <thread>

#include "engine/decode/decode_batcher.h"
#include "engine/llama_engine.h"
#include "engine/model/gguf.h"
#include "tests/support/tiny_model.h"
#include "tests/unit/engine/engine_fixture.h"

namespace corpusd {
namespace {

class DecodeBatcherTest : public EngineFixture {
 protected:
  void SetUp() override {
    model_.head_dim = 64;
    options_.kv_format = "bf16";
    EngineFixture::SetUp();
  }

  Result<QuestionReport> AskOf(const std::string& corpus, int number) {
    QuestionRequest request;
    request.corpus = corpus;
    request.question = "question " + std::to_string(number * 7919);
    request.max_tokens = 24;
    return engine_->Ask(request, [](std::string_view) { return true; }, {});
  }
};

TEST_F(DecodeBatcherTest, ManyAtOnceGetTheAnswersOfOneAlone) {
  constexpr int kQuestions = 20;  // more than one batch takes
  for (const std::string format : {"bf16", "int8", "cq4"}) {
    const std::string long_one = format + "-long", other = format + "-other";
    Ingest(long_one, Prose(400), format);
    Ingest(other, Prose(150, 4), format);
    const auto corpus = [&](int i) { return i % 5 == 3 ? other : long_one; };
    std::vector<std::string> alone(kQuestions), together(kQuestions);
    for (int i = 0; i < kQuestions; ++i) {
      const auto report = AskOf(corpus(i), i);
      ASSERT_TRUE(report.ok()) << report.status().ToString();
      alone[i] = report->answer;
    }
    std::vector<std::thread> threads;
    for (int i = 0; i < kQuestions; ++i) {
      threads.emplace_back([&, i] {
        const auto report = AskOf(corpus(i), i);
        together[i] = report.ok() ? report->answer : report.status().ToString();
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(together, alone) << format;
  }
}

// Logits, not only the most likely token: every bit of them, on every table of this processor.
TEST_F(DecodeBatcherTest, OnePassForAllGivesTheLogitsOfEachAlone) {
  for (const char* const isa : {"avx2", "avx512", "avx512vnni", "amx"}) {
    auto backend = MakeCpuBackend({2, isa});
    if (!backend.ok()) continue;  // this processor lacks it
    const auto file = GgufFile::Open(options_.model_path);
    ASSERT_TRUE(file.ok());
    const auto model = LoadLlamaModel(**file, **backend);
    ASSERT_TRUE(model.ok());
    const KvFormat format = *(*model)->Format("bf16");
    auto scratch = ForwardScratch::Create(**backend, (*model)->config(), 512);
    ASSERT_TRUE(scratch.ok());
    std::vector<TokenId> text(900);
    for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<TokenId>(3 + i * 37 % 250);
    KvSequence corpus(format, format);
    for (size_t first = 0; first < text.size(); first += 512) {
      const auto run = std::span(text).subspan(first, std::min<size_t>(512, text.size() - first));
      ASSERT_TRUE((*model)->Forward(run, corpus, **scratch, [] { return true; }).ok());
    }
    constexpr uint32_t kRows = 7;
    const auto follow = [&] {
      auto kv = std::make_unique<KvSequence>(format, format);
      for (const auto& block : corpus.OwnBlocks()) kv->AddShared(block.bytes.data(), block.tokens);
      return kv;
    };
    const uint32_t vocabulary = (*model)->config().vocabulary;
    std::vector<float> alone(kRows * vocabulary), together(kRows * vocabulary);
    std::vector<std::unique_ptr<KvSequence>> sequences;
    std::vector<KvSequence*> pointers;
    std::vector<TokenId> tokens;
    for (uint32_t r = 0; r < kRows; ++r) {
      tokens.push_back(10 + r);
      // Own tokens of different number, so that positions differ.
      for (int copy = 0; copy < 2; ++copy) {
        auto kv = follow();
        for (uint32_t t = 0; t < r % 3; ++t) {
          const TokenId id = 50 + t;
          ASSERT_TRUE((*model)->Forward({&id, 1}, *kv, **scratch, [] { return true; }).ok());
        }
        if (copy == 0) {
          ASSERT_TRUE((*model)->Forward({&tokens[r], 1}, *kv, **scratch, [] { return true; }).ok());
          ASSERT_TRUE(
              (*model)
                  ->Logits(**scratch, 0, {alone.data() + r * vocabulary, 1, vocabulary, vocabulary})
                  .ok());
        } else {
          sequences.push_back(std::move(kv));
          pointers.push_back(sequences.back().get());
        }
      }
    }
    ASSERT_TRUE((*model)->ForwardEach(tokens, pointers, **scratch, [] { return true; }).ok());
    ASSERT_TRUE(
        (*model)->Logits(**scratch, 0, {together.data(), kRows, vocabulary, vocabulary}).ok());
    EXPECT_EQ(together, alone) << isa;
  }
}

}  // namespace
}  // namespace corpusd
