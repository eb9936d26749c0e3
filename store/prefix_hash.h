// store/prefix_hash.h -- the names of blocks. Digest i of a chain commits to the root and to every
// token in [0, end of block i), so equal digests mean equal prefixes under equal models and
// formats. Pure functions; any thread. Golden vectors: tests/golden/chain.txt.
#pragma once

#include <array>
#include <bit>
#include <compare>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace corpusd {

using TokenId = uint32_t;

struct Digest {
  std::array<uint8_t, 32> bytes{};
  auto operator<=>(const Digest&) const = default;
  std::string Hex() const;
  // RETURNS false unless text is 64 hexadecimal digits.
  static bool FromHex(std::string_view text, Digest* digest);
};

struct DigestHash {
  size_t operator()(const Digest& d) const;
};

// One named ingredient of a corpus's identity, such as {"kv_format", "kv1;k=bf16;..."}.
struct IdentityField {
  std::string name;
  std::string value;
  bool operator==(const IdentityField&) const = default;
};

// SHA-256 over the schema tag and the fields in order, names and values length-prefixed (u64
// little-endian).
Digest ChainRoot(std::span<const IdentityField> fields);
// SHA-256(tag, parent, token count, ids little-endian). REQUIRES: !tokens.empty().
Digest ExtendChain(const Digest& parent, std::span<const TokenId> tokens);
// The digests of all blocks of block_tokens each (the last may be partial).
std::vector<Digest> BuildChain(const Digest& root, std::span<const TokenId> tokens,
                               uint32_t block_tokens);
// "kv_format: stored 'bf16', asked 'int8'; ..." for every field that differs; empty if none does.
std::string DescribeIdentityMismatch(std::span<const IdentityField> stored,
                                     std::span<const IdentityField> asked);

}  // namespace corpusd
