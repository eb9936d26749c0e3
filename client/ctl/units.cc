#include "client/ctl/units.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <utility>

#include "client/wire/object_json.h"

namespace corpusd::ctl {
namespace {

struct DurationUnit {
  std::string_view name;
  double milliseconds;
};

// "ms" stands before "m", so that the longer name is tried first.
constexpr std::array kDurationUnits = {
    DurationUnit{"ms", 1.0},         DurationUnit{"s", 1000.0},
    DurationUnit{"m", 60'000.0},     DurationUnit{"h", 3'600'000.0},
    DurationUnit{"d", 86'400'000.0}, DurationUnit{"w", 7 * 86'400'000.0},
};

constexpr double kDurationMsMax = 1000.0 * 366 * 86'400'000;
constexpr double kDurationSecondsMax = kDurationMsMax / 1000;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

std::string Print(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

// Reads "12" or "1.5" off the front of text. RETURNS nothing if there is no number.
std::optional<double> TakeNumber(std::string_view& text) {
  double value = 0;
  double scale = 1;
  bool after_point = false;
  size_t used = 0;
  size_t digits = 0;
  for (; used < text.size(); ++used) {
    const char c = text[used];
    if (c == '.' && !after_point) {
      after_point = true;
    } else if (IsDigit(c)) {
      ++digits;
      value = value * 10 + (c - '0');
      if (after_point) scale *= 10;
    } else {
      break;
    }
  }
  if (digits == 0 || digits > 18) return std::nullopt;
  text.remove_prefix(used);
  return value / scale;
}

}  // namespace

std::string FormatBytes(uint64_t bytes) {
  if (bytes < 1024) return std::to_string(bytes) + " B";
  constexpr std::array kNames = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  // 1023.5 would print as 1024: it is already one of the next unit.
  while (value >= 1023.5 && unit + 1 < kNames.size()) {
    value /= 1024;
    ++unit;
  }
  return Print(value < 99.95 ? "%.1f " : "%.0f ", value) + kNames[unit];
}

std::string FormatDuration(double seconds) {
  if (!(seconds >= 0) || seconds > kDurationSecondsMax) return "-";
  if (seconds < 9.95) return Print("%.1fs", seconds);
  const auto whole = static_cast<int64_t>(std::llround(seconds));
  char text[64];
  if (whole < 60) {
    std::snprintf(text, sizeof text, "%llds", static_cast<long long>(whole));
  } else if (whole < 3600) {
    std::snprintf(text, sizeof text, "%lldm%02llds", static_cast<long long>(whole / 60),
                  static_cast<long long>(whole % 60));
  } else if (whole < 86400) {
    std::snprintf(text, sizeof text, "%lldh%02lldm", static_cast<long long>(whole / 3600),
                  static_cast<long long>(whole % 3600 / 60));
  } else {
    std::snprintf(text, sizeof text, "%lldd%lldh", static_cast<long long>(whole / 86400),
                  static_cast<long long>(whole % 86400 / 3600));
  }
  return text;
}

std::string FormatMilliseconds(double milliseconds) {
  if (!(milliseconds >= 0)) return "-";
  if (milliseconds < 99.95) return Print("%.3g ms", milliseconds);
  if (milliseconds < 999.5) return Print("%.0f ms", milliseconds);
  return FormatDuration(milliseconds / 1000);
}

std::string FormatCount(uint64_t count) {
  std::string digits = std::to_string(count);
  for (size_t at = digits.size(); at > 3;) {
    at -= 3;
    digits.insert(at, ",");
  }
  return digits;
}

std::string FormatRate(double per_second) {
  if (!(per_second >= 0) || per_second > 1e18) return "-";
  if (per_second < 9.95) return Print("%.1f", per_second);
  return FormatCount(static_cast<uint64_t>(std::llround(per_second)));
}

std::string FormatAge(int64_t then_ms, int64_t now_ms) {
  if (then_ms <= 0) return "-";
  const bool past = then_ms <= now_ms;
  // To the nearest second: what was set to two days a moment ago is "in 2d", not "in 47h".
  const int64_t seconds = ((past ? now_ms - then_ms : then_ms - now_ms) + 500) / 1000;
  if (seconds == 0) return "now";
  std::string length;
  if (seconds < 60) {
    length = std::to_string(seconds) + "s";
  } else if (seconds < 3600) {
    length = std::to_string(seconds / 60) + "m";
  } else if (seconds < 48 * 3600) {
    length = std::to_string(seconds / 3600) + "h";
  } else {
    length = std::to_string(seconds / 86400) + "d";
  }
  return past ? length + " ago" : "in " + length;
}

std::string FormatTimestamp(int64_t time_ms) { return TimestampText(time_ms); }

std::optional<std::chrono::milliseconds> ParseDuration(std::string_view text) {
  if (text.empty()) return std::nullopt;
  double total = 0;
  bool has_unit = false;
  while (!text.empty()) {
    const std::optional<double> number = TakeNumber(text);
    if (!number) return std::nullopt;
    if (text.empty() && !has_unit) {
      total = *number * 1000;
      break;
    }
    const DurationUnit* found = nullptr;
    for (const DurationUnit& unit : kDurationUnits) {
      if (text.starts_with(unit.name)) {
        found = &unit;
        break;
      }
    }
    if (found == nullptr) return std::nullopt;
    text.remove_prefix(found->name.size());
    total += *number * found->milliseconds;
    has_unit = true;
  }
  if (total > kDurationMsMax) return std::nullopt;
  return std::chrono::milliseconds(std::llround(total));
}

std::optional<uint64_t> ParseByteRate(std::string_view text) {
  static constexpr std::array<std::pair<std::string_view, double>, 11> kUnits = {{{"", 1.0},
                                                                                  {"B", 1.0},
                                                                                  {"kB", 1e3},
                                                                                  {"KB", 1e3},
                                                                                  {"MB", 1e6},
                                                                                  {"GB", 1e9},
                                                                                  {"KiB", 0x1p10},
                                                                                  {"MiB", 0x1p20},
                                                                                  {"GiB", 0x1p30},
                                                                                  {"M", 0x1p20},
                                                                                  {"G", 0x1p30}}};
  if (text.ends_with("/s")) text.remove_suffix(2);
  double number = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (error != std::errc() || number < 0) return std::nullopt;
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  for (const auto& [name, factor] : kUnits) {
    if (name == unit && number * factor < 0x1p63) return static_cast<uint64_t>(number * factor);
  }
  return std::nullopt;
}

}  // namespace corpusd::ctl
