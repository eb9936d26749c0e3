// How retrieval heads are found: the needles, the choice, the file they are kept in.
#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "engine/backend/cpu_backend.h"
#include "engine/calibration/bundled_text.h"
#include "engine/model/gguf.h"
#include "engine/retrieval/head_file.h"
#include "store/base/sha256.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_paths.h"

namespace corpusd {
namespace {

// A token a byte.
void EncodeBytes(std::string_view text, std::vector<TokenId>* out) {
  for (const char c : text) out->push_back(static_cast<uint8_t>(c));
}

TEST(NeedleCorpus, ValuesStandWhereQuestionsSay) {
  const NeedleCorpusShape shape{.documents = 6, .document_tokens = 2048, .questions_each = 3};
  const NeedleCorpus corpus = MakeNeedleCorpus(BundledCalibrationText(), shape, EncodeBytes);
  ASSERT_EQ(corpus.documents.size(), 6u);
  EXPECT_EQ(corpus.questions.size(), 18u);
  std::set<std::string> texts;
  for (const NeedleQuestion& question : corpus.questions) {
    const std::vector<TokenId>& document = corpus.documents[question.document];
    ASSERT_EQ(document.size(), 2048u);
    ASSERT_LT(question.value_token + 2, document.size());
    EXPECT_EQ(document[question.value_token], TokenId{' '});
    EXPECT_NE(document[question.value_token + 1], TokenId{' '});
    EXPECT_TRUE(texts.insert(question.text).second) << question.text;
  }
  const NeedleCorpus again = MakeNeedleCorpus(BundledCalibrationText(), shape, EncodeBytes);
  EXPECT_EQ(again.documents, corpus.documents);
  // A short text is read round and round, and keys run out before documents do.
  const NeedleCorpus small = MakeNeedleCorpus("A b. C", {40, 1500, 2}, EncodeBytes);
  EXPECT_EQ(small.documents.size(), 40u);
}

// Head 1.2 finds all, 1.3 (of the same KV head) what 1.2 is unsure of; 0.0 finds half, others none.
HeadScores MadeUpScores() {
  HeadScores scores{.shape = {2, 4, 2, 64}, .questions = 4, .blocks = 5};
  scores.answers = {0, 3, 4, 2};
  scores.scores.assign(size_t{8} * 4 * 5, 0);
  const auto at = [&](uint32_t layer, uint32_t head, uint32_t question, uint32_t block) -> float& {
    return scores.scores[((layer * 4 + head) * 4 + question) * 5 + block];
  };
  for (uint32_t question = 0; question < 4; ++question) {
    at(1, 2, question, scores.answers[question]) = 5;
    if (question < 2) at(1, 2, question, 1) = 5.5f;
    at(1, 3, question, scores.answers[question]) = 2;
    at(1, 3, question, (scores.answers[question] + 2) % 5) = question < 2 ? 0.0f : 3.0f;
    if (question < 2) at(0, 0, question, scores.answers[question]) = 1;
  }
  return scores;
}

TEST(HeadChoice, TheBestAndThoseNearItThatReadTheSameKeys) {
  const HeadScores scores = MadeUpScores();
  const auto rank = [&](RetrievalHead head) {
    return MeanReciprocalRank(scores, std::span(&head, 1));
  };
  EXPECT_NEAR(rank({1, 2}), 0.75, 1e-9);
  EXPECT_NEAR(rank({1, 3}), 0.75, 1e-9);
  EXPECT_NEAR(rank({0, 0}), 0.6, 1e-9);
  EXPECT_NEAR(rank({0, 3}), 0.2, 1e-9);
  const RetrievalHead both[] = {{1, 2}, {1, 3}};
  EXPECT_GT(MeanReciprocalRank(scores, both), 0.85);
  using Heads = std::vector<RetrievalHead>;
  EXPECT_EQ(ChooseHeads(scores, {}), (Heads{{1, 2}, {1, 3}}));
  EXPECT_EQ(ChooseHeads(scores, {.sources_max = 2}), (Heads{{0, 0}, {1, 2}, {1, 3}}));
  EXPECT_EQ(ChooseHeads(scores, {.sources_max = 2, .least_share = 0.9}), (Heads{{1, 2}, {1, 3}}));
}

TEST(RetrievalHeads, TextGivesThemBack) {
  const HeadShape shape{30, 9, 3, 64};
  const RetrievalHeads heads = *RetrievalHeads::Create(shape, {{18, 7}, {4, 0}});
  EXPECT_EQ(heads.Text(), "retrieval-heads-1;30,9,3,64;18.7;4.0;");
  const auto again = RetrievalHeads::FromText(heads.Text());
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->digest(), heads.digest());
  for (const std::string_view damaged :
       {"", "retrieval-heads-1;", "retrieval-heads-1;30,9,3,64;",
        "retrieval-heads-1;30,9,0,64;1.1;", "retrieval-heads-1;30,9,3,64;18.7;4.",
        "retrieval-heads-1;30,9,3,64;31.7;", "retrieval-heads-2;30,9,3,64;18.7;",
        "retrieval-heads-1;30,9,3,64;18.7;x"}) {
    EXPECT_EQ(RetrievalHeads::FromText(damaged).status().code(), StatusCode::kCorruption)
        << damaged;
  }
}

TEST(RetrievalHeads, NamesGiveThem) {
  const HeadShape shape{30, 9, 3, 64};
  EXPECT_EQ(RetrievalHeads::FromNames(shape, "18.7,4.0")->Text(),
            "retrieval-heads-1;30,9,3,64;18.7;4.0;");
  for (const std::string_view wrong : {"", "18", "18.7,", "18.9", "18.x", "18.7;4.0"}) {
    EXPECT_EQ(RetrievalHeads::FromNames(shape, wrong).status().code(), StatusCode::kInvalidArgument)
        << wrong;
  }
}

// The real model, over fewer documents than it is searched with.
class ModelHeads : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!TestModelExists()) {
      GTEST_SKIP() << TestModelPath() << " is absent: run deploy/fetch_model";
    }
    file_ = *GgufFile::Open(TestModelPath());
    tokenizer_ = *Tokenizer::FromGguf(*file_);
    backend_ = *MakeCpuBackend({});
    model_ = *LoadLlamaModel(*file_, *backend_);
    chat_ = std::make_unique<ChatTemplate>(*ChatTemplate::FromGguf(*file_, *tokenizer_));
    context_ = std::make_unique<ComputeContext>(ComputeContext{*model_, *backend_, gate_});
  }
  HeadSearch search() const { return {*context_, *tokenizer_, *chat_, scanner_, {}}; }

  std::unique_ptr<GgufFile> file_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<ChatTemplate> chat_;
  std::unique_ptr<ComputeContext> context_;
  ComputeGate gate_;
  const IndexScanner scanner_;
};

