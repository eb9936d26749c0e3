#include "client/ctl/stats_reading.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace corpusd::ctl {
namespace {

constexpr std::string_view kPrefix = "corpusd_";

bool Matches(const v1::StatsSample& sample, const std::vector<LabelMatch>& labels) {
  return std::all_of(labels.begin(), labels.end(), [&](const LabelMatch& wanted) {
    return LabelOf(sample, wanted.first) == wanted.second;
  });
}

Json NumberOrNull(std::optional<double> number) { return number ? Json(*number) : Json(nullptr); }

Json HistogramToJson(const v1::StatsHistogram& histogram) {
  Json buckets = Json::array();
  for (const v1::StatsBucket& bucket : histogram.buckets()) {
    const bool finite = std::isfinite(bucket.upper_bound());
    buckets.push_back({{"le", finite ? Json(bucket.upper_bound()) : Json("+Inf")},
                       {"count", bucket.cumulative_count()}});
  }
  const uint64_t count = histogram.count();
  return {{"count", count},
          {"sum", histogram.sum()},
          {"mean", count == 0 ? Json(nullptr) : Json(histogram.sum() / static_cast<double>(count))},
          {"p50", NumberOrNull(Quantile(histogram, 0.5))},
          {"p95", NumberOrNull(Quantile(histogram, 0.95))},
          {"p99", NumberOrNull(Quantile(histogram, 0.99))},
          {"buckets", std::move(buckets)}};
}

}  // namespace

std::string LabelOf(const v1::StatsSample& sample, std::string_view name) {
  for (const v1::StatsLabel& label : sample.labels()) {
    if (label.name() == name) return label.value();
  }
  return "";
}

const v1::StatsFamily* Stats::Find(std::string_view name) const {
  for (const v1::StatsFamily& family : reply_.families()) {
    const std::string_view full = family.name();
    if (full.starts_with(kPrefix) && full.substr(kPrefix.size()) == name) return &family;
  }
  return nullptr;
}

double Stats::Sum(std::string_view name, const std::vector<LabelMatch>& labels) const {
  const v1::StatsFamily* const family = Find(name);
  double sum = 0;
  if (family == nullptr) return sum;
  for (const v1::StatsSample& sample : family->samples()) {
    if (Matches(sample, labels)) sum += sample.value();
  }
  return sum;
}

v1::StatsHistogram Stats::Histogram(std::string_view name) const {
  const v1::StatsFamily* const family = Find(name);
  if (family == nullptr || family->samples().empty()) return {};
  return family->samples(0).histogram();
}

v1::StatsHistogram Between(const v1::StatsHistogram& before, const v1::StatsHistogram& now) {
  if (before.buckets_size() != now.buckets_size() || before.count() > now.count()) return now;
  v1::StatsHistogram between = now;
  between.set_count(now.count() - before.count());
  between.set_sum(now.sum() - before.sum());
  for (int i = 0; i < between.buckets_size(); ++i) {
    v1::StatsBucket* const bucket = between.mutable_buckets(i);
    const uint64_t old = before.buckets(i).cumulative_count();
    bucket->set_cumulative_count(bucket->cumulative_count() -
                                 std::min(old, bucket->cumulative_count()));
  }
  return between;
}

std::optional<double> Quantile(const v1::StatsHistogram& histogram, double quantile) {
  if (histogram.count() == 0) return std::nullopt;
  const double rank = quantile * static_cast<double>(histogram.count());
  double lower = 0;
  uint64_t below = 0;
  for (const v1::StatsBucket& bucket : histogram.buckets()) {
    if (!std::isfinite(bucket.upper_bound())) return lower;
    const uint64_t inside = bucket.cumulative_count() - below;
    if (inside > 0 && static_cast<double>(bucket.cumulative_count()) >= rank) {
      const double share = (rank - static_cast<double>(below)) / static_cast<double>(inside);
      return lower + (bucket.upper_bound() - lower) * share;
    }
    lower = bucket.upper_bound();
    below = bucket.cumulative_count();
  }
  return lower;
}

Json StatsToJson(const v1::StatsReply& reply) {
  Json families = Json::array();
  for (const v1::StatsFamily& family : reply.families()) {
    Json samples = Json::array();
    for (const v1::StatsSample& sample : family.samples()) {
      Json labels = Json::object();
      for (const v1::StatsLabel& label : sample.labels()) labels[label.name()] = label.value();
      Json object = {{"labels", std::move(labels)}};
      if (sample.has_histogram()) {
        object.update(HistogramToJson(sample.histogram()));
      } else {
        object["value"] = sample.value();
      }
      samples.push_back(std::move(object));
    }
    families.push_back({{"name", family.name()},
                        {"type", family.type()},
                        {"help", family.help()},
                        {"samples", std::move(samples)}});
  }
  return families;
}

}  // namespace corpusd::ctl
