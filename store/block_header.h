// store/block_header.h -- what precedes a block's payload on disk: enough to prove that the bytes
// are the block that was asked for, undamaged. Layout in FORMAT.md. Pure; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "store/base/result.h"
#include "store/prefix_hash.h"

namespace corpusd {

struct BlockHeader {
  Digest digest;
  uint32_t tokens = 0;
  uint64_t payload_bytes = 0;
  std::vector<uint32_t> section_crcs;  // of equal parts of the payload, in order

  uint64_t EncodedBytes() const;
  uint64_t SectionBytes() const { return payload_bytes / section_crcs.size(); }
};

inline constexpr uint32_t kMaxSections = 4096;
inline constexpr uint64_t kMaxPayloadBytes = uint64_t{1} << 30;

struct SectionRange {
  uint32_t first = 0, end = 0;
};
inline constexpr SectionRange kAllSections{0, UINT32_MAX};

// Computes the CRCs. REQUIRES: sections in [1, kMaxSections], dividing payload.size().
BlockHeader MakeBlockHeader(const Digest& digest, uint32_t tokens,
                            std::span<const std::byte> payload, uint32_t sections);
// Appends the encoded header.
void EncodeBlockHeader(const BlockHeader& header, std::vector<std::byte>* out);
// Parses and checks the front of a stored block; every field is validated. kCorruption says which
// is wrong.
Result<BlockHeader> DecodeBlockHeader(std::span<const std::byte> bytes);
// kCorruption names the first section whose CRC differs.
Status VerifyPayload(const BlockHeader& header, std::span<const std::byte> payload);
// The same for some sections of the whole payload, of which no other byte is read.
Status VerifySections(const BlockHeader& header, std::span<const std::byte> payload,
                      SectionRange range);

}  // namespace corpusd
