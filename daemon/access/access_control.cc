#include "daemon/access/access_control.h"

#include <utility>

#include "daemon/log.h"

namespace corpusd {
namespace {

std::string WhoText(const Credentials& credentials) {
  std::string text = credentials.peer ? PeerText(*credentials.peer) : "unknown peer";
  if (!credentials.from.empty()) text += ", " + credentials.from;
  return text;
}

}  // namespace

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
  const auto table = this->table();
  Result<Principal> principal = Status(StatusCode::kPermissionDenied,
                                       "a bearer token is needed: Authorization: Bearer TOKEN");
  if (credentials.token) {
    principal = table->OfToken(*credentials.token);
  } else if (credentials.peer) {
    principal = table->OfPeer(*credentials.peer);
  }
  if (!principal.ok()) AuditDenied(WhoText(credentials), "connect", principal.status().message());
  return principal;
}

Peer ActingPeer(const Principal& principal, const Credentials& credentials, bool restricts) {
  Peer peer = credentials.peer.value_or(Peer{});
  peer.known = true;
  // Without a table everybody is an admin of his own corpora, and the kernel says whose pins are
  // whose.
  if (restricts || credentials.token) {
    peer.owner = OwnerOf(principal);
    peer.admin = principal.role == Role::kAdmin;
  }
  return peer;
}

void AuditAdmin(const Principal& principal, std::string_view what, std::string_view corpus) {
  Log(LogLevel::kInfo, "audit",
      {{"outcome", "allowed"},
       {"who", PrincipalText(principal)},
       {"what", what},
       {"corpus", corpus}});
}

void AuditDenied(std::string_view who, std::string_view what, std::string_view why) {
  Log(LogLevel::kWarn, "audit",
      {{"outcome", "denied"}, {"who", who}, {"what", what}, {"why", why}});
}

}  // namespace corpusd
