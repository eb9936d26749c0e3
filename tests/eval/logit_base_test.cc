#include "tests/eval/logit_base.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <fstream>

#include "tests/eval/kld_statistics.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_paths.h"

namespace corpusd {
namespace {

// The shape and the numbers of tests/golden/make_logit_base.py.
constexpr LogitBaseShape kShape{.context_tokens = 6, .vocabulary = 5, .windows = 2};
constexpr uint32_t kRows = 4;

using Row = std::array<float, 5>;

Row BaseLogits(uint32_t row) {
  Row logits;
  for (uint32_t token = 0; token < logits.size(); ++token) {
    logits[token] = (row + token) % 5 == 4
                        ? -40.f
                        : static_cast<float>((row * 3 + token * 7) % 11) * 0.75f - 4.f;
  }
  return logits;
}

Row ModelLogits(uint32_t row) {
  Row logits;
  for (uint32_t token = 0; token < logits.size(); ++token) {
    logits[token] =
        static_cast<float>((row * 3 + token * 7) % 11) * 0.5f - 2.f + (row == token ? 1.f : 0.f);
  }
  return logits;
}

std::vector<TokenId> Tokens() {
  std::vector<TokenId> tokens;
  for (uint32_t i = 0; i < kShape.windows * kShape.context_tokens; ++i) tokens.push_back(i * 2 % 5);
  return tokens;
}

std::string Write(const TempDir& folder) {
  const std::string path = folder.File("base.bin");
  auto writer = LogitBaseWriter::Create(path, kShape, Tokens());
  EXPECT_TRUE(writer.ok()) << writer.status().ToString();
  for (uint32_t row = 0; row < kRows; ++row) (*writer)->Add(BaseLogits(row));
  EXPECT_TRUE((*writer)->Finish().ok());
  return path;
}

void WriteBytes(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

TEST(LogitBase, FileEqualsLlamaPerplexitysBitForBit) {
  const TempDir folder;
  EXPECT_EQ(ReadWholeFile(Write(folder)), ReadWholeFile(GoldenPath("logit_base.bin")));
}

TEST(LogitBase, GoldenFileIsReadAndComparedByItsRules) {
  const auto base = LogitBaseReader::Open(GoldenPath("logit_base.bin"));
  ASSERT_TRUE(base.ok()) << base.status().ToString();
  EXPECT_EQ((*base)->shape().first_scored(), 3u);
  EXPECT_EQ((*base)->shape().scored(), 2u);
  EXPECT_EQ((*base)->tokens().size(), 12u);
  KldStatistics statistics;
  for (uint32_t row = 0; row < kRows; ++row) {
    const auto window = (*base)->window(row / 2);
    const auto expected = (*base)->Next();
    ASSERT_TRUE(expected.ok());
    statistics.Add(ModelLogits(row), *expected, window[3 + row % 2 + 1]);
  }
  EXPECT_FALSE((*base)->Next().ok());
  // As printed by make_logit_base.py, in double from the same codes.
  const KldReport report = statistics.Report();
  EXPECT_NEAR(report.kld.value, 0.6325658766908969, 1e-6);
  EXPECT_NEAR(report.kld_quantiles.maximum, 2.076410326631803, 1e-6);
  EXPECT_NEAR(report.perplexity.value, 24.505150041104756, 1e-4);
  EXPECT_NEAR(report.base_perplexity.value, 23.447238694252583, 1e-4);
  EXPECT_NEAR(report.delta_p_rms.value, 0.30295332030980576, 1e-6);
  EXPECT_EQ(report.same_top.value, 0.5);
}

TEST(LogitBase, EqualLogitsHaveScaleZeroAndDivideByNothing) {
  const Row logits = {2, 2, 2, 2, 2};
  std::vector<uint16_t> words(kShape.row_words(), 7);
  EncodeLogitRow(logits, words);
  const LogitRow row{words};
  EXPECT_EQ(row.scale, 0.f);
  EXPECT_NEAR(row.LogProbability(3), -std::log(5.0), 1e-6);
  KldStatistics statistics;
  statistics.Add(logits, row, 1);
  EXPECT_NEAR(statistics.Report().kld.value, 0, 1e-6);
  EXPECT_EQ(statistics.Report().same_top.value, 1);
}

TEST(LogitBase, DamagedOrHostileFilesAreRefusedWithAReason) {
  const TempDir folder;
  const std::string good = ReadWholeFile(GoldenPath("logit_base.bin"));
  const std::string path = folder.File("bad.bin");
  const auto refused = [&](const std::string& bytes) {
    WriteBytes(path, bytes);
    const auto base = LogitBaseReader::Open(path);
    return !base.ok() && base.status().code() == StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(refused(""));
  EXPECT_TRUE(refused("_logits"));
  EXPECT_TRUE(refused("_Logits_" + good.substr(8)));
  for (size_t length = 20; length < good.size(); length += 16) {
    EXPECT_TRUE(refused(good.substr(0, length))) << length;
  }
  EXPECT_TRUE(refused(good + "x"));
  for (const size_t field : {8, 12, 16}) {  // ctx, vocabulary, windows
    std::string hostile = good;
    hostile.replace(field, 4, "\xff\xff\xff\x7f");
    EXPECT_TRUE(refused(hostile)) << field;
    hostile.replace(field, 4, std::string(4, '\xff'));
    EXPECT_TRUE(refused(hostile)) << field;
    hostile.replace(field, 4, std::string(4, '\0'));
    EXPECT_TRUE(refused(hostile)) << field;
  }
  std::string foreign = good;
  foreign[20] = 5;  // a token outside the vocabulary
  EXPECT_TRUE(refused(foreign));
  EXPECT_EQ(LogitBaseReader::Open(folder.File("absent")).status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace corpusd
