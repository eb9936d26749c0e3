#include "kernels/reference/index_tile_codec.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace corpusd {
namespace {

constexpr uint32_t kMaxHeadDim = 256;
constexpr float kLargestKey = 1e15f;  // beyond it sums of squares would leave float32
constexpr float kSmallestScale = 1e-30f;

float Bounded(float x) {
  if (!(std::fabs(x) <= kLargestKey)) return std::isnan(x) ? 0 : std::copysign(kLargestKey, x);
  return x;
}

float ScaleOf(uint32_t base, uint32_t byte) {
  return std::bit_cast<float>((base + byte) << kIndexScaleShift);
}

// The smallest scale with 5 bits of mantissa that is not below x, as its steps from 0.
uint32_t ScaleStepsAbove(float x) {
  return (std::bit_cast<uint32_t>(x) + (1u << kIndexScaleShift) - 1) >> kIndexScaleShift;
}

// Where the code of [token, dim] lies: its byte, and the bit in it.
struct CodePlace {
  uint64_t byte;
  uint32_t bit;
};
CodePlace PlaceOf(uint32_t head_dim, uint32_t token, uint32_t dim) {
  const uint64_t group = token / kIndexGroupTokens * IndexGroupBytes(head_dim);
  return {group + uint64_t{dim / 8} * 64 + token % kIndexGroupTokens * 4 + dim % 4,
          dim % 8 / 4 * 4};
}

IndexTileHeader HeaderOf(const std::byte* tile, uint32_t head_dim) {
  IndexTileHeader header;
  std::memcpy(&header, tile + IndexHeaderOffset(head_dim), sizeof header);
  return header;
}

// Means of the dims of x [tokens][head_dim], as bytes; x loses them as they will be read.
float TakeMeans(int8_t* means, float* x, uint32_t tokens, uint32_t head_dim) {
  float exact[kMaxHeadDim] = {};
  for (uint32_t t = 0; t < tokens; ++t) {
    for (uint32_t i = 0; i < head_dim; ++i) exact[i] += x[size_t{t} * head_dim + i];
  }
  float largest = 0;
  for (uint32_t i = 0; i < head_dim; ++i) {
    exact[i] /= static_cast<float>(tokens);
    largest = std::max(largest, std::fabs(exact[i]));
  }
  const float step = largest < kSmallestScale ? 0.0f : largest / 127;
  for (uint32_t i = 0; i < head_dim; ++i) {
    means[i] = step == 0 ? int8_t{0} : static_cast<int8_t>(std::nearbyint(exact[i] / step));
    const float read = static_cast<float>(means[i]) * step;
    for (uint32_t t = 0; t < tokens; ++t) x[size_t{t} * head_dim + i] -= read;
  }
  return step;
}

void PutCodes(std::byte* tile, uint32_t head_dim, uint32_t token, const float* z, float scale) {
  const float inverse = scale < kSmallestScale ? 0.0f : 0.5f / scale;
  for (uint32_t i = 0; i < head_dim; ++i) {
    const float code = std::nearbyint(std::fma(z[i], inverse, 0.5f * kIndexMiddle));
    const auto bits = static_cast<uint32_t>(std::min(15.0f, std::max(0.0f, code)));
    const CodePlace place = PlaceOf(head_dim, token, i);
    tile[place.byte] |= static_cast<std::byte>(bits << place.bit);
  }
}

}  // namespace

void SpreadDims(float* x, uint32_t head_dim) noexcept {
  const uint32_t run = head_dim & (~head_dim + 1);
  for (uint32_t half = 1; half < run; half *= 2) {
    for (uint32_t i = 0; i < head_dim; i += 2 * half) {
      for (uint32_t j = i; j < i + half; ++j) {
        const float a = x[j];
        const float b = x[j + half];
        x[j] = a + b;
        x[j + half] = a - b;
      }
    }
  }
  const float scale = 1.0f / std::sqrt(static_cast<float>(run));
  for (uint32_t i = 0; i < head_dim; ++i) x[i] *= scale;
}

