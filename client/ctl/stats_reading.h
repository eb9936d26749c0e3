// client/ctl/stats_reading.h -- reads figures out of the daemon's metrics: sums over labels, and
// quantiles of histograms, also of what came between two readings. Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "client/ctl/json_objects.h"

namespace corpusd::ctl {

// A label and the value that it must have.
using LabelMatch = std::pair<std::string_view, std::string_view>;

std::string LabelOf(const v1::StatsSample& sample, std::string_view name);  // "": it has none

// Metrics as they were at some moment. Borrows nothing.
class Stats {
 public:
  explicit Stats(v1::StatsReply reply) : reply_(std::move(reply)) {}

  const v1::StatsReply& reply() const { return reply_; }
  // name: without "corpusd_". Null: there is no such family.
  const v1::StatsFamily* Find(std::string_view name) const;
  // Over all samples that match; 0 if none does.
  double Sum(std::string_view name, const std::vector<LabelMatch>& labels = {}) const;
  // The one histogram of a family without labels; empty if it is not there.
  v1::StatsHistogram Histogram(std::string_view name) const;

 private:
  v1::StatsReply reply_;
};

// What came between two readings; all of `now` if it began anew meanwhile.
v1::StatsHistogram Between(const v1::StatsHistogram& before, const v1::StatsHistogram& now);
// By linear interpolation inside a bucket, as Prometheus' histogram_quantile; of what lies beyond
// the last finite bound, that bound. Nothing: it is empty.
std::optional<double> Quantile(const v1::StatsHistogram& histogram, double quantile);

Json StatsToJson(const v1::StatsReply& reply);

}  // namespace corpusd::ctl
