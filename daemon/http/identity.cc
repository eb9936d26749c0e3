#include "daemon/http/identity.h"

namespace corpusd {

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
