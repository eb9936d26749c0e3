// Files that are cut short, lie about sizes or are plain nonsense: each is refused with one
// sentence.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "engine/model/gguf.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/temp_dir.h"

namespace corpusd {
namespace {

constexpr uint32_t kUint8Type = 0;
constexpr uint32_t kUint32Type = 4;
constexpr uint32_t kStringType = 8;
constexpr uint32_t kArrayType = 9;
constexpr uint64_t kHuge = uint64_t{1} << 62;
constexpr size_t kTensorCountOffset = 8;
constexpr size_t kKeyCountOffset = 16;

// A small file with some of everything.
std::string SoundFile() {
  GgufWriter writer;
  writer.AddString("general.architecture", "llama");
  writer.AddUint("general.alignment", 32);
  writer.AddStrings("words", {"one", "two"});
  writer.AddInts("ints", {1, 2, 3});
  writer.AddRaw("nested", kArrayType,
                RawBytes(kArrayType) + RawBytes(uint64_t{1}) + RawBytes(kUint8Type) +
                    RawBytes(uint64_t{2}) + "xy");
  writer.AddTensor("first", 0, {8}, std::string(32, 'f'));
  writer.AddTensor("second", 3, {64, 2}, std::string(80, 's'));
  std::string file = writer.Finish();
  file.resize(file.size() - 16);  // to the last byte of "second"
  return file;
}

std::string Patched(std::string bytes, size_t offset, const std::string& patch) {
  return bytes.replace(offset, patch.size(), patch);
}

class GgufMalformedTest : public testing::Test {
 protected:
  Status Open(const std::string& bytes) {
    return GgufFile::Open(dir_.Write("model.gguf", bytes)).status();
  }

  // Expects a refusal in one sentence that names the file and holds `text`.
  void ExpectRefused(const std::string& bytes, const std::string& text,
                     StatusCode code = StatusCode::kInvalidArgument) {
    const Status status = Open(bytes);
    EXPECT_EQ(status.code(), code) << status.ToString();
    EXPECT_TRUE(status.message().starts_with(dir_.File("model.gguf") + ": ")) << status.message();
    EXPECT_NE(status.message().find(text), std::string::npos)
        << "'" << status.message() << "' does not say: " << text;
    EXPECT_EQ(status.message().find('\n'), std::string::npos);
  }

