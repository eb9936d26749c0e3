// Safetensors files, sound and not: what is refused, and with which words.
#include "engine/model/safetensors.h"

#include <gtest/gtest.h>

#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace corpusd {
namespace {

class SafetensorsTest : public ::testing::Test {
 protected:
  Result<std::unique_ptr<SafetensorsFile>> Open(const std::string& bytes) {
    return SafetensorsFile::Open(dir_.Write("m.safetensors", bytes));
  }

  void ExpectRefused(const std::string& bytes, const std::string& words,
                     StatusCode code = StatusCode::kInvalidArgument) {
    const auto file = Open(bytes);
    ASSERT_FALSE(file.ok()) << "expected: " << words;
    EXPECT_EQ(file.status().code(), code) << file.status().ToString();
    const std::string& text = file.status().message();
    EXPECT_TRUE(text.starts_with(dir_.File("m.safetensors") + ": ")) << text;
    EXPECT_NE(text.find(words), std::string::npos) << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    EXPECT_LT(text.size(), 2000U);
  }

  // A file whose one tensor is described by `entry`, over 16 bytes of data.
  static std::string With(const std::string& entry) {
    return SafetensorsWriter::File("{\"t\":" + entry + "}", std::string(16, 'x'));
  }

  TempDir dir_;
};

std::string SoundFile() {
  SafetensorsWriter writer;
  writer.AddRaw("\"__metadata__\":{\"format\":\"pt\"}");
  writer.Add("b", "F32", {2, 3}, std::string(24, 'b'));
  writer.Add("a", "BF16", {5}, std::string(10, 'a'));
  writer.Add("one", "F16", {}, "11");
  writer.Add("none", "F32", {0, 7}, "");
  return writer.Finish();
}

TEST_F(SafetensorsTest, TensorsByNameInTheOrderOfTheirBytes) {
  const auto file = Open(SoundFile());
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  ASSERT_EQ((*file)->tensors().size(), 4U);
  EXPECT_EQ((*file)->tensors()[0].name, "b");
  const SafeTensor* const a = (*file)->Find("a");
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(a->dtype, "BF16");
  EXPECT_EQ(a->dims, (std::vector<uint64_t>{5}));
  EXPECT_EQ(a->bytes.size(), 10U);
  EXPECT_EQ(a->bytes[0], std::byte{'a'});
  EXPECT_TRUE((*file)->Find("one")->dims.empty());
  EXPECT_EQ((*file)->Find("__metadata__"), nullptr);
}

TEST_F(SafetensorsTest, CutAnywhere) {
  const std::string whole = SoundFile();
  for (size_t size = 0; size < whole.size(); ++size) {
    SCOPED_TRACE("cut to " + std::to_string(size));
    ExpectRefused(whole.substr(0, size), size < 8    ? "too short"
                                         : size == 8 ? "does not begin with"
                                                     : "is the download complete?");
  }
}

TEST_F(SafetensorsTest, AnyByteOfTheHeaderChanged) {
  const std::string whole = SoundFile();
  int refused = 0;
  for (size_t i = 0; i + 36 < whole.size(); ++i) {
    for (const int flip : {0x01, 0x10, 0x80, 0xff}) {
      std::string bytes = whole;
      bytes[i] = static_cast<char>(bytes[i] ^ flip);
      const auto file = Open(bytes);
      if (!file.ok()) {
        ++refused;
        continue;
      }
      size_t total = 0;
      for (const SafeTensor& tensor : (*file)->tensors()) total += tensor.bytes.size();
      EXPECT_EQ(total, 36U);  // whatever they are called now, they fill the data
    }
  }
  EXPECT_GT(refused, 500);
}

TEST_F(SafetensorsTest, NotSafetensors) {
  ExpectRefused("#!/bin/sh\necho hello, this is not a model\n", "does not begin with");
  ExpectRefused(std::string(64, '\0'), "does not begin with");
  ExpectRefused(SafetensorsWriter::File("{\"t\":", ""), "is not valid JSON");
  ExpectRefused(SafetensorsWriter::File("{} trailing", ""), "is not valid JSON");
  ExpectRefused(SafetensorsWriter::File("{\"\\ud800\":{}}", ""), "is not valid JSON");
  std::string deep = "{\"t\":";
  for (int i = 0; i < 5000; ++i) deep += "[";
  for (int i = 0; i < 5000; ++i) deep += "]";
  ExpectRefused(SafetensorsWriter::File(deep + "}", ""), "nests deeper");
}

TEST_F(SafetensorsTest, FieldsOfATensor) {
  ExpectRefused(With("7"), "tensor 't' has no dtype");
  ExpectRefused(With("{}"), "has no dtype");
  ExpectRefused(With(R"({"dtype":3,"shape":[4],"data_offsets":[0,16]})"), "has no dtype");
  ExpectRefused(With(R"({"dtype":"Q9","shape":[4],"data_offsets":[0,16]})"), "unknown dtype",
                StatusCode::kUnimplemented);
  ExpectRefused(With(R"({"dtype":"F32","data_offsets":[0,16]})"), "has no shape");
  ExpectRefused(With(R"({"dtype":"F32","shape":[1,1,1,1,1,1,1,1,4],"data_offsets":[0,16]})"),
                "has no shape of at most 8");
  for (const char* const dim : {"-4", "4.5", "\"4\"", "null", "1e30"}) {
    ExpectRefused(
        With(std::string(R"({"dtype":"F32","shape":[)") + dim + R"(],"data_offsets":[0,16]})"),
        "not a whole number");
  }
  ExpectRefused(With(R"({"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,16]})"),
                "more bits than");
  ExpectRefused(With(R"({"dtype":"F32","shape":[5],"data_offsets":[0,16]})"), "need 20");
  ExpectRefused(With(R"({"dtype":"F4","shape":[31],"data_offsets":[0,16]})"), "need 16");
  ExpectRefused(SafetensorsWriter::File("{\"" + std::string(2000, 'n') + "\":{}}", ""),
                "not printable text");
  ExpectRefused(SafetensorsWriter::File("{\"a\\nb\":{}}", ""), "not printable text");
}

