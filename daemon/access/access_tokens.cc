#include "daemon/access/access_tokens.h"

#include <openssl/crypto.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>

#include "daemon/access/tenant_name.h"

namespace corpusd {
namespace {

constexpr size_t kTokensMax = 4096;
constexpr size_t kSaltBytesMin = 8, kSaltBytesMax = 64;

int DigitOf(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

// false unless the text is lower-case hex of whole bytes.
bool ParseHex(std::string_view text, std::string* bytes) {
  if (text.size() % 2 != 0) return false;
  bytes->clear();
  for (size_t i = 0; i < text.size(); i += 2) {
    const int high = DigitOf(text[i]), low = DigitOf(text[i + 1]);
    if (high < 0 || low < 0) return false;
    bytes->push_back(static_cast<char>(high * 16 + low));
  }
  return true;
}

// The text's parts between colons, or none if there are not exactly five.
std::optional<std::array<std::string_view, 5>> FiveParts(std::string_view line) {
  std::array<std::string_view, 5> parts;
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) return std::nullopt;
    parts[i] = line.substr(0, colon);
    line.remove_prefix(colon + 1);
  }
  if (line.find(':') != std::string_view::npos) return std::nullopt;
  parts.back() = line;
  return parts;
}

Sha256Bytes HashOf(std::string_view salt, std::string_view token) {
  Sha256 hash;
  hash.Update(salt);
  hash.Update(token);
  return hash.Finish();
}

}  // namespace

Result<AccessTokens> AccessTokens::Read(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) {
    return InvalidArgumentError("cannot read the tokens in '" + path + "'");
  }
  if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return Status(StatusCode::kPermissionDenied,
                  "the tokens in '" + path + "' must be their owner's alone: chmod 600 it");
  }
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (file.bad()) return InvalidArgumentError("cannot read the tokens in '" + path + "'");
  return Parse(text, path);
}

Result<AccessTokens> AccessTokens::Parse(std::string_view text, const std::string& path) {
  AccessTokens tokens;
  size_t number = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || line.front() == '#') continue;
    // Never the line itself: it is as good as a password list.
    const std::string where = "line " + std::to_string(number) + " of '" + path + "'";
    const auto parts = FiveParts(line);
    if (!parts) return InvalidArgumentError(where + " is no name:role:tenant:salt:hash");
    const auto& [name, role, tenant, salt, hash] = *parts;
    Line entry;
    if (!IsTenantName(name)) return InvalidArgumentError(where + ": the name " + kTenantNameRule);
    entry.principal.name = "token:" + std::string(name);
    if (!ParseRole(role, &entry.principal.role)) {
      return InvalidArgumentError(where + ": the role is none of reader, writer, admin");
    }
    if (!tenant.empty() && !IsTenantName(tenant)) {
      return InvalidArgumentError(where + ": the tenant " + kTenantNameRule);
    }
    entry.principal.tenant = tenant;
    std::string hash_bytes;
    if (!ParseHex(salt, &entry.salt) || entry.salt.size() < kSaltBytesMin ||
        entry.salt.size() > kSaltBytesMax) {
      return InvalidArgumentError(where + ": the salt is not hex of 8 to 64 bytes");
    }
    if (!ParseHex(hash, &hash_bytes) || hash_bytes.size() != entry.hash.size()) {
      return InvalidArgumentError(where + ": the hash is not hex of 32 bytes");
    }
    std::copy(hash_bytes.begin(), hash_bytes.end(), entry.hash.begin());
    tokens.lines_.push_back(std::move(entry));
    if (tokens.lines_.size() > kTokensMax) {
      return InvalidArgumentError("'" + path + "' has more than " + std::to_string(kTokensMax) +
                                  " tokens");
    }
  }
  return tokens;
}

std::optional<Principal> AccessTokens::Find(std::string_view token) const {
  const Line* found = nullptr;
  for (const Line& line : lines_) {
    const Sha256Bytes hash = HashOf(line.salt, token);
    if (CRYPTO_memcmp(hash.data(), line.hash.data(), hash.size()) == 0) found = &line;
  }
  if (found == nullptr) return std::nullopt;
  return found->principal;
}

std::vector<std::string> AccessTokens::Tenants() const {
  std::vector<std::string> tenants;
  for (const Line& line : lines_) tenants.push_back(line.principal.tenant);
  std::sort(tenants.begin(), tenants.end());
  tenants.erase(std::unique(tenants.begin(), tenants.end()), tenants.end());
  return tenants;
}

}  // namespace corpusd
