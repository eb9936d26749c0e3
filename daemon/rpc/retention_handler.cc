#include "daemon/rpc/retention_handler.h"

#include <algorithm>
#include <limits>
#include <string>

#include "daemon/corpus_update.h"
#include "daemon/jobs/maintenance.h"
#include "daemon/log.h"
#include "daemon/rpc/corpus_handler.h"
#include "daemon/rpc/corpus_message.h"
#include "daemon/rpc/tier_handler.h"
#include "store/pin_ledger.h"

namespace corpusd {
namespace {

constexpr size_t kReasonBytesMax = 256;

v1::Response CorpusResponse(const Services& services, const CorpusRecord& record) {
  v1::Response response;
  *response.mutable_corpus() = DescribeCorpus(services, record);
  return response;
}

// It ends up in tables and logs, so it is one line.
Status CheckReason(const std::string& reason) {
  const bool control = std::any_of(reason.begin(), reason.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
  if (reason.size() <= kReasonBytesMax && !control) return OkStatus();
  return InvalidArgumentError("the reason of a pin is one line of at most " +
                              std::to_string(kReasonBytesMax) + " bytes; got " +
                              std::to_string(reason.size()) + " bytes" +
                              (control ? " with a control character" : ""));
}

// The pin as the request wants it, beside the one that stands (null: none).
Result<CorpusPin> WantedPin(const Services& services, const v1::PinRequest& request,
                            const CorpusPin* standing) {
  CorpusPin pin;
  if (standing != nullptr && request.keep()) pin = *standing;
  if (!request.tier().empty() || !request.keep()) {
    ASSIGN_OR_RETURN(const TierKind tier, TierOf(services, request.tier(), TierKind::kDisk));
    pin.tier = static_cast<uint8_t>(tier);
  }
  if (request.ttl_ms() != 0 || request.never_expires() || !request.keep()) {
    pin.expires_at_ms = request.never_expires() ? 0 : ExpiryOf(services, request.ttl_ms());
  }
  if (!request.reason().empty() || !request.keep()) pin.reason = request.reason();
  if (standing != nullptr) pin.owner = standing->owner;
  pin.created_at_ms = services.now_ms();
  return pin;
}

// The regular sweep comes every so often; an end before the next one gets a sweep of its own.
void SweepAt(const Services& services, int64_t expires_at_ms) {
  const int64_t wait_ms = expires_at_ms - services.now_ms();
  if (expires_at_ms == 0 || wait_ms > kMaintenanceInterval.count()) return;
  const auto when = std::chrono::steady_clock::now() + std::chrono::milliseconds(wait_ms + 1);
  services.timers.Schedule(when, [&services] {
    services.slow.Submit(
        [&services] { ExpireCorpora(services.store, services.jobs, services.now_ms()); });
  });
}

}  // namespace

int64_t ExpiryOf(const Services& services, uint64_t ttl_ms) {
  const int64_t now = services.now_ms();
  const auto room = static_cast<uint64_t>(std::numeric_limits<int64_t>::max() - now);
  if (ttl_ms == 0 || ttl_ms > room) return 0;
  return now + static_cast<int64_t>(ttl_ms);
}

Result<v1::Response> HandlePin(const Services& services, const Peer& peer,
                               const v1::PinRequest& request) {
  RETURN_IF_ERROR(CheckReason(request.reason()));
  const auto change = [&](CorpusRecord& changed) -> Status {
    const int64_t now_ms = services.now_ms();
    RETURN_IF_ERROR(CheckGeneration(changed, request.if_generation()));
    RETURN_IF_ERROR(CheckMayChangePin(changed, peer, now_ms));
    const CorpusPin* const standing = PinHolds(changed, now_ms) ? &*changed.pin : nullptr;
    ASSIGN_OR_RETURN(CorpusPin pin, WantedPin(services, request, standing));
    if (pin.owner.empty()) pin.owner = OwnerName(peer);
    changed.pin = std::move(pin);
    return OkStatus();
  };
  ASSIGN_OR_RETURN(const CorpusRecord record,
                   UpdateCorpusRecord(services.store, request.name(), change));
  Log(LogLevel::kInfo, "corpus_pinned",
      {{"corpus", record.name},
       {"owner", record.pin->owner},
       {"tier", TierText(static_cast<TierKind>(record.pin->tier))},
       {"expires_at_ms", record.pin->expires_at_ms},
       {"bytes", PinCharge(record)}});
  // The promise holds from now on; loading is its first service, and a damaged block does not break
  // it.
  const bool host = record.pin->tier == static_cast<uint8_t>(TierKind::kHost);
  if (host && record.state == CorpusState::kReady) {
    ASSIGN_OR_RETURN(const FetchStats loaded, services.engine.Warm(record.name));
    Log(LogLevel::kInfo, "pin_loaded",
        {{"corpus", record.name}, {"disk_bytes", loaded.disk_bytes}});
  }
  const bool device = record.pin->tier == static_cast<uint8_t>(TierKind::kDevice);
  if (device && record.state == CorpusState::kReady) {
    RETURN_IF_ERROR(services.engine.WarmDevice(record.name).status());
  }
  return CorpusResponse(services, record);
}

Result<v1::Response> HandleUnpin(const Services& services, const Peer& peer,
                                 const v1::UnpinRequest& request) {
  const auto change = [&](CorpusRecord& changed) -> Status {
    RETURN_IF_ERROR(CheckGeneration(changed, request.if_generation()));
    RETURN_IF_ERROR(CheckMayChangePin(changed, peer, services.now_ms()));
    changed.pin.reset();
    return OkStatus();
  };
  ASSIGN_OR_RETURN(const CorpusRecord record,
                   UpdateCorpusRecord(services.store, request.name(), change));
  Log(LogLevel::kInfo, "corpus_unpinned", {{"corpus", record.name}, {"peer", PeerText(peer)}});
  return CorpusResponse(services, record);
}

Result<v1::Response> HandleTouch(const Services& services, const v1::TouchRequest& request) {
  const auto change = [&](CorpusRecord& changed) -> Status {
    RETURN_IF_ERROR(CheckGeneration(changed, request.if_generation()));
    if (!request.keep_expiry()) changed.expires_at_ms = ExpiryOf(services, request.ttl_ms());
    if (!request.priority().empty()) {
      ASSIGN_OR_RETURN(changed.priority, ParsePriority(request.priority()));
    }
    return OkStatus();
  };
  ASSIGN_OR_RETURN(const CorpusRecord record,
                   UpdateCorpusRecord(services.store, request.name(), change));
  SweepAt(services, record.expires_at_ms);
  return CorpusResponse(services, record);
}

}  // namespace corpusd
