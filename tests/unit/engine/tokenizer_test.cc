#include "engine/tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "engine/model/gguf.h"
#include "engine/tokenizer/pretokenizer.h"
#include "engine/tokenizer/streaming_encoder.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_paths.h"
#include "tests/support/tiny_model.h"

namespace corpusd {
namespace {

std::unique_ptr<Tokenizer> LoadTokenizer(const std::string& path) {
  auto file = GgufFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status().ToString();
  if (!file.ok()) return nullptr;
  auto tokenizer = Tokenizer::FromGguf(**file);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().ToString();
  return tokenizer.ok() ? std::move(*tokenizer) : nullptr;
}

class TinyTokenizerTest : public testing::Test {
 protected:
  void SetUp() override {
    WriteTinyModel(dir_.File("tiny.gguf"));
    tokenizer_ = LoadTokenizer(dir_.File("tiny.gguf"));
    ASSERT_NE(tokenizer_, nullptr);
  }
  std::vector<TokenId> Encode(std::string_view text, bool parse_special = false) const {
    std::vector<TokenId> ids;
    tokenizer_->Encode(text, parse_special, &ids);
    return ids;
  }
  // random_state cuts the text at random.
  std::vector<TokenId> EncodeInPieces(std::string_view text, size_t piece_bytes_max,
                                      std::mt19937_64* random_state) const {
    StreamingEncoder encoder(*tokenizer_);
    std::vector<TokenId> ids;
    while (!text.empty()) {
      const size_t bytes = std::min(text.size(), size_t{1} + (*random_state)() % piece_bytes_max);
      encoder.Append(text.substr(0, bytes), &ids);
      text.remove_prefix(bytes);
    }
    encoder.Finish(&ids);
    return ids;
  }

