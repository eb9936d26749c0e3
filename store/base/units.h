// store/base/units.h -- quantities as people write them, for options and for messages. Not for
// files: those hold numbers. Pure; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "store/base/result.h"

namespace corpusd {

// "4096", "512KiB", "4GiB", "1.5TiB", "10MB" (decimal without the i). kInvalidArgument otherwise,
// or when it does not fit 63 bits.
Result<uint64_t> ParseBytes(std::string_view text);
// "250ms", "30s", "10m", "12h", "30d", "2w", to milliseconds; a bare number is seconds.
Result<int64_t> ParseDurationMs(std::string_view text);
// "1.2 GiB", "512 B".
std::string FormatBytes(uint64_t bytes);

}  // namespace corpusd
