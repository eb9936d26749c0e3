#include "daemon/metrics/exposition.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <vector>

#include "client/wire/utf8.h"
#include "daemon/metrics/daemon_metrics.h"
#include "daemon/metrics/service_gauges.h"

namespace corpusd {
namespace {

std::vector<prometheus::MetricFamily> AllMetrics(const Services& services) {
  std::vector<prometheus::MetricFamily> families = ServiceGauges(services);
  std::vector<prometheus::MetricFamily> counted = services.metrics.Collect();
  std::move(counted.begin(), counted.end(), std::back_inserter(families));
  std::sort(families.begin(), families.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return families;
}

void FillSample(prometheus::MetricType type, const prometheus::ClientMetric& metric,
                v1::StatsSample* sample) {
  for (const auto& label : metric.label) {
    v1::StatsLabel* const out = sample->add_labels();
    out->set_name(label.name);
    out->set_value(ToUtf8(label.value));
  }
  if (type == prometheus::MetricType::Counter) {
    sample->set_value(metric.counter.value);
  } else if (type == prometheus::MetricType::Gauge) {
    sample->set_value(metric.gauge.value);
  } else {
    v1::StatsHistogram* const histogram = sample->mutable_histogram();
    histogram->set_count(metric.histogram.sample_count);
    histogram->set_sum(metric.histogram.sample_sum);
    for (const auto& bucket : metric.histogram.bucket) {
      v1::StatsBucket* const out = histogram->add_buckets();
      out->set_upper_bound(bucket.upper_bound);
      out->set_cumulative_count(bucket.cumulative_count);
    }
  }
}

const char* TypeText(prometheus::MetricType type) {
  switch (type) {
    case prometheus::MetricType::Counter:
      return "counter";
    case prometheus::MetricType::Histogram:
      return "histogram";
    default:
      return "gauge";
  }
}

}  // namespace

std::string MetricsText(const Services& services) {
  return prometheus::TextSerializer().Serialize(AllMetrics(services));
}

std::string MetricsText(const DaemonMetrics& metrics) {
  return prometheus::TextSerializer().Serialize(metrics.Collect());
}

Result<v1::Response> HandleStats(const Services& services) {
  v1::Response response;
  v1::StatsReply* const reply = response.mutable_stats();
  for (const prometheus::MetricFamily& family : AllMetrics(services)) {
    v1::StatsFamily* const out = reply->add_families();
    out->set_name(family.name);
    out->set_help(family.help);
    out->set_type(TypeText(family.type));
    for (const prometheus::ClientMetric& metric : family.metric) {
      FillSample(family.type, metric, out->add_samples());
    }
  }
  return response;
}

}  // namespace corpusd
