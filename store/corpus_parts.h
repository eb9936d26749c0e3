// store/corpus_parts.h -- parts: of a model whose layers see different spans, a block of a chain
// holds the layers that see everything, and the layers of each other kind are blocks of their own,
// its parts, kept only where something can still attend to them. A part is stored like any block,
// under a digest that follows from its block's and its kind. Plain data and pure functions; any
// thread. Which parts must be kept is the engine's to say; the store only keeps them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store/prefix_hash.h"

namespace corpusd {

struct CorpusRecord;  // store/corpus_record.h

// Blocks [first, end) of a chain.
struct BlockRange {
  uint64_t first = 0, end = 0;
  bool operator==(const BlockRange&) const = default;
};

// One kind of layers of a corpus, and of which blocks their part is kept.
struct CorpusPart {
  std::string kind;              // "c8192", "w512"
  uint64_t block_bytes = 0;      // payload of one block's part
  uint32_t sections = 1;         // of that payload: layers
  uint64_t blocks_max = 0;       // kept at once, of a corpus however long
  std::vector<BlockRange> held;  // in order, not overlapping, inside the chain
  bool operator==(const CorpusPart&) const = default;
};

// SHA-256(tag, text(kind), digest of the block).
Digest PartDigest(const Digest& block, std::string_view kind);

// A part that a corpus keeps.
struct HeldPart {
  Digest digest;
  uint64_t block = 0;  // index in the chain
  uint32_t part = 0;   // index in CorpusRecord::parts
};

// By part, then by block. REQUIRES: ranges inside the chain.
std::vector<HeldPart> HeldParts(const CorpusRecord& record);
std::vector<Digest> PartDigests(const CorpusRecord& record);
// The chain, then the parts: every block that the corpus names.
std::vector<Digest> AllDigests(const CorpusRecord& record);
// Payload of the parts that are kept, and of those that a corpus of so many blocks keeps at most.
uint64_t HeldPartBytes(const CorpusRecord& record);
// Parts that `after` keeps and `before` does not, where the chain of one begins with the other's;
// `after` may keep some behind its chain, which do not count.
std::vector<Digest> PartsGained(const CorpusRecord& before, CorpusRecord after);
// Forgets what lies behind the chain's first `blocks` blocks.
void ClipParts(uint64_t blocks, std::vector<CorpusPart>* parts);
// Whether every range is in order and inside a chain of so many blocks.
bool PartsFit(std::span<const CorpusPart> parts, uint64_t blocks);

}  // namespace corpusd
