#include "kernels/reference/quantize.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/reference/dequantize.h"
#include "kernels/reference/kv_tile.h"

namespace corpusd {
namespace {

constexpr uint32_t kBlock = 32;
constexpr uint32_t kLanes = 8;  // partial sums, so that a compiler can keep them in vectors

void StoreHalf(std::byte* target, float value) {
  const uint16_t half = HalfFromFloat(value);
  std::memcpy(target, &half, sizeof half);
}

float Halved(float value) { return HalfToFloat(HalfFromFloat(value)); }

float Total(const float lanes[kLanes]) {
  float total = 0;
  for (uint32_t lane = 0; lane < kLanes; ++lane) total += lanes[lane];
  return total;
}

// x is about scale * code + offset.
struct Line {
  float scale = 0, offset = 0;
};

// codes[i] = the nearest of 0..15 for x[i].
void RoundToLine(const float* x, Line line, float* codes) {
  const float inverse = line.scale == 0 ? 0 : 1 / line.scale;
  for (uint32_t i = 0; i < kBlock; ++i) {
    float code = (x[i] - line.offset) * inverse + 0.5F;
    code = code > 0 ? code : 0;
    code = code < 15.5F ? code : 15.5F;
    codes[i] = static_cast<float>(static_cast<int>(code));
  }
}

// The line of least squares for codes; `line` itself if all codes are one.
Line FitLine(const float* x, const float* codes, Line line) {
  float sum_x[kLanes] = {}, sum_q[kLanes] = {}, sum_qq[kLanes] = {}, sum_xq[kLanes] = {};
  for (uint32_t i = 0; i < kBlock; i += kLanes) {
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
      const float value = x[i + lane];
      const float code = codes[i + lane];
      sum_x[lane] += value;
      sum_q[lane] += code;
      sum_qq[lane] += code * code;
      sum_xq[lane] += value * code;
    }
  }
  const float q = Total(sum_q);
  const float determinant = kBlock * Total(sum_qq) - q * q;
  if (determinant <= 0) return line;
  const float scale = (kBlock * Total(sum_xq) - Total(sum_x) * q) / determinant;
  return {scale, (Total(sum_x) - scale * q) / kBlock};
}

float SquaredError(const float* x, const float* codes, Line line) {
  float sum[kLanes] = {};
  for (uint32_t i = 0; i < kBlock; i += kLanes) {
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
      const float error = x[i + lane] - line.scale * codes[i + lane] - line.offset;
      sum[lane] += error * error;
    }
  }
  return Total(sum);
}

// Ranges narrower than the block's clip its ends and have finer steps between: which is best
// depends on the block. From each, codes and line are fitted to one another twice.
void QuantizeQ4(const float* x, std::byte* out) {
  constexpr float kRanges[] = {1.0F, 0.97F, 0.94F, 0.91F, 0.88F, 0.85F, 0.8F, 0.74F};
  const auto [low, high] = std::minmax_element(x, x + kBlock);
  const float center = (*low + *high) / 2;
  float best_codes[kBlock] = {}, codes[kBlock];
  Line best;
  float best_error = INFINITY;
  for (const float range : kRanges) {
    const float scale = (*high - *low) * range / 15;
    Line line{scale, center - 7.5F * scale};
    for (int pass = 0; pass < 2; ++pass) {
      RoundToLine(x, line, codes);
      line = FitLine(x, codes, line);
    }
    line = {Halved(line.scale), Halved(line.offset)};
    RoundToLine(x, line, codes);
    const float error = SquaredError(x, codes, line);
    if (error >= best_error) continue;
    best_error = error;
    best = line;
    std::copy_n(codes, kBlock, best_codes);
  }
  StoreHalf(out, best.scale);
  StoreHalf(out + 2, best.offset);
  for (uint32_t i = 0; i < kBlock / 2; ++i) {
    const auto pair = static_cast<unsigned>(best_codes[i]) |
                      static_cast<unsigned>(best_codes[i + kBlock / 2]) << 4;
    out[4 + i] = static_cast<std::byte>(pair);
  }
}

void RoundToScale(const float* x, float scale, int* codes) {
  const float inverse = scale == 0 ? 0 : 1 / scale;
  for (uint32_t i = 0; i < kBlock; ++i) {
    codes[i] = std::clamp(static_cast<int>(std::lrint(x[i] * inverse)), -127, 127);
  }
}

void QuantizeQ8(const float* x, std::byte* out) {
  float largest = 0;
  for (uint32_t i = 0; i < kBlock; ++i) largest = std::max(largest, std::fabs(x[i]));
  int codes[kBlock];
  RoundToScale(x, largest / 127, codes);
  float products = 0, squares = 0;
  for (uint32_t i = 0; i < kBlock; ++i) {
    const auto code = static_cast<float>(codes[i]);
    products += x[i] * code;
    squares += code * code;
  }
  const float scale = Halved(squares > 0 ? products / squares : 0);
  RoundToScale(x, scale, codes);
  StoreHalf(out, scale);
  for (uint32_t i = 0; i < kBlock; ++i) out[2 + i] = static_cast<std::byte>(codes[i]);
}

}  // namespace

uint16_t HalfFromFloat(float value) noexcept {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  constexpr uint32_t kSmallestNormal = 0x38800000u;  // 2^-14
  if (magnitude < kSmallestNormal) {                 // multiples of 2^-24
    const float steps = std::bit_cast<float>(magnitude) * 0x1p24f;
    return sign | static_cast<uint16_t>(std::nearbyintf(steps));
  }
  const uint32_t rounded = (magnitude + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  return sign | static_cast<uint16_t>(std::min(rounded - (112u << 10), 0x7bffu));
}

bool QuantizeRow(WeightType type, const float* row, std::byte* out, uint32_t cols) noexcept {
  const float limit = type == WeightType::kBf16 ? std::numeric_limits<float>::max() : 65504;
  bool within = true;
  for (uint32_t i = 0; i < cols; ++i) within &= std::fabs(row[i]) <= limit;  // false for a NaN
  if (!within) return false;
  if (type == WeightType::kBf16) {
    for (uint32_t i = 0; i < cols; ++i) {
      const uint16_t bits = Bf16FromFloat(row[i]);
      std::memcpy(out + size_t{i} * sizeof bits, &bits, sizeof bits);
    }
    return true;
  }
  const uint64_t block_bytes = WeightRowBytes(type, kBlock);
  for (uint32_t first = 0; first < cols; first += kBlock, out += block_bytes) {
    if (type == WeightType::kQ4_1) {
      QuantizeQ4(row + first, out);
    } else {
      QuantizeQ8(row + first, out);
    }
  }
  return true;
}

}  // namespace corpusd
