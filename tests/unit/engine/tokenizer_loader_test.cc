#include "engine/tokenizer/tokenizer_loader.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/model/gguf.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/temp_dir.h"

namespace corpusd {
namespace {

// The tables of a small sound tokenizer, for a test to spoil.
struct Tables {
  std::string model = "gpt2";
  std::string pre = "smollm";
  std::vector<std::string> tokens = {"<|end|>", "a", "b", "c", "ab", "abc"};
  std::vector<int32_t> kinds = {3, 1, 1, 1, 1, 1};
  std::vector<std::string> merges = {"a b", "ab c"};
  uint32_t end_token = 0;
};

class TokenizerLoaderTest : public testing::Test {
 protected:
  Result<std::unique_ptr<Tokenizer>> Load(const Tables& tables) {
    GgufWriter writer;
    writer.AddString("tokenizer.ggml.model", tables.model);
    writer.AddString("tokenizer.ggml.pre", tables.pre);
    writer.AddStrings("tokenizer.ggml.tokens", tables.tokens);
    writer.AddInts("tokenizer.ggml.token_type", tables.kinds);
    writer.AddStrings("tokenizer.ggml.merges", tables.merges);
    writer.AddUint("tokenizer.ggml.eos_token_id", tables.end_token);
    auto file = GgufFile::Open(dir_.Write("tokenizer.gguf", writer.Finish()));
    if (!file.ok()) return file.status();
    return Tokenizer::FromGguf(**file);
  }
  void ExpectRefused(const Tables& tables, StatusCode code, std::string_view part) {
    const auto tokenizer = Load(tables);
    ASSERT_FALSE(tokenizer.ok());
    EXPECT_EQ(tokenizer.status().code(), code);
    EXPECT_NE(tokenizer.status().message().find(part), std::string::npos)
        << tokenizer.status().ToString();
    EXPECT_NE(tokenizer.status().message().find("tokenizer.gguf"), std::string::npos);
  }

  TempDir dir_;
};

TEST_F(TokenizerLoaderTest, MergesByRankAndDropsBytesTheVocabularyLacks) {
  const auto tokenizer = Load({});
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().ToString();
  std::vector<TokenId> ids;
  (*tokenizer)->Encode("abcab", false, &ids);
  EXPECT_EQ(ids, (std::vector<TokenId>{5, 4}));
  ids.clear();
  // The missing byte keeps its neighbours apart, as llama.cpp has it.
  (*tokenizer)->Encode("axb", false, &ids);
  EXPECT_EQ(ids, (std::vector<TokenId>{1, 2}));
  EXPECT_EQ((*tokenizer)->end_token(), std::optional<TokenId>(0));
}

// Above the length where merging changes its method.
TEST_F(TokenizerLoaderTest, LongWordsMergeLikeShortOnes) {
  const auto tokenizer = Load({});
  ASSERT_TRUE(tokenizer.ok());
  std::string text;
  std::vector<TokenId> expected;
  for (int i = 0; i < 50; ++i) {
    text += "abcabb";
    expected.insert(expected.end(), {5, 4, 2});
  }
  std::vector<TokenId> ids;
  (*tokenizer)->Encode(text, false, &ids);
  EXPECT_EQ(ids, expected);
}

TEST_F(TokenizerLoaderTest, TheLowerRankWins) {
  Tables tables;
  tables.tokens = {"<|end|>", "a", "b", "c", "bc", "ab"};
  tables.merges = {"b c", "a b"};
  const auto tokenizer = Load(tables);
  ASSERT_TRUE(tokenizer.ok());
  std::vector<TokenId> ids;
  (*tokenizer)->Encode("abc", false, &ids);
  EXPECT_EQ(ids, (std::vector<TokenId>{1, 4}));
}

TEST_F(TokenizerLoaderTest, OtherKindsAreRefused) {
  Tables tables;
  tables.model = "bert";
  ExpectRefused(tables, StatusCode::kUnimplemented, "'bert'");
  tables = {};
  tables.pre = "falcon";
  ExpectRefused(tables, StatusCode::kUnimplemented, "'falcon'");
}

TEST_F(TokenizerLoaderTest, ContradictoryTablesAreRefused) {
  Tables tables;
  tables.kinds.pop_back();
  ExpectRefused(tables, StatusCode::kInvalidArgument, "6 tokens but 5 token types");
  tables = {};
  tables.tokens[5] = "ab";
  ExpectRefused(tables, StatusCode::kInvalidArgument, "twice");
  tables = {};
  tables.merges = {"a"};
  ExpectRefused(tables, StatusCode::kInvalidArgument, "merge 0");
  tables = {};
  tables.merges = {"a b", "ab z"};
  ExpectRefused(tables, StatusCode::kInvalidArgument, "merge 1");
  tables = {};
  tables.merges = {"b c"};
  ExpectRefused(tables, StatusCode::kInvalidArgument, "merge 0");
  tables = {};
  tables.end_token = 6;
  ExpectRefused(tables, StatusCode::kInvalidArgument, "eos_token_id 6");
  tables = {};
  tables.tokens.clear();
  tables.kinds.clear();
  ExpectRefused(tables, StatusCode::kInvalidArgument, "vocabulary of 0");
}

TEST_F(TokenizerLoaderTest, MissingTablesAreNamed) {
  GgufWriter writer;
  writer.AddString("tokenizer.ggml.model", "gpt2");
  auto file = GgufFile::Open(dir_.Write("tokenizer.gguf", writer.Finish()));
  ASSERT_TRUE(file.ok());
  const auto tokenizer = Tokenizer::FromGguf(**file);
  ASSERT_FALSE(tokenizer.ok());
  EXPECT_NE(tokenizer.status().message().find("tokenizer.ggml.tokens"), std::string::npos);
}

TEST_F(TokenizerLoaderTest, TheDigestChangesWithEveryTable) {
  const auto digest = [&](const Tables& tables) {
    const auto tokenizer = Load(tables);
    EXPECT_TRUE(tokenizer.ok());
    return tokenizer.ok() ? (*tokenizer)->DigestHex() : "";
  };
  const std::string base = digest({});
  EXPECT_EQ(digest({}), base);
  Tables tables;
  tables.pre = "starcoder";
  EXPECT_NE(digest(tables), base);
  tables = {};
  tables.merges.pop_back();
  EXPECT_NE(digest(tables), base);
  tables = {};
  tables.kinds[1] = 4;
  EXPECT_NE(digest(tables), base);
  tables = {};
  tables.tokens.emplace_back("d");
  tables.kinds.push_back(1);
  EXPECT_NE(digest(tables), base);
  tables = {};
  tables.end_token = 1;
  EXPECT_NE(digest(tables), base);
}

}  // namespace
}  // namespace corpusd
