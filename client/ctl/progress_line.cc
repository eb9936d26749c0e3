#include "client/ctl/progress_line.h"

#include <algorithm>

#include "client/ctl/text.h"
#include "client/ctl/units.h"

namespace corpusd::ctl {
namespace {

constexpr int64_t kPlainIntervalMs = 2000;
constexpr int kBarColumnsMax = 30;
constexpr int kBarColumnsMin = 8;

uint64_t Percent(const ProgressSample& sample) {
  if (sample.total == 0) return 0;
  const double share = static_cast<double>(sample.done) / static_cast<double>(sample.total);
  return static_cast<uint64_t>(std::min(share, 1.0) * 100);
}

std::string Amount(const ProgressSample& sample, uint64_t amount) {
  return sample.unit == "B" ? FormatBytes(amount) : FormatCount(amount);
}

std::string Counts(const ProgressSample& sample) {
  std::string text = Amount(sample, sample.done);
  if (sample.total > 0) text += "/" + Amount(sample, sample.total);
  return sample.unit == "B" ? text : text + " " + sample.unit;
}

std::string Speed(const ProgressSample& sample) {
  if (sample.unit == "B") return FormatBytes(static_cast<uint64_t>(sample.per_second)) + "/s";
  return FormatRate(sample.per_second) + " " + sample.unit + "/s";
}

// What follows the bar, each part after the separator.
std::string Details(const ProgressSample& sample, const std::string& separator) {
  std::string text;
  if (sample.documents > 0) text += separator + FormatCount(sample.documents) + " documents";
  if (sample.per_second > 0) text += separator + Speed(sample);
  if (sample.eta_s >= 0) text += separator + "ETA " + FormatDuration(sample.eta_s);
  if (sample.written_bytes > 0) text += separator + FormatBytes(sample.written_bytes) + " written";
  return text;
}

}  // namespace

std::string FormatProgressBar(const ProgressSample& sample, int width) {
  const std::string label = EscapeForCell(sample.label);
  if (sample.total == 0) {
    const std::string text = label + "  " + sample.state + "  " + Counts(sample);
    return TruncateToWidth(text + Details(sample, "  "), static_cast<size_t>(std::max(width, 0)));
  }
  const uint64_t percent = Percent(sample);
  const std::string before = label + "  ";
  const std::string number = std::to_string(percent) + "%";
  const std::string after =
      std::string(4 - number.size(), ' ') + number + "  " + Counts(sample) + Details(sample, "  ");
  const int room = width - static_cast<int>(DisplayWidth(before) + DisplayWidth(after)) - 3;
  std::string line = before;
  if (room >= kBarColumnsMin) {
    const auto columns = static_cast<uint64_t>(std::min(room, kBarColumnsMax));
    const uint64_t filled = columns * percent / 100;
    line += "[";
    for (uint64_t i = 0; i < columns; ++i) line += i < filled ? "#" : ".";
    line += "] ";
  }
  return TruncateToWidth(line + after, static_cast<size_t>(std::max(width, 0)));
}

std::string FormatProgressPlain(const ProgressSample& sample) {
  std::string text = EscapeForCell(sample.label) + ": ";
  text += sample.total > 0 ? std::to_string(Percent(sample)) + "%" : sample.state;
  return text + " " + Counts(sample) + Details(sample, ", ");
}

void ProgressLine::Update(const ProgressSample& sample, int64_t now_ms) {
  if (mode_ == ProgressMode::kNone) return;
  if (mode_ == ProgressMode::kBar) {
    // One column is left free: a full line would wrap and could not be rewritten.
    err_ << '\r' << FormatProgressBar(sample, width_ - 1) << "\x1b[K" << std::flush;
    shown_ = true;
    return;
  }
  const uint64_t tenth = Percent(sample) / 10;
  const bool due =
      !printed_before_ || tenth > printed_tenth_ || now_ms - printed_at_ms_ >= kPlainIntervalMs;
  if (!due) return;
  printed_before_ = true;
  printed_at_ms_ = now_ms;
  printed_tenth_ = tenth;
  err_ << FormatProgressPlain(sample) << '\n' << std::flush;
}

void ProgressLine::Clear() {
  if (!shown_) return;
  err_ << "\r\x1b[K" << std::flush;
  shown_ = false;
}

}  // namespace corpusd::ctl
