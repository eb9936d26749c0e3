#include <gtest/gtest.h>

#include <random>
#include <set>
#include <string>
#include <vector>

#include "store/base/crc32c.h"
#include "store/base/fault_point.h"
#include "store/base/result.h"
#include "store/base/sha256.h"
#include "store/base/units.h"

namespace corpusd {
namespace {

std::span<const std::byte> Bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

TEST(Status, KeepsCodeTextAndContext) {
  const Status status = NotFoundError("corpus 'a' does not exist").WithContext("asking");
  EXPECT_EQ(status.code(), StatusCode::kNotFound);
  EXPECT_EQ(status.ToString(), "not_found: asking: corpus 'a' does not exist");
  EXPECT_TRUE(OkStatus().WithContext("asking").ok());
}

TEST(Status, CodesAreDistinctAndHaveHttpNumbers) {
  std::set<int> numbers;
  std::set<std::string_view> texts;
#define X(name, number, text, http)                  \
  EXPECT_TRUE(numbers.insert(number).second);        \
  EXPECT_TRUE(texts.insert(text).second);            \
  EXPECT_EQ(StatusCodeText(StatusCode::name), text); \
  EXPECT_EQ(StatusCodeHttp(StatusCode::name), http);
#include "store/base/status_codes.inc"
#undef X
}

TEST(ResultDeathTest, DereferencingAnErrorAborts) {
  const Result<int> result = InvalidArgumentError("seven");
  EXPECT_DEATH((void)*result, "seven");
}

// RFC 3720, B.4.
TEST(Crc32c, KnownAnswers) {
  EXPECT_EQ(Crc32c(Bytes(std::string(32, '\0'))), 0x8a9136aau);
  EXPECT_EQ(Crc32c(Bytes(std::string(32, '\xff'))), 0x62a8ab43u);
  EXPECT_EQ(Crc32c(Bytes("123456789")), 0xe3069283u);
  EXPECT_EQ(Crc32c({}), 0u);
}

TEST(Crc32c, HardwareEqualsPortableAtEveryLengthAndOffset) {
  std::mt19937 random(7);
  std::vector<std::byte> bytes(3 * 2048 * 3 + 64);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  for (const size_t length : {size_t{0}, size_t{1}, size_t{7}, size_t{8}, size_t{9}, size_t{6143},
                              size_t{6144}, size_t{6145}, size_t{12295}, bytes.size() - 3}) {
    for (size_t offset = 0; offset < 3; ++offset) {
      const auto part = std::span(bytes).subspan(offset, length);
      EXPECT_EQ(Crc32c(part), Crc32cPortable(part)) << length << " at " << offset;
    }
  }
}

TEST(Crc32c, EverySingleBitFlipIsSeen) {
  std::string text(64, 'x');
  const uint32_t whole = Crc32c(Bytes(text));
  for (size_t bit = 0; bit < text.size() * 8; ++bit) {
    text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << bit % 8));
    EXPECT_NE(Crc32c(Bytes(text)), whole) << bit;
    text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << bit % 8));
  }
}

// FIPS 180-4 examples.
TEST(Sha256, KnownAnswersInPieces) {
  Sha256 hash;
  hash.Update("a");
  hash.Update("bc");
  EXPECT_EQ(HexText(hash.Finish()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Units, BytesAndDurations) {
  EXPECT_EQ(*ParseBytes("4GiB"), uint64_t{4} << 30);
  EXPECT_EQ(*ParseBytes("1.5 KiB"), 1536u);
  EXPECT_EQ(*ParseBytes("10MB"), 10'000'000u);
  EXPECT_EQ(*ParseBytes("0"), 0u);
  EXPECT_EQ(*ParseDurationMs("30d"), 30LL * 24 * 3600 * 1000);
  EXPECT_EQ(*ParseDurationMs("250ms"), 250);
  for (const char* const bad : {"", "GiB", "-1", "4Gib", "1e400", "4 GiB extra", "nan"}) {
    EXPECT_FALSE(ParseBytes(bad).ok()) << bad;
    EXPECT_FALSE(ParseDurationMs(bad).ok()) << bad;
  }
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(12), "12 B");
}

TEST(FaultPoint, FailsAsArmedAndOnlyThen) {
  EXPECT_TRUE(FaultPoint("unit.test").ok());
  ArmFault("unit.test", FaultKind::kNoSpace, /*after=*/1, /*times=*/1);
  EXPECT_TRUE(FaultPoint("unit.test").ok());
  EXPECT_TRUE(FaultPoint("unit.other").ok());
  EXPECT_EQ(FaultPoint("unit.test").code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(FaultPoint("unit.test").ok());
  DisarmFaults();
}

TEST(FaultPoint, EnvironmentIsCheckedForSense) {
  setenv("CORPUSD_FAULT", "payload.write=eio:after=2:times=3", 1);
  EXPECT_TRUE(ArmFaultsFromEnvironment().ok());
  setenv("CORPUSD_FAULT", "one=eio:times=1,other=enospc", 1);
  EXPECT_TRUE(ArmFaultsFromEnvironment().ok());
  EXPECT_EQ(FaultPoint("one").code(), StatusCode::kIoError);
  EXPECT_TRUE(FaultPoint("one").ok());
  EXPECT_EQ(FaultPoint("other").code(), StatusCode::kResourceExhausted);
  for (const char* const bad : {"x", "x=boom", "x=eio:soon=1", "x=eio:after=many", "x=eio,"}) {
    setenv("CORPUSD_FAULT", bad, 1);
    EXPECT_EQ(ArmFaultsFromEnvironment().code(), StatusCode::kInvalidArgument) << bad;
  }
  unsetenv("CORPUSD_FAULT");
  DisarmFaults();
}

}  // namespace
}  // namespace corpusd
