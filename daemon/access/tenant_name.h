// daemon/access/tenant_name.h -- how tenants and tokens may be called: what can stand before the
// '/' of a corpus's name and between the ':' of a token's line. Pure; any thread.
#pragma once

#include <algorithm>
#include <string_view>

namespace corpusd {

inline constexpr const char* kTenantNameRule =
    "must have 1 to 64 letters, digits, '_' or '-' and begin with a letter or digit";

inline bool IsTenantName(std::string_view name) {
  const auto alphanumeric = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  return !name.empty() && name.size() <= 64 && alphanumeric(name.front()) &&
         std::all_of(name.begin(), name.end(),
                     [&](char c) { return alphanumeric(c) || c == '_' || c == '-'; });
}

}  // namespace corpusd
