#include "client/ctl/top_screen.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string_view>

#include "client/ctl/table_printer.h"
#include "client/ctl/text.h"
#include "client/ctl/units.h"

namespace corpusd::ctl {
namespace {

constexpr int kBarColumns = 24;
constexpr size_t kNameColumns = 32;
constexpr std::array<const char*, 3> kTiers = {"device", "host", "disk"};

std::string Seconds(std::optional<double> seconds) {
  return seconds ? FormatMilliseconds(*seconds * 1e3) : "-";
}

std::string BytesRate(double per_second) {
  return FormatBytes(static_cast<uint64_t>(std::max(per_second, 0.0))) + "/s";
}

std::string Bar(double share, int columns) {
  const int filled = static_cast<int>(std::lround(std::clamp(share, 0.0, 1.0) * columns));
  return "[" + std::string(static_cast<size_t>(filled), '#') +
         std::string(static_cast<size_t>(columns - filled), '.') + "]";
}

uint64_t Count(const Stats& stats, std::string_view name, const std::vector<LabelMatch>& labels) {
  return static_cast<uint64_t>(std::max(stats.Sum(name, labels), 0.0));
}

void AddHead(const TopReading& now, const TopRates& rates, std::vector<std::string>* lines) {
  const Stats& stats = now.stats;
  lines->push_back("corpusd " + now.version.version() + "  " + now.version.model_name() + " on " +
                   now.version.backend() + ", up " + FormatDuration(stats.Sum("uptime_seconds")) +
                   ", " + FormatCount(Count(stats, "connections", {})) + " clients  " +
                   FormatTimestamp(now.time_ms));
  std::string hit = "-";
  if (rates.hit_ratio) {
    std::array<char, 16> text{};
    std::snprintf(text.data(), text.size(), "%.1f %%", 100 * *rates.hit_ratio);
    hit = text.data();
  }
  lines->push_back("questions " + FormatRate(rates.questions) + "/s, first token p50 " +
                   Seconds(rates.first_token_p50_s) + " p95 " + Seconds(rates.first_token_p95_s) +
                   ", a token " + Seconds(rates.decode_p50_s) + ", from the store " + hit);
  lines->push_back("answers " + FormatRate(rates.answer_tokens) + " tok/s, prefill " +
                   FormatRate(rates.prefill_tokens) + " tok/s, recomputed " +
                   FormatRate(rates.recomputed_tokens) + " tok/s, errors " +
                   FormatRate(rates.errors) + "/s");
  lines->push_back("reads: device " + BytesRate(rates.device_bytes) + ", host " +
                   BytesRate(rates.host_bytes) + ", disk " + BytesRate(rates.disk_bytes) +
                   "; evicted " + BytesRate(rates.evicted_bytes));
  lines->push_back(
      "questions running " + FormatCount(Count(stats, "running", {{"pool", "query"}})) +
      ", waiting " + FormatCount(Count(stats, "queue_depth", {{"pool", "query"}})) +
      "; prefills running " +
      FormatCount(Count(stats, "jobs", {{"kind", "prefill"}, {"state", "running"}})) +
      ", waiting " + FormatCount(Count(stats, "jobs", {{"kind", "prefill"}, {"state", "queued"}})) +
      "; damaged blocks " + FormatCount(Count(stats, "crc_failures_total", {})));
  if (stats.Sum("store_read_only") > 0) {
    lines->emplace_back("THE STORE IS READ-ONLY: see corpusctl df");
  }
}

void AddTiers(const Stats& stats, std::vector<std::string>* lines) {
  lines->emplace_back();
  for (const char* tier : kTiers) {
    const uint64_t capacity = Count(stats, "tier_capacity_bytes", {{"tier", tier}});
    if (capacity == 0) continue;
    const uint64_t used = Count(stats, "tier_used_bytes", {{"tier", tier}});
    const uint64_t pinned = Count(stats, "tier_pinned_bytes", {{"tier", tier}});
    const double share = static_cast<double>(used) / static_cast<double>(capacity);
    std::string name = tier;
    name.resize(7, ' ');
    lines->push_back(name + Bar(share, kBarColumns) + " " +
                     std::to_string(static_cast<int>(share * 100)) + "%  " + FormatBytes(used) +
                     " of " + FormatBytes(capacity) + ", " + FormatBytes(pinned) + " pinned");
  }
}

void AddTable(const TablePrinter& table, bool color, std::vector<std::string>* lines) {
  std::ostringstream text;
  table.Print(text, {.rule = false, .color = color});
  std::istringstream rows(text.str());
  lines->emplace_back();
  for (std::string line; std::getline(rows, line);) lines->push_back(std::move(line));
}

// One long name would push everything else out of sight.
std::string ShortName(const std::string& name) {
  return TruncateToWidth(EscapeForCell(name), kNameColumns);
}

bool IsOpen(const v1::Job& job) { return job.state() == "queued" || job.state() == "running"; }

void AddJobs(const TopReading& now, bool color, std::vector<std::string>* lines) {
  TablePrinter table({{"JOB", Align::kRight},
                      {"KIND"},
                      {"CORPUS"},
                      {"STATE", Align::kLeft, true},
                      {"DONE"},
                      {"TOK/S", Align::kRight},
                      {"ETA", Align::kRight}});
  bool any = false;
  for (const v1::Job& job : now.jobs.jobs()) {
    if (!IsOpen(job)) continue;
    any = true;
    const uint64_t done = job.has_scrub() ? job.scrub().blocks() : job.done_tokens();
    const uint64_t total = job.has_scrub() ? job.scrub().total_blocks() : job.total_tokens();
    const double share = total == 0 ? 0 : static_cast<double>(done) / static_cast<double>(total);
    table.AddRow({std::to_string(job.id()), job.kind(), ShortName(job.corpus()), job.state(),
                  Bar(share, 12) + " " + std::to_string(static_cast<int>(share * 100)) + "%",
                  FormatRate(job.tokens_per_s()), FormatDuration(job.eta_s())});
  }
  if (any) AddTable(table, color, lines);
}

// Those asked last come first.
std::vector<const v1::Corpus*> ByUse(const v1::ListReply& corpora) {
  std::vector<const v1::Corpus*> ordered;
  for (const v1::Corpus& corpus : corpora.corpora()) ordered.push_back(&corpus);
  const auto used = [](const v1::Corpus* corpus) {
    return std::max(corpus->last_used_at_ms(), corpus->created_at_ms());
  };
  std::stable_sort(ordered.begin(), ordered.end(),
                   [&](const auto* a, const auto* b) { return used(a) > used(b); });
  return ordered;
}

void AddCorpora(const TopReading& now, bool color, std::vector<std::string>* lines) {
  TablePrinter table({{"CORPUS"},
                      {"STATE", Align::kLeft, true},
                      {"TOKENS", Align::kRight},
                      {"DEVICE", Align::kRight},
                      {"HOST", Align::kRight},
                      {"DISK", Align::kRight},
                      {"PIN"},
                      {"USED"}});
  for (const v1::Corpus* corpus : ByUse(now.corpora)) {
    table.AddRow({ShortName(corpus->name()), corpus->state(), FormatCount(corpus->tokens()),
                  FormatBytes(corpus->device_bytes()), FormatBytes(corpus->host_bytes()),
                  FormatBytes(corpus->disk_bytes()), corpus->pinned() ? corpus->pin_tier() : "-",
                  FormatAge(corpus->last_used_at_ms(), now.time_ms)});
  }
  AddTable(table, color, lines);
}

// Colours have no width, and all of them stay, so that none goes on after the line.
std::string CutToWidth(std::string_view line, size_t width) {
  std::string cut;
  size_t used = 0;
  while (!line.empty()) {
    const bool color = line.front() == '\x1b';
    const size_t end = color ? line.find('m') + 1 : std::min(line.find('\x1b'), line.size());
    const std::string_view part = line.substr(0, end);
    line.remove_prefix(part.size());
    if (color) {
      cut += part;
    } else {
      const std::string text = TruncateToWidth(part, width - used);
      used += DisplayWidth(text);
      cut += text;
    }
  }
  return cut;
}

Json NumberOrNull(std::optional<double> number) { return number ? Json(*number) : Json(nullptr); }

}  // namespace

TopRates RatesBetween(const TopReading& before, const TopReading& now) {
  const double seconds = std::max(static_cast<double>(now.time_ms - before.time_ms) / 1e3, 1e-3);
  const auto rate = [&](std::string_view name, const std::vector<LabelMatch>& labels = {}) {
    // A daemon that was started again counts from 0.
    return std::max(now.stats.Sum(name, labels) - before.stats.Sum(name, labels), 0.0) / seconds;
  };
  TopRates rates;
  rates.questions = rate("questions_total");
  rates.errors = rate("errors_total");
  rates.answer_tokens = rate("tokens_total", {{"result", "completion"}});
  rates.prefill_tokens = rate("prefill_tokens_total", {{"result", "computed"}});
  rates.cached_tokens = rate("tokens_total", {{"result", "cached"}});
  rates.recomputed_tokens = rate("tokens_total", {{"result", "recomputed"}});
  rates.device_bytes = rate("read_bytes_total", {{"tier", "device"}});
  rates.host_bytes = rate("read_bytes_total", {{"tier", "host"}});
  rates.disk_bytes = rate("read_bytes_total", {{"tier", "disk"}});
  rates.evicted_bytes = rate("evicted_bytes_total");
  const auto between = [&](std::string_view name) {
    return Between(before.stats.Histogram(name), now.stats.Histogram(name));
  };
  const v1::StatsHistogram first_token = between("first_token_seconds");
  rates.first_token_p50_s = Quantile(first_token, 0.5);
  rates.first_token_p95_s = Quantile(first_token, 0.95);
  rates.decode_p50_s = Quantile(between("decode_token_seconds"), 0.5);
  const double needed = rates.cached_tokens + rates.recomputed_tokens;
  if (needed > 0) rates.hit_ratio = rates.cached_tokens / needed;
  return rates;
}

std::vector<std::string> TopLines(const TopReading& before, const TopReading& now,
                                  const TopSize& size) {
  std::vector<std::string> lines;
  AddHead(now, RatesBetween(before, now), &lines);
  AddTiers(now.stats, &lines);
  AddJobs(now, size.color, &lines);
  AddCorpora(now, size.color, &lines);
  if (size.rows > 0 && lines.size() > static_cast<size_t>(size.rows)) {
    lines.resize(static_cast<size_t>(size.rows));
  }
  for (std::string& line : lines) {
    line = CutToWidth(line, static_cast<size_t>(std::max(size.columns, 0)));
  }
  return lines;
}

Json TopToJson(const TopReading& before, const TopReading& now) {
  const TopRates rates = RatesBetween(before, now);
  Json tiers = Json::array();
  for (const char* tier : kTiers) {
    const uint64_t capacity = Count(now.stats, "tier_capacity_bytes", {{"tier", tier}});
    if (capacity == 0) continue;
    tiers.push_back({{"name", tier},
                     {"capacity_bytes", capacity},
                     {"used_bytes", Count(now.stats, "tier_used_bytes", {{"tier", tier}})},
                     {"pinned_bytes", Count(now.stats, "tier_pinned_bytes", {{"tier", tier}})}});
  }
  Json corpora = Json::array(), jobs = Json::array();
  for (const v1::Corpus* corpus : ByUse(now.corpora)) corpora.push_back(CorpusToJson(*corpus));
  for (const v1::Job& job : now.jobs.jobs()) {
    if (IsOpen(job)) jobs.push_back(JobToJson(job));
  }
  return {{"time", FormatTimestamp(now.time_ms)},
          {"seconds", static_cast<double>(now.time_ms - before.time_ms) / 1e3},
          {"uptime_s", now.stats.Sum("uptime_seconds")},
          {"rates",
           {{"questions_per_s", rates.questions},
            {"errors_per_s", rates.errors},
            {"answer_tokens_per_s", rates.answer_tokens},
            {"prefill_tokens_per_s", rates.prefill_tokens},
            {"cached_tokens_per_s", rates.cached_tokens},
            {"recomputed_tokens_per_s", rates.recomputed_tokens},
            {"device_bytes_per_s", rates.device_bytes},
            {"host_bytes_per_s", rates.host_bytes},
            {"disk_bytes_per_s", rates.disk_bytes},
            {"evicted_bytes_per_s", rates.evicted_bytes},
            {"hit_ratio", NumberOrNull(rates.hit_ratio)}}},
          {"latency",
           {{"first_token_p50_s", NumberOrNull(rates.first_token_p50_s)},
            {"first_token_p95_s", NumberOrNull(rates.first_token_p95_s)},
            {"decode_token_p50_s", NumberOrNull(rates.decode_p50_s)}}},
          {"questions",
           {{"running", Count(now.stats, "running", {{"pool", "query"}})},
            {"waiting", Count(now.stats, "queue_depth", {{"pool", "query"}})}}},
          {"tiers", std::move(tiers)},
          {"jobs", std::move(jobs)},
          {"corpora", std::move(corpora)}};
}

}  // namespace corpusd::ctl