  TempDir dir_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(TinyTokenizerTest, EmptyTextHasNoTokens) { EXPECT_TRUE(Encode("").empty()); }

TEST_F(TinyTokenizerTest, EveryByteComesBack) {
  std::string text;
  for (int byte = 0; byte < 128; ++byte) text.push_back(static_cast<char>(byte));
  text += "\xc2\x80 \xdf\xbf \xe0\xa0\x80 \xef\xbf\xbf \xf0\x90\x80\x80 \xf4\x8f\xbf\xbf";
  EXPECT_EQ(tokenizer_->Decode(Encode(text)), text);
}

TEST_F(TinyTokenizerTest, BrokenBytesBecomeReplacementCharacters) {
  const std::string replacement = "\xef\xbf\xbd";
  EXPECT_EQ(tokenizer_->Decode(Encode("a\xff")), "a" + replacement);
  EXPECT_EQ(tokenizer_->Decode(Encode("\xe2\x82")), replacement + replacement);
  EXPECT_EQ(tokenizer_->Decode(Encode("\xe2\x82x")), replacement + replacement + "x");
  EXPECT_EQ(tokenizer_->Decode(Encode("\xf5\x80\x80\x80")),
            replacement + replacement + replacement + replacement);
  EXPECT_EQ(tokenizer_->Decode(Encode("\xc1\x81")), "A");  // overlong
}

TEST_F(TinyTokenizerTest, SpecialsAreParsedOnlyWhenAsked) {
  const auto id = tokenizer_->FindSpecial("<|im_end|>");
  ASSERT_TRUE(id.has_value());
  EXPECT_TRUE(tokenizer_->is_special(*id));
  EXPECT_EQ(Encode("<|im_end|>", true), std::vector<TokenId>{*id});
  for (const TokenId text_id : Encode("a<|im_end|>b<|endoftext|>")) {
    EXPECT_FALSE(tokenizer_->is_special(text_id));
  }
  std::vector<TokenId> expected = Encode("a ");
  expected.push_back(*id);
  expected.push_back(*id);
  const std::vector<TokenId> rest = Encode(" <|im_");
  expected.insert(expected.end(), rest.begin(), rest.end());
  EXPECT_EQ(Encode("a <|im_end|><|im_end|> <|im_", true), expected);
  EXPECT_FALSE(tokenizer_->FindSpecial("the").has_value());
}

TEST_F(TinyTokenizerTest, DecodeSkipsIdsBeyondTheVocabulary) {
  const std::vector<TokenId> ids = {tokenizer_->vocabulary(), 0xffffffff};
  EXPECT_EQ(tokenizer_->Decode(ids), "");
}

// The law of StreamingEncoder: pieces do not matter.
TEST_F(TinyTokenizerTest, PiecesGiveTheIdsOfTheWhole) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random_state(seed);
  const std::vector<std::string> parts = {"the ",         "  ",   "\n\n",     "12",      "'ll", "'",
                                          "\xe4\xbd\xa0", "\xff", "\xe4",     "and",     " an", "!",
                                          "ing",          " ",    "\xc2\xa0", "\xf0\x9f"};
  for (int round = 0; round < 300; ++round) {
    std::string text;
    for (uint64_t part = random_state() % 60; part > 0; --part) {
      text += parts[random_state() % parts.size()];
    }
    EXPECT_EQ(EncodeInPieces(text, 1 + random_state() % 9, &random_state), Encode(text)) << text;
  }
}

// Long enough for the word cache and for several inner pieces.
TEST_F(TinyTokenizerTest, LongTextsKeepTheLaw) {
  std::mt19937_64 random_state(5);
  std::string text;
  while (text.size() < 400000) {
    text += static_cast<char>('a' + random_state() % 26);
    if (random_state() % 5 == 0) text += " the and in\xe2\x82\xac";
  }
  const std::vector<TokenId> ids = Encode(text);
  EXPECT_EQ(EncodeInPieces(text, 100000, &random_state), ids);
  EXPECT_EQ(EncodeInPieces(text, 500, &random_state), ids);
  EXPECT_EQ(tokenizer_->Decode(ids), text);
}

TEST_F(TinyTokenizerTest, AnEndlessWordIsCutAtTheLimit) {
  std::mt19937_64 random_state(6);
  const std::string text(Pretokenizer::kWordBytesMax * 2 + 10, ' ');
  const std::vector<TokenId> ids = Encode(text + "x");
  EXPECT_EQ(tokenizer_->Decode(ids), text + "x");
  EXPECT_EQ(EncodeInPieces(text + "x", 300000, &random_state), ids);
}

TEST_F(TinyTokenizerTest, ThreadsShareOneTokenizer) {
  const std::string text(200000, 'h');
  const std::vector<TokenId> expected = Encode(text + " the");
  std::vector<std::vector<TokenId>> results(4);
  std::vector<std::thread> threads;
  for (auto& result : results) {
    threads.emplace_back([&] { tokenizer_->Encode(text + " the", false, &result); });
  }
  for (auto& thread : threads) thread.join();
  for (const auto& result : results) EXPECT_EQ(result, expected);
}

TEST_F(TinyTokenizerTest, TheDigestNamesTheTables) {
  EXPECT_EQ(tokenizer_->DigestHex().size(), 64U);
  TinyModelOptions other_weights;
  other_weights.seed = 99;
  WriteTinyModel(dir_.File("other.gguf"), other_weights);
  EXPECT_EQ(LoadTokenizer(dir_.File("other.gguf"))->DigestHex(), tokenizer_->DigestHex());
}

// Ids that llama.cpp gave: see make_tokenizer_smollm.py.
TEST(Tokenizer, SmolLm2IdsEqualTheGoldenOnes) {
  if (!TestModelExists()) GTEST_SKIP() << TestModelPath() << " is absent";
  const auto tokenizer = LoadTokenizer(TestModelPath());
  ASSERT_NE(tokenizer, nullptr);
  std::istringstream file(ReadWholeFile(GoldenPath("tokenizer_smollm.jsonl")));
  std::string line;
  size_t cases = 0;
  while (std::getline(file, line)) {
    const auto golden = nlohmann::json::parse(line);
    const auto hex = golden["hex"].get<std::string>();
    std::string text;
    for (size_t i = 0; i < hex.size(); i += 2) {
      text.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
    }
    std::vector<TokenId> ids;
    tokenizer->Encode(text, golden["special"].get<bool>(), &ids);
    EXPECT_EQ(ids, golden["ids"].get<std::vector<TokenId>>()) << hex;
    ++cases;
  }
  EXPECT_GT(cases, 400U);
}

}  // namespace
}  // namespace corpusd
