#include "engine/model/gguf.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <limits>
#include <string>
#include <vector>

#include "tests/support/gguf_writer.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_paths.h"
#include "tests/support/tiny_model.h"

namespace corpusd {
namespace {

constexpr uint32_t kFloat32Type = 6;
constexpr uint32_t kArrayType = 9;
constexpr uint32_t kUint64Type = 10;
constexpr uint32_t kInt64Type = 11;
constexpr uint32_t kFloat64Type = 12;

class GgufTest : public testing::Test {
 protected:
  std::unique_ptr<GgufFile> Open(const std::string& bytes) {
    auto file = GgufFile::Open(dir_.Write("model.gguf", bytes));
    EXPECT_TRUE(file.ok()) << file.status().ToString();
    return file.ok() ? std::move(*file) : nullptr;
  }

  TempDir dir_;
};

TEST_F(GgufTest, ReadsEveryKindOfValue) {
  GgufWriter writer;
  writer.AddUint("u32", 4000000000);
  writer.AddFloat("f32", 0.25F);
  writer.AddBool("yes", true);
  writer.AddString("text", "Grüße");
  writer.AddString("empty", "");
  writer.AddStrings("words", {"", "a", std::string("\xff\0x", 3)});
  writer.AddInts("ints", {-1, 0, 7});
  writer.AddRaw("u8", 0, RawBytes(uint8_t{200}));
  writer.AddRaw("i8", 1, RawBytes(int8_t{-3}));
  writer.AddRaw("u16", 2, RawBytes(uint16_t{65535}));
  writer.AddRaw("i16", 3, RawBytes(int16_t{-300}));
  writer.AddRaw("u64", kUint64Type, RawBytes(std::numeric_limits<uint64_t>::max()));
  writer.AddRaw("i64", kInt64Type, RawBytes(std::numeric_limits<int64_t>::min()));
  writer.AddRaw("f64", kFloat64Type, RawBytes(1e300));
  writer.AddRaw("floats", kArrayType,
                RawBytes(kFloat32Type) + RawBytes(uint64_t{2}) + RawBytes(1.5F) + RawBytes(-2.0F));
  const auto file = Open(writer.Finish());
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(*file->GetUint("u32"), 4000000000);
  EXPECT_EQ(*file->GetInt("u32"), 4000000000);
  EXPECT_EQ(*file->GetFloat("f32"), 0.25);
  EXPECT_TRUE(*file->GetBool("yes"));
  EXPECT_EQ(*file->GetString("text"), "Grüße");
  EXPECT_EQ(*file->GetString("empty"), "");
  EXPECT_EQ(*file->GetStringArray("words"),
            (std::vector<std::string_view>{"", "a", std::string_view("\xff\0x", 3)}));
  EXPECT_EQ(*file->GetIntArray("ints"), (std::vector<int64_t>{-1, 0, 7}));
  EXPECT_EQ(*file->GetUint("u8"), 200);
  EXPECT_EQ(*file->GetInt("i8"), -3);
  EXPECT_EQ(*file->GetUint("u16"), 65535);
  EXPECT_EQ(*file->GetInt("i16"), -300);
  EXPECT_EQ(*file->GetUint("u64"), std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(*file->GetInt("i64"), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(*file->GetFloat("f64"), 1e300);
  EXPECT_EQ(*file->GetFloatArray("floats"), (std::vector<float>{1.5F, -2.0F}));
}

TEST_F(GgufTest, SaysWhatIsWrongWithAValue) {
  GgufWriter writer;
  writer.AddUint("number", 1);
  writer.AddString("text", "x");
  writer.AddString("bytes", "\xc3\x28");
  writer.AddInts("negative", {-1});
  writer.AddRaw("i8", 1, RawBytes(int8_t{-3}));
  writer.AddRaw("u64", kUint64Type, RawBytes(std::numeric_limits<uint64_t>::max()));
  writer.AddRaw("truth", 7, RawBytes(uint8_t{2}));
  const auto file = Open(writer.Finish());
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(file->GetUint("absent").status().code(), StatusCode::kNotFound);
  const auto expect_wrong = [](const Status& status) {
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << status.ToString();
    EXPECT_NE(status.message().find("model.gguf: key '"), std::string::npos) << status.message();
  };
  expect_wrong(file->GetUint("text").status());
  expect_wrong(file->GetUint("i8").status());
  expect_wrong(file->GetInt("u64").status());
  expect_wrong(file->GetFloat("text").status());
  expect_wrong(file->GetBool("truth").status());
  expect_wrong(file->GetBool("number").status());
  expect_wrong(file->GetString("number").status());
  expect_wrong(file->GetString("bytes").status());
  expect_wrong(file->GetString("negative").status());
  expect_wrong(file->GetStringArray("text").status());
  expect_wrong(file->GetStringArray("negative").status());
  expect_wrong(file->GetIntArray("number").status());
  expect_wrong(file->GetFloatArray("negative").status());
}

TEST_F(GgufTest, SkipsNestedArrays) {
  const std::string inner =
      RawBytes(uint32_t{8}) + RawBytes(uint64_t{2}) + RawString("a") + RawString("bcd");
  const std::string numbers = RawBytes(uint32_t{2}) + RawBytes(uint64_t{1}) + RawBytes(uint16_t{9});
  GgufWriter writer;
  writer.AddRaw("nested", kArrayType,
                RawBytes(kArrayType) + RawBytes(uint64_t{2}) + inner + numbers);
  writer.AddUint("after", 5);
  const auto file = Open(writer.Finish());
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(*file->GetUint("after"), 5);
  EXPECT_EQ(file->GetStringArray("nested").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(file->GetIntArray("nested").status().code(), StatusCode::kInvalidArgument);
}

TEST_F(GgufTest, FindsTensorsAtTheirBytes) {
  GgufWriter writer;
  writer.AddUint("general.alignment", 64);
  writer.AddTensor("a", 0, {3}, RawBytes(1.0F) + RawBytes(2.0F) + RawBytes(3.0F));
  writer.AddTensor("b", 8, {32, 2}, std::string(68, 'q'));
  const auto file = Open(writer.Finish(64));
  ASSERT_NE(file, nullptr);
  ASSERT_EQ(file->tensors().size(), 2U);
  const GgufTensor* const a = file->FindTensor("a");
  const GgufTensor* const b = file->FindTensor("b");
  ASSERT_NE(a, nullptr);
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(file->FindTensor("c"), nullptr);
  EXPECT_EQ(a->type, WeightType::kF32);
  EXPECT_EQ(a->bytes.size(), 12U);
  EXPECT_EQ(a->bytes[3], std::byte{0x3f});
  EXPECT_EQ(b->dims, (std::vector<uint64_t>{32, 2}));
  EXPECT_EQ(b->bytes.size(), 68U);
  EXPECT_EQ(b->bytes[0], std::byte{'q'});
  EXPECT_EQ(reinterpret_cast<uintptr_t>(b->bytes.data()) % 64, 0U);
}

TEST_F(GgufTest, ReadsTheTinyModel) {
  const auto file = Open(TinyModelBytes());
  ASSERT_NE(file, nullptr);
  EXPECT_EQ(*file->GetUint("llama.block_count"), 2);
  EXPECT_EQ(file->tensors().size(), 2U + 2 * 9);
  EXPECT_EQ(file->FindTensor("blk.1.ffn_down.weight")->dims, (std::vector<uint64_t>{128, 64}));
  EXPECT_EQ(TinyModelBytes(), TinyModelBytes());
  EXPECT_NE(TinyModelBytes(), TinyModelBytes({.seed = 2}));
}

TEST_F(GgufTest, ReadsTheDefaultModel) {
  if (!TestModelExists()) GTEST_SKIP() << TestModelPath() << " is absent: run deploy/fetch_model";
  const auto file = GgufFile::Open(TestModelPath());
  ASSERT_TRUE(file.ok()) << file.status().ToString();
  EXPECT_EQ(*(*file)->GetString("general.architecture"), "llama");
  EXPECT_EQ(*(*file)->GetUint("llama.block_count"), 30);
  EXPECT_EQ((*file)->GetStringArray("tokenizer.ggml.tokens")->size(), 49152U);
  EXPECT_EQ((*file)->tensors().size(), 272U);
}

TEST_F(GgufTest, SaysWhyAFileCannotBeOpened) {
  const auto code = [](const std::string& path) { return GgufFile::Open(path).status().code(); };
  EXPECT_EQ(code(dir_.File("absent.gguf")), StatusCode::kNotFound);
  EXPECT_EQ(code(dir_.path()), StatusCode::kInvalidArgument);
  ASSERT_EQ(mkfifo(dir_.File("pipe").c_str(), 0600), 0);
  EXPECT_EQ(code(dir_.File("pipe")),
            StatusCode::kInvalidArgument);  // and does not wait for a writer
}

}  // namespace
}  // namespace corpusd
