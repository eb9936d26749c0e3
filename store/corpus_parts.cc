#include "store/corpus_parts.h"

#include <algorithm>
#include <unordered_set>

#include "store/base/check.h"
#include "store/base/sha256.h"
#include "store/corpus_record.h"

namespace corpusd {
namespace {

constexpr std::string_view kPartTag = "corpusd.part.v1";

void UpdateText(Sha256& hash, std::string_view text) {
  const uint64_t size = text.size();
  hash.Update({reinterpret_cast<const char*>(&size), sizeof size});  // little-endian
  hash.Update(text);
}

}  // namespace

Digest PartDigest(const Digest& block, std::string_view kind) {
  Sha256 hash;
  UpdateText(hash, kPartTag);
  UpdateText(hash, kind);
  hash.Update(std::as_bytes(std::span(block.bytes)));
  return {hash.Finish()};
}

std::vector<HeldPart> HeldParts(const CorpusRecord& record) {
  std::vector<HeldPart> held;
  for (uint32_t p = 0; p < record.parts.size(); ++p) {
    for (const BlockRange& range : record.parts[p].held) {
      CHECK(range.end <= record.chain.size()) << range.end << " of " << record.chain.size();
      for (uint64_t b = range.first; b < range.end; ++b) {
        held.push_back({PartDigest(record.chain[b], record.parts[p].kind), b, p});
      }
    }
  }
  return held;
}

std::vector<Digest> PartDigests(const CorpusRecord& record) {
  std::vector<Digest> digests;
  for (const HeldPart& held : HeldParts(record)) digests.push_back(held.digest);
  return digests;
}

std::vector<Digest> AllDigests(const CorpusRecord& record) {
  std::vector<Digest> digests(record.chain.begin(), record.chain.end());
  const auto parts = PartDigests(record);
  digests.insert(digests.end(), parts.begin(), parts.end());
  return digests;
}

uint64_t HeldPartBytes(const CorpusRecord& record) {
  uint64_t bytes = 0;
  for (const CorpusPart& part : record.parts) {
    for (const BlockRange& range : part.held) bytes += (range.end - range.first) * part.block_bytes;
  }
  return bytes;
}

std::vector<Digest> PartsGained(const CorpusRecord& before, CorpusRecord after) {
  ClipParts(after.chain.size(), &after.parts);
  if (after.parts == before.parts) return {};
  const auto old = PartDigests(before);
  const std::unordered_set<Digest, DigestHash> known(old.begin(), old.end());
  std::vector<Digest> gained = PartDigests(after);
  std::erase_if(gained, [&](const Digest& digest) { return known.contains(digest); });
  return gained;
}

void ClipParts(uint64_t blocks, std::vector<CorpusPart>* parts) {
  for (CorpusPart& part : *parts) {
    for (BlockRange& range : part.held) range.end = std::min(range.end, blocks);
    std::erase_if(part.held, [](const BlockRange& range) { return range.first >= range.end; });
  }
}

bool PartsFit(std::span<const CorpusPart> parts, uint64_t blocks) {
  for (const CorpusPart& part : parts) {
    uint64_t end = 0;
    for (const BlockRange& range : part.held) {
      if (range.first < end || range.end <= range.first || range.end > blocks) return false;
      end = range.end;
    }
  }
  return true;
}

}  // namespace corpusd
