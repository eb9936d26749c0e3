// client/ctl/top_screen.h -- what `corpusctl top` shows of two readings of a daemon, a moment
// apart: rates and latencies between them, and the state at the second. Lines of text, no terminal.
// Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "client/ctl/json_objects.h"
#include "client/ctl/stats_reading.h"

namespace corpusd::ctl {

struct TopReading {
  int64_t time_ms = 0;  // wall clock
  v1::VersionReply version;
  Stats stats{v1::StatsReply()};
  v1::ListReply corpora;
  v1::JobsReply jobs;
};

// A second's worth of what was counted between two readings; quantiles of what ended between them.
struct TopRates {
  double questions = 0, errors = 0;
  double answer_tokens = 0, prefill_tokens = 0;
  double cached_tokens = 0, recomputed_tokens = 0;
  double host_bytes = 0, disk_bytes = 0, device_bytes = 0;
  double evicted_bytes = 0;
  std::optional<double> first_token_p50_s, first_token_p95_s, decode_p50_s;
  // Of the tokens that questions needed of corpora; nothing while none did.
  std::optional<double> hit_ratio;
};
TopRates RatesBetween(const TopReading& before, const TopReading& now);

struct TopSize {
  int columns = 80;
  int rows = 24;  // at most so many lines; 0: all
  bool color = false;
};
// Lines without newlines, none wider than size.columns.
std::vector<std::string> TopLines(const TopReading& before, const TopReading& now,
                                  const TopSize& size);
Json TopToJson(const TopReading& before, const TopReading& now);

}  // namespace corpusd::ctl
