// Reading a block of a DurableBlockStore for itself, without a lease: what scrubbing and exporting
// do, which must not push out of the host tier what is being asked.
#include "store/durable_block_store.h"

namespace corpusd {

Status DurableBlockStore::ReadBlock(const Digest& digest, std::vector<std::byte>* payload,
                                    uint32_t* sections) {
  const std::string name = "block " + digest.Hex().substr(0, 12);
  BlockLocation tried;
  while (true) {
    const auto entry = catalog_->Entry(digest);
    if (entry.status().code() == StatusCode::kNotFound)
      return NotFoundError(name + " is not stored");
    RETURN_IF_ERROR(entry.status());
    if (entry->quarantined) return CorruptionError(name + " is quarantined");
    payload->resize(entry->payload_bytes);
    *sections = entry->sections;
    const Status status =
        payload_->Read(entry->location, digest, entry->tokens, entry->sections, *payload);
    const bool damage =
        status.code() == StatusCode::kCorruption || status.code() == StatusCode::kNotFound;
    if (!damage) return status;
    // Moved while it was read, as the next look tells; at the same place twice, it is damage.
    if (tried == entry->location) {
      Quarantine(digest, entry->location);
      host_.Erase(digest);
      return CorruptionError(status.message());
    }
    tried = entry->location;
  }
}

}  // namespace corpusd
