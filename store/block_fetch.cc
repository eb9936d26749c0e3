// What reads blocks in a DurableBlockStore: looking up, fetching, verifying.
#include <algorithm>

#include "store/base/clock.h"
#include "store/corpus_chain.h"
#include "store/durable_block_store.h"
#include "store/leased_prefetch.h"

namespace corpusd {
namespace {

// Blocks looked up at once: their token ids are half a MiB.
constexpr size_t kLookupBlocks = 1024;

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

Result<std::vector<BlockPresence>> DurableBlockStore::StoredBlocks(
    const CorpusChain& chain, std::span<const Digest> digests,
    std::span<const TokenId> tokens) const {
  CHECK(digests.size() <= chain.blocks()) << digests.size();
  std::vector<BlockPresence> presence;
  for (size_t first = 0; first < digests.size(); first += kLookupBlocks) {
    const auto piece = digests.subspan(first, std::min(kLookupBlocks, digests.size() - first));
    ASSIGN_OR_RETURN(const auto found, Presence(piece));
    std::vector<Digest> stored;
    for (size_t i = 0; i < piece.size(); ++i) {
      if (found[i] == BlockPresence::kStored) stored.push_back(piece[i]);
    }
    ASSIGN_OR_RETURN(const auto ids, catalog_->BlockTokens(stored));
    auto next = ids.begin();
    for (size_t i = 0; i < piece.size(); ++i) {
      presence.push_back(found[i]);
      if (found[i] != BlockPresence::kStored) continue;
      const BlockSpan span = chain.block(first + i);
      const auto own = tokens.subspan(span.first_token, span.tokens);
      const std::vector<TokenId>& theirs = *next++;
      if (theirs.empty()) {
        presence.back() = BlockPresence::kAbsent;  // removed since
      } else if (!std::equal(own.begin(), own.end(), theirs.begin(), theirs.end())) {
        return CorruptionError("block " + piece[i].Hex().substr(0, 12) +
                               " is stored with other token ids than its digest says");
      }
    }
  }
  return presence;
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

// The digests of a segmented corpus's blocks by its token ids; how many tokens a whole block has
// follows from the blocks: no other number cuts it into these.
Result<std::vector<Digest>> DurableBlockStore::ExpectedDigests(
    const CorpusRecord& record, std::span<const std::vector<TokenId>> block_tokens) const {
  size_t whole = 1;
  for (const auto& tokens : block_tokens) whole = std::max(whole, tokens.size());
  const auto tokens_of_block = static_cast<uint32_t>(whole);
  ASSIGN_OR_RETURN(const auto tokens, CorpusTokens(record.name));
  std::vector<Digest> expected;
  if (CheckSegmented(record, tokens_of_block).ok() && tokens.size() == record.tokens) {
    expected = CorpusChain(record, tokens_of_block).Digests(record.root, tokens);
  }
  expected.resize(record.chain.size());
  return expected;
}

Status DurableBlockStore::VerifyBlock(const Digest& digest, bool tokens_agree,
                                      VerifyReport* report) {
  // Looked up now: what was true at the start may have been repaired or moved since.
  const auto entry = catalog_->Entry(digest);
  ++report->blocks;
  if (entry.status().code() == StatusCode::kNotFound) {
    report->missing.push_back(digest);
    return OkStatus();
  }
  RETURN_IF_ERROR(entry.status());
  report->bytes += entry->payload_bytes;
  std::vector<std::byte> buffer(entry->payload_bytes);
  Status status = payload_->Read(entry->location, digest, entry->tokens, entry->sections, buffer);
  if (status.ok() && !tokens_agree) status = CorruptionError("token ids differ");
  if (status.ok()) return status;
  if (status.code() == StatusCode::kUnavailable) {  // with a rank that is away
    report->missing.push_back(digest);
    return OkStatus();
  }
  if (!IsDamage(status)) return status;
  Quarantine(digest, entry->location);
  host_.Erase(digest);
  report->damaged.push_back(digest);
  return OkStatus();
}

Result<VerifyReport> DurableBlockStore::Verify(
    std::string_view name, const std::function<bool(uint64_t done, uint64_t total)>& progress) {
  ASSIGN_OR_RETURN(const CorpusRecord record, GetCorpus(name));
  ASSIGN_OR_RETURN(const auto tokens, catalog_->BlockTokens(record.chain));
  const std::vector<HeldPart> parts = HeldParts(record);
  ASSIGN_OR_RETURN(const auto part_tokens, catalog_->BlockTokens(PartDigests(record)));
  const bool segmented = record.segments.window_tokens > 0;
  std::vector<Digest> expected;
  if (segmented) {
    ASSIGN_OR_RETURN(expected, ExpectedDigests(record, tokens));
  }
  VerifyReport report;
  for (size_t i = 0; i < record.chain.size(); ++i) {
    const Digest& digest = record.chain[i];
    const Digest& parent = i == 0 ? record.root : record.chain[i - 1];
    const bool agree = !tokens[i].empty() && (segmented ? expected[i] == digest
                                                        : ExtendChain(parent, tokens[i]) == digest);
    RETURN_IF_ERROR(VerifyBlock(digest, agree, &report));
    if (progress && !progress(i + 1, record.chain.size() + parts.size())) {
      return CancelledError("verifying corpus '" + record.name + "' was cancelled");
    }
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    // The digest follows from the block's, and was not in doubt: only the tokens can be others.
    const bool agree = part_tokens[i] == tokens[parts[i].block];
    RETURN_IF_ERROR(VerifyBlock(parts[i].digest, agree, &report));
    if (progress && !progress(record.chain.size() + i + 1, record.chain.size() + parts.size())) {
      return CancelledError("verifying corpus '" + record.name + "' was cancelled");
    }
  }
  return report;
}

}  // namespace corpusd
