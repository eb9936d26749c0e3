// kernels/cpu/isa/index_scan.h -- products of queries with the keys of an index tile, and the
// largest of them: the bits of reference/index_tile_codec.h. Sums of codes are exact integers; what
// follows is one addition that is exact, one FMA and one product. Masses are within 2^-20. Included
// after the IndexDots of an instruction set by one translation unit.
#pragma once

#include "kernels/index_tile.h"

namespace corpusd {
namespace {

constexpr uint32_t kIndexGroups = kBlockTokens / kIndexGroupTokens;

// Scales of a tile's tokens as floats.
inline void ReadIndexScales(float* scales, const std::byte* tile, uint32_t head_dim,
                            uint32_t base) {
  for (uint32_t t = 0; t < kBlockTokens; ++t) {
    const auto byte = static_cast<uint32_t>(tile[IndexScalesOffset(head_dim) + t]);
    const uint32_t bits = (base + byte) << kIndexScaleShift;
    __builtin_memcpy(scales + t, &bits, 4);
  }
}

// The sum over a block's tokens of 2^(exponent * (score - best)): 16 interleaved sums, then those
// in order.
inline float IndexMass(const float* scores, uint32_t tokens, float best, float exponent) {
  Lanes sum = Zero();
  for (uint32_t t = 0; t < tokens; t += kLanes) {
    const Lanes below = Sub(Load(scores + t), Broadcast(best));
    const Lanes weight = Exp2(Mul(below, Broadcast(exponent)));
    sum = Add(sum, t + kLanes > tokens ? KeepFirst(weight, tokens - t, Zero()) : weight);
  }
  float sums[kLanes];
  Store(sums, sum);
  float total = 0;
  for (uint32_t i = 0; i < kLanes; ++i) total += sums[i];
  return total;
}

// Rows [first, first + kRows) of the queries over a whole tile.
template <uint32_t kRows>
void ScanIndexRows(const IndexScanTask& task, uint32_t first, const float* scales,
                   float mean_step) {
  const uint32_t head_dim = task.head_dim;
  const int8_t* queries = task.queries.codes + size_t{first} * head_dim;
  const auto* means = reinterpret_cast<const int8_t*>(task.tile + IndexMeansOffset(head_dim));
  Lanes mean[kRows], middle[kRows], best[kRows];
  for (uint32_t r = 0; r < kRows; ++r) {
    int32_t dot = 0;
    for (uint32_t i = 0; i < head_dim; ++i) dot += queries[size_t{r} * head_dim + i] * means[i];
    mean[r] = Broadcast(static_cast<float>(dot) * mean_step);
    middle[r] = Broadcast(-static_cast<float>(kIndexMiddle * task.queries.sums[first + r]));
    best[r] = Broadcast(-__builtin_inff());
  }
  float kept[kRows][kBlockTokens];  // before the query's scale
  for (uint32_t t = 0; t < task.tokens; t += kIndexGroupTokens) {
    int32_t dots[kRows][16];
    IndexDots<kRows>(dots, task.tile + t / kIndexGroupTokens * IndexGroupBytes(head_dim), head_dim,
                     queries);
    const Lanes scale = Load(scales + t);
#pragma GCC unroll 8
    for (uint32_t r = 0; r < kRows; ++r) {
      const Lanes centred = Fma(FloatsOf(dots[r]), Broadcast(2), middle[r]);
      Lanes score = Fma(centred, scale, mean[r]);
      if (task.scores != nullptr) {
        Store(task.scores + size_t{first + r} * kBlockTokens + t,
              Mul(score, Broadcast(task.queries.scales[first + r])));
      }
      if (task.mass != nullptr) Store(kept[r] + t, score);
      if (t + kIndexGroupTokens > task.tokens) {
        score = KeepFirst(score, task.tokens - t, Broadcast(-__builtin_inff()));
      }
      best[r] = Max(best[r], score);
    }
  }
  for (uint32_t r = 0; r < kRows; ++r) {
    const float scale = task.queries.scales[first + r];
    const float largest = ReduceMax(best[r]);
    task.best[first + r] = largest * scale;
    if (task.mass != nullptr) {
      task.mass[first + r] = IndexMass(kept[r], task.tokens, largest, task.exponent * scale);
    }
  }
}

template <uint32_t kRows>
void ScanIndexRest(const IndexScanTask& task, uint32_t first, uint32_t count, const float* scales,
                   float mean_step) {
  if constexpr (kRows > 0) {
    if (count == kRows) return ScanIndexRows<kRows>(task, first, scales, mean_step);
    ScanIndexRest<kRows - 1>(task, first, count, scales, mean_step);
  }
}

void ScanIndex(const IndexScanTask& task) noexcept {
  IndexTileHeader header;
  __builtin_memcpy(&header, task.tile + IndexHeaderOffset(task.head_dim), sizeof header);
  float scales[kBlockTokens];
  ReadIndexScales(scales, task.tile, task.head_dim, header.scale_base);
  for (uint32_t r = 0; r < task.queries.rows; r += kIndexRows) {
    ScanIndexRest<kIndexRows>(task, r, MinU32(kIndexRows, task.queries.rows - r), scales,
                              header.mean_step);
  }
}

}  // namespace
}  // namespace corpusd
