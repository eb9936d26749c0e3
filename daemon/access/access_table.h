// daemon/access/access_table.h -- AccessTable: who may do what, read from a TOML file once. A user,
// a group or a token has a role, and may belong to a tenant. Names of users and groups are looked
// up when it is read, so that whoever connects waits for no directory service. Immutable; any
// thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/access/access_tokens.h"
#include "daemon/access/principal.h"
#include "daemon/rpc/peer.h"
#include "store/base/result.h"

namespace corpusd {

// The file:
//   others = "none"                 # whom nothing names: none (default), reader, writer or admin
//   tokens = "tokens"               # file of bearer tokens, beside this one (access_tokens.h)
//   [users]
//   alice = "writer"                # of the daemon's own tenant
//   "uid:1003" = "reader:acme"      # of tenant acme
//   [groups]
//   ops = "admin"
//   [tenants]                       # all of them, with what their corpora may take on disk
//   acme = "20GiB"                  # "0": no limit
class AccessTable {
 public:
  // path: "" is a daemon without a table: whoever may connect to its socket is an admin of the one
  // tenant, and no token is taken. quota_bytes: what the tenants' quotas may sum to.
  // kInvalidArgument names the file and the line of the first thing that is wrong; problems, if not
  // null, gets all of them.
  static Result<std::shared_ptr<const AccessTable>> Read(
      const std::string& path, uint64_t quota_bytes, std::vector<std::string>* problems = nullptr);

  // kPermissionDenied, saying what the table has no line for. Somebody whom the table names goes by
  // that line; else by the strongest of his groups' lines, which must all be of one tenant; else by
  // `others`. root and the user that the daemon runs as are admins unless the table names them.
  Result<Principal> OfPeer(const Peer& peer) const;
  // kPermissionDenied for an unknown token. Takes as long for a wrong token as for a right one.
  Result<Principal> OfToken(std::string_view token) const;

  bool HasTenant(std::string_view tenant) const {
    return tenant.empty() || quotas_.contains(tenant);
  }
  // Bytes on disk that the tenant's corpora may take; 0: no limit.
  uint64_t QuotaOf(std::string_view tenant) const;
  // Whether there is a file.
  bool restricts() const { return restricts_; }

 private:
  struct Grant {
    Role role = Role::kReader;
    std::string tenant;
    std::string user;  // as the table calls him; "": of a group or of others
  };
  class Reader;

  Result<Principal> OfGroups(const Peer& peer) const;

  bool restricts_ = false;
  std::optional<Grant> others_;
  std::map<uint32_t, Grant> users_;   // by uid
  std::map<uint32_t, Grant> groups_;  // by gid
  std::map<std::string, uint64_t, std::less<>> quotas_;
  AccessTokens tokens_;
};

}  // namespace corpusd
