// daemon/access/principal.h -- who asks, once it is known: a name, a tenant and a role; and what of
// the daemon that lets him see. Corpora of a tenant are stored as "TENANT/NAME"; he himself says
// NAME. Values; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "store/tenant_of.h"

namespace corpusd {

// Each may do what those before it may.
enum class Role : uint8_t {
  kReader,  // ask and look
  kWriter,  // make, change, pin, evict and remove corpora
  kAdmin    // import, and change others' pins
};
std::string_view RoleText(Role role);  // "reader", "writer", "admin"
// false for any other text.
bool ParseRole(std::string_view text, Role* role);

struct Principal {
  std::string name;    // a user's, "uid:1000", or "token:NAME"
  std::string tenant;  // "": the daemon's own
  Role role = Role::kReader;
  // An admin of the daemon's own tenant: sees all corpora, by their whole names, and may do what
  // concerns all, such as a scrub.
  bool IsOperator() const { return role == Role::kAdmin && tenant.empty(); }
  bool operator==(const Principal&) const = default;
};

// Whether the principal may know that there is a corpus of this whole name.
inline bool MaySee(const Principal& principal, std::string_view corpus) {
  return principal.IsOperator() || TenantOf(corpus) == principal.tenant;
}

// "alice (writer of acme)", for logs.
std::string PrincipalText(const Principal& principal);
// To whom a pin is charged: the name, with the tenant before it if it is not the daemon's own.
std::string OwnerOf(const Principal& principal);

}  // namespace corpusd
