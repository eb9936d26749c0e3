// Vocabularies that merge characters, and normal form C, against Hugging Face's tokenizers and
// SentencePiece (make_piece_rules.py), and their independence of how a text arrives.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "engine/model/gguf.h"
#include "engine/tokenizer/nfc_stream.h"
#include "engine/tokenizer/streaming_encoder.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/utf8_repair.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_paths.h"

namespace corpusd {
namespace {

std::unique_ptr<Tokenizer> FromGgufTables(const TempDir& dir, const nlohmann::json& tables) {
  GgufWriter writer;
  writer.AddString("tokenizer.ggml.model", "llama");
  writer.AddStrings("tokenizer.ggml.tokens", tables["tokens"].get<std::vector<std::string>>());
  writer.AddFloats("tokenizer.ggml.scores", tables["scores"].get<std::vector<float>>());
  writer.AddInts("tokenizer.ggml.token_type", tables["kinds"].get<std::vector<int32_t>>());
  writer.AddBool("tokenizer.ggml.add_space_prefix", tables["prefix"].get<bool>());
  writer.AddUint("tokenizer.ggml.unknown_token_id", 0);
  auto file = GgufFile::Open(dir.Write("pieces.gguf", writer.Finish()));
  EXPECT_TRUE(file.ok()) << file.status().ToString();
  auto tokenizer = Tokenizer::FromGguf(**file);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().ToString();
  return tokenizer.ok() ? std::move(*tokenizer) : nullptr;
}

std::unique_ptr<Tokenizer> FromJson(const TempDir& dir, const nlohmann::json& json) {
  dir.Write("tokenizer.json", json.dump());
  auto tables = ReadTokenizerFolder(dir.path());
  EXPECT_TRUE(tables.ok()) << tables.status().ToString();
  if (!tables.ok()) return nullptr;
  auto tokenizer = Tokenizer::FromTables(std::move(*tables));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status().ToString();
  return tokenizer.ok() ? std::move(*tokenizer) : nullptr;
}

std::vector<TokenId> EncodeInPieces(const Tokenizer& tokenizer, std::string_view text,
                                    size_t piece_bytes) {
  StreamingEncoder encoder(tokenizer, TextPlace::kStart);
  std::vector<TokenId> ids;
  for (size_t at = 0; at < text.size(); at += piece_bytes) {
    encoder.Append(text.substr(at, piece_bytes), &ids);
  }
  encoder.Finish(&ids);
  return ids;
}

TEST(PieceRules, IdsAreThoseOfTheReferences) {
  const TempDir dir;
  std::map<std::string, std::unique_ptr<Tokenizer>> tokenizers;
  std::ifstream file(GoldenPath("piece_rules.jsonl"));
  size_t cases = 0;
  for (std::string line; std::getline(file, line);) {
    const auto record = nlohmann::json::parse(line);
    if (record.contains("vocabulary")) {
      tokenizers[record["vocabulary"].get<std::string>()] =
          record.contains("json") ? FromJson(dir, record["json"])
                                  : FromGgufTables(dir, record["gguf"]);
    }
    if (!record.contains("of")) continue;
    const auto name = record["of"].get<std::string>();
    ASSERT_NE(tokenizers[name], nullptr) << name;
    const Tokenizer& tokenizer = *tokenizers[name];
    const auto text = record["text"].get<std::string>();
    const auto expected = record["ids"].get<std::vector<TokenId>>();
    ++cases;
    std::vector<TokenId> ids;
    tokenizer.Encode(text, false, &ids, TextPlace::kStart);
    EXPECT_EQ(ids, expected) << name << ": " << record["text"];
    for (const size_t piece_bytes : {1, 3, 7}) {
      EXPECT_EQ(EncodeInPieces(tokenizer, text, piece_bytes), ids)
          << name << ": " << record["text"];
    }
  }
  EXPECT_GT(cases, 450U);
}

TEST(PieceRules, NormalFormIsUnicodes) {
  std::ifstream file(GoldenPath("piece_rules.jsonl"));
  size_t cases = 0;
  for (std::string line; std::getline(file, line);) {
    const auto record = nlohmann::json::parse(line);
    if (!record.contains("nfc")) continue;
    ++cases;
    const auto text = record["nfc"].get<std::string>();
    NfcStream whole;
    std::string normal;
    whole.Append(text, true, &normal);
    EXPECT_EQ(normal, record["text"].get<std::string>()) << record["nfc"];
    NfcStream cut;
    std::string joined;
    for (size_t at = 0; at < text.size();) {
      const size_t bytes = DecodeAt(text, at).bytes;
      cut.Append(std::string_view(text).substr(at, bytes), false, &joined);
      at += bytes;
    }
    cut.Append("", true, &joined);
    EXPECT_EQ(joined, normal) << record["nfc"];
  }
  EXPECT_GT(cases, 100U);
}

TEST(PieceRules, MarksWithoutEndTakeBoundedMemory) {
  NfcStream stream;
  std::string out;
  for (int i = 0; i < 1000; ++i) {
    std::string marks;
    for (int k = 0; k < 1000; ++k) marks += "\xcc\x81";
    stream.Append(marks, false, &out);
  }
  EXPECT_GT(out.size(), size_t{1000} * 2000 - 2 * NfcStream::kClusterBytesMax);
  stream.Append("", true, &out);
  EXPECT_EQ(out.size(), 2000000U);
}

TEST(PieceRules, BrokenBytesAndControlsOfUsers) {
  const TempDir dir;
  std::ifstream file(GoldenPath("piece_rules.jsonl"));
  std::string line;
  std::getline(file, line);
  const auto tokenizer = FromJson(dir, nlohmann::json::parse(line)["json"]);
  ASSERT_NE(tokenizer, nullptr);
  const std::string broken = "a\xff\xc3(\xf0\x9f\x98 </s><s>";
  std::vector<TokenId> ids, repaired_ids;
  tokenizer->Encode(broken, false, &ids);
  std::string repaired;
  RepairUtf8(broken, true, &repaired);
  tokenizer->Encode(repaired, false, &repaired_ids);
  EXPECT_EQ(ids, repaired_ids);
  EXPECT_EQ(tokenizer->Decode(ids), repaired);
  for (const TokenId id : ids) EXPECT_FALSE(tokenizer->is_special(id)) << id;
  ids.clear();
  tokenizer->Encode("<s>a</s>", true, &ids, TextPlace::kStart);
  EXPECT_EQ(ids.front(), 1U);
  EXPECT_EQ(ids.back(), 2U);
  EXPECT_EQ(tokenizer->Decode(ids), "<s> a</s>");
}

TEST(PieceRules, ContradictoryTablesAreRefused) {
  const TempDir dir;
  TokenizerTables tables;
  tables.where = "x";
  tables.model = TokenizerModel::kSentencePiece;
  tables.texts = {"<unk>", "a", "b", "ab"};
  tables.kinds = {2, 1, 1, 1};
  tables.scores = {0, 0, 0};
  EXPECT_EQ(Tokenizer::FromTables(tables).status().code(), StatusCode::kInvalidArgument);
  tables.scores.push_back(-1);
  EXPECT_TRUE(Tokenizer::FromTables(tables).ok());
  tables.texts[1] = "\xff";
  EXPECT_EQ(Tokenizer::FromTables(tables).status().code(), StatusCode::kInvalidArgument);
  tables.texts[1] = "a";
  tables.kinds[2] = 6;
  EXPECT_EQ(Tokenizer::FromTables(tables).status().code(), StatusCode::kInvalidArgument);
  tables.kinds[2] = 1;
  tables.scores.clear();
  tables.merges = {"a c"};
  EXPECT_EQ(Tokenizer::FromTables(tables).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace corpusd
