// daemon/access/tenant_quota.h -- what a tenant's corpora take on disk, and whether more may come.
// Charged before anything is computed: with all blocks that a corpus will have once it is whole,
// those that several corpora of the tenant share once. Any thread.
#pragma once

#include <cstdint>
#include <string_view>

#include "store/block_store.h"

namespace corpusd {

// Bytes on disk, headers and padding included, that the tenant's corpora have or will have.
uint64_t TenantBytes(const BlockStore& store, std::string_view tenant);

// kResourceExhausted, with the numbers, if the tenant's corpora and so many bytes more pass the
// quota. quota_bytes: 0: no limit.
Status CheckTenantQuota(const BlockStore& store, std::string_view tenant, uint64_t quota_bytes,
                        uint64_t more_bytes);

}  // namespace corpusd