TEST_F(ModelHeads, TheBuiltInOnesAreAmongTheBest) {
  const auto scores = ScoreAllHeads(search(), BundledCalibrationText(), {3, 640, 4});
  ASSERT_TRUE(scores.ok()) << scores.status().ToString();
  const RetrievalHeads heads = *RetrievalHeads::BuiltIn(scores->shape);
  const double built_in = MeanReciprocalRank(*scores, heads.heads());
  uint32_t better = 0;
  for (uint32_t i = 0; i < scores->shape.layers * scores->shape.q_heads; ++i) {
    const RetrievalHead head{i / scores->shape.q_heads, i % scores->shape.q_heads};
    if (MeanReciprocalRank(*scores, std::span(&head, 1)) > built_in) ++better;
  }
  EXPECT_LE(better, 8u) << "of 270 heads; the built-in ones reach " << built_in;
}

TEST_F(ModelHeads, AKeptFileIsReadAndADamagedOneIsNot) {
  const TempDir folder, cache;
  const HeadFileOptions options{folder.path(), cache.path(), std::string(64, 'a')};
  const std::string text = "Some text. ";
  const HeadShape shape = HeadShapeOf(model_->config());
  const RetrievalHeads heads = *RetrievalHeads::Create(shape, {{3, 1}});
  Sha256 hash;
  hash.Update(text);
  const std::string name = std::string(16, 'a') + "-" + HexText(hash.Finish()).substr(0, 16) + "-" +
                           heads.digest().Hex() + ".ckvheads";
  std::ofstream(cache.path() + "/" + name) << heads.Text();
  std::ofstream(folder.path() + "/" + name) << heads.Text() << "9.9;";
  const auto kept = KeptRetrievalHeads(search(), text, options);
  ASSERT_TRUE(kept.ok()) << kept.status().ToString();
  EXPECT_EQ(kept->Text(), heads.Text());
  EXPECT_EQ(ReadWholeFile(folder.path() + "/" + name), heads.Text());
}

}  // namespace
}  // namespace corpusd
