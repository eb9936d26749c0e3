// tokenizer.json of model folders: the ids it gives, and what is refused.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/model/gguf.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_paths.h"
#include "tests/support/tiny_model.h"

namespace corpusd {
namespace {

class TokenizerJsonTest : public ::testing::Test {
 protected:
  Result<std::unique_ptr<Tokenizer>> Load(const std::string& json) {
    dir_.Write("tokenizer.json", json);
    auto tables = ReadTokenizerFolder(dir_.path());
    if (!tables.ok()) return tables.status();
    return Tokenizer::FromTables(*std::move(tables));
  }

  void ExpectRefused(const nlohmann::json& json, const std::string& words,
                     StatusCode code = StatusCode::kInvalidArgument) {
    const auto tokenizer = Load(json.dump());
    ASSERT_FALSE(tokenizer.ok()) << "expected: " << words;
    EXPECT_EQ(tokenizer.status().code(), code) << tokenizer.status().ToString();
    EXPECT_TRUE(tokenizer.status().message().starts_with(dir_.File("tokenizer.json") + ": "))
        << tokenizer.status().message();
    EXPECT_NE(tokenizer.status().message().find(words), std::string::npos)
        << tokenizer.status().message();
  }

  TempDir dir_;
};

constexpr const char* kTexts[] = {"The 1st test in 2026, and the rest of it.\n\n", "",
                                  "\xff\xfe broken \xe4\xb8\xad\xe6\x96\x87", "<|im_end|> plain"};

TEST_F(TokenizerJsonTest, IdsAreThoseOfTheSameVocabularyInGguf) {
  const auto json = Load(TinyTokenizerJson());
  ASSERT_TRUE(json.ok()) << json.status().ToString();
  const auto file = GgufFile::Open(dir_.Write("m.gguf", TinyModelBytes()));
  const auto gguf = Tokenizer::FromGguf(**file);
  ASSERT_TRUE(gguf.ok());
  EXPECT_EQ((*json)->vocabulary(), (*gguf)->vocabulary());
  for (const char* const text : kTexts) {
    for (const bool special : {false, true}) {
      std::vector<TokenId> a, b;
      (*json)->Encode(text, special, &a);
      (*gguf)->Encode(text, special, &b);
      EXPECT_EQ(a, b) << text;
      EXPECT_EQ((*json)->Decode(a), (*gguf)->Decode(b));
    }
  }
  EXPECT_EQ((*json)->FindSpecial("<|im_end|>"), (*gguf)->FindSpecial("<|im_end|>"));
}

TEST_F(TokenizerJsonTest, TheFilesBesideItGiveTheEndTokenAndTheTemplate) {
  dir_.Write("config.json", R"({"eos_token_id": 1})");
  EXPECT_EQ((*Load(TinyTokenizerJson()))->end_token(), std::optional<TokenId>(1));
  dir_.Write("generation_config.json", R"({"eos_token_id": [2, 0]})");
  EXPECT_EQ((*Load(TinyTokenizerJson()))->end_token(), std::optional<TokenId>(2));
  const std::string without = (*Load(TinyTokenizerJson()))->DigestHex();
  dir_.Write("tokenizer_config.json", TinyTokenizerConfigJson());
  EXPECT_NE((*Load(TinyTokenizerJson()))->DigestHex(), without);
  dir_.Write("generation_config.json", R"({"eos_token_id": 281})");
  ExpectRefused(nlohmann::json::parse(TinyTokenizerJson()), "eos_token_id 281 is beyond");
}

TEST_F(TokenizerJsonTest, WhatIsNotSupportedOrMakesNoSense) {
  const nlohmann::json sound = nlohmann::json::parse(TinyTokenizerJson());
  const StatusCode unimplemented = StatusCode::kUnimplemented;
  const auto with = [&](const char* path, const nlohmann::json& value) {
    nlohmann::json json = sound;
    json[nlohmann::json::json_pointer(path)] = value;
    return json;
  };
  ExpectRefused(with("/model/type", "Unigram"), "is not BPE", unimplemented);
  ExpectRefused(with("/model/byte_fallback", true),
                "pre-tokenizer 'Digits' is not supported beside byte fallback", unimplemented);
  ExpectRefused(with("/model/fuse_unk", true), "'fuse_unk'", unimplemented);
  ExpectRefused(with("/normalizer", {{"type", "NFKC"}}), "normalizer 'NFKC'", unimplemented);
  ExpectRefused(with("/pre_tokenizer", nullptr), "pre-tokenizer", unimplemented);
  ExpectRefused(with("/pre_tokenizer/pretokenizers/0/individual_digits", false), "pre-tokenizer",
                unimplemented);
  ExpectRefused(with("/pre_tokenizer/pretokenizers/1/add_prefix_space", true), "pre-tokenizer",
                unimplemented);
  ExpectRefused(with("/model/vocab", 3), "has no vocabulary");
  ExpectRefused(with("/model/vocab/new", 500), "ids have gaps");
  ExpectRefused(with("/model/vocab/new", 7), "given to two tokens");
  ExpectRefused(with("/model/vocab/new", -1), "a token's id is not");
  ExpectRefused(with("/model/vocab/new", 1e9), "a token's id is not");
  ExpectRefused(with("/added_tokens", 3), "'added_tokens' is not a list");
  ExpectRefused(with("/added_tokens/0", {{"id", 0}}), "an added token has no text");
  ExpectRefused(with("/model/merges", nullptr), "has no merges");
  ExpectRefused(with("/model/merges/0", {"a"}), "a merge is not two tokens");
  ExpectRefused(with("/model/merges/0", "zz qq"), "names a token that the vocabulary lacks");
  std::filesystem::remove(dir_.File("tokenizer.json"));
  EXPECT_EQ(ReadTokenizerFolder(dir_.path()).status().code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace corpusd
