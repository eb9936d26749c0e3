// store/record_codec.h -- corpus records and chain entries as bytes. Formats in FORMAT.md. Pure;
// any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store/base/result.h"
#include "store/block_place.h"
#include "store/corpus_record.h"
#include "store/half_life_contest.h"

namespace corpusd {

// The record without its chain and sources, as JSON.
std::string EncodeRecord(const CorpusRecord& record);
Result<CorpusRecord> DecodeRecord(std::string_view bytes);
// Apart from the record, which is written with every publish: a corpus may have 100,000 of them.
std::string EncodeSources(std::span<const CorpusSource> sources);
Result<std::vector<CorpusSource>> DecodeSources(std::string_view bytes);

// What the catalogue knows of one stored block.
struct ChainEntry {
  BlockLocation location;
  BlockPlace place;
  uint64_t payload_bytes = 0;
  uint32_t tokens = 0;
  uint32_t sections = 0;
  uint32_t references = 0;   // corpora that name it
  bool quarantined = false;  // a checksum failed; not served until repaired
};

std::string EncodeChainEntry(const ChainEntry& entry);
Result<ChainEntry> DecodeChainEntry(std::string_view bytes);

// When a corpus was last used, and what is remembered of its uses. Bytes of before there was a heat
// have none.
struct CorpusUse {
  int64_t last_used_at_ms = 0;
  std::optional<Heat> heat;
};
std::string EncodeUse(const CorpusUse& use);
Result<CorpusUse> DecodeUse(std::string_view bytes);

struct ExtentCount {
  uint64_t bytes = 0;       // on disk; 0: of schema 1
  uint64_t live_bytes = 0;  // of payload that chain entries name
};
std::string EncodeExtent(const ExtentCount& count);
Result<ExtentCount> DecodeExtent(std::string_view bytes);

// CRC32C of each chunk of a corpus's token ids.
struct TokenSums {
  uint64_t tokens = 0;
  std::vector<uint32_t> chunks;
};
std::string EncodeTokenSums(const TokenSums& sums);
Result<TokenSums> DecodeTokenSums(std::string_view bytes);

// Token ids, zstd-compressed; at most kTokensPerChunk of them.
inline constexpr size_t kTokensPerChunk = 65536;
std::string EncodeTokens(std::span<const TokenId> tokens);
Status DecodeTokens(std::string_view bytes, std::vector<TokenId>* tokens);

}  // namespace corpusd
