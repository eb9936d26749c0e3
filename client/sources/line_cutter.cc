#include "client/sources/line_cutter.h"

#include <algorithm>
#include <utility>

namespace corpusd::sources {

bool LineCutter::Emit(std::string_view text, bool ends) {
  if (ends && text.ends_with('\r')) text.remove_suffix(1);
  const bool go_on = on_part_({text, number_, starts_, ends});
  starts_ = ends;
  if (ends) ++number_;
  return go_on;
}

bool LineCutter::Write(std::string_view piece) {
  while (!piece.empty()) {
    const size_t end = piece.find('\n');
    const bool ends = end != std::string_view::npos;
    std::string_view line = piece.substr(0, end);
    piece.remove_prefix(ends ? end + 1 : piece.size());
    while (held_.size() + line.size() > part_bytes_max_) {
      const size_t taken = std::min(part_bytes_max_ - held_.size(), line.size());
      held_ += line.substr(0, taken);
      line.remove_prefix(taken);
      const std::string part = std::exchange(held_, {});
      if (!Emit(part, false)) return false;
    }
    if (!ends) {
      held_ += line;
    } else if (held_.empty()) {
      if (!Emit(line, true)) return false;
    } else {
      held_ += line;
      const std::string whole = std::exchange(held_, {});
      if (!Emit(whole, true)) return false;
    }
  }
  return true;
}

bool LineCutter::Finish() {
  if (held_.empty() && starts_) return true;
  const std::string last = std::exchange(held_, {});
  return Emit(last, true);
}

}  // namespace corpusd::sources
