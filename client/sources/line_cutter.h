// client/sources/line_cutter.h -- LineCutter: the lines of a text that comes in pieces. A line that
// is longer than the limit comes in several parts, so memory is bounded whatever the text. One
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace corpusd::sources {

// A line or a part of one, without its line feed and the carriage return before that.
struct LinePart {
  std::string_view text;
  uint64_t number = 1;  // of the line, from 1
  bool starts = true;
  bool ends = true;
};

class LineCutter {
 public:
  using OnPart = std::function<bool(const LinePart& part)>;

  LineCutter(size_t part_bytes_max, OnPart on_part)
      : part_bytes_max_(part_bytes_max), on_part_(std::move(on_part)) {}

  // false: on_part wants no more.
  bool Write(std::string_view piece);
  // The last line need not end with a line feed.
  bool Finish();

 private:
  bool Emit(std::string_view text, bool ends);

  const size_t part_bytes_max_;
  const OnPart on_part_;
  std::string held_;  // the beginning of a line
  uint64_t number_ = 1;
  bool starts_ = true;
};

}  // namespace corpusd::sources
