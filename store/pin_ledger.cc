#include "store/pin_ledger.h"

#include <algorithm>
#include <map>

#include "store/base/units.h"
#include "store/tenant_of.h"

namespace corpusd {
namespace {

constexpr uint64_t kPageBytes = 4096;
// So many pins are named in a refusal; the rest is counted.
constexpr size_t kNamedMax = 8;

uint64_t WholeBlocks(const CorpusRecord& record) {
  return std::max<uint64_t>(record.chain.size(), record.whole_blocks);
}

// What it keeps at once, however long it becomes.
uint64_t MostParts(const CorpusRecord& record, const CorpusPart& part) {
  return std::min(WholeBlocks(record), part.blocks_max);
}

uint64_t InPages(uint64_t bytes) { return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes; }

bool IsLarger(const PinLedger::Entry* a, const PinLedger::Entry* b) {
  return a->bytes != b->bytes ? a->bytes > b->bytes : a->corpus < b->corpus;
}

// "'filings' 2.0 GiB (alice), 'mail' 1.0 GiB (bob) and 3 more", to somebody of this tenant.
std::string WhoHoldsWhat(std::vector<const PinLedger::Entry*> entries, std::string_view tenant) {
  std::erase_if(entries,
                [&](const PinLedger::Entry* entry) { return TenantOf(entry->corpus) != tenant; });
  if (entries.empty()) return "no other pin of yours holds anything";
  std::sort(entries.begin(), entries.end(), IsLarger);
  std::string text;
  for (size_t i = 0; i < std::min(entries.size(), kNamedMax); ++i) {
    const PinLedger::Entry& entry = *entries[i];
    text += (i == 0 ? "'" : ", '") + entry.corpus + "' " + FormatBytes(entry.bytes) + " (" +
            PinOwnerText(entry.owner) + ")";
  }
  if (entries.size() > kNamedMax) {
    text += " and " + std::to_string(entries.size() - kNamedMax) + " more";
  }
  return "held by " + text;
}

struct Claim {
  std::string limit;  // "the host tier's 4.0 GiB"
  std::string remedy;
  uint64_t needed_bytes = 0, limit_bytes = 0;
};

Status CheckClaim(const PinLedger::Entry& wanted,
                  const std::vector<const PinLedger::Entry*>& others,
                  uint64_t PinLedger::Entry::*bytes, const Claim& claim) {
  uint64_t held_bytes = 0;
  for (const PinLedger::Entry* entry : others) held_bytes += entry->*bytes;
  if (held_bytes + claim.needed_bytes <= claim.limit_bytes) return OkStatus();
  return ResourceExhaustedError("cannot pin corpus '" + wanted.corpus + "': it needs " +
                                FormatBytes(claim.needed_bytes) + ", and of " + claim.limit + " (" +
                                FormatBytes(claim.limit_bytes) + ") " + FormatBytes(held_bytes) +
                                " are promised, " + WhoHoldsWhat(others, TenantOf(wanted.corpus)) +
                                ": unpin one of them, or raise " + claim.remedy);
}

}  // namespace

std::string PinOwnerText(const std::string& owner) { return owner.empty() ? "no owner" : owner; }

bool PinHolds(const CorpusRecord& record, int64_t now_ms) {
  if (!record.pin) return false;
  return record.pin->expires_at_ms == 0 || record.pin->expires_at_ms > now_ms;
}

uint64_t PinCharge(const CorpusRecord& record) {
  uint64_t bytes = WholeBlocks(record) * (record.block_bytes + kPinnedBlockOverheadBytes);
  for (const CorpusPart& part : record.parts) {
    bytes += MostParts(record, part) * (part.block_bytes + kPinnedBlockOverheadBytes);
  }
  return bytes;
}

PinLedger::Entry PinLedger::MakeEntry(const CorpusRecord& record) const {
  Entry entry{record.id,
              record.name,
              record.pin->owner,
              static_cast<TierKind>(record.pin->tier),
              PinCharge(record),
              0,
              0};
  uint64_t memory_bytes = WholeBlocks(record) * InPages(record.block_bytes);
  for (const CorpusPart& part : record.parts) {
    memory_bytes += MostParts(record, part) * InPages(part.block_bytes);
  }
  if (entry.tier == TierKind::kHost) entry.host_bytes = memory_bytes;
  if (entry.tier == TierKind::kDevice) entry.device_bytes = memory_bytes;
  return entry;
}

void PinLedger::Add(const CorpusRecord& record) {
  if (PinHolds(record, now_ms_)) entries_.push_back(MakeEntry(record));
}

std::vector<PinLedger::Holding> PinLedger::Holdings() const {
  std::map<std::string, Holding> by_owner;
  for (const Entry& entry : entries_) {
    Holding& holding = by_owner[entry.owner];
    holding.owner = entry.owner;
    ++holding.pins;
    holding.bytes += entry.bytes;
  }
  std::vector<Holding> holdings;
  for (auto& [owner, holding] : by_owner) holdings.push_back(std::move(holding));
  std::stable_sort(holdings.begin(), holdings.end(),
                   [](const Holding& a, const Holding& b) { return a.bytes > b.bytes; });
  return holdings;
}

uint64_t PinLedger::TotalBytes() const {
  uint64_t bytes = 0;
  for (const Entry& entry : entries_) bytes += entry.bytes;
  return bytes;
}

Status PinLedger::CheckFits(const CorpusRecord& record, const PinLimits& limits) const {
  if (!PinHolds(record, now_ms_)) return OkStatus();
  const Entry wanted = MakeEntry(record);
  std::vector<const Entry*> others, of_owner, of_host, of_device;
  for (const Entry& entry : entries_) {
    if (entry.corpus_id == record.id) continue;
    others.push_back(&entry);
    if (entry.owner == wanted.owner) of_owner.push_back(&entry);
    if (entry.host_bytes > 0) of_host.push_back(&entry);
    if (entry.device_bytes > 0) of_device.push_back(&entry);
  }
  if (limits.owner_bytes > 0) {
    RETURN_IF_ERROR(CheckClaim(wanted, of_owner, &Entry::bytes,
                               {"the quota of " + PinOwnerText(wanted.owner), "--pins-owner-bytes",
                                wanted.bytes, limits.owner_bytes}));
  }
  RETURN_IF_ERROR(CheckClaim(wanted, others, &Entry::bytes,
                             {"what pins may hold of the disk", "--pins-total-bytes", wanted.bytes,
                              std::min(limits.TotalBytes(), limits.disk_bytes)}));
  if (wanted.device_bytes > 0) {
    return CheckClaim(
        wanted, of_device, &Entry::device_bytes,
        {"the device tier", "--device-bytes", wanted.device_bytes, limits.device_bytes});
  }
  if (wanted.host_bytes == 0) return OkStatus();
  return CheckClaim(wanted, of_host, &Entry::host_bytes,
                    {"the host tier", "--host-bytes", wanted.host_bytes, limits.host_bytes});
}

}  // namespace corpusd
