#include "daemon/metrics/daemon_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <algorithm>
#include <string>

#include "daemon/jobs/job_record.h"
#include "daemon/metrics/label_values.h"

namespace corpusd {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;
using Boundaries = Histogram::BucketBoundaries;

// From a device-tier hit of a small model to a cold prefill of a large one.
const Boundaries& FirstTokenSeconds() {
  static const Boundaries kBoundaries = {0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5,
                                         1,     2,     5,    10,   30,   60,  120};
  return kBoundaries;
}
// From 5,000 tokens a second to one in two seconds.
const Boundaries& TokenSeconds() {
  static const Boundaries kBoundaries = {0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01,
                                         0.02,   0.05,   0.1,   0.2,   0.5,   2};
  return kBoundaries;
}
const Boundaries& WaitSeconds() {
  static const Boundaries kBoundaries = {0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1,
                                         0.2,    0.5,   1,     2,     5,    10,   30,   60};
  return kBoundaries;
}
const Boundaries& QuestionSeconds() {
  static const Boundaries kBoundaries = {0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1,
                                         2,    5,    10,   30,  60,  120, 600};
  return kBoundaries;
}

template <typename Builder>
auto& Make(prometheus::Registry& registry, Builder builder, const char* name, const char* help) {
  return builder.Name(std::string("corpusd_") + name).Help(help).Register(registry);
}

// The same value, so many times.
void ObserveTimes(Histogram& histogram, const Boundaries& boundaries, double value,
                  uint64_t times) {
  std::vector<double> buckets(boundaries.size() + 1, 0);
  const auto bucket = std::lower_bound(boundaries.begin(), boundaries.end(), value);
  buckets[static_cast<size_t>(bucket - boundaries.begin())] = static_cast<double>(times);
  histogram.ObserveMultiple(buckets, value * static_cast<double>(times));
}

}  // namespace

struct DaemonMetrics::Families {
  prometheus::Registry registry;

  Family<Counter>& tokens =
      Make(registry, prometheus::BuildCounter(), "tokens_total",
           "Tokens of questions: cached ones by the tier they were read from, recomputed ones, and "
           "those of answers.");
  Counter* cached[kTierLabels.size()] = {};
  Counter& recomputed = tokens.Add({{"result", "recomputed"}, {"tier", "none"}});
  Counter& completion = tokens.Add({{"result", "completion"}, {"tier", "none"}});
  Family<Counter>& read_bytes = Make(registry, prometheus::BuildCounter(), "read_bytes_total",
                                     "Bytes of stored blocks that questions read, by tier.");
  Counter* read[kTierLabels.size()] = {};
  Family<Counter>& prefill = Make(registry, prometheus::BuildCounter(), "prefill_tokens_total",
                                  "Tokens of corpora made durable: computed, or reused from the "
                                  "store.");
  Counter& prefill_computed = prefill.Add({{"result", "computed"}});
  Counter& prefill_reused = prefill.Add({{"result", "reused"}});

  Family<Counter>& questions =
      Make(registry, prometheus::BuildCounter(), "questions_total",
           "Questions by how they ended: stop, length, cancelled, or the code of an error.");
  Histogram& first_token = Make(registry, prometheus::BuildHistogram(), "first_token_seconds",
                                "From the arrival of a question to the first token of its answer.")
                               .Add({}, FirstTokenSeconds());
  Histogram& question = Make(registry, prometheus::BuildHistogram(), "question_seconds",
                             "From the arrival of a question to the end of its answer.")
                            .Add({}, QuestionSeconds());
  Histogram& decode =
      Make(registry, prometheus::BuildHistogram(), "decode_token_seconds",
           "Seconds a token of answers after their first; each token counts with the mean of its "
           "answer.")
          .Add({}, TokenSeconds());
  Histogram& queue = Make(registry, prometheus::BuildHistogram(), "queue_seconds",
                          "How long questions waited for a worker and for their turn to compute.")
                         .Add({}, WaitSeconds());
  Histogram& load = Make(registry, prometheus::BuildHistogram(), "load_seconds",
                         "How long questions waited for stored blocks.")
                        .Add({}, WaitSeconds());

  Family<Counter>& requests = Make(registry, prometheus::BuildCounter(), "requests_total",
                                   "Requests by surface, method and result.");
  Family<Counter>& errors =
      Make(registry, prometheus::BuildCounter(), "errors_total", "Requests that failed, by code.");
  Family<Gauge>& connections =
      Make(registry, prometheus::BuildGauge(), "connections", "Clients connected now, by surface.");
  Family<Counter>& connected =
      Make(registry, prometheus::BuildCounter(), "connections_total", "Clients that connected.");
  Family<Counter>& refused = Make(registry, prometheus::BuildCounter(), "connections_refused_total",
                                  "Clients that were one too many.");
  Family<Counter>& jobs = Make(registry, prometheus::BuildCounter(), "jobs_ended_total",
                               "Jobs by kind and how they ended.");

  Family<Counter>& evicted_blocks =
      Make(registry, prometheus::BuildCounter(), "evicted_blocks_total",
           "Blocks that left a tier: room (something new needed it), asked (an admin), expired, "
           "removed.");
  Family<Counter>& evicted_bytes = Make(registry, prometheus::BuildCounter(), "evicted_bytes_total",
                                        "Bytes of payload that left a tier, by reason.");
  Family<Counter>& damaged = Make(registry, prometheus::BuildCounter(), "crc_failures_total",
                                  "Blocks that failed their checksum, by tier.");
  Family<Counter>& published = Make(registry, prometheus::BuildCounter(), "published_blocks_total",
                                    "New blocks made durable.");
  Counter& published_blocks = published.Add({});
  Counter& published_bytes = Make(registry, prometheus::BuildCounter(), "published_bytes_total",
                                  "Bytes of payload of new blocks made durable.")
                                 .Add({});

