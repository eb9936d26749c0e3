// daemon/http/identity.h -- who sends an HTTP request, and whether a route is open to him. The only
// place that decides; handlers ask nothing but whose pin it is. Values; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "daemon/access/access_control.h"
#include "daemon/rpc/peer.h"
#include "store/base/status.h"

namespace corpusd {

// What a route takes.
enum class Access : uint8_t { kPublic, kReader, kWriter, kAdmin };

struct Identity {
  Peer peer;                         // of a Unix socket, by the kernel; over TCP nobody is known
  bool tcp = false;                  // came over TCP
  std::optional<std::string> token;  // as the request shows it
};

// For AccessControl.
Credentials CredentialsOf(const Identity& identity);
// The token of an "Authorization: Bearer TOKEN" header's value; none of another scheme.
std::optional<std::string> BearerToken(std::string_view authorization);

// "uid:1000,gid:1000,pid:812" or "tcp", for logs and leases.
std::string IdentityText(const Identity& identity);

// kPermissionDenied if the route is closed to him. Today whoever can connect may use every route
// but the admin's, which want a known peer: the socket's permissions and the loopback interface
// decide who connects.
Status CheckAccess(const Identity& identity, Access access);

}  // namespace corpusd
