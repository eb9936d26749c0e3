#include "store/block_header.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "store/base/crc32c.h"

namespace corpusd {
namespace {

std::vector<std::byte> RandomBytes(size_t size) {
  std::mt19937 random(3);
  std::vector<std::byte> bytes(size);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

TEST(BlockHeader, RoundTrips) {
  const auto payload = RandomBytes(3000);
  const Digest digest = ChainRoot({});
  std::vector<std::byte> encoded;
  EncodeBlockHeader(MakeBlockHeader(digest, 77, payload, 30), &encoded);
  const auto header = DecodeBlockHeader(encoded);
  ASSERT_TRUE(header.ok()) << header.status().ToString();
  EXPECT_EQ(header->digest, digest);
  EXPECT_EQ(header->tokens, 77u);
  EXPECT_EQ(header->EncodedBytes(), encoded.size());
  EXPECT_TRUE(VerifyPayload(*header, payload).ok());
}

TEST(BlockHeader, AnyFlippedBitOfTheHeaderIsRefused) {
  const auto payload = RandomBytes(300);
  std::vector<std::byte> encoded;
  EncodeBlockHeader(MakeBlockHeader({}, 1, payload, 3), &encoded);
  for (size_t bit = 0; bit < encoded.size() * 8; ++bit) {
    auto damaged = encoded;
    damaged[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    EXPECT_EQ(DecodeBlockHeader(damaged).status().code(), StatusCode::kCorruption) << bit;
  }
}

// Each field alone made wrong under a right checksum.
TEST(BlockHeader, ImpossibleFieldsAreRefusedByName) {
  struct Case {
    size_t offset, bytes;
    uint64_t value;
    const char* text;
  };
  const Case cases[] = {
      {0, 4, 1, "magic"},       {4, 2, 2, "version 2"},          {6, 2, 1, "reserved"},
      {8, 4, 72, "length 72"},  {8, 4, 1 << 30, "does not fit"}, {12, 4, 0, "no tokens"},
      {16, 8, 0, "0 payload"},  {16, 8, 301, "301 payload"},     {16, 8, UINT64_MAX, "payload"},
      {24, 4, 0, "0 sections"}, {24, 4, 5000, "5000 sections"},  {24, 4, 4, "does not fit"}};
  for (const Case& c : cases) {
    std::vector<std::byte> encoded;
    EncodeBlockHeader(MakeBlockHeader({}, 1, RandomBytes(300), 3), &encoded);
    std::memcpy(encoded.data() + c.offset, &c.value, c.bytes);
    const uint32_t crc = Crc32c(std::span(encoded).first(encoded.size() - 4));
    std::memcpy(encoded.data() + encoded.size() - 4, &crc, 4);
    const Status status = DecodeBlockHeader(encoded).status();
    EXPECT_EQ(status.code(), StatusCode::kCorruption) << c.text;
    EXPECT_NE(status.message().find(c.text), std::string::npos) << status.message();
  }
}

TEST(BlockHeader, AnyTruncationIsRefused) {
  const auto payload = RandomBytes(300);
  std::vector<std::byte> encoded;
  EncodeBlockHeader(MakeBlockHeader({}, 1, payload, 3), &encoded);
  for (size_t size = 0; size < encoded.size(); ++size) {
    EXPECT_FALSE(DecodeBlockHeader(std::span(encoded).first(size)).ok()) << size;
  }
}

TEST(BlockHeader, PayloadDamageNamesItsSection) {
  auto payload = RandomBytes(3000);
  const BlockHeader header = MakeBlockHeader({}, 1, payload, 30);
  payload[1234] ^= std::byte{1};
  const Status status = VerifyPayload(header, payload);
  EXPECT_EQ(status.code(), StatusCode::kCorruption);
  EXPECT_NE(status.message().find("section 12 "), std::string::npos) << status.message();
  EXPECT_FALSE(VerifyPayload(header, std::span(payload).first(2999)).ok());
}

}  // namespace
}  // namespace corpusd
