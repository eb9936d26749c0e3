#include "store/prefix_hash.h"

#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <numeric>

namespace corpusd {
namespace {

std::map<std::string, std::string> Golden() {
  std::map<std::string, std::string> golden;
  std::ifstream file("tests/golden/chain.txt");
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    const size_t space = line.rfind(' ');
    golden[line.substr(0, space)] = line.substr(space + 1);
  }
  return golden;
}

TEST(PrefixHash, GoldenVectors) {
  const auto golden = Golden();
  ASSERT_EQ(golden.size(), 4u);
  const std::vector<IdentityField> fields = {
      {"schema", "1"}, {"weights", "abc"}, {"kv_format", ""}, {"tenant", std::string("\0x", 2)}};
  const Digest root = ChainRoot(fields);
  EXPECT_EQ(root.Hex(), golden.at("root"));
  std::vector<TokenId> ids(128);
  std::iota(ids.begin(), ids.end(), 0);
  const Digest first = ExtendChain(root, ids);
  EXPECT_EQ(first.Hex(), golden.at("block 0..127"));
  EXPECT_EQ(ExtendChain(first, std::vector<TokenId>{49151}).Hex(), golden.at("block 49151"));
  EXPECT_EQ(ExtendChain(root, std::vector<TokenId>{0}).Hex(), golden.at("block 0"));
}

// Length prefixes keep (a, bc) and (ab, c) apart.
TEST(PrefixHash, FieldBordersMatter) {
  const std::vector<IdentityField> one = {{"a", "bc"}};
  const std::vector<IdentityField> other = {{"ab", "c"}};
  EXPECT_NE(ChainRoot(one), ChainRoot(other));
}

TEST(PrefixHash, AChainSharesExactlyTheBlocksBeforeTheFirstDifference) {
  std::vector<TokenId> a(1000);
  std::iota(a.begin(), a.end(), 5);
  std::vector<TokenId> b = a;
  b[300] ^= 1;
  const auto chain_a = BuildChain({}, a, 128);
  const auto chain_b = BuildChain({}, b, 128);
  ASSERT_EQ(chain_a.size(), 8u);
  for (size_t i = 0; i < chain_a.size(); ++i) {
    EXPECT_EQ(chain_a[i] == chain_b[i], i < 300 / 128) << i;
  }
}

TEST(PrefixHash, HexRoundTripsAndRefusesOtherText) {
  const Digest digest = ChainRoot({});
  Digest parsed;
  ASSERT_TRUE(Digest::FromHex(digest.Hex(), &parsed));
  EXPECT_EQ(parsed, digest);
  EXPECT_FALSE(Digest::FromHex("12", &parsed));
  EXPECT_FALSE(Digest::FromHex(std::string(64, 'g'), &parsed));
}

TEST(PrefixHash, MismatchNamesEveryFieldThatDiffers) {
  const std::vector<IdentityField> stored = {
      {"weights", "w1"}, {"kv_format", "bf16"}, {"old", "x"}};
  const std::vector<IdentityField> asked = {{"weights", "w2"}, {"kv_format", "bf16"}, {"new", "y"}};
  EXPECT_EQ(DescribeIdentityMismatch(stored, asked),
            "weights: stored 'w1', now 'w2'; old: stored 'x', now nothing; "
            "new: stored nothing, now 'y'");
  EXPECT_EQ(DescribeIdentityMismatch(stored, stored), "");
}

}  // namespace
}  // namespace corpusd
