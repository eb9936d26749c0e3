#include "store/block_header.h"

#include <gtest/gtest.h>

#include <random>

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
