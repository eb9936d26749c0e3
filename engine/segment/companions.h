// engine/segment/companions.h -- the names of the corpora that stand beside a segmented one while
// and after it is updated. '~' is in no name that a user may give. Pure; any thread.
#pragma once

#include <string>
#include <string_view>

namespace corpusd {

// What an update makes, until it takes its place.
inline std::string UpdateName(std::string_view corpus) { return std::string(corpus) + "~update"; }
// What it was before the last update, kept for a while.
inline std::string PreviousName(std::string_view corpus) {
  return std::string(corpus) + "~previous";
}

}  // namespace corpusd
