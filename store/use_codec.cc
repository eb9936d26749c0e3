// The small values of record_codec.h: uses, extents, sums of token ids.
#include <bit>

#include "store/key_codec.h"
#include "store/record_codec.h"

namespace corpusd {
namespace {

void AppendDouble(std::string* bytes, double value) {
  AppendBigEndian(bytes, std::bit_cast<uint64_t>(value));
}

double DoubleAt(std::string_view bytes, size_t offset) {
  uint64_t bits = 0;
  ReadBigEndian(bytes, offset, &bits);
  return std::bit_cast<double>(bits);
}

constexpr size_t kHeatOffset = 8;
constexpr size_t kUseBytes = kHeatOffset + 8 + 8 + 8 * kHalfLives.size();

}  // namespace

std::string EncodeUse(const CorpusUse& use) {
  std::string bytes;
  AppendBigEndian(&bytes, static_cast<uint64_t>(use.last_used_at_ms));
  if (!use.heat) return bytes;
  AppendDouble(&bytes, use.heat->turn);
  AppendBigEndian(&bytes, static_cast<uint64_t>(use.heat->counted_ms));
  for (const double uses : use.heat->uses) AppendDouble(&bytes, uses);
  return bytes;
}

Result<CorpusUse> DecodeUse(std::string_view bytes) {
  uint64_t last_used = 0;
  if (!ReadBigEndian(bytes, 0, &last_used)) {
    return CorruptionError("a last use of the catalogue cannot be read");
  }
  CorpusUse use{static_cast<int64_t>(last_used), std::nullopt};
  if (bytes.size() < kUseBytes) return use;
  Heat heat;
  heat.turn = DoubleAt(bytes, kHeatOffset);
  uint64_t counted = 0;
  ReadBigEndian(bytes, kHeatOffset + 8, &counted);
  heat.counted_ms = static_cast<int64_t>(counted);
  for (size_t i = 0; i < heat.uses.size(); ++i) {
    heat.uses[i] = DoubleAt(bytes, kHeatOffset + 16 + 8 * i);
  }
  use.heat = heat;
  return use;
}

std::string EncodeExtent(const ExtentCount& count) {
  std::string bytes;
  AppendBigEndian(&bytes, count.bytes);
  AppendBigEndian(&bytes, count.live_bytes);
  return bytes;
}

Result<ExtentCount> DecodeExtent(std::string_view bytes) {
  ExtentCount count;
  if (!ReadBigEndian(bytes, 0, &count.bytes) || !ReadBigEndian(bytes, 8, &count.live_bytes) ||
      count.live_bytes == 0) {
    return CorruptionError("an extent of the catalogue cannot be read");
  }
  return count;
}

std::string EncodeTokenSums(const TokenSums& sums) {
  std::string bytes;
  AppendBigEndian(&bytes, sums.tokens);
  for (const uint32_t sum : sums.chunks) AppendBigEndian(&bytes, sum);
  return bytes;
}

Result<TokenSums> DecodeTokenSums(std::string_view bytes) {
  TokenSums sums;
  if (!ReadBigEndian(bytes, 0, &sums.tokens)) {
    return CorruptionError("the sums of a corpus's token ids cannot be read");
  }
  for (size_t offset = 8; offset + 4 <= bytes.size(); offset += 4) {
    ReadBigEndian(bytes, offset, &sums.chunks.emplace_back());
  }
  const uint64_t chunks = (sums.tokens + kTokensPerChunk - 1) / kTokensPerChunk;
  if (bytes.size() != 8 + 4 * sums.chunks.size() || sums.chunks.size() != chunks) {
    return CorruptionError("the sums of a corpus's token ids have a wrong size");
  }
  return sums;
}

}  // namespace corpusd
