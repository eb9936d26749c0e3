// kernels/reference/index_tile_codec.h -- the specification of index tiles: how keys become 4-bit
// codes, how queries become bytes, and what a scan computes from both. Float32 with every operation
// fixed: codes are the same on every host, and every instruction set's scan gives these very bits.
// Pure functions; any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/index_tile.h"

namespace corpusd {

// Replaces x[0:head_dim] by its orthonormal Hadamard transform, in runs of the largest power of two
// that divides head_dim.
void SpreadDims(float* x, uint32_t head_dim) noexcept;

// Encodes keys [tokens][head_dim], spread here, into a tile of IndexTileBytes; slots without a
// token, and numbers that are not finite, count as 0. REQUIRES: 1 <= tokens <= kBlockTokens.
void EncodeIndexTile(std::byte* tile, const float* keys, uint32_t tokens,
                     uint32_t head_dim) noexcept;

// One query [head_dim], spread here: codes, their sum, the scale.
void EncodeIndexQuery(const float* query, uint32_t head_dim, int8_t* codes, int32_t* sum,
                      float* scale) noexcept;

// out[0:head_dim] of one token, still spread.
void ReadIndexKey(float* out, const std::byte* tile, uint32_t head_dim, uint32_t token) noexcept;

void ReferenceScanIndex(const IndexScanTask& task) noexcept;

}  // namespace corpusd
