// daemon/access/access_tokens.h -- bearer tokens as a file keeps them: one a line, as
// `name:role:tenant:salt:hash` with the tenant empty for the daemon's own, the salt in hex, and
// hash = hex SHA-256(salt bytes, token). A token has 32 random bytes, which no hash however slow
// would make harder to guess, so a fast one does. Blank lines and lines that begin with '#' say
// nothing. Immutable; any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/access/principal.h"
#include "store/base/result.h"
#include "store/base/sha256.h"

namespace corpusd {

// Of tokens that `corpusctl token` makes, so that they are known when they leak.
inline constexpr std::string_view kTokenPrefix = "corpusd_";

class AccessTokens {
 public:
  AccessTokens() = default;
  // kPermissionDenied if others than the file's owner may read it. kInvalidArgument names the line.
  static Result<AccessTokens> Read(const std::string& path);
  static Result<AccessTokens> Parse(std::string_view text, const std::string& path);

  // The principal of "token:NAME", or none. Compares with every line, in constant time each.
  std::optional<Principal> Find(std::string_view token) const;
  // Of the lines' tenants, each once.
  std::vector<std::string> Tenants() const;
  size_t size() const { return lines_.size(); }

 private:
  struct Line {
    Principal principal;
    std::string salt;  // bytes
    Sha256Bytes hash;
  };
  std::vector<Line> lines_;
};

}  // namespace corpusd
