#include "daemon/rpc/admin_handler.h"

#include <unistd.h>

#include <algorithm>
#include <string>

#include "client/wire/utf8.h"
#include "daemon/access/tenant_quota.h"
#include "daemon/log.h"
#include "daemon/rank_tiers.h"
#include "daemon/rpc/corpus_handler.h"
#include "daemon/version.h"
#include "store/pin_ledger.h"

namespace corpusd {
namespace {

constexpr std::chrono::milliseconds kProgressInterval{100};

void FillPins(const Services& services, const Principal& principal, v1::DiskUsageReply* reply) {
  PinLedger ledger(services.now_ms());
  for (const CorpusRecord& record : services.store.ListCorpora()) {
    if (MaySee(principal, record.name)) ledger.Add(record);
  }
  for (const PinLedger::Holding& holding : ledger.Holdings()) {
    v1::PinHolder* holder = reply->add_pin_holders();
    holder->set_owner(holding.owner);
    holder->set_pins(holding.pins);
    holder->set_bytes(holding.bytes);
  }
  const Options& options = services.options;
  uint64_t disk_bytes = 0;
  for (const TierUsage& tier : AllTiers(services)) {
    if (tier.name.starts_with("disk")) disk_bytes += tier.capacity_bytes;
  }
  const PinLimits limits{options.pins_owner_bytes, options.pins_total_bytes, options.host_bytes,
                         disk_bytes};
  reply->set_pins_owner_bytes(limits.owner_bytes);
  reply->set_pins_total_bytes(limits.TotalBytes());
}

void FillWriteState(const WriteState& state, v1::WriteState* message) {
  message->set_read_only(state.read_only);
  message->set_reason(ToUtf8(state.reason));
  message->set_since_ms(state.since_ms);
  message->set_refused(state.refused);
}

void FillEvictions(const Services& services, v1::Evictions* message) {
  const EvictionCounts counts = services.store.evictions();
  message->set_automatic(services.options.evict_disk);
  message->set_high_percent(services.options.disk_high_percent);
  message->set_low_percent(services.options.disk_low_percent);
  message->set_passes(counts.passes);
  message->set_corpora(counts.corpora);
  message->set_blocks(counts.blocks);
  message->set_bytes(counts.bytes);
  message->set_refusals(counts.refusals);
  message->set_last_ms(counts.last_ms);
  message->set_last_text(ToUtf8(counts.last_text));
}

void FillLease(const LeaseInfo& lease, v1::Lease* message) {
  message->set_id(lease.id);
  message->set_owner(lease.owner);
  message->set_blocks(lease.blocks);
  message->set_bytes(lease.bytes);
  message->set_since_ms(lease.since_ms);
  message->set_expires_at_ms(lease.expires_at_ms);
}

}  // namespace

v1::Response HandlePing(const Services& services) {
  const auto uptime = std::chrono::steady_clock::now() - services.started_at;
  v1::Response response;
  response.mutable_ping()->set_uptime_ms(
      static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(uptime).count()));
  return response;
}

v1::Response HandleVersion(const Services& services) {
  const ModelSummary& model = services.engine.model();
  v1::Response response;
  v1::VersionReply* reply = response.mutable_version();
  reply->set_version(std::string(kVersion));
  reply->set_backend(model.backend);
  reply->set_model_name(model.name);
  reply->set_model_digest(model.digest);
  reply->set_protocol(kProtocolVersion);
  reply->set_pid(static_cast<uint64_t>(getpid()));
  return response;
}

Result<v1::Response> HandleDiskUsage(const Services& services) {
  v1::Response response;
  v1::DiskUsageReply* reply = response.mutable_disk_usage();
  for (const TierUsage& usage : AllTiers(services)) {
    v1::Tier* tier = reply->add_tiers();
    tier->set_name(usage.name);
    tier->set_capacity_bytes(usage.capacity_bytes);
    tier->set_used_bytes(usage.used_bytes);
    tier->set_pinned_bytes(usage.pinned_bytes);
    tier->set_free_bytes(usage.free_bytes);
  }
  for (const CorpusRecord& record : services.store.ListCorpora()) {
    v1::Corpus* corpus = reply->add_corpora();
    *corpus = DescribeCorpus(services, record);
    corpus->clear_sources();
  }
  FillPins(services, kSeesAll, reply);
  FillWriteState(services.store.write_gate().state(), reply->mutable_write_state());
  FillEvictions(services, reply->mutable_evictions());
  for (const LeaseInfo& lease : services.store.leases().List()) {
    FillLease(lease, reply->add_leases());
  }
  return response;
}

Result<v1::Response> HandleTenantUsage(const Services& services, const Principal& principal) {
  v1::Response response;
  v1::DiskUsageReply* reply = response.mutable_disk_usage();
  const uint64_t used = TenantBytes(services.store, principal.tenant);
  const uint64_t quota = services.access.table()->QuotaOf(principal.tenant);
  const uint64_t capacity = quota == 0 ? services.options.disk_bytes : quota;
  v1::Tier* const disk = reply->add_tiers();
  disk->set_name("disk");
  disk->set_capacity_bytes(capacity);
  disk->set_used_bytes(used);
  disk->set_free_bytes(capacity - std::min(capacity, used));
  for (const CorpusRecord& record : services.store.ListCorpora()) {
    if (!MaySee(principal, record.name)) continue;
    v1::Corpus* const corpus = reply->add_corpora();
    *corpus = DescribeCorpus(services, record);
    corpus->clear_sources();
    if (PinHolds(record, services.now_ms())) {
      disk->set_pinned_bytes(disk->pinned_bytes() + PinCharge(record));
    }
  }
  FillPins(services, principal, reply);
  reply->mutable_write_state()->set_read_only(services.store.write_gate().state().read_only);
  reply->mutable_evictions()->set_automatic(services.options.evict_disk);
  return response;
}

void RunVerify(const Services& services, const std::shared_ptr<Call>& call,
               const v1::VerifyRequest& request) {
  if (!call->Begin()) return;
  std::chrono::steady_clock::time_point told_at{};
  const std::stop_token stop = call->stop_token();
  const auto progress = [&](uint64_t done, uint64_t total) {
    const auto now = std::chrono::steady_clock::now();
    if (now - told_at >= kProgressInterval) {
      told_at = now;
      v1::Response response;
      response.mutable_progress()->set_done(done);
      response.mutable_progress()->set_total(total);
      call->Send(std::move(response));
    }
    return !stop.stop_requested();
  };
  const auto outcome = services.engine.Verify(request.name(), request.repair(), progress);
  if (!outcome.ok()) {
    Log(LogLevel::kWarn, "verify",
        {{"corpus", request.name()}, {"error", outcome.status().message()}});
    return call->Fail(outcome.status());
  }
  const VerifyReport& report = outcome->report;
  const bool whole = report.damaged.empty() && report.missing.empty();
  Log(whole ? LogLevel::kInfo : LogLevel::kWarn, "verify",
      {{"corpus", request.name()},
       {"blocks", report.blocks},
       {"bytes", report.bytes},
       {"damaged", report.damaged.size()},
       {"missing", report.missing.size()},
       {"repaired", outcome->repaired}});
  v1::Response response;
  v1::VerifyReply* reply = response.mutable_verify();
  reply->set_blocks(report.blocks);
  reply->set_bytes(report.bytes);
  reply->set_damaged(report.damaged.size());
  reply->set_missing(report.missing.size());
  reply->set_repaired(outcome->repaired);
  call->Finish(std::move(response));
}

}  // namespace corpusd
