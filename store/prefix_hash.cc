#include "store/prefix_hash.h"

#include <algorithm>
#include <cstring>

#include "store/base/check.h"
#include "store/base/sha256.h"

namespace corpusd {
namespace {

constexpr std::string_view kRootTag = "corpusd.root.v1";
constexpr std::string_view kBlockTag = "corpusd.block.v1";

void UpdateU64(Sha256& hash, uint64_t value) {
  std::array<char, 8> bytes;
  for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(value >> (8 * i));
  hash.Update(std::string_view(bytes.data(), bytes.size()));
}

void UpdateText(Sha256& hash, std::string_view text) {
  UpdateU64(hash, text.size());
  hash.Update(text);
}

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string ValueOf(std::span<const IdentityField> fields, std::string_view name) {
  for (const IdentityField& field : fields) {
    if (field.name == name) return "'" + field.value + "'";
  }
  return "nothing";
}

}  // namespace

std::string Digest::Hex() const { return HexText(bytes); }

bool Digest::FromHex(std::string_view text, Digest* digest) {
  if (text.size() != 64) return false;
  for (size_t i = 0; i < 32; ++i) {
    const int high = HexValue(text[2 * i]);
    const int low = HexValue(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    digest->bytes[i] = static_cast<uint8_t>(high * 16 + low);
  }
  return true;
}

size_t DigestHash::operator()(const Digest& d) const {
  size_t value;  // SHA-256 is uniform: any eight bytes will do
  std::memcpy(&value, d.bytes.data(), sizeof value);
  return value;
}

Digest ChainRoot(std::span<const IdentityField> fields) {
  Sha256 hash;
  UpdateText(hash, kRootTag);
  UpdateU64(hash, fields.size());
  for (const IdentityField& field : fields) {
    UpdateText(hash, field.name);
    UpdateText(hash, field.value);
  }
  return {hash.Finish()};
}

Digest ExtendChain(const Digest& parent, std::span<const TokenId> tokens) {
  CHECK(!tokens.empty()) << "a block has at least one token";
  Sha256 hash;
  UpdateText(hash, kBlockTag);
  hash.Update(std::as_bytes(std::span(parent.bytes)));
  UpdateU64(hash, tokens.size());
  static_assert(std::endian::native == std::endian::little, "ids are hashed little-endian");
  hash.Update(std::as_bytes(tokens));
  return {hash.Finish()};
}

std::vector<Digest> BuildChain(const Digest& root, std::span<const TokenId> tokens,
                               uint32_t block_tokens) {
  std::vector<Digest> chain;
  chain.reserve((tokens.size() + block_tokens - 1) / block_tokens);
  Digest parent = root;
  for (size_t first = 0; first < tokens.size(); first += block_tokens) {
    parent = ExtendChain(
        parent, tokens.subspan(first, std::min<size_t>(block_tokens, tokens.size() - first)));
    chain.push_back(parent);
  }
  return chain;
}

std::string DescribeIdentityMismatch(std::span<const IdentityField> stored,
                                     std::span<const IdentityField> asked) {
  std::string text;
  const auto add = [&](const std::string& name) {
    if (!text.empty()) text += "; ";
    text += name + ": stored " + ValueOf(stored, name) + ", now " + ValueOf(asked, name);
  };
  for (const IdentityField& field : stored) {
    if (ValueOf(asked, field.name) != ValueOf(stored, field.name)) add(field.name);
  }
  for (const IdentityField& field : asked) {
    if (ValueOf(stored, field.name) == "nothing") add(field.name);
  }
  return text;
}

}  // namespace corpusd
