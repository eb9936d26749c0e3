// Corpora over a model folder whose layers differ: Llama 4's chunks, layers without positions and
// experts. What holds for plain models holds here, at any place of a chunk.
#include <gtest/gtest.h>

#include <filesystem>

#include "engine/prefill/prefill_runner.h"
#include "tests/support/hashed_checkpoint.h"
#include "tests/support/test_paths.h"
#include "tests/unit/engine/engine_fixture.h"

namespace corpusd {
namespace {

class HybridCorpusTest : public EngineFixture {
 protected:
  void SetUp() override {
    options_.model_path = folder_.File("model");
    options_.threads = 2;
    store_options_.data_dir = folder_.File("data");
    options_.calibration_dir = folder_.File("calibration");
    options_.calibration_text = folder_.Write("text", Prose(300, 9));  // two windows
    std::filesystem::create_directory(options_.model_path);
    WriteModel();
    folder_.Write("model/tokenizer.json", TinyTokenizerJson());
    folder_.Write("model/tokenizer_config.json", TinyTokenizerConfigJson());
    Restart();
  }

  // The first family of the goldens, with the tiny model's vocabulary. A chunk of 200 tokens shares
  // no border with blocks of 128 nor with runs.
  void WriteModel() {
    FamilyCase c = ReadFamilyCases(GoldenPath("families.jsonl")).front();
    nlohmann::json& config = c.record["config"];
    config["vocab_size"] = kTinyVocabulary;
    config["max_position_embeddings"] = 4096;
    config["attention_chunk_size"] = 200;
    config["floor_scale"] = 64;
    config["head_dim"] = head_dim_;
    for (nlohmann::json& tensor : c.record["tensors"]) {
      nlohmann::json& shape = tensor[1];
      const auto name = tensor[0].get<std::string>();
      if (shape[0] == 64 && shape[1] == 32 && name.find("proj") == std::string::npos) {
        shape[0] = kTinyVocabulary;
      }
      if (name.ends_with("q_proj.weight")) shape[0] = 4 * head_dim_;
      if (name.ends_with("k_proj.weight") || name.ends_with("v_proj.weight")) {
        shape[0] = 2 * head_dim_;
      }
      if (name.ends_with("o_proj.weight")) shape[1] = 4 * head_dim_;
    }
    c.record["seed"] = seed_;
    WriteCheckpoint(c, options_.model_path);
  }

  uint32_t head_dim_ = 64;  // which the coded formats take
  uint64_t seed_ = 7;
};

TEST_F(HybridCorpusTest, AFollowUpRecomputesNothingAndSaysTheSame) {
  EXPECT_EQ(engine_->model().architecture, "llama4");
  for (const char* const format : {"bf16", "cq4", "cq4+0:cq8+2-3:cq2"}) {
    for (const size_t words : {20, 150}) {
      SCOPED_TRACE(testing::Message() << format << ", " << words << " words");
      const std::string name = format + std::to_string(words);
      Ingest(name, Prose(words), format);
      const auto cold = Ask(name, /*no_cache=*/true);
      ASSERT_TRUE(cold.ok()) << cold.status().ToString();
      const auto warm = Ask(name);
      Restart();
      const auto restarted = Ask(name);
      ASSERT_TRUE(warm.ok() && restarted.ok()) << restarted.status().ToString();
      EXPECT_FALSE(cold->answer.empty());
      EXPECT_EQ(warm->answer, cold->answer);
      EXPECT_EQ(restarted->answer, cold->answer);
      EXPECT_EQ(restarted->recomputed_tokens, 0u);
    }
  }
}

TEST_F(HybridCorpusTest, AnAppendedCorpusIsOneIngest) {
  const std::string first = Prose(90, 1);
  const std::string second = Prose(90, 2);
  Ingest("grown", first);
  const uint64_t tokens = store_->GetCorpus("grown")->tokens;
  ASSERT_NE(tokens % 200, 0u) << "the middle of a chunk is wanted";
  Restart();
  ASSERT_TRUE(engine_->AppendCorpus("grown", Tokens(second, true, tokens)).ok());
  ASSERT_TRUE(engine_->Prefill("grown", [](const PrefillProgress&) {}, {}).ok());
  auto whole = engine_->NewCorpusTokenizer("", false, 0);
  ASSERT_TRUE(whole.ok());
  for (const std::string& text : {first, second}) {
    (*whole)->BeginSource("text");
    (*whole)->Append(text);
    (*whole)->EndSource();
  }
  CorpusRequest request;
  request.name = "whole";
  ASSERT_TRUE(engine_->CreateCorpus(request, std::move(*whole)).ok());
  ASSERT_TRUE(engine_->Prefill("whole", [](const PrefillProgress&) {}, {}).ok());
  EXPECT_EQ(store_->GetCorpus("whole")->chain, store_->GetCorpus("grown")->chain);
  EXPECT_EQ(BytesOf("whole"), BytesOf("grown"));
}

// Weights, and every switch of the configuration, are part of the name of what is stored.
TEST_F(HybridCorpusTest, AnotherModelIsRefusedByField) {
  Ingest("a", Prose(20));
  seed_ = 8;
  WriteModel();
  Restart();
  auto refused = Ask("a");
  EXPECT_EQ(refused.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(refused.status().message().find("weights"), std::string::npos)
      << refused.status().message();
  seed_ = 7;
  WriteModel();
  std::string config = ReadWholeFile(options_.model_path + "/config.json");
  const size_t at = config.find("\"floor_scale\":64");
  ASSERT_NE(at, std::string::npos);
  config.replace(at, 16, "\"floor_scale\":65");
  folder_.Write("model/config.json", config);
  Restart();
  refused = Ask("a");
  EXPECT_EQ(refused.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(refused.status().message().find("architecture"), std::string::npos)
      << refused.status().message();
}

}  // namespace
}  // namespace corpusd
