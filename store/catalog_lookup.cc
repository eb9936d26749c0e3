// Finding the longest stored prefix of a chain: in memory, without asking for each block.
#include <algorithm>

#include "store/base/crc32c.h"
#include "store/catalog.h"
#include "store/key_codec.h"

namespace corpusd {
namespace {

uint32_t CrcOf(std::span<const TokenId> tokens) { return Crc32c(std::as_bytes(tokens)); }

}  // namespace

// A stored block is named by some corpus together with all before it, and a digest commits to its
// whole prefix: so the longest prefix is one that some corpus's chain begins with.
Catalog::CommonChain Catalog::LongestCommonChain(std::span<const Digest> chain) const {
  CommonChain best;
  for (const auto& [name, record] : records_) {
    if (chain.empty() || record.chain.empty() || record.chain.front() != chain.front()) continue;
    const auto end =
        std::mismatch(chain.begin(), chain.end(), record.chain.begin(), record.chain.end()).first;
    const auto blocks = static_cast<size_t>(end - chain.begin());
    if (blocks <= best.blocks) continue;
    best = {record.id, blocks, record.chain.size(), record.durable_tokens};
  }
  if (quarantined_.empty()) return best;
  const auto usable =
      std::find_if(chain.begin(), chain.begin() + static_cast<ptrdiff_t>(best.blocks),
                   [&](const Digest& digest) { return quarantined_.contains(digest); });
  best.blocks = static_cast<size_t>(usable - chain.begin());
  return best;
}

// Ids are compared one by one when a chunk of them is met for the first time since the corpus's
// tokens changed, and by the CRC32C of the chunk afterwards: 10M ids are 40 MB, which read,
// unpacked and compared take longer than all the rest of a lookup.
Result<bool> Catalog::BeginsWith(uint64_t corpus_id, std::span<const TokenId> tokens) const {
  for (size_t chunk = 0; chunk * kTokensPerChunk < tokens.size(); ++chunk) {
    const size_t first = chunk * kTokensPerChunk;
    const auto part = tokens.subspan(first, std::min(kTokensPerChunk, tokens.size() - first));
    const bool whole = part.size() == kTokensPerChunk;
    const auto key = std::make_pair(corpus_id, static_cast<uint32_t>(chunk));
    uint64_t version = 0;
    {
      const std::lock_guard lock(compared_mutex_);
      version = compared_version_;
      const auto known = compared_.find(key);
      if (whole && known != compared_.end()) {
        if (CrcOf(part) != known->second) return false;
        continue;
      }
    }
    std::vector<TokenId> stored;
    ASSIGN_OR_RETURN(const std::string value,
                     database_->Get(TokensFamily(), KeyOf(key.first, key.second)));
    RETURN_IF_ERROR(DecodeTokens(value, &stored));
    if (stored.size() < part.size() || !std::equal(part.begin(), part.end(), stored.begin())) {
      return false;
    }
    const std::lock_guard lock(compared_mutex_);
    if (whole && version == compared_version_) compared_[key] = CrcOf(part);
  }
  return true;
}

void Catalog::ForgetCompared() {
  const std::lock_guard lock(compared_mutex_);
  ++compared_version_;
  compared_.clear();
}

}  // namespace corpusd
