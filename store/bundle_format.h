// store/bundle_format.h -- the parts of a bundle, one corpus as one file: prelude, record headers
// and the head that says what the corpus is. Layout in FORMAT.md. The head never holds the tenant:
// a bundle's digests are those of the same tokens without one, so a bundle tells nothing of a salt
// and fits under any. Pure; any thread. Writing is bundle_writer.h, reading bundle_reader.h.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store/base/result.h"
#include "store/corpus_chain.h"
#include "store/corpus_record.h"
#include "store/prefix_hash.h"

namespace corpusd {

inline constexpr uint32_t kBundleVersion = 1;           // of an exact corpus
inline constexpr uint32_t kSegmentedBundleVersion = 2;  // what reads 1 alone would misread it
inline constexpr uint32_t kPartsBundleVersion = 3;      // of a corpus with parts
inline constexpr size_t kBundlePreludeBytes = 16;
inline constexpr size_t kBundleRecordHeaderBytes = 32;
// A head is JSON of a few hundred bytes and the sources: room for about 160,000 of them.
inline constexpr uint64_t kBundleHeadBytesMax = uint64_t{32} << 20;
inline constexpr uint64_t kBundleTokensMax = uint64_t{1} << 32;
inline constexpr size_t kBundleEndBytes = 40;  // SHA-256, then the number of blocks

enum class BundleRecordKind : uint32_t {
  kHead = 0x44414548,    // "HEAD"
  kTokens = 0x4e4b4f54,  // "TOKN"
  kBlock = 0x4b434c42,   // "BLCK"
  kEnd = 0x20444e45      // "END "
};

enum class BundleEncoding : uint32_t { kRaw = 0, kZstd = 1 };

struct BundleRecord {
  BundleRecordKind kind = BundleRecordKind::kEnd;
  BundleEncoding encoding = BundleEncoding::kRaw;
  uint64_t stored_bytes = 0;   // of the body in the file
  uint64_t content_bytes = 0;  // of the body once decoded
  uint32_t body_crc = 0;       // CRC32C of the body as stored
};

// What the corpus is. Everything an importer compares, and what it keeps beside tokens and blocks.
struct BundleHead {
  std::string name;
  std::string model_name;  // for people; the weights' digest is in identity
  std::string mode;
  std::string kv_format;
  std::vector<IdentityField> identity;  // of the root, without the tenant
  Digest root;                          // ChainRoot(identity)
  uint32_t block_tokens = 0;
  uint32_t sections = 0;
  uint64_t block_bytes = 0;
  uint64_t tokens = 0;
  uint64_t blocks = 0;
  uint64_t bf16_bytes = 0;
  double prefill_seconds = 0;
  uint64_t skipped_files = 0;
  std::vector<CorpusSource> sources;
  SegmentRule segments;            // of a segmented corpus; else zeros
  std::vector<CorpusPart> parts;   // and of which blocks the bundle has them
  std::vector<std::string> roots;  // what the client was told to read
};

// Which tokens each block holds. REQUIRES: a head that DecodeBundleHead or OpenExport made.
CorpusChain ChainOf(const BundleHead& head);

// The parts that the bundle of these blocks has, in their order: each behind its block.
std::vector<HeldPart> PartsInOrder(const BundleHead& head, std::span<const Digest> chain);
uint32_t BundleVersionOf(const BundleHead& head);

// The identity of a corpus as a bundle carries it.
std::vector<IdentityField> WithoutTenant(std::span<const IdentityField> identity);

std::string EncodeBundlePrelude(uint32_t version = kBundleVersion);
// kCorruption: no bundle. kInvalidArgument: a bundle of another version, with the numbers.
Status CheckBundlePrelude(std::span<const std::byte> bytes);

std::string EncodeBundleRecord(const BundleRecord& record);
// REQUIRES: kBundleRecordHeaderBytes bytes. kCorruption says what is wrong.
Result<BundleRecord> DecodeBundleRecord(std::span<const std::byte> bytes);

// Canonical JSON: keys in order, no spaces.
std::string EncodeBundleHead(const BundleHead& head);
// Every field is checked against its limits and the others.
Result<BundleHead> DecodeBundleHead(std::string_view bytes);

}  // namespace corpusd
