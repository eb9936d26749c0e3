// client/ctl/units.h -- numbers as people read and write them: bytes, durations, counts, times. Not
// for JSON, which carries plain numbers (timestamps excepted). Pure; any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace corpusd::ctl {

// "512 B", "1.2 GiB", "123 MiB".
std::string FormatBytes(uint64_t bytes);
// "0.4s", "12s", "3m20s", "2h05m", "3d4h"; "-" for a negative or absurd one.
std::string FormatDuration(double seconds);
// "8.31 ms", "412 ms", "2.4s".
std::string FormatMilliseconds(double milliseconds);
// "12,345".
std::string FormatCount(uint64_t count);
// "1,234" from a rate; one decimal below 10.
std::string FormatRate(double per_second);
// "2h ago", "in 3d", "now"; "-" for a time of 0, which stands for never.
std::string FormatAge(int64_t then_ms, int64_t now_ms);
// "2026-11-23T12:58:16Z".
std::string FormatTimestamp(int64_t time_ms);

// "50MiB/s", "1GB/s", "4096"; the "/s" may be left out. RETURNS nothing for anything else.
std::optional<uint64_t> ParseByteRate(std::string_view text);
// "500ms", "30s", "1h30m", "30d", "2w"; a bare number is seconds.
// RETURNS nothing for anything else, for a negative one and for more than a thousand years.
std::optional<std::chrono::milliseconds> ParseDuration(std::string_view text);

}  // namespace corpusd::ctl
