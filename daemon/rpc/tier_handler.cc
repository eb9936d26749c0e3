#include "daemon/rpc/tier_handler.h"

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "client/wire/utf8.h"
#include "daemon/evicted_corpus.h"
#include "daemon/log.h"
#include "daemon/rpc/corpus_handler.h"
#include "daemon/rpc/corpus_message.h"
#include "store/base/clock.h"
#include "store/pin_ledger.h"

namespace corpusd {
namespace {

Status CheckOneTarget(const v1::EvictRequest& request) {
  const int targets = (request.name().empty() ? 0 : 1) + (request.all() ? 1 : 0) +
                      (request.to_free_bytes() == 0 ? 0 : 1);
  if (targets == 1) return OkStatus();
  return InvalidArgumentError("evict takes one of a corpus, all, and a size to free; got " +
                              std::to_string(targets));
}

void FillSteps(const EvictPlan& plan, v1::EvictReply* reply) {
  for (const EvictStep& step : plan.steps) {
    v1::EvictStep* out = reply->add_steps();
    out->set_corpus(step.corpus);
    out->set_keep_blocks(step.keep_blocks);
    out->set_blocks(step.blocks);
    out->set_bytes(step.bytes);
    out->set_why(ToUtf8(step.why));
    reply->set_blocks(reply->blocks() + step.blocks);
  }
  reply->set_bytes(plan.bytes);
  reply->set_pinned_bytes(plan.pinned_bytes);
  reply->set_busy_bytes(plan.busy_bytes);
  reply->set_leased_bytes(plan.leased_bytes);
}

bool IsPinnedToHost(const CorpusRecord& record) {
  return PinHolds(record, WallTimeMs()) &&
         record.pin->tier == static_cast<uint8_t>(TierKind::kHost);
}

// What leaves host memory here leaves that of ranks that are other processes, too; and, of `all`,
// what they alone hold. Added to the plan.
void EvictFromRanks(const Services& services, const v1::EvictRequest& request, EvictPlan* plan) {
  for (const CorpusRecord& record : services.store.ListCorpora()) {
    const auto step = std::find_if(plan->steps.begin(), plan->steps.end(),
                                   [&](const auto& one) { return one.corpus_id == record.id; });
    const bool here = step != plan->steps.end();
    if (!here && (!request.all() || IsPinnedToHost(record))) continue;
    const EvictReport others = services.engine.EvictFromRanks(record, request.dry_run());
    if (others.blocks == 0) continue;
    plan->bytes += others.bytes;
    if (here) {
      step->blocks += others.blocks;
      step->bytes += others.bytes;
      continue;
    }
    plan->steps.push_back({record.name, record.id, record.chain.size(), others.blocks, others.bytes,
                           /*expired=*/false, "in the memory of other ranks"});
  }
}

Result<v1::Response> EvictByPolicy(const Services& services, TierKind from,
                                   const v1::EvictRequest& request) {
  const uint64_t bytes =
      request.all() ? std::numeric_limits<uint64_t>::max() : request.to_free_bytes();
  ASSIGN_OR_RETURN(EvictPlan plan, services.store.EvictByPolicy(from, bytes, request.dry_run()));
  if (from == TierKind::kHost) EvictFromRanks(services, request, &plan);
  if (!request.dry_run()) {
    Log(LogLevel::kInfo, "evicted",
        {{"from", TierText(from)}, {"corpora", plan.steps.size()}, {"bytes", plan.bytes}});
  }
  v1::Response response;
  FillSteps(plan, response.mutable_evict());
  return response;
}

}  // namespace

Result<TierKind> TierOf(const Services& services, std::string_view text, TierKind if_empty) {
  if (text != "device") return ParseTier(text, if_empty);
  const std::vector<TierUsage> tiers = services.store.Usage();
  const bool there = std::any_of(tiers.begin(), tiers.end(),
                                 [](const TierUsage& tier) { return tier.name == "device"; });
  if (there) return TierKind::kDevice;
  return FailedPreconditionError("this daemon has no device tier (the model runs on '" +
                                 services.engine.model().backend + "'): use host or disk");
}

Result<v1::Response> HandleEvict(const Services& services, const v1::EvictRequest& request) {
  RETURN_IF_ERROR(CheckOneTarget(request));
  ASSIGN_OR_RETURN(const TierKind from, TierOf(services, request.from(), TierKind::kHost));
  if (request.name().empty()) return EvictByPolicy(services, from, request);
  if (from == TierKind::kDisk) {
    RETURN_IF_ERROR(RefuseWhileJobRuns(services, request.name(), "evict"));
  }
  ASSIGN_OR_RETURN(const CorpusRecord record, services.store.GetCorpus(request.name()));
  ASSIGN_OR_RETURN(EvictReport report,
                   services.store.Evict(request.name(), from, request.dry_run()));
  if (from == TierKind::kHost) {
    const EvictReport others = services.engine.EvictFromRanks(record, request.dry_run());
    report.blocks += others.blocks;
    report.bytes += others.bytes;
  }
  v1::Response response;
  response.mutable_evict()->set_blocks(report.blocks);
  response.mutable_evict()->set_bytes(report.bytes);
  response.mutable_evict()->set_shared_blocks(report.shared_blocks);
  return response;
}

Result<v1::Response> HandleWarm(const Services& services, const v1::WarmRequest& request) {
  ASSIGN_OR_RETURN(const TierKind to, TierOf(services, request.to(), TierKind::kHost));
  if (to == TierKind::kDisk) {
    return InvalidArgumentError("a corpus is warmed to host or device; disk holds it already");
  }
  RETURN_IF_ERROR(CheckNotEvicted(services, request.name()));
  ASSIGN_OR_RETURN(const CorpusRecord record, services.store.GetCorpus(request.name()));
  v1::Response response;
  v1::WarmReply* reply = response.mutable_warm();
  FetchStats stats;
  if (to == TierKind::kDevice) {
    ASSIGN_OR_RETURN(const Engine::DeviceWarming warmed,
                     services.engine.WarmDevice(request.name()));
    stats = warmed.loaded;
    reply->set_device_bytes(warmed.device_bytes);
  } else {
    ASSIGN_OR_RETURN(stats, services.engine.Warm(request.name()));
  }
  reply->set_blocks(record.chain.size() - stats.damaged.size() - stats.missing.size());
  reply->set_bytes(stats.host_bytes + stats.disk_bytes + stats.device_bytes);
  reply->set_disk_bytes(stats.disk_bytes);
  reply->set_seconds(stats.seconds);
  return response;
}

}  // namespace corpusd
