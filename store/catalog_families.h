// store/catalog_families.h -- where the catalogue keeps what: its column families, the prefixes of
// `meta`, digests as keys. Internal to catalog*.cc. Pure; any thread. Formats in FORMAT.md.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "store/prefix_hash.h"
#include "store/record_codec.h"

namespace corpusd {

enum Family : size_t {
  kMeta,
  kCorpora,
  kSources,
  kUses,
  kChains,
  kManifests,  // of schemas 1 and 2
  kTokens,
  kBlockTokens,
  kJobs,
  kEvictions,
  kExtents,
  kChainRows
};
inline const std::vector<std::string>& FamilyNames() {
  static const std::vector<std::string> kNames = {"meta",   "corpora",   "sources", "uses",
                                                  "chains", "manifests", "tokens",  "block_tokens",
                                                  "jobs",   "evictions", "extents", "chain_rows"};
  return kNames;
}

// Schema 1 had its blocks in ingested table files, which are still read; 1 and 2 had a row a block
// for chains, and no counts beside extents; 3 took every corpus for an exact one.
inline constexpr std::string_view kSchema = "4";
// From the first corpus with parts on, which readers of 4 would lose track of.
inline constexpr std::string_view kPartsSchema = "5";
inline constexpr std::string_view kLastSchema = "3";
inline constexpr std::string_view kOlderSchemas[] = {"1", "2"};
inline constexpr std::string_view kRootPrefix = "root/";
inline constexpr std::string_view kQuarantinedPrefix = "quarantined/";
inline constexpr std::string_view kTokenSumsPrefix = "token_sums/";

// Digests of a chain in one row: 4 KiB, so that a million are read in moments, and a publish
// rewrites little.
inline constexpr size_t kDigestsPerRow = 128;

inline std::string_view AsText(const Digest& digest) {
  return {reinterpret_cast<const char*>(digest.bytes.data()), digest.bytes.size()};
}

inline bool AsDigest(std::string_view text, Digest* digest) {
  if (text.size() != digest->bytes.size()) return false;
  std::copy(text.begin(), text.end(), digest->bytes.begin());
  return true;
}

inline size_t ChunksOf(size_t tokens) { return (tokens + kTokensPerChunk - 1) / kTokensPerChunk; }
inline size_t RowsOf(size_t digests) { return (digests + kDigestsPerRow - 1) / kDigestsPerRow; }

}  // namespace corpusd