  TempDir dir_;
};

TEST_F(GgufMalformedTest, CutAnywhere) {
  const std::string whole = SoundFile();
  ASSERT_TRUE(Open(whole).ok()) << Open(whole).ToString();
  for (size_t size = 0; size < whole.size(); ++size) {
    SCOPED_TRACE("cut to " + std::to_string(size));
    ExpectRefused(whole.substr(0, size), size == 0 ? "is empty" : "is the download complete?");
  }
}

TEST_F(GgufMalformedTest, AnyByteChanged) {
  const std::string whole = SoundFile();
  int refused = 0;
  for (size_t i = 0; i < whole.size(); ++i) {
    for (const int flip : {0x01, 0x80, 0xff}) {
      std::string bytes = whole;
      bytes[i] = static_cast<char>(bytes[i] ^ flip);
      const auto file = GgufFile::Open(dir_.Write("model.gguf", bytes));
      if (!file.ok()) {
        ++refused;
        continue;
      }
      // What is accepted can be read through, whatever it says.
      (void)(*file)->GetString("general.architecture").ok();
      (void)(*file)->GetStringArray("words").ok();
      (void)(*file)->GetIntArray("ints").ok();
      unsigned sum = 0;
      for (const GgufTensor& tensor : (*file)->tensors()) {
        for (const std::byte b : tensor.bytes) sum += static_cast<unsigned>(b);
      }
      EXPECT_GT(sum, 0U);
    }
  }
  EXPECT_GT(refused, 100);
}

TEST_F(GgufMalformedTest, NotAModel) {
  ExpectRefused("#!/bin/sh\necho hello, this is not a model at all\n",
                "does not begin with 'GGUF'");
  ExpectRefused(std::string(100, '\0'), "does not begin with 'GGUF'");
  ExpectRefused("PK\x03\x04", "does not begin with 'GGUF'");
}

TEST_F(GgufMalformedTest, AnotherVersionOrByteOrder) {
  for (const uint32_t version : {0U, 1U, 2U, 4U, 1000U}) {
    ExpectRefused(Patched(SoundFile(), 4, RawBytes(version)), std::to_string(version),
                  StatusCode::kUnimplemented);
  }
  ExpectRefused(Patched(SoundFile(), 4, RawBytes(uint32_t{0x03000000})), "big-endian",
                StatusCode::kUnimplemented);
}

TEST_F(GgufMalformedTest, HugeCounts) {
  for (const uint64_t count : {uint64_t{1000}, uint64_t{65537}, kHuge, ~uint64_t{0}}) {
    ExpectRefused(Patched(SoundFile(), kTensorCountOffset, RawBytes(count)),
                  std::to_string(count) + " tensors");
    ExpectRefused(Patched(SoundFile(), kKeyCountOffset, RawBytes(count)),
                  std::to_string(count) + " keys");
  }
}

TEST_F(GgufMalformedTest, HugeLengthsInsideValues) {
  const auto with = [](uint32_t type, const std::string& value) {
    GgufWriter writer;
    writer.AddRaw("k", type, value + std::string(64, '\0'));
    return writer.Finish();
  };
  for (const uint64_t count : {uint64_t{1000}, kHuge, kHuge * 2, ~uint64_t{0}}) {
    ExpectRefused(with(kStringType, RawBytes(count)), "'k'");
    for (const uint32_t inner : {kUint8Type, kUint32Type, kStringType, kArrayType, 10U}) {
      SCOPED_TRACE("array of type " + std::to_string(inner));
      ExpectRefused(with(kArrayType, RawBytes(inner) + RawBytes(count)), "'k'");
    }
  }
}

TEST_F(GgufMalformedTest, UnknownAndTooDeepValues) {
  GgufWriter unknown;
  unknown.AddRaw("k", 13, std::string(16, '\0'));
  ExpectRefused(unknown.Finish(), "unknown type 13");
  GgufWriter unknown_inside;
  unknown_inside.AddRaw("k", kArrayType, RawBytes(uint32_t{99}) + RawBytes(uint64_t{0}));
  ExpectRefused(unknown_inside.Finish(), "unknown type 99");
  std::string deep;
  for (int i = 0; i < 1000; ++i) deep += RawBytes(kArrayType) + RawBytes(uint64_t{1});
  GgufWriter nested;
  nested.AddRaw("k", kArrayType, deep);
  ExpectRefused(nested.Finish(), "deeper");
}

TEST_F(GgufMalformedTest, BadNames) {
  for (const std::string& name :
       {std::string(), std::string("\xff\xfe"), std::string("\xc0\x80"), std::string("a\nb"),
        std::string("\xed\xa0\x80"), std::string("nul\0", 4)}) {
    GgufWriter key;
    key.AddUint(name, 1);
    ExpectRefused(key.Finish(), "metadata key 0");
    GgufWriter tensor;
    tensor.AddTensor(name, 0, {8}, std::string(32, 't'));
    ExpectRefused(tensor.Finish(), "the name of tensor 0");
  }
  GgufWriter long_name;
  long_name.AddTensor(std::string(2000, 'n'), 0, {8}, std::string(32, 't'));
  ExpectRefused(long_name.Finish(), "2000 bytes long");
}

TEST_F(GgufMalformedTest, Duplicates) {
  GgufWriter keys;
  keys.AddUint("same", 1);
  keys.AddUint("same", 1);
  ExpectRefused(keys.Finish(), "key 'same' twice");
  GgufWriter tensors;
  tensors.AddTensor("same", 0, {8}, std::string(32, 't'));
  tensors.AddTensor("same", 0, {8}, std::string(32, 't'));
  ExpectRefused(tensors.Finish(), "tensor 'same' twice");
}

TEST_F(GgufMalformedTest, BadAlignment) {
  for (const uint32_t alignment : {0U, 1U, 4U, 24U, 33U, 1U << 30}) {
    GgufWriter writer;
    writer.AddUint("general.alignment", alignment);
    ExpectRefused(writer.Finish(), "general.alignment is " + std::to_string(alignment));
  }
  GgufWriter text;
  text.AddString("general.alignment", "32");
  ExpectRefused(text.Finish(), "general.alignment");
}

TEST_F(GgufMalformedTest, BadTensors) {
  struct Case {
    uint32_t type;
    std::vector<uint64_t> dims;
    uint64_t offset;
    std::string text;
    StatusCode code = StatusCode::kInvalidArgument;
  };
  const uint64_t most = 0xffffffff;
  const std::vector<Case> cases = {
      {99, {8}, 0, "type 99", StatusCode::kUnimplemented},
      {4, {8}, 0, "type 4", StatusCode::kUnimplemented},
      {0, {}, 0, "0 dimensions"},
      {0, {1, 1, 1, 1, 1}, 0, "5 dimensions"},
      {0, {0}, 0, "a dimension of 0"},
      {0, {8, ~uint64_t{0}}, 0, "a dimension of 18446744073709551615"},
      {0, {most, most, most, most}, 0, "64 bits"},
      {3, {33}, 0, "not a multiple of the 32"},
      {12, {128}, 0, "not a multiple of the 256"},
      {0, {8}, 1, "not a multiple of the alignment"},
      {0, {8}, ~uint64_t{0} - 31, "64 bits"},
      {0, {8}, kHuge, "beyond the file's"},
      {0, {1 << 20, 1 << 20}, 0, "is the download complete?"},
      {0, {9}, 0, "ends at byte"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.text);
    GgufWriter writer;
    writer.AddTensorAt("weird", c.type, c.dims, c.offset);
    ExpectRefused(writer.Finish() + std::string(32, '\0'), c.text, c.code);
    ExpectRefused(writer.Finish() + std::string(32, '\0'), "tensor 'weird'", c.code);
  }
}

}  // namespace
}  // namespace corpusd
