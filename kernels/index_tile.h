// kernels/index_tile.h -- how the keys of one KV head and one block lie in the index that retrieval
// scans: 4 bits a number, in the order in which byte dot products take them. Keys are not rotated;
// keys and queries are spread by a Hadamard transform first, which leaves their products alone.
// Plain data and arithmetic; any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kv_format.h"

namespace corpusd {

// Groups of 16 tokens follow each other. A group holds head_dim / 8 vectors of 64 bytes; byte j of
// 32-bit lane t of vector v is dim 8v + j of token t in its low half and dim 8v + 4 + j in its high
// half. Then a scale byte a token, the block's mean of each dim (int8), and the header.
inline constexpr uint32_t kIndexGroupTokens = 16;

// Behind scales and means.
struct IndexTileHeader {
  float mean_step = 0;      // a mean is its byte times this
  uint32_t scale_base = 0;  // a scale's float has the bits (scale_base + byte) << kIndexScaleShift
};
inline constexpr uint32_t kIndexScaleShift = 18;  // 5 bits of mantissa

constexpr uint64_t IndexGroupBytes(uint32_t head_dim) { return uint64_t{head_dim} * 8; }
constexpr uint64_t IndexScalesOffset(uint32_t head_dim) {
  return IndexGroupBytes(head_dim) * (kBlockTokens / kIndexGroupTokens);
}
constexpr uint64_t IndexMeansOffset(uint32_t head_dim) {
  return IndexScalesOffset(head_dim) + kBlockTokens;
}
constexpr uint64_t IndexHeaderOffset(uint32_t head_dim) {
  return IndexMeansOffset(head_dim) + head_dim;
}
constexpr uint64_t IndexTileBytes(uint32_t head_dim) {
  return (IndexHeaderOffset(head_dim) + sizeof(IndexTileHeader) + 63) / 64 * 64;
}

// A code c of 0 .. 15 reads as scale * (2c - 15) + mean.
inline constexpr int kIndexMiddle = 15;

// Queries of one KV head as bytes: q[i] = scale * code.
struct IndexQueries {
  const int8_t* codes = nullptr;  // [rows][head_dim]
  const int32_t* sums = nullptr;  // [rows], of the codes
  const float* scales = nullptr;  // [rows]
  uint32_t rows = 0;
};

// The products of some queries with the keys of one tile.
struct IndexScanTask {
  const std::byte* tile = nullptr;  // IndexTileBytes, 64-byte aligned
  uint32_t head_dim = 0;            // a multiple of 16, at most 256
  uint32_t tokens = 0;              // of the block, at least 1
  IndexQueries queries;
  float* best = nullptr;    // [rows]: the largest product with a token of the block
  float* scores = nullptr;  // [rows][kBlockTokens], the first `tokens` of a row; null: not wanted
  // [rows]: the sum over tokens of 2^(exponent * (product - best)), at least 1; null: not wanted.
  float* mass = nullptr;
  float exponent = 0;  // positive
};

}  // namespace corpusd
