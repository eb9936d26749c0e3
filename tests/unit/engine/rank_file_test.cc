// tokenizer.model as tiktoken keeps vocabularies: the ids of the tiktoken package on small
// vocabularies (make_rank_vocabularies.py), and what is refused.
#include "engine/tokenizer/rank_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/tokenizer/tokenizer.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_paths.h"

namespace corpusd {
namespace {

class RankFileTest : public ::testing::Test {
 protected:
  static std::vector<nlohmann::json> Vocabularies() {
    std::ifstream file(GoldenPath("rank_vocabularies.jsonl"));
    std::vector<nlohmann::json> all;
    for (std::string line; std::getline(file, line);) all.push_back(nlohmann::json::parse(line));
    EXPECT_EQ(all.size(), 4U);
    return all;
  }

  Result<std::unique_ptr<Tokenizer>> Load(const std::string& model_type, const std::string& file) {
    dir_.Write("config.json", nlohmann::json{{"model_type", model_type}}.dump());
    dir_.Write("tokenizer.model", file);
    auto tables = ReadTokenizerFolder(dir_.path());
    if (!tables.ok()) return tables.status();
    return Tokenizer::FromTables(*std::move(tables));
  }

  void ExpectRefused(const std::string& file, const std::string& words,
                     StatusCode code = StatusCode::kInvalidArgument,
                     const std::string& model_type = "llama") {
    const auto tokenizer = Load(model_type, file);
    ASSERT_FALSE(tokenizer.ok()) << "expected: " << words;
    EXPECT_EQ(tokenizer.status().code(), code) << tokenizer.status().ToString();
    EXPECT_TRUE(tokenizer.status().message().starts_with(dir_.path()))
        << tokenizer.status().message();
    EXPECT_NE(tokenizer.status().message().find(words), std::string::npos)
        << tokenizer.status().message();
  }

  TempDir dir_;
};

TEST_F(RankFileTest, IdsAreThoseOfTiktoken) {
  for (const nlohmann::json& vocabulary : Vocabularies()) {
    const auto model_type = vocabulary["model_type"].get<std::string>();
    SCOPED_TRACE(vocabulary["name"].get<std::string>() + " " + model_type);
    const auto tokenizer = Load(model_type, vocabulary["file"].get<std::string>());
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().ToString();
    for (const nlohmann::json& one : vocabulary["cases"]) {
      const auto text = one[0].get<std::string>();
      std::vector<TokenId> ids;
      (*tokenizer)->Encode(text, false, &ids);
      EXPECT_EQ(ids, one[1].get<std::vector<TokenId>>()) << one[0].dump();
      EXPECT_EQ((*tokenizer)->Decode(ids), text);
    }
    for (const auto& [text, id] : vocabulary["specials"].items()) {
      EXPECT_EQ((*tokenizer)->FindSpecial(text), id.get<TokenId>()) << text;
    }
  }
}

TEST_F(RankFileTest, NamedTokensComeBeforeTheFamilys) {
  const nlohmann::json vocabulary = Vocabularies()[0];
  const auto file = vocabulary["file"].get<std::string>();
  const size_t ranks = static_cast<size_t>(std::count(file.begin(), file.end(), '\n'));
  nlohmann::json added;
  added[std::to_string(ranks)] = {{"content", "<|begin|>"}, {"special", true}};
  added[std::to_string(ranks + 1)] = {{"content", "<|stop|>"}, {"special", true}};
  dir_.Write("tokenizer_config.json", nlohmann::json{{"added_tokens_decoder", added}}.dump());
  const auto tokenizer = Load("llama", file);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().ToString();
  EXPECT_EQ((*tokenizer)->vocabulary(), ranks + 2);
  EXPECT_EQ((*tokenizer)->FindSpecial("<|stop|>"), static_cast<TokenId>(ranks + 1));
  EXPECT_FALSE((*tokenizer)->FindSpecial("<|eot_id|>").has_value());
  added[std::to_string(ranks + 9)] = {{"content", "<|far|>"}, {"special", true}};
  dir_.Write("tokenizer_config.json", nlohmann::json{{"added_tokens_decoder", added}}.dump());
  ExpectRefused(file, "is not one of the 3 behind the");
}

TEST_F(RankFileTest, TokenizerJsonComesFirst) {
  const auto file = Vocabularies()[0]["file"].get<std::string>();
  dir_.Write("tokenizer.json", "{}");
  ExpectRefused(file, "tokenizer.json: its model is not BPE", StatusCode::kUnimplemented);
}

TEST_F(RankFileTest, MalformedFilesAreRefusedInOneSentence) {
  const auto file = Vocabularies()[0]["file"].get<std::string>();
  const std::string second = file.substr(file.find('\n') + 1);
  ExpectRefused(std::string("\x0a\x0e\x0a\x05<unk>\x15", 10), "SentencePiece",
                StatusCode::kUnimplemented);
  ExpectRefused("", "no token for the byte 0");
  ExpectRefused(second, "line 1 has rank 1, expected 0");
  ExpectRefused(file + "YWJj\n", "is not base64, a space and a number");
  ExpectRefused(file + "YWJj 99x\n", "is not base64, a space and a number");
  ExpectRefused(file + "YW*j 400\n", "is not base64, a space and a number");
  ExpectRefused(file + "YWJ 400\n", "is not base64, a space and a number");
  ExpectRefused(file + "YWJjZGVmZw== 401\n", "has rank 401, expected 400");
  ExpectRefused(file + file.substr(0, file.find(' ')) + " 400\n", "twice");
  ExpectRefused(file + std::string(2000, 'A') + " 400\n", "of 1024 bytes");
  ExpectRefused(file, "not of 'qwen2'", StatusCode::kUnimplemented, "qwen2");
  const size_t middle = file.find('\n', file.size() / 3) + 1;
  ExpectRefused(file.substr(0, middle), "has no token for the byte");
}

}  // namespace
}  // namespace corpusd
