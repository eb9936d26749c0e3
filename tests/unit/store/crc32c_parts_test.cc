// The arithmetic that joins checksums of slices on a device, checked on the CPU.
#include "store/cuda/crc32c_parts.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "store/base/crc32c.h"

namespace corpusd::cuda {
namespace {

uint32_t CrcOf(const std::string& text) {
  return Crc32c(std::as_bytes(std::span(text.data(), text.size())));
}

// CRC32C without the first and last inversion: what slices are summed by.
uint32_t RawCrc(const std::string& text) {
  return CrcOf(text) ^ 0xFFFFFFFFu ^ MultiplyCrc(0xFFFFFFFFu, CrcOfFollowing(text.size()));
}

TEST(Crc32cParts, SlicesJoinToTheWhole) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += static_cast<char>(i * 37 + i / 7);
  for (const size_t cut : {0u, 1u, 16u, 150u, 299u, 300u}) {
    const std::string head = text.substr(0, cut), tail = text.substr(cut);
    EXPECT_EQ(MultiplyCrc(RawCrc(head), CrcOfFollowing(tail.size())) ^ RawCrc(tail), RawCrc(text))
        << cut;
  }
}

TEST(Crc32cParts, ZerosInFrontDoNotChangeARawSum) {
  EXPECT_EQ(RawCrc(std::string(40, '\0') + "corpus"), RawCrc("corpus"));
  EXPECT_EQ(RawCrc(std::string(40, '\0')), 0u);
}

TEST(Crc32cParts, OneIsNeutral) {
  EXPECT_EQ(CrcOfFollowing(0), 0x80000000u);
  EXPECT_EQ(MultiplyCrc(0x80000000u, 0x12345678u), 0x12345678u);
  EXPECT_EQ(MultiplyCrc(0x12345678u, 0x80000000u), 0x12345678u);
}

}  // namespace
}  // namespace corpusd::cuda
