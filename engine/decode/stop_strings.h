// engine/decode/stop_strings.h -- ends a text where one of some strings begins, whatever pieces the
// text comes in: what may be the beginning of a stop string is held back until it is known. One
// answer's; one thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace corpusd {

class StopStrings {
 public:
  explicit StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // Complete UTF-8 pieces in. RETURNS what of the text can be no part of a stop string, complete
  // UTF-8 as well; may be empty. REQUIRES: found() is empty.
  std::string Append(std::string_view piece);
  // The end of the text without a stop string: RETURNS what was held back.
  std::string Finish();
  // The stop string that the text ran into, the first to be complete and of those the longest; "":
  // none yet. What was held back is gone then.
  const std::string& found() const { return found_; }

 private:
  // Bytes at the end of the held text that a stop string may begin with.
  size_t PossibleStart() const;

  const std::vector<std::string> stops_;
  std::string held_;
  std::string found_;
};

}  // namespace corpusd
