// daemon/metrics/daemon_metrics.h -- DaemonMetrics: counters and histograms of what the daemon, its
// store and its engine did since the start, in the data model of Prometheus. What can be asked at
// any moment, such as the room in a tier, is not kept here (service_gauges.h). Every call may come
// from any thread and is quick. Made before store and engine, which are told of it, and outlives
// them.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "daemon/metrics/question_rates.h"
#include "engine/engine.h"
#include "engine/engine_observer.h"
#include "store/base/result.h"
#include "store/store_observer.h"

namespace prometheus {
struct MetricFamily;
}  // namespace prometheus

namespace corpusd {

struct JobRecord;

class DaemonMetrics final : public StoreObserver, public EngineObserver {
 public:
  DaemonMetrics();
  ~DaemonMetrics() override;

  void OnPublished(uint64_t blocks, uint64_t bytes) override;
  void OnEvicted(TierKind tier, EvictionReason reason, uint64_t blocks, uint64_t bytes) override;
  void OnDamaged(TierKind tier) override;
  void OnAnswer(const QuestionReport& report) override;
  void OnPrefill(uint64_t computed_tokens, uint64_t reused_tokens) override;

  // A request has ended. surface: "rpc", "http"; method: one of a fixed set of words, for each
  // makes a series of its own.
  void OnRequest(std::string_view surface, std::string_view method, StatusCode code);
  // A question has ended; its times are those that the client saw, waiting for a worker included.
  // corpus: "": none.
  void OnQuestion(std::string_view corpus, const Result<QuestionReport>& report);
  const QuestionRates& rates() const { return rates_; }
  void OnJobEnded(const JobRecord& job);
  void OnConnected(std::string_view surface);
  void OnDisconnected(std::string_view surface);
  // A client was one too many.
  void OnRefusedConnection(std::string_view surface);

  // Everything, in a fixed order; families without a sample yet are empty.
  std::vector<prometheus::MetricFamily> Collect() const;

 private:
  struct Families;
  std::unique_ptr<Families> families_;
  QuestionRates rates_;
};

}  // namespace corpusd
