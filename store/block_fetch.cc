// What reads blocks in a DurableBlockStore: looking up, fetching, verifying.
#include <algorithm>

#include "store/base/clock.h"
#include "store/durable_block_store.h"
#include "store/leased_prefetch.h"

namespace corpusd {
namespace {

bool IsDamage(const Status& status) {
  return status.code() == StatusCode::kCorruption || status.code() == StatusCode::kNotFound;
}

}  // namespace

Result<size_t> DurableBlockStore::LongestPrefix(std::span<const Digest> chain,
                                                std::span<const TokenId> tokens) const {
  const auto common = [&] {
    const std::lock_guard lock(mutex_);
    return catalog_->LongestCommonChain(chain);
  }();
  if (common.blocks == 0) return 0;
  // Every block of a corpus has as many tokens as its first, but for the last.
  const auto first = catalog_->Entry(chain.front());
  if (first.status().code() == StatusCode::kNotFound) return 0;  // removed since
  RETURN_IF_ERROR(first.status());
  const size_t prefix_tokens =
      common.blocks < common.corpus_blocks ? common.blocks * first->tokens : common.corpus_tokens;
  if (prefix_tokens <= tokens.size()) {
    const auto same = catalog_->BeginsWith(common.corpus_id, tokens.first(prefix_tokens));
    if (same.status().code() == StatusCode::kNotFound) return 0;
    RETURN_IF_ERROR(same.status());
    if (*same) return common.blocks;
  }
  return CorruptionError("block " + chain[common.blocks - 1].Hex().substr(0, 12) +
                         " is stored with other token ids than its digest says");
}

Result<std::vector<ChainEntry>> DurableBlockStore::Entries(std::span<const Digest> digests) const {
  return catalog_->Entries(digests);
}

Result<TierKind> DurableBlockStore::ReadSections(const Digest& digest, const ChainEntry& entry,
                                                 SectionRange range, std::span<std::byte> payload) {
  if (device_ != nullptr) {
    // A copy: whatever is wrong with it or its device, the disk has the block.
    const auto block = device_->Find(digest);
    if (block != nullptr && block->payload_bytes() == payload.size() &&
        device_->ReadSections(*block, range, payload).ok()) {
      return TierKind::kDevice;
    }
  }
  RETURN_IF_ERROR(
      payload_->ReadSections(entry.location, digest, entry.tokens, entry.sections, range, payload));
  return TierKind::kDisk;
}

Result<std::unique_ptr<BlockPrefetch>> DurableBlockStore::Prefetch(std::span<const Digest> digests,
                                                                   const PrefetchOptions& options) {
  ASSIGN_OR_RETURN(auto prefetch, loader_.Prefetch(digests, options));
  return WithLease(leases_, std::move(prefetch), digests);
}

Result<std::vector<BlockRef>> DurableBlockStore::Fetch(std::span<const Digest> digests,
                                                       FetchStats* stats) {
  ASSIGN_OR_RETURN(const auto prefetch, Prefetch(digests, {}));
  return prefetch->Finish(stats);
}

// Everything is looked up now: what was true before may have been repaired, moved or removed since.
Status DurableBlockStore::VerifyBlock(const Digest& parent, const Digest& digest,
                                      std::vector<std::byte>* buffer) {
  uint32_t sections = 0;
  RETURN_IF_ERROR(ReadBlock(digest, buffer, &sections));
  ASSIGN_OR_RETURN(const auto tokens, catalog_->BlockTokens({&digest, 1}));
  if (!tokens.front().empty() && ExtendChain(parent, tokens.front()) == digest) return OkStatus();
  ASSIGN_OR_RETURN(const ChainEntry entry, catalog_->Entry(digest));
  Quarantine(digest, entry.location);
  host_.Erase(digest);
  return CorruptionError("block " + digest.Hex().substr(0, 12) + ": its token ids differ");
}

Result<VerifyReport> DurableBlockStore::Verify(
    std::string_view name, const std::function<bool(uint64_t done, uint64_t total)>& progress) {
  ASSIGN_OR_RETURN(const CorpusRecord record, GetCorpus(name));
  VerifyReport report;
  std::vector<std::byte> buffer;
  Digest parent = record.root;
  for (size_t i = 0; i < record.chain.size(); ++i) {
    const Digest& digest = record.chain[i];
    const Status status = VerifyBlock(parent, digest, &buffer);
    if (!status.ok() && !IsDamage(status)) return status;
    ++report.blocks;
    if (status.ok()) report.bytes += buffer.size();
    if (status.code() == StatusCode::kCorruption) report.damaged.push_back(digest);
    if (status.code() == StatusCode::kNotFound) {
      // Evicted or removed since the record was read, or lost.
      const auto now = GetCorpus(name);
      const bool named = now.ok() && i < now->chain.size() && now->chain[i] == digest;
      if (named) report.missing.push_back(digest);
    }
    parent = digest;
    if (progress && !progress(i + 1, record.chain.size())) {
      return CancelledError("verifying corpus '" + record.name + "' was cancelled");
    }
  }
  return report;
}

}  // namespace corpusd
