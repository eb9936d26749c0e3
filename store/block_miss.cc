// What a DurableBlockStore knows about blocks that are not there, for miss_explain.h.
#include "store/durable_block_store.h"

namespace corpusd {

Result<std::vector<BlockPresence>> DurableBlockStore::Presence(
    std::span<const Digest> digests) const {
  ASSIGN_OR_RETURN(const auto entries, catalog_->Entries(digests));
  std::vector<BlockPresence> presence;
  for (const ChainEntry& entry : entries) {
    presence.push_back(entry.references == 0 ? BlockPresence::kAbsent
                       : entry.quarantined   ? BlockPresence::kQuarantined
                                             : BlockPresence::kStored);
  }
  return presence;
}

std::vector<RootRecord> DurableBlockStore::Roots() const { return catalog_->Roots(); }

}  // namespace corpusd
