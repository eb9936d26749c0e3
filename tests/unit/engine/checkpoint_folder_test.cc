// Folders as Hugging Face lays them out: shards, index, configuration; what is refused.
#include "engine/model/checkpoint_folder.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "engine/model/hf_source.h"
#include "tests/support/hashed_checkpoint.h"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_paths.h"

namespace corpusd {
namespace {

std::string OneTensor(const std::string& name, const std::string& data) {
  SafetensorsWriter writer;
  writer.Add(name, "F32", {data.size() / 4}, data);
  return writer.Finish();
}

class CheckpointFolderTest : public ::testing::Test {
 protected:
  CheckpointFolderTest() { dir_.Write("config.json", "{\"model_type\":\"llama\"}"); }

  void WriteIndexed(const std::string& map) {
    dir_.Write("one.safetensors", OneTensor("a", std::string(8, 'a')));
    dir_.Write("two.safetensors", OneTensor("b", std::string(12, 'b')));
    dir_.Write("model.safetensors.index.json", "{\"metadata\":{},\"weight_map\":" + map + "}");
  }

  void ExpectRefused(const std::string& words,
                     StatusCode code = StatusCode::kInvalidArgument) const {
    const auto folder = CheckpointFolder::Open(dir_.path());
    ASSERT_FALSE(folder.ok()) << "expected: " << words;
    EXPECT_EQ(folder.status().code(), code) << folder.status().ToString();
    EXPECT_NE(folder.status().message().find(words), std::string::npos)
        << folder.status().message();
    EXPECT_NE(folder.status().message().find(dir_.path()), std::string::npos)
        << folder.status().message();
  }

  TempDir dir_;
};

TEST_F(CheckpointFolderTest, TensorsOfAllShards) {
  WriteIndexed(R"({"a":"one.safetensors","b":"two.safetensors"})");
  const auto folder = CheckpointFolder::Open(dir_.path());
  ASSERT_TRUE(folder.ok()) << folder.status().ToString();
  EXPECT_EQ((*folder)->Find("a")->bytes.size(), 8U);
  EXPECT_EQ((*folder)->Find("b")->bytes.size(), 12U);
  EXPECT_EQ((*folder)->Find("c"), nullptr);
  EXPECT_EQ((*folder)->shards().size(), 2U);
}

TEST_F(CheckpointFolderTest, TheDigestHangsOnEveryShard) {
  WriteIndexed(R"({"a":"one.safetensors","b":"two.safetensors"})");
  const auto digest = [&] {
    const auto folder = CheckpointFolder::Open(dir_.path());
    EXPECT_TRUE(folder.ok()) << folder.status().ToString();
    return *(*folder)->WeightsDigestHex("");
  };
  const std::string before = digest();
  EXPECT_EQ(before.size(), 64U);
  EXPECT_EQ(digest(), before);
  dir_.Write("two.safetensors", OneTensor("b", std::string(11, 'b') + "c"));
  EXPECT_NE(digest(), before);
}

TEST_F(CheckpointFolderTest, WhatIsMissingIsNamed) {
  ExpectRefused("has neither model.safetensors nor", StatusCode::kNotFound);
  std::filesystem::remove(dir_.File("config.json"));
  ExpectRefused("config.json: cannot be opened", StatusCode::kNotFound);
  dir_.Write("config.json", "{\"model_type\"");
  ExpectRefused("config.json: is not valid JSON");
  dir_.Write("config.json", std::string(2 << 20, ' '));
  ExpectRefused("more than the 1048576");
}

TEST_F(CheckpointFolderTest, AnIndexMustFitItsShards) {
  WriteIndexed("{}");
  ExpectRefused("has no weight_map");
  WriteIndexed(R"({"a":"../one.safetensors"})");
  ExpectRefused("the shard of 'a' is not a file name");
  WriteIndexed(R"({"a":7})");
  ExpectRefused("the shard of 'a' is not a file name");
  WriteIndexed(R"({"a":"three.safetensors"})");
  ExpectRefused("three.safetensors: cannot be opened", StatusCode::kNotFound);
  WriteIndexed(R"({"a":"one.safetensors","c":"one.safetensors"})");
  ExpectRefused("lacks tensor 'c'");
  WriteIndexed(R"({"a":"one.safetensors","b":"two.safetensors"})");
  dir_.Write("two.safetensors", OneTensor("a", std::string(8, 'a')));
  ExpectRefused("tensor 'a' is in another shard, too");
}

// Every tensor of a sound checkpoint, one after the other, missing, of another shape and of a type
// that is not read: loading says which.
TEST(HfSource, TensorsThatDoNotFitAreNamed) {
  FamilyCase sound = ReadFamilyCases(GoldenPath("families.jsonl"))[1];
  sound.record["shards"] = 1;
  const auto open_and_find = [](const FamilyCase& family_case, const std::string& name) {
    const TempDir dir;
    WriteCheckpoint(family_case, dir.path());
    const auto source = HfSource::Open(dir.path());
    if (!source.ok()) return source.status();
    return (*source)->Matrix("blk.0.attn_q.weight", 64, 32).status().WithContext(name);
  };
  EXPECT_TRUE(open_and_find(sound, "").ok());
  for (nlohmann::json& tensor : sound.record["tensors"]) {
    if (tensor[0] != "model.layers.0.self_attn.q_proj.weight") continue;
    tensor[1] = {64, 31};
    const Status wrong_shape = open_and_find(sound, "q");
    EXPECT_NE(wrong_shape.message().find("is 64 x 31, expected 64 x 32"), std::string::npos)
        << wrong_shape.ToString();
    tensor[0] = "model.layers.0.self_attn.other.weight";
    const Status missing = open_and_find(sound, "q");
    EXPECT_NE(missing.message().find("q_proj.weight' is missing"), std::string::npos)
        << missing.ToString();
  }
}

}  // namespace
}  // namespace corpusd
