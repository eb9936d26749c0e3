#include "daemon/access/tenant_quota.h"

#include <algorithm>
#include <string>
#include <unordered_set>

#include "store/base/units.h"
#include "store/pin_ledger.h"
#include "store/tenant_of.h"

namespace corpusd {

uint64_t TenantBytes(const BlockStore& store, std::string_view tenant) {
  std::unordered_set<Digest, DigestHash> seen;
  uint64_t bytes = 0;
  for (const CorpusRecord& record : store.ListCorpora()) {
    if (TenantOf(record.name) != tenant) continue;
    if (!record.parts.empty()) {  // of a hybrid model: what is shared of it is charged again
      bytes += PinCharge(record);
      continue;
    }
    uint64_t blocks = record.whole_blocks - std::min(record.whole_blocks, record.chain.size());
    for (const Digest& digest : record.chain) blocks += seen.insert(digest).second ? 1 : 0;
    bytes += blocks * (record.block_bytes + kPinnedBlockOverheadBytes);
  }
  return bytes;
}

Status CheckTenantQuota(const BlockStore& store, std::string_view tenant, uint64_t quota_bytes,
                        uint64_t more_bytes) {
  if (quota_bytes == 0) return OkStatus();
  const uint64_t bytes = TenantBytes(store, tenant);
  if (bytes <= quota_bytes && more_bytes <= quota_bytes - bytes) return OkStatus();
  return ResourceExhaustedError("your corpora would take " + FormatBytes(bytes + more_bytes) +
                                " on disk, and your quota is " + FormatBytes(quota_bytes) +
                                ": remove one, or ask for more");
}

}  // namespace corpusd
