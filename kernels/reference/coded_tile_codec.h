// kernels/reference/coded_tile_codec.h -- the specification of the cq formats: how rows become the
// bytes of a coded tile, and how they are read. The encoder works in float32 with every operation
// fixed (sums in a stated order, FMAs written out), so that each instruction set gives these very
// bytes. Pure functions; any thread; writers of one tile must not overlap.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kv_format.h"
#include "kernels/kv_rows.h"

namespace corpusd {

// y[rows][head_dim] = (x - mean) * forward, x being the row, rotated by its slot if rows.rope is
// not null. Sums run over ascending inputs. Inputs that are not finite count as 0; y is cut off at
// kCoordinateLimit.
void ReferenceToCoordinates(float* y, const KvRows& rows) noexcept;

// Encodes rows 0 .. rows.rows - 1 as slots 0 .. of a tile of KvTileBytes; the bytes of other slots
// become zero. REQUIRES: rows.first_slot is 0, 1 <= rows.rows <= kBlockTokens, IsCoded(codec).
void ReferenceEncodeTile(std::byte* tile, KvCodec codec, bool is_key, const KvRows& rows) noexcept;

// y[0:head_dim] of one slot as stored: scale * level / unit + mean.
void ReadCodedRow(double* y, const std::byte* tile, KvCodec codec, bool is_key, uint32_t head_dim,
                  uint32_t token) noexcept;
// One code, its token's scale byte, a dim's mean.
uint32_t ReadCode(const std::byte* tile, uint32_t bits, bool is_key, uint32_t head_dim,
                  uint32_t token, uint32_t dim) noexcept;
float ReadCodedScale(const std::byte* tile, uint32_t bits, uint32_t head_dim,
                     uint32_t token) noexcept;
float ReadCodedMean(const std::byte* tile, uint32_t bits, uint32_t head_dim, uint32_t dim) noexcept;

}  // namespace corpusd
