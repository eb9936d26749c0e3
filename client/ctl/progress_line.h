// client/ctl/progress_line.h -- how far a job is, on stderr: one line rewritten in place on a
// terminal, a plain line every two seconds or tenth of the way otherwise. Formatting is pure;
// ProgressLine is for one thread and does not own its stream.
#pragma once

#include <cstdint>
#include <ostream>
#include <string>

namespace corpusd::ctl {

struct ProgressSample {
  std::string label;  // the corpus
  std::string state;  // "queued", "running", ...
  uint64_t done = 0;
  uint64_t total = 0;  // 0: not known yet
  std::string unit = "tok";
  double per_second = 0;
  double eta_s = -1;  // < 0: unknown
  uint64_t written_bytes = 0;
  uint64_t documents = 0;  // 0: not counted
};

// At most width columns; the bar gives way first, then the line is cut.
std::string FormatProgressBar(const ProgressSample& sample, int width);
// "filings: 43% 12,345/28,000 tok, 1,234 tok/s, ETA 3m20s, 12.3 MiB written".
std::string FormatProgressPlain(const ProgressSample& sample);

enum class ProgressMode { kNone, kPlain, kBar };

class ProgressLine {
 public:
  ProgressLine(std::ostream& err, ProgressMode mode, int width)
      : err_(err), mode_(mode), width_(width) {}
  ~ProgressLine() { Clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void Update(const ProgressSample& sample, int64_t now_ms);
  // Takes the bar off the terminal, so that something else can be printed.
  void Clear();

 private:
  std::ostream& err_;
  ProgressMode mode_;
  int width_;
  bool shown_ = false;
  bool printed_before_ = false;
  int64_t printed_at_ms_ = 0;
  uint64_t printed_tenth_ = 0;
};

}  // namespace corpusd::ctl