void EncodeIndexTile(std::byte* tile, const float* keys, uint32_t tokens,
                     uint32_t head_dim) noexcept {
  float x[size_t{kBlockTokens} * kMaxHeadDim];
  for (size_t i = 0; i < size_t{tokens} * head_dim; ++i) x[i] = Bounded(keys[i]);
  for (uint32_t t = 0; t < tokens; ++t) SpreadDims(x + size_t{t} * head_dim, head_dim);
  std::memset(tile, 0, IndexTileBytes(head_dim));
  IndexTileHeader header;
  header.mean_step =
      TakeMeans(reinterpret_cast<int8_t*>(tile + IndexMeansOffset(head_dim)), x, tokens, head_dim);
  uint32_t steps[kBlockTokens];
  uint32_t largest = 255;
  for (uint32_t t = 0; t < tokens; ++t) {
    float reach = 0;
    for (uint32_t i = 0; i < head_dim; ++i) {
      reach = std::max(reach, std::fabs(x[size_t{t} * head_dim + i]));
    }
    steps[t] = ScaleStepsAbove(reach / kIndexMiddle);
    largest = std::max(largest, steps[t]);
  }
  header.scale_base = largest - 255;
  for (uint32_t t = 0; t < tokens; ++t) {
    const uint32_t byte = std::max(steps[t], header.scale_base) - header.scale_base;
    tile[IndexScalesOffset(head_dim) + t] = static_cast<std::byte>(byte);
    PutCodes(tile, head_dim, t, x + size_t{t} * head_dim, ScaleOf(header.scale_base, byte));
  }
  std::memcpy(tile + IndexHeaderOffset(head_dim), &header, sizeof header);
}

void EncodeIndexQuery(const float* query, uint32_t head_dim, int8_t* codes, int32_t* sum,
                      float* scale) noexcept {
  float x[kMaxHeadDim];
  for (uint32_t i = 0; i < head_dim; ++i) x[i] = Bounded(query[i]);
  SpreadDims(x, head_dim);
  float largest = 0;
  for (uint32_t i = 0; i < head_dim; ++i) largest = std::max(largest, std::fabs(x[i]));
  *scale = largest < kSmallestScale ? 0.0f : largest / 127;
  const float inverse = *scale == 0 ? 0.0f : 1 / *scale;
  *sum = 0;
  for (uint32_t i = 0; i < head_dim; ++i) {
    const float code = std::nearbyint(x[i] * inverse);
    codes[i] = static_cast<int8_t>(std::min(127.0f, std::max(-127.0f, code)));
    *sum += codes[i];
  }
}

void ReadIndexKey(float* out, const std::byte* tile, uint32_t head_dim, uint32_t token) noexcept {
  const IndexTileHeader header = HeaderOf(tile, head_dim);
  const auto* means = reinterpret_cast<const int8_t*>(tile + IndexMeansOffset(head_dim));
  const float scale = ScaleOf(header.scale_base,
                              std::to_integer<uint32_t>(tile[IndexScalesOffset(head_dim) + token]));
  for (uint32_t i = 0; i < head_dim; ++i) {
    const CodePlace place = PlaceOf(head_dim, token, i);
    const int code = std::to_integer<int>(tile[place.byte]) >> place.bit & 15;
    out[i] = scale * static_cast<float>(2 * code - kIndexMiddle) +
             static_cast<float>(means[i]) * header.mean_step;
  }
}

void ReferenceScanIndex(const IndexScanTask& task) noexcept {
  const uint32_t head_dim = task.head_dim;
  const IndexTileHeader header = HeaderOf(task.tile, head_dim);
  const auto* means = reinterpret_cast<const int8_t*>(task.tile + IndexMeansOffset(head_dim));
  for (uint32_t r = 0; r < task.queries.rows; ++r) {
    const int8_t* q = task.queries.codes + size_t{r} * head_dim;
    int32_t mean_dot = 0;
    for (uint32_t i = 0; i < head_dim; ++i) mean_dot += int32_t{q[i]} * means[i];
    const float mean = static_cast<float>(mean_dot) * header.mean_step;
    float scores[kBlockTokens];
    for (uint32_t t = 0; t < task.tokens; ++t) {
      int32_t dot = 0;
      for (uint32_t i = 0; i < head_dim; ++i) {
        const CodePlace place = PlaceOf(head_dim, t, i);
        dot += int32_t{q[i]} * (std::to_integer<int32_t>(task.tile[place.byte]) >> place.bit & 15);
      }
      const uint32_t byte = std::to_integer<uint32_t>(task.tile[IndexScalesOffset(head_dim) + t]);
      const auto centred = static_cast<float>(2 * dot - kIndexMiddle * task.queries.sums[r]);
      const float score =
          std::fma(centred, ScaleOf(header.scale_base, byte), mean) * task.queries.scales[r];
      scores[t] = score;
      if (task.scores != nullptr) task.scores[size_t{r} * kBlockTokens + t] = score;
      task.best[r] = t == 0 ? score : std::max(task.best[r], score);
    }
    if (task.mass == nullptr) continue;
    double mass = 0;
    for (uint32_t t = 0; t < task.tokens; ++t) {
      mass += std::exp2(double{task.exponent} * (scores[t] - task.best[r]));
    }
    task.mass[r] = static_cast<float>(mass);
  }
}

}  // namespace corpusd
