#include "engine/decode/stop_strings.h"

#include <algorithm>
#include <utility>

namespace corpusd {

std::string StopStrings::Append(std::string_view piece) {
  held_.append(piece);
  size_t first = 0;
  size_t end = std::string::npos;
  for (const std::string& stop : stops_) {
    const size_t at = held_.find(stop);
    if (at == std::string::npos || at + stop.size() > end) continue;
    if (at + stop.size() == end && at > first) continue;
    first = at;
    end = at + stop.size();
    found_ = stop;
  }
  // A stop string is UTF-8, and so is the text: one begins in the other at a character's border.
  const size_t passed = found_.empty() ? held_.size() - PossibleStart() : first;
  std::string out = held_.substr(0, passed);
  held_.erase(0, found_.empty() ? passed : held_.size());
  return out;
}

std::string StopStrings::Finish() { return std::exchange(held_, {}); }

size_t StopStrings::PossibleStart() const {
  size_t longest = 0;
  for (const std::string& stop : stops_) {
    for (size_t size = std::min(stop.size() - 1, held_.size()); size > longest; --size) {
      if (held_.ends_with(std::string_view(stop).substr(0, size))) longest = size;
    }
  }
  return longest;
}

}  // namespace corpusd