TEST_F(SafetensorsTest, OffsetsFillTheDataOnce) {
  const auto entry = [](const std::string& offsets, int numbers) {
    return R"({"dtype":"F32","shape":[)" + std::to_string(numbers) + R"(],"data_offsets":)" +
           offsets + "}";
  };
  ExpectRefused(With(entry("[16]", 4)), "has no data_offsets");
  ExpectRefused(With(entry("[16,0]", 4)), "has no data_offsets");
  ExpectRefused(With(entry("[-1,15]", 4)), "has no data_offsets");
  ExpectRefused(With(entry("[0,17]", 4)), "beyond its 16");
  ExpectRefused(With(entry("[0,18446744073709551615]", 4)), "beyond its 16");
  ExpectRefused(With(entry("[4,16]", 3)), "begins at byte 4");
  ExpectRefused(With(entry("[0,12]", 3)), "holds 16 bytes of data, its tensors 12");
  const auto two = [&](const std::string& a, const std::string& b) {
    return SafetensorsWriter::File("{\"a\":" + a + ",\"b\":" + b + "}", std::string(16, 'x'));
  };
  EXPECT_TRUE(Open(two(entry("[8,16]", 2), entry("[0,8]", 2))).ok());
  ExpectRefused(two(entry("[0,16]", 4), entry("[8,16]", 2)), "begins at byte 8");
  ExpectRefused(two(entry("[0,16]", 4), entry("[0,16]", 4)), "begins at byte 0");
  ExpectRefused(
      SafetensorsWriter::File("{\"a\":" + entry("[0,16]", 4) + ",\"a\":" + entry("[0,16]", 4) + "}",
                              std::string(16, 'x')),
      "the key 'a' twice");
}

}  // namespace
}  // namespace corpusd
