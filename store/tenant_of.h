// store/tenant_of.h -- whose a corpus is: what comes before the '/' of its name; "": the daemon's
// own. Blocks of tenants have roots of their own (engine/identity.h), and what one needs room for
// evicts no other's. Pure; any thread.
#pragma once

#include <string_view>

namespace corpusd {

inline std::string_view TenantOf(std::string_view corpus) {
  const size_t slash = corpus.find('/');
  return slash == std::string_view::npos ? std::string_view() : corpus.substr(0, slash);
}

}  // namespace corpusd