  // What can be counted is there from the start, at 0: a rate needs a value before the first event.
  Families() {
    for (size_t i = 0; i < kTierLabels.size(); ++i) {
      const std::string tier(kTierLabels[i]);
      cached[i] = &tokens.Add({{"result", "cached"}, {"tier", tier}});
      read[i] = &read_bytes.Add({{"tier", tier}});
      damaged.Add({{"tier", tier}});
      for (const EvictionReason reason : {EvictionReason::kRoom, EvictionReason::kAsked,
                                          EvictionReason::kExpired, EvictionReason::kRemoved}) {
        const prometheus::Labels labels = {{"tier", tier},
                                           {"reason", std::string(EvictionReasonText(reason))}};
        evicted_blocks.Add(labels);
        evicted_bytes.Add(labels);
      }
    }
    for (const char* result : {"stop", "length", "cancelled"}) questions.Add({{"result", result}});
    for (const StatusCode code : kCountedErrors) {
      errors.Add({{"code", std::string(StatusCodeText(code))}});
    }
    for (const char* surface : {"rpc", "http"}) {
      connections.Add({{"surface", surface}});
      connected.Add({{"surface", surface}});
      refused.Add({{"surface", surface}});
    }
    for (const char* kind : {"prefill", "scrub"}) {
      for (const char* state : {"done", "failed", "cancelled"}) {
        jobs.Add({{"kind", kind}, {"state", state}});
      }
    }
  }
};

DaemonMetrics::DaemonMetrics() : families_(std::make_unique<Families>()) {}
DaemonMetrics::~DaemonMetrics() = default;

void DaemonMetrics::OnPublished(uint64_t blocks, uint64_t bytes) {
  families_->published_blocks.Increment(static_cast<double>(blocks));
  families_->published_bytes.Increment(static_cast<double>(bytes));
}

void DaemonMetrics::OnEvicted(TierKind tier, EvictionReason reason, uint64_t blocks,
                              uint64_t bytes) {
  const prometheus::Labels labels = {{"tier", std::string(TierLabel(tier))},
                                     {"reason", std::string(EvictionReasonText(reason))}};
  families_->evicted_blocks.Add(labels).Increment(static_cast<double>(blocks));
  families_->evicted_bytes.Add(labels).Increment(static_cast<double>(bytes));
}

void DaemonMetrics::OnDamaged(TierKind tier) {
  families_->damaged.Add({{"tier", std::string(TierLabel(tier))}}).Increment();
}

void DaemonMetrics::OnAnswer(const QuestionReport& report) {
  const std::array<uint64_t, kTierLabels.size()> bytes = {report.device_bytes, report.host_bytes,
                                                          report.disk_bytes};
  const auto tokens = ShareByBytes(report.cached_tokens, bytes);
  for (size_t i = 0; i < bytes.size(); ++i) {
    families_->read[i]->Increment(static_cast<double>(bytes[i]));
    families_->cached[i]->Increment(static_cast<double>(tokens[i]));
  }
  families_->recomputed.Increment(static_cast<double>(report.recomputed_tokens));
  families_->completion.Increment(static_cast<double>(report.completion_tokens));
  families_->load.Observe(report.load_ms / 1e3);
  const uint64_t first_tokens = std::max<uint64_t>(report.answers.size(), 1);
  if (report.completion_tokens > first_tokens && report.decode_tokens_per_s > 0) {
    ObserveTimes(families_->decode, TokenSeconds(), 1 / report.decode_tokens_per_s,
                 report.completion_tokens - first_tokens);
  }
}

void DaemonMetrics::OnPrefill(uint64_t computed_tokens, uint64_t reused_tokens) {
  families_->prefill_computed.Increment(static_cast<double>(computed_tokens));
  families_->prefill_reused.Increment(static_cast<double>(reused_tokens));
}

void DaemonMetrics::OnRequest(std::string_view surface, std::string_view method, StatusCode code) {
  const std::string text(StatusCodeText(code));
  families_->requests
      .Add({{"surface", std::string(surface)}, {"method", std::string(method)}, {"code", text}})
      .Increment();
  if (code != StatusCode::kOk) families_->errors.Add({{"code", text}}).Increment();
}

void DaemonMetrics::OnQuestion(std::string_view corpus, const Result<QuestionReport>& report) {
  const std::string result =
      report.ok() ? report->finish_reason : std::string(StatusCodeText(report.status().code()));
  families_->questions.Add({{"result", result}}).Increment();
  if (!report.ok()) return;
  rates_.OnQuestion(corpus, *report);
  families_->queue.Observe(report->queue_ms / 1e3);
  families_->question.Observe(report->total_ms / 1e3);
  if (report->completion_tokens > 0) families_->first_token.Observe(report->first_token_ms / 1e3);
}

void DaemonMetrics::OnJobEnded(const JobRecord& job) {
  families_->jobs.Add({{"kind", job.kind}, {"state", std::string(JobStateText(job.state))}})
      .Increment();
}

void DaemonMetrics::OnConnected(std::string_view surface) {
  families_->connected.Add({{"surface", std::string(surface)}}).Increment();
  families_->connections.Add({{"surface", std::string(surface)}}).Increment();
}

void DaemonMetrics::OnDisconnected(std::string_view surface) {
  families_->connections.Add({{"surface", std::string(surface)}}).Decrement();
}

void DaemonMetrics::OnRefusedConnection(std::string_view surface) {
  families_->refused.Add({{"surface", std::string(surface)}}).Increment();
}

std::vector<prometheus::MetricFamily> DaemonMetrics::Collect() const {
  return families_->registry.Collect();
}

}  // namespace corpusd
