#include "daemon/metrics/service_gauges.h"

#include <prometheus/metric_family.h>

#include <array>
#include <map>
#include <string>
#include <utility>

#include "daemon/rank_tiers.h"
#include "daemon/version.h"
#include "store/miss_explain.h"

namespace corpusd {
namespace {

using Labels = std::vector<std::pair<std::string, std::string>>;

// One family under construction.
class GaugeFamily {
 public:
  GaugeFamily(const char* name, const char* help,
              prometheus::MetricType type = prometheus::MetricType::Gauge) {
    family_.name = std::string("corpusd_") + name;
    family_.help = help;
    family_.type = type;
  }
  GaugeFamily& Add(const Labels& labels, double value) {
    prometheus::ClientMetric metric;
    for (const auto& [label, text] : labels) metric.label.push_back({label, text});
    if (family_.type == prometheus::MetricType::Counter) {
      metric.counter.value = value;
    } else {
      metric.gauge.value = value;
    }
    family_.metric.push_back(std::move(metric));
    return *this;
  }
  GaugeFamily& Add(const Labels& labels, uint64_t value) {
    return Add(labels, static_cast<double>(value));
  }
  prometheus::MetricFamily Take() { return std::move(family_); }

 private:
  prometheus::MetricFamily family_;
};

using Families = std::vector<prometheus::MetricFamily>;

void AddTiers(const Services& services, Families* out) {
  GaugeFamily capacity("tier_capacity_bytes", "The cap of a tier.");
  GaugeFamily used("tier_used_bytes", "What is in a tier, in physical bytes.");
  GaugeFamily pinned("tier_pinned_bytes", "Of it, what pins keep there.");
  GaugeFamily free("tier_free_bytes", "What a tier has left.");
  for (const TierUsage& tier : AllTiers(services)) {
    capacity.Add({{"tier", tier.name}}, tier.capacity_bytes);
    used.Add({{"tier", tier.name}}, tier.used_bytes);
    pinned.Add({{"tier", tier.name}}, tier.pinned_bytes);
    free.Add({{"tier", tier.name}}, tier.free_bytes);
  }
  for (GaugeFamily* family : {&capacity, &used, &pinned, &free}) out->push_back(family->Take());
}

void AddPools(const Services& services, Families* out) {
  const std::array<std::pair<const char*, const WorkerPool*>, 4> pools = {
      {{"query", &services.queries},
       {"admin", &services.admin},
       {"slow", &services.slow},
       {"ingest", &services.ingest}}};
  GaugeFamily depth("queue_depth", "Tasks that wait for a worker, by pool.");
  GaugeFamily running("running", "Tasks that a worker is at, by pool.");
  for (const auto& [name, pool] : pools) {
    depth.Add({{"pool", name}}, uint64_t{pool->queued()});
    running.Add({{"pool", name}}, uint64_t{pool->running()});
  }
  out->push_back(depth.Take());
  out->push_back(running.Take());
}

void AddJobs(const Services& services, Families* out) {
  std::map<std::pair<std::string, std::string>, uint64_t> counts;
  for (const char* kind : {"prefill", "scrub"}) {
    for (const char* state : {"queued", "running"}) counts[{kind, state}] = 0;
  }
  GaugeFamily done("job_done_ratio", "How much of a running job is done, 0 to 1.");
  GaugeFamily speed("job_tokens_per_second", "Of a running prefill, of late.");
  GaugeFamily eta("job_eta_seconds", "Of a running job; absent while it is not known.");
  for (const JobRecord& job : services.jobs.List()) {
    if (IsFinished(job.state)) continue;
    ++counts[{job.kind, std::string(JobStateText(job.state))}];
    if (job.state != JobState::kRunning) continue;
    const Labels labels = {
        {"job", std::to_string(job.id)}, {"kind", job.kind}, {"corpus", job.corpus}};
    const uint64_t part = job.scrub ? job.scrub->blocks : job.done_tokens;
    const uint64_t whole = job.scrub ? job.scrub->total_blocks : job.total_tokens;
    done.Add(labels, whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole));
    if (!job.scrub) speed.Add(labels, job.tokens_per_s);
    if (job.eta_s >= 0) eta.Add(labels, job.eta_s);
  }
  GaugeFamily jobs("jobs", "Jobs that have not ended, by kind and state.");
  for (const auto& [key, count] : counts) {
    jobs.Add({{"kind", key.first}, {"state", key.second}}, count);
  }
  for (GaugeFamily* family : {&jobs, &done, &speed, &eta}) out->push_back(family->Take());
}

void AddCorpora(const Services& services, Families* out) {
  std::map<std::string, uint64_t> states;
  for (const CorpusState state :
       {CorpusState::kQueued, CorpusState::kPrefilling, CorpusState::kReady, CorpusState::kFailed,
        CorpusState::kCancelled, CorpusState::kEvicted}) {
    states[std::string(CorpusStateText(state))] = 0;
  }
  uint64_t tokens = 0, pins = 0;
  for (const CorpusRecord& record : services.store.ListCorpora()) {
    ++states[std::string(CorpusStateText(record.state))];
    tokens += record.durable_tokens;
    pins += record.pin ? 1 : 0;
  }
  GaugeFamily corpora("corpora", "Corpora by state.");
  for (const auto& [state, count] : states) corpora.Add({{"state", state}}, count);
  out->push_back(corpora.Take());
  out->push_back(GaugeFamily("corpus_tokens",
                             "Durable tokens of all corpora; shared ones count "
                             "for each.")
                     .Add({}, tokens)
                     .Take());
  out->push_back(GaugeFamily("pins", "Corpora that are pinned.").Add({}, pins).Take());
}

void AddStore(const Services& services, Families* out) {
  const WriteState writes = services.store.write_gate().state();
  out->push_back(
      GaugeFamily("store_read_only", "1 while the store takes no new blocks: full or broken disk.")
          .Add({}, uint64_t{writes.read_only ? 1U : 0U})
          .Take());
  uint64_t leases = 0, leased_bytes = 0;
  for (const LeaseInfo& lease : services.store.leases().List()) {
    ++leases;
    leased_bytes += lease.bytes;
  }
  out->push_back(
      GaugeFamily("leases", "Readers that hold blocks in memory.").Add({}, leases).Take());
  out->push_back(GaugeFamily("leased_bytes", "What they hold.").Add({}, leased_bytes).Take());
  out->push_back(GaugeFamily("eviction_refusals_total",
                             "Times that what may be evicted was too little.",
                             prometheus::MetricType::Counter)
                     .Add({}, services.store.evictions().refusals)
                     .Take());
  GaugeFamily misses("missed_blocks_total", "Blocks that a prefill looked for in vain, by why.",
                     prometheus::MetricType::Counter);
  const MissCounters::Counts counts = services.store.misses().Read();
  for (size_t i = 1; i < kMissReasons; ++i) {
    misses.Add({{"reason", std::string(MissReasonText(static_cast<MissReason>(i)))}},
               counts.blocks[i]);
  }
  out->push_back(misses.Take());
}

void AddPromptCache(const Services& services, Families* out) {
  constexpr auto kCounter = prometheus::MetricType::Counter;
  const PromptCacheUsage usage = services.engine.prompt_cache();
  out->push_back(GaugeFamily("prompt_cache_capacity_bytes",
                             "The cap of what is kept of prompts without a corpus.")
                     .Add({}, usage.capacity_bytes)
                     .Take());
  out->push_back(GaugeFamily("prompt_cache_used_bytes", "What is kept of them.")
                     .Add({}, usage.used_bytes)
                     .Take());
  out->push_back(GaugeFamily("prompt_cache_tokens_total",
                             "Tokens of prompts without a corpus: found there, or computed.",
                             kCounter)
                     .Add({{"result", "found"}}, usage.found_tokens)
                     .Add({{"result", "computed"}}, usage.computed_tokens)
                     .Take());
  out->push_back(GaugeFamily("prompt_cache_evicted_bytes_total",
                             "What left for the room that others need.", kCounter)
                     .Add({}, usage.evicted_bytes)
                     .Take());
}

void AddRanks(const Services& services, Families* out) {
  const RanksReport report = services.engine.ranks();
  GaugeFamily ranks("ranks", "Ranks that compute together, by state; none: the daemon is alone.");
  std::map<std::string, uint64_t> states = {{"leads", 0}, {"follows", 0}, {"missing", 0}};
  for (const RankStatus& rank : report.ranks) ++states[rank.state];
  for (const auto& [state, count] : states) ranks.Add({{"state", state}}, count);
  out->push_back(ranks.Take());
  constexpr auto kCounter = prometheus::MetricType::Counter;
  out->push_back(GaugeFamily("rank_groups_total", "Groups of ranks that were formed.", kCounter)
                     .Add({}, report.groups)
                     .Take());
  out->push_back(
      GaugeFamily("rank_groups_lost_total", "Of them, those that a lost rank ended.", kCounter)
          .Add({}, report.lost)
          .Take());
  out->push_back(GaugeFamily("rank_passes_total", "Passes that ranks computed together.", kCounter)
                     .Add({}, report.passes)
                     .Take());
}

void AddAudit(const Services& services, Families* out) {
  const AuditLog::Counts counts = services.access.audit().counts();
  out->push_back(GaugeFamily("audit_lines_total",
                             "Lines of the audit: written, or only counted because of a flood.",
                             prometheus::MetricType::Counter)
                     .Add({{"result", "written"}}, counts.written)
                     .Add({{"result", "suppressed"}}, counts.suppressed)
                     .Take());
}

}  // namespace

std::vector<prometheus::MetricFamily> ServiceGauges(const Services& services) {
  Families families;
  const ModelSummary& model = services.engine.model();
  families.push_back(GaugeFamily("info", "1; what runs here is in the labels.")
                         .Add({{"version", std::string(kVersion)},
                               {"backend", model.backend},
                               {"model", model.name}},
                              1.0)
                         .Take());
  const std::chrono::duration<double> uptime =
      std::chrono::steady_clock::now() - services.started_at;
  families.push_back(
      GaugeFamily("uptime_seconds", "Since the daemon's start.").Add({}, uptime.count()).Take());
  AddTiers(services, &families);
  AddPools(services, &families);
  AddJobs(services, &families);
  AddCorpora(services, &families);
  AddStore(services, &families);
  AddPromptCache(services, &families);
  AddRanks(services, &families);
  AddAudit(services, &families);
  return families;
}

}  // namespace corpusd
