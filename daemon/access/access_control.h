// daemon/access/access_control.h -- AccessControl: credentials in, a principal or a denial out, for
// every surface of the daemon; has the audit of who was denied and what admins did. The table can
// be read again while the daemon runs: the next request goes by the new one. Thread-safe;
// Authenticate never waits for anything but the log.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "daemon/access/access_table.h"
#include "daemon/access/audit_log.h"
#include "daemon/access/principal.h"
#include "daemon/rpc/peer.h"
#include "store/base/result.h"

namespace corpusd {

// What a client shows.
struct Credentials {
  std::optional<Peer> peer;          // of a Unix socket; over TCP there is none
  std::optional<std::string> token;  // of "Authorization: Bearer ..."
  std::string from;                  // what else logs should say
};
// For logs; never the token.
std::string CredentialsText(const Credentials& credentials);

class AccessControl {
 public:
  // Without a table until Open: whoever may connect to the Unix socket is an admin.
  AccessControl();
  // path, quota_bytes: as of AccessTable::Read.
  Status Open(const std::string& path, uint64_t quota_bytes);
  // Reads the file again; if it is wrong the table stays as it was.
  Status Reload();

  // kPermissionDenied, which has been logged. A token that is known goes before the peer; one that
  // is none of corpusd's, which some clients send always, counts for nothing beside a peer. Without
  // a table tokens are not looked at, and whoever connects over TCP may do what those on the socket
  // may.
  Result<Principal> Authenticate(const Credentials& credentials) const;
  std::shared_ptr<const AccessTable> table() const;
  AuditLog& audit() const { return audit_; }

 private:
  Result<Principal> PrincipalOf(const Credentials& credentials) const;

  std::string path_;
  uint64_t quota_bytes_ = 0;
  mutable AuditLog audit_;
  mutable std::mutex mutex_;
  std::shared_ptr<const AccessTable> table_;
};

// The peer that handlers know a principal as: its pins are the principal's, and an admin may change
// those of others.
Peer ActingPeer(const Principal& principal, const Credentials& credentials, bool restricts);

}  // namespace corpusd
