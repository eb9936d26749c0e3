// stats: the daemon's metrics, for people and scripts; Prometheus reads them over HTTP.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "client/ctl/commands.h"
#include "client/ctl/exit_code.h"
#include "client/ctl/json_objects.h"
#include "client/ctl/stats_reading.h"
#include "client/ctl/units.h"

namespace corpusd::ctl {
namespace {

// A value in the unit that the metric's name says.
std::string ValueText(const std::string& name, double value) {
  const auto counts = static_cast<uint64_t>(std::llround(std::max(value, 0.0)));
  if (name.find("_bytes") != std::string::npos) return FormatBytes(counts);
  if (name.find("_seconds") != std::string::npos) {
    return value < 1 ? FormatMilliseconds(value * 1e3) : FormatDuration(value);
  }
  if (name.ends_with("_ratio")) return std::to_string(counts == 1 ? 100 : int(value * 100)) + "%";
  return FormatCount(counts);
}

std::string LabelsText(const v1::StatsSample& sample) {
  std::string text;
  for (const v1::StatsLabel& label : sample.labels()) {
    text += (text.empty() ? "" : " ") + label.name() + "=" + label.value();
  }
  return text;
}

std::string HistogramText(const std::string& name, const v1::StatsHistogram& histogram) {
  if (histogram.count() == 0) return "0";
  const auto quantile = [&](double q) {
    return ValueText(name, Quantile(histogram, q).value_or(0));
  };
  return FormatCount(histogram.count()) + ", mean " +
         ValueText(name, histogram.sum() / static_cast<double>(histogram.count())) + ", p50 " +
         quantile(0.5) + ", p95 " + quantile(0.95) + ", p99 " + quantile(0.99);
}

void PrintTable(const CommandContext& context, const v1::StatsReply& reply) {
  TablePrinter table({{"METRIC"}, {"LABELS"}, {"VALUE"}});
  for (const v1::StatsFamily& family : reply.families()) {
    for (const v1::StatsSample& sample : family.samples()) {
      table.AddRow({family.name(), LabelsText(sample),
                    sample.has_histogram() ? HistogramText(family.name(), sample.histogram())
                                           : ValueText(family.name(), sample.value())});
    }
  }
  table.Print(context.console.out, StyleOf(context));
}

}  // namespace

int RunStats(const CommandContext& context) {
  auto client = ConnectToDaemon(context, CallLength::kQuick);
  if (!client.ok()) return Fail(context, client.error());
  auto reply = (*client)->Stats();
  if (!reply.ok()) return Fail(context, reply.error());
  const std::string& part = context.arguments.name;
  v1::StatsReply wanted;
  for (v1::StatsFamily& family : *reply->mutable_families()) {
    if (family.name().find(part) != std::string::npos) wanted.add_families()->Swap(&family);
  }
  if (wanted.families().empty()) {
    return Fail(context, {1, "not_found", "no metric has " + Quoted(part) + " in its name"});
  }
  const OutputMode mode = context.arguments.output;
  if (IsStructured(mode)) {
    PrintStructured(context.console.out, mode, StatsToJson(wanted));
  } else if (mode == OutputMode::kName || context.arguments.quiet) {
    for (const auto& family : wanted.families()) context.console.out << family.name() << '\n';
  } else {
    PrintTable(context, wanted);
  }
  return kExitOk;
}

}  // namespace corpusd::ctl
