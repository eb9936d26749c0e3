#include "daemon/http/identity.h"

#include <algorithm>
#include <cctype>

namespace corpusd {

Credentials CredentialsOf(const Identity& identity) {
  Credentials credentials;
  if (!identity.tcp) credentials.peer = identity.peer;
  credentials.token = identity.token;
  credentials.from = "http";
  return credentials;
}

std::optional<std::string> BearerToken(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() < kScheme.size()) return std::nullopt;
  const auto same = [](char scheme, char given) {
    return std::tolower(static_cast<unsigned char>(given)) == scheme;
  };
  if (!std::equal(kScheme.begin(), kScheme.end(), authorization.begin(), same)) return std::nullopt;
  authorization.remove_prefix(kScheme.size());
  while (authorization.starts_with(' ')) authorization.remove_prefix(1);
  while (authorization.ends_with(' ')) authorization.remove_suffix(1);
  return std::string(authorization);
}

std::string IdentityText(const Identity& identity) {
  return identity.tcp ? "tcp" : PeerText(identity.peer);
}

Status CheckAccess(const Identity& identity, Access access) {
  if (access != Access::kAdmin || identity.peer.admin) return OkStatus();
  return {
      StatusCode::kPermissionDenied,
      "only root and the user that corpusd runs as may do this, over the Unix socket (you are " +
          IdentityText(identity) + ")"};
}

}  // namespace corpusd
