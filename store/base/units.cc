#include "store/base/units.h"

#include <array>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <span>

namespace corpusd {
namespace {

struct Unit {
  std::string_view name;
  double factor;
};

constexpr std::array kByteUnits = {Unit{"", 1},         Unit{"B", 1},        Unit{"KiB", 1024.0},
                                   Unit{"MiB", 0x1p20}, Unit{"GiB", 0x1p30}, Unit{"TiB", 0x1p40},
                                   Unit{"kB", 1e3},     Unit{"KB", 1e3},     Unit{"MB", 1e6},
                                   Unit{"GB", 1e9},     Unit{"TB", 1e12},    Unit{"K", 1024.0},
                                   Unit{"M", 0x1p20},   Unit{"G", 0x1p30},   Unit{"T", 0x1p40}};
constexpr std::array kTimeUnits = {Unit{"", 1e3},     Unit{"ms", 1},    Unit{"s", 1e3},
                                   Unit{"m", 6e4},    Unit{"h", 3.6e6}, Unit{"d", 8.64e7},
                                   Unit{"w", 6.048e8}};

Result<double> ParseQuantity(std::string_view text, std::span<const Unit> units,
                             const char* examples) {
  const Status malformed =
      InvalidArgumentError("'" + std::string(text) + "' is not a quantity such as " + examples);
  const std::string copy(text);
  if (copy.empty() || std::isdigit(static_cast<unsigned char>(copy[0])) == 0) return malformed;
  char* end = nullptr;
  const double number = std::strtod(copy.c_str(), &end);
  std::string_view unit(end);
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  for (const Unit& candidate : units) {
    if (candidate.name != unit) continue;
    const double value = number * candidate.factor;
    if (!std::isfinite(value) || value >= 0x1p63) return malformed;
    return value;
  }
  return malformed;
}

}  // namespace

Result<uint64_t> ParseBytes(std::string_view text) {
  ASSIGN_OR_RETURN(const double value, ParseQuantity(text, kByteUnits, "4GiB or 512MiB"));
  return static_cast<uint64_t>(value);
}

Result<int64_t> ParseDurationMs(std::string_view text) {
  ASSIGN_OR_RETURN(const double value, ParseQuantity(text, kTimeUnits, "30s, 12h or 30d"));
  return static_cast<int64_t>(value);
}

std::string FormatBytes(uint64_t bytes) {
  static constexpr std::array kNames = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kNames.size()) {
    value /= 1024;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, kNames[unit]);
  return text;
}

}  // namespace corpusd
