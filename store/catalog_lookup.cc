// Finding the longest stored prefix of a chain: in memory, without asking for each block.
#include <algorithm>

#include "store/base/crc32c.h"
#include "store/catalog.h"
#include "store/catalog_families.h"
#include "store/key_codec.h"

namespace corpusd {
namespace {

uint32_t CrcOf(std::span<const TokenId> tokens) { return Crc32c(std::as_bytes(tokens)); }

}  // namespace

// A stored block of an exact corpus is named by one together with all before it, and a digest
// commits to its whole prefix: so the longest prefix is one that some exact corpus's chain begins
// with. (Segmented corpora are of other roots, and share documents that stand elsewhere.)
Catalog::CommonChain Catalog::LongestCommonChain(std::span<const Digest> chain) const {
  CommonChain best;
  for (const auto& [name, record] : records_) {
    if (record.segments.window_tokens > 0) continue;
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

Result<std::shared_ptr<const TokenSums>> Catalog::SumsOf(uint64_t corpus_id) const {
  uint64_t version = 0;
  {
    const std::lock_guard lock(sums_mutex_);
    version = sums_version_;
    const auto known = sums_.find(corpus_id);
    if (known != sums_.end()) return known->second;
  }
  TokenSums sums;
  const auto stored = database_->Get(kMeta, std::string(kTokenSumsPrefix) + KeyOf(corpus_id));
  if (stored.ok()) {
    ASSIGN_OR_RETURN(sums, DecodeTokenSums(*stored));
  } else if (stored.status().code() == StatusCode::kNotFound) {  // of an older schema
    ASSIGN_OR_RETURN(const auto tokens, Tokens(corpus_id));
    if (tokens.empty()) return stored.status();
    sums.tokens = tokens.size();
    for (size_t first = 0; first < tokens.size(); first += kTokensPerChunk) {
      const size_t count = std::min(kTokensPerChunk, tokens.size() - first);
      sums.chunks.push_back(CrcOf(std::span(tokens).subspan(first, count)));
    }
  } else {
    return stored.status();
  }
  const auto shared = std::make_shared<const TokenSums>(std::move(sums));
  const std::lock_guard lock(sums_mutex_);
  if (version == sums_version_) sums_[corpus_id] = shared;
  return shared;
}

// The digests agree already, so this guards against a catalogue that gives a digest other ids than
// it was made of. 10M ids are 40 MB, which read, unpacked and compared take longer than all the
// rest of a lookup: so whole chunks are compared by the CRC32C that was written with them, and only
// where the query ends within a chunk are ids read.
Result<bool> Catalog::BeginsWith(uint64_t corpus_id, std::span<const TokenId> tokens) const {
  ASSIGN_OR_RETURN(const auto sums, SumsOf(corpus_id));
  if (tokens.size() > sums->tokens) return false;
  for (size_t chunk = 0; chunk * kTokensPerChunk < tokens.size(); ++chunk) {
    const size_t first = chunk * kTokensPerChunk;
    const auto part = tokens.subspan(first, std::min(kTokensPerChunk, tokens.size() - first));
    if (part.size() == std::min<uint64_t>(kTokensPerChunk, sums->tokens - first)) {
      if (CrcOf(part) != sums->chunks[chunk]) return false;
      continue;
    }
    std::vector<TokenId> stored;
    ASSIGN_OR_RETURN(const std::string value,
                     database_->Get(kTokens, KeyOf(corpus_id, static_cast<uint32_t>(chunk))));
    RETURN_IF_ERROR(DecodeTokens(value, &stored));
    if (stored.size() < part.size() || !std::equal(part.begin(), part.end(), stored.begin())) {
      return false;
    }
  }
  return true;
}

void Catalog::ForgetSums() {
  const std::lock_guard lock(sums_mutex_);
  ++sums_version_;
  sums_.clear();
}

}  // namespace corpusd
