// The procedures of corpus-eval perplexity and kld on the tiny model.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/eval/perplexity.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"

namespace corpusd {
namespace {

class KldTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ModelSessionOptions options;
    options.model_path = folder_.File("tiny.gguf");
    options.threads = 1;
    WriteTinyModel(options.model_path);
    auto session = ModelSession::Open(options);
    ASSERT_TRUE(session.ok()) << session.status().ToString();
    session_ = std::move(*session);
    std::string text;
    for (int i = 0; i < 120; ++i) text += "The tide tables name hour " + std::to_string(i) + ".\n";
    ids_ = PerplexityIds(*session_, text);
    ASSERT_GE(ids_.size(), 3u * kContext);
  }

  PerplexityOptions Options(const KvReadback& readback) const {
    PerplexityOptions options;
    options.context_tokens = kContext;
    options.windows_max = 2;
    options.readback = readback;
    return options;
  }

  PerplexityReport Perplexity(const PerplexityOptions& options) {
    const auto report = MeasurePerplexity(*session_, ids_, options, [](const PerplexityReport&) {});
    EXPECT_TRUE(report.ok()) << report.status().ToString();
    return report.ok() ? *report : PerplexityReport{};
  }

  std::string MakeBase() {
    PerplexityOptions options = Options({});
    options.make_base = folder_.File("base.bin");
    base_report_ = Perplexity(options);
    return options.make_base;
  }

  KldReport Kld(const std::string& path, const KvReadback& readback) {
    auto base = LogitBaseReader::Open(path);
    EXPECT_TRUE(base.ok()) << base.status().ToString();
    const auto report = MeasureKld(*session_, **base, readback, 0, [](const KldReport&, size_t) {});
    EXPECT_TRUE(report.ok()) << report.status().ToString();
    return report.ok() ? *report : KldReport{};
  }

  static constexpr uint32_t kContext = 600;  // more than one run of the engine
  const TempDir folder_;
  std::unique_ptr<ModelSession> session_;
  std::vector<TokenId> ids_;
  PerplexityReport base_report_;
};

TEST_F(KldTest, BaseAgainstItselfIsTheFloor) {
  const KldReport floor = Kld(MakeBase(), {});
  EXPECT_EQ(floor.scored_tokens, 2u * (kContext - 1 - kContext / 2));
  EXPECT_EQ(floor.scored_tokens, base_report_.scored_tokens);
  EXPECT_LT(std::abs(floor.kld.value), 1e-6);  // the codes' rounding alone
  EXPECT_EQ(floor.same_top.value, 1);
  EXPECT_NEAR(floor.perplexity.value, base_report_.perplexity, 1e-9 * base_report_.perplexity);
  EXPECT_NEAR(floor.perplexity.error, base_report_.standard_error, 1e-6);
  // The tiny model's logits spread over more than 16, below which the file clips.
  EXPECT_LT(floor.base_perplexity.value, base_report_.perplexity);
}

TEST_F(KldTest, CodedKeysAndValuesLieAboveTheFloorAndExactTokensHelp) {
  const std::string base = MakeBase();
  const double floor = Kld(base, {}).kld.value;
  const double coded = Kld(base, {.format = "int8"}).kld.value;
  EXPECT_GT(coded, 2 * std::abs(floor));
  EXPECT_LT(coded, 0.01);
  const double sinks = Kld(base, {.format = "int8", .sinks = 4}).kld.value;
  const double tail = Kld(base, {.format = "int8", .sinks = 4, .tail = 128}).kld.value;
  // Other page borders are other roundings, of which AMX's bf16 products have more.
  const double borders = Kld(base, {.sinks = 4, .tail = 128}).kld.value;
  EXPECT_GT(sinks, floor);
  EXPECT_GT(tail, floor);
  EXPECT_LT(tail, coded + borders);
}

TEST_F(KldTest, SinksAndTailOfTheExactFormatChangeNothingButPageBorders) {
  // Other page borders are another order of rotations and sums, within bf16's rounding.
  const double plain = Perplexity(Options({})).perplexity;
  EXPECT_NEAR(std::log(Perplexity(Options({.sinks = 4})).perplexity), std::log(plain), 0.02);
  // A tail alone keeps the borders, and bf16 coded as bf16 is the same bits.
  EXPECT_EQ(Perplexity(Options({.tail = 128})).perplexity,
            Perplexity(Options({.tail = 256})).perplexity);
  EXPECT_NEAR(Perplexity(Options({.tail = 128})).perplexity, plain, 1e-6 * plain);
}

TEST_F(KldTest, TailCoveringTheWindowIsExact) {
  const std::string base = MakeBase();
  const KldReport report = Kld(base, {.format = "int8", .tail = 640});
  EXPECT_LT(std::abs(report.kld.value), 1e-6);
}

TEST_F(KldTest, WhatCannotBeMeasuredIsRefusedWithAReason) {
  const auto status = [&](const PerplexityOptions& options, std::span<const TokenId> ids) {
    return MeasurePerplexity(*session_, ids, options, [](const PerplexityReport&) {}).status();
  };
  PerplexityOptions options = Options({});
  EXPECT_EQ(status(options, std::span(ids_).first(2 * kContext - 1)).code(),
            StatusCode::kInvalidArgument);
  options.context_tokens = 3;
  EXPECT_EQ(status(options, ids_).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(status(Options({.sinks = 129}), ids_).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(status(Options({.tail = 100}), ids_).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(status(Options({.format = "cq9"}), ids_).code(), StatusCode::kInvalidArgument);
}

TEST_F(KldTest, BaseOfAnotherVocabularyIsRefused) {
  const std::string path = folder_.File("other.bin");
  const LogitBaseShape shape{.context_tokens = 4, .vocabulary = 6, .windows = 1};
  const std::vector<TokenId> tokens(4, 1);
  auto writer = LogitBaseWriter::Create(path, shape, tokens);
  ASSERT_TRUE(writer.ok());
  const std::vector<float> logits(6, 0.f);
  (*writer)->Add(logits);
  ASSERT_TRUE((*writer)->Finish().ok());
  auto base = LogitBaseReader::Open(path);
  ASSERT_TRUE(base.ok());
  const auto report = MeasureKld(*session_, **base, {}, 0, [](const KldReport&, size_t) {});
  EXPECT_EQ(report.status().code(), StatusCode::kInvalidArgument);
}

TEST_F(KldTest, TextsAreTokenizedAsLlamaPerplexityDoes) {
  std::vector<TokenId> plain;
  session_->tokenizer().Encode("a <|im_end|>", false, &plain);
  EXPECT_EQ(PerplexityIds(*session_, "a <|im_end|>\n"), plain);  // specials' texts are text
}

}  // namespace
}  // namespace corpusd
