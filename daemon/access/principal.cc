#include "daemon/access/principal.h"

#include <array>

namespace corpusd {
namespace {

constexpr std::array<std::string_view, 3> kRoles = {"reader", "writer", "admin"};

}  // namespace

std::string_view RoleText(Role role) { return kRoles[static_cast<size_t>(role)]; }

bool ParseRole(std::string_view text, Role* role) {
  for (size_t i = 0; i < kRoles.size(); ++i) {
    if (text != kRoles[i]) continue;
    *role = static_cast<Role>(i);
    return true;
  }
  return false;
}

std::string PrincipalText(const Principal& principal) {
  return principal.name + " (" + std::string(RoleText(principal.role)) +
         (principal.tenant.empty() ? "" : " of " + principal.tenant) + ")";
}

std::string OwnerOf(const Principal& principal) {
  return principal.tenant.empty() ? principal.name : principal.tenant + "/" + principal.name;
}

}  // namespace corpusd
