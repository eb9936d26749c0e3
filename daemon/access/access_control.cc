#include "daemon/access/access_control.h"

#include <utility>

namespace corpusd {

std::string CredentialsText(const Credentials& credentials) {
  std::string text = credentials.peer ? PeerText(*credentials.peer) : "tcp";
  if (!credentials.from.empty()) text += ", " + credentials.from;
  return text;
}

AccessControl::AccessControl() : table_(std::make_shared<AccessTable>()) {}

Status AccessControl::Open(const std::string& path, uint64_t quota_bytes) {
  ASSIGN_OR_RETURN(auto table, AccessTable::Read(path, quota_bytes));
  path_ = path;
  quota_bytes_ = quota_bytes;
  const std::lock_guard lock(mutex_);
  table_ = std::move(table);
  return OkStatus();
}

Status AccessControl::Reload() {
  ASSIGN_OR_RETURN(auto table, AccessTable::Read(path_, quota_bytes_));
  const std::lock_guard lock(mutex_);
  table_ = std::move(table);
  return OkStatus();
}

std::shared_ptr<const AccessTable> AccessControl::table() const {
  const std::lock_guard lock(mutex_);
  return table_;
}

Result<Principal> AccessControl::Authenticate(const Credentials& credentials) const {
  Result<Principal> principal = PrincipalOf(credentials);
  if (!principal.ok()) {
    audit_.Denied(CredentialsText(credentials), "connect", principal.status().message());
  }
  return principal;
}

Result<Principal> AccessControl::PrincipalOf(const Credentials& credentials) const {
  const auto table = this->table();
  if (!table->restricts() && !credentials.peer) return Principal{"tcp", "", Role::kAdmin};
  if (credentials.token && table->restricts()) {
    Result<Principal> principal = table->OfToken(*credentials.token);
    const bool ours = credentials.token->starts_with(kTokenPrefix);
    if (principal.ok() || ours || !credentials.peer) return principal;
  }
  if (credentials.peer) return table->OfPeer(*credentials.peer);
  return Status(StatusCode::kPermissionDenied,
                "a bearer token is needed: Authorization: Bearer TOKEN");
}

Peer ActingPeer(const Principal& principal, const Credentials& credentials, bool restricts) {
  Peer peer = credentials.peer.value_or(Peer{});
  // Without a table the kernel alone says whose pins are whose.
  if (!restricts) return peer;
  peer.known = true;
  peer.owner = OwnerOf(principal);
  peer.admin = principal.role == Role::kAdmin;
  return peer;
}

}  // namespace corpusd
