// daemon/version.h -- the version of this build, as `corpusd --version` and the protocol's
// VersionReply say it. CORPUSD_VERSION comes from project() in the root CMakeLists.txt.
#pragma once

#include <cstdint>
#include <string_view>

namespace corpusd {

inline constexpr std::string_view kVersion = CORPUSD_VERSION;
inline constexpr uint32_t kProtocolVersion = 1;

}  // namespace corpusd
