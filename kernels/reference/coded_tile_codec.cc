#include "kernels/reference/coded_tile_codec.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/coded_levels.h"
#include "kernels/coded_tile.h"

namespace corpusd {
namespace {

constexpr uint32_t kMaxHeadDim = 256;
constexpr uint32_t kSumLanes = 16;  // a block's means are summed in so many interleaved sums

float FiniteOrZero(float x) { return std::fabs(x) <= std::numeric_limits<float>::max() ? x : 0; }

// The row's keys rotated by their slot: even = fma(x0, cos, -(x1 sin)), odd = fma(x1, cos, x0 sin).
void Rotate(float* out, const KvRows& rows, uint32_t r) {
  const float* x = rows.row(r);
  const uint32_t turned = rows.rope == nullptr ? 0 : rows.rope->half_dim * 2;
  const float* cos_sin = rows.rope == nullptr ? nullptr : rows.rope->row(rows.slot(r));
  for (uint32_t i = 0; i < turned; i += 2) {
    const float c = cos_sin[i];
    const float s = cos_sin[i + 1];
    out[i] = std::fma(x[i], c, -(x[i + 1] * s));
    out[i + 1] = std::fma(x[i + 1], c, x[i] * s);
  }
  for (uint32_t i = turned; i < rows.head_dim; ++i) out[i] = x[i];
}

// The byte of a scale >= 0; rounding: kNearestScale or kScaleAbove.
int ScaleByteOf(float scale, uint32_t rounding) {
  const auto bits = std::bit_cast<uint32_t>(scale);
  return std::clamp(static_cast<int>((bits + rounding) >> kScaleShift) - kScaleByteBias, 0, 255);
}
float ScaleOf(int byte) { return std::bit_cast<float>(ScaleBits(static_cast<uint32_t>(byte))); }

struct TokenCodes {
  uint8_t codes[kMaxHeadDim];
  int scale_byte;
};

// The smallest scale that holds the largest coordinate; codes rounded to nearest even.
void EncodeWide(const float* z, uint32_t head_dim, TokenCodes* out) {
  float largest = 0;
  for (uint32_t j = 0; j < head_dim; ++j) largest = std::max(largest, std::fabs(z[j]));
  out->scale_byte = ScaleByteOf(largest * (kUnit8 / 127), kScaleAbove);
  const float inverse = kUnit8 / ScaleOf(out->scale_byte);
  for (uint32_t j = 0; j < head_dim; ++j) {
    const float level = std::min(127.0f, std::max(-127.0f, std::nearbyint(z[j] * inverse)));
    out->codes[j] = static_cast<uint8_t>(static_cast<int>(level) + 128);
  }
}

// The nearest level to u (in units of a level), ties to the smaller magnitude, as an index of the
// positive levels.
uint32_t NearestMagnitude(float u, uint32_t bits) {
  uint32_t i = 0;
  for (uint32_t b = 0; b + 1 < 1u << (bits - 1); ++b) i += std::fabs(u) > LevelBorder(bits, b);
  return i;
}

// What one scale makes of a token.
struct Trial {
  uint8_t codes[kMaxHeadDim];
  float cost = 0;  // |u|^2, u = R (z - z^) being what is left of the error in the feedback's metric
  float overlap = 0;  // <Rz, u>
};

// Codes by noise feedback with one scale: from the last coordinate to the first, each is aimed
// where it repairs the errors of those after it. rz: R z.
void Feed(const float* z, const float* rz, uint32_t head_dim, uint32_t bits, float scale,
          const KvCoordinates& coordinates, Trial* trial) {
  const float step = scale * (1.0f / LevelUnit(bits));
  const float inverse = 1.0f / step;
  const uint32_t half = 1u << (bits - 1);
  float errors[kMaxHeadDim];
  trial->cost = 0;
  trial->overlap = 0;
  for (uint32_t j = head_dim; j-- > 0;) {
    float target = z[j];
    for (uint32_t i = head_dim - 1; i > j; --i) {
      target = std::fma(coordinates.feedback[size_t{j} * head_dim + i], errors[i], target);
    }
    const float u = target * inverse;
    const uint32_t magnitude = NearestMagnitude(u, bits);
    const bool negative = std::signbit(u);
    const float level = negative ? -PositiveLevel(bits, magnitude) : PositiveLevel(bits, magnitude);
    trial->codes[j] = static_cast<uint8_t>(negative ? half - 1 - magnitude : half + magnitude);
    errors[j] = std::fma(-step, level, z[j]);
    const float left = std::sqrt(coordinates.weight[j]) * std::fma(-step, level, target);
    trial->cost = std::fma(left, left, trial->cost);
    trial->overlap = std::fma(rz[j], left, trial->overlap);
  }
}

// R z of the feedback's metric: sqrt(weight_j) * (z_j + sum over i > j, descending, of
// feedback[j][i] z_i). RETURNS |R z|^2, summed from the last to the first.
float ApplyMetric(float* rz, const float* z, uint32_t head_dim, const KvCoordinates& coordinates) {
  float squares = 0;
  for (uint32_t j = head_dim; j-- > 0;) {
    float sum = z[j];
    for (uint32_t i = head_dim - 1; i > j; --i) {
      sum = std::fma(coordinates.feedback[size_t{j} * head_dim + i], z[i], sum);
    }
    rz[j] = std::sqrt(coordinates.weight[j]) * sum;
    squares = std::fma(rz[j], rz[j], squares);
  }
  return squares;
}

// The scale with which the codes are no longer too small on average: s <Rz, Rz> / <Rz, Rz^>. Least
// error shrinks what it codes, and shrinkage, unlike noise, does not average out over tokens.
int UnbiasedScaleByte(int byte, float squares, float overlap) {
  const float along = squares - overlap;
  if (!(along > 0)) return byte;
  const float ratio = squares / along;
  const float bounded = ratio < kLargestCorrection ? ratio : kLargestCorrection;
  return ScaleByteOf(ScaleOf(byte) * bounded, kNearestScale);
}

void EncodeNarrow(const float* z, uint32_t head_dim, uint32_t bits,
                  const KvCoordinates& coordinates, TokenCodes* out) {
  float squares = 0;
  for (uint32_t j = 0; j < head_dim; ++j) squares = std::fma(z[j], z[j], squares);
  const float size = std::sqrt(squares * (1.0f / static_cast<float>(head_dim)));
  const int nearest = ScaleByteOf(size, kNearestScale);
  float rz[kMaxHeadDim];
  const float metric_squares = ApplyMetric(rz, z, head_dim, coordinates);
  Trial best;
  for (uint32_t i = 0; i < kScaleTrials; ++i) {
    const int offset = kFirstScaleTrial + static_cast<int>(i) * kScaleTrialStep;
    const int byte = std::clamp(nearest + offset, 0, 255);
    Trial trial;
    Feed(z, rz, head_dim, bits, ScaleOf(byte), coordinates, &trial);
    if (i > 0 && !(trial.cost < best.cost)) continue;
    best = trial;
    out->scale_byte = byte;
  }
  out->scale_byte = UnbiasedScaleByte(out->scale_byte, metric_squares, best.overlap);
  std::memcpy(out->codes, best.codes, head_dim);
}

// Where bit `bit` of a code lies in a tile, and calls visit(byte offset, bit in the byte).
template <typename Visit>
void ForEachBit(uint32_t bits, bool is_key, uint32_t head_dim, uint32_t token, uint32_t dim,
                Visit visit) {
  const uint32_t row = is_key ? token % 16 : dim % 16;
  const uint32_t column = is_key ? dim % 16 : token % 16;
  const int lane = static_cast<int>(row % 8 * 4 + column % 8 / 2);
  const int place_register = static_cast<int>(row / 8 + 2 * (column / 8));
  const int words = CodedLaneWords(static_cast<int>(bits), static_cast<int>(head_dim));
  const int group = static_cast<int>(token / 16) *
                    CodedGroupBytes(static_cast<int>(bits), static_cast<int>(head_dim));
  for (uint32_t b = 0; b < bits; ++b) {
    const BitPlace place =
        CodedPlaceOfBit(static_cast<int>(bits), static_cast<int>(dim / 16), place_register,
                        static_cast<int>(column % 2), static_cast<int>(b));
    visit(group + CodedWordOffset(words, place.word, lane) + place.bit / 8, place.bit % 8, b);
  }
}

void PutToken(std::byte* tile, uint32_t bits, bool is_key, uint32_t head_dim, uint32_t token,
              const TokenCodes& codes) {
  for (uint32_t j = 0; j < head_dim; ++j) {
    ForEachBit(bits, is_key, head_dim, token, j, [&](int offset, int bit, uint32_t b) {
      const auto set = static_cast<std::byte>((codes.codes[j] >> b & 1u) << bit);
      tile[offset] |= set;
    });
  }
  const int code_bytes = CodedCodeBytes(static_cast<int>(bits), static_cast<int>(head_dim));
  tile[code_bytes + CodedScaleOffset(static_cast<int>(token))] =
      static_cast<std::byte>(codes.scale_byte);
}

// The block's mean of one coordinate, as its stored byte. Sums of every 16th token, then of those
// in order.
int MeanByte(const float* y, uint32_t tokens, uint32_t head_dim) {
  float sums[kSumLanes] = {};
  for (uint32_t t = 0; t < tokens; ++t) sums[t % kSumLanes] += y[size_t{t} * head_dim];
  float total = 0;
  for (const float sum : sums) total += sum;
  const float mean = total / static_cast<float>(tokens);
  return static_cast<int>(
      std::min(127.0f, std::max(-127.0f, std::nearbyint(mean * (1.0f / kMeanStep)))));
}

}  // namespace

void ReferenceToCoordinates(float* y, const KvRows& rows) noexcept {
  const uint32_t head_dim = rows.head_dim;
  const KvCoordinates& to = *rows.coordinates;
  float x[kMaxHeadDim];
  for (uint32_t r = 0; r < rows.rows; ++r) {
    Rotate(x, rows, r);
    for (uint32_t i = 0; i < head_dim; ++i) x[i] = FiniteOrZero(x[i]) - to.mean[i];
    for (uint32_t j = 0; j < head_dim; ++j) {
      float sum = 0;
      for (uint32_t i = 0; i < head_dim; ++i) {
        sum = std::fma(x[i], to.forward[size_t{i} * head_dim + j], sum);
      }
      y[size_t{r} * head_dim + j] =
          std::min(kCoordinateLimit, std::max(-kCoordinateLimit, FiniteOrZero(sum)));
    }
  }
}

void ReferenceEncodeTile(std::byte* tile, KvCodec codec, bool is_key, const KvRows& rows) noexcept {
  const uint32_t bits = CodeBits(codec);
  const uint32_t head_dim = rows.head_dim;
  float y[kBlockTokens * kMaxHeadDim];
  ReferenceToCoordinates(y, rows);
  std::memset(tile, 0, KvTileBytes(codec, kBlockTokens, head_dim));
  std::byte* means =
      tile + CodedCodeBytes(static_cast<int>(bits), static_cast<int>(head_dim)) + kTileTokens;
  for (uint32_t j = 0; j < head_dim; ++j) {
    const int mean = MeanByte(y + j, rows.rows, head_dim);
    means[j] = static_cast<std::byte>(mean);
    for (uint32_t t = 0; t < rows.rows; ++t) {
      y[size_t{t} * head_dim + j] -= static_cast<float>(mean) * kMeanStep;
    }
  }
  for (uint32_t t = 0; t < rows.rows; ++t) {
    TokenCodes codes;
    if (bits == 8) {
      EncodeWide(y + size_t{t} * head_dim, head_dim, &codes);
    } else {
      EncodeNarrow(y + size_t{t} * head_dim, head_dim, bits, *rows.coordinates, &codes);
    }
    PutToken(tile, bits, is_key, head_dim, t, codes);
  }
}

uint32_t ReadCode(const std::byte* tile, uint32_t bits, bool is_key, uint32_t head_dim,
                  uint32_t token, uint32_t dim) noexcept {
  uint32_t code = 0;
  ForEachBit(bits, is_key, head_dim, token, dim, [&](int offset, int bit, uint32_t b) {
    code |= (std::to_integer<uint32_t>(tile[offset]) >> bit & 1u) << b;
  });
  return code;
}

float ReadCodedScale(const std::byte* tile, uint32_t bits, uint32_t head_dim,
                     uint32_t token) noexcept {
  const int code_bytes = CodedCodeBytes(static_cast<int>(bits), static_cast<int>(head_dim));
  return ScaleOf(
      std::to_integer<int>(tile[code_bytes + CodedScaleOffset(static_cast<int>(token))]));
}

float ReadCodedMean(const std::byte* tile, uint32_t bits, uint32_t head_dim,
                    uint32_t dim) noexcept {
  const int code_bytes = CodedCodeBytes(static_cast<int>(bits), static_cast<int>(head_dim));
  const auto mean = static_cast<int8_t>(tile[code_bytes + kTileTokens + static_cast<int>(dim)]);
  return static_cast<float>(mean) * kMeanStep;
}

void ReadCodedRow(double* y, const std::byte* tile, KvCodec codec, bool is_key, uint32_t head_dim,
                  uint32_t token) noexcept {
  const uint32_t bits = CodeBits(codec);
  const double step = double{ReadCodedScale(tile, bits, head_dim, token)} / LevelUnit(bits);
  for (uint32_t j = 0; j < head_dim; ++j) {
    const uint32_t code = ReadCode(tile, bits, is_key, head_dim, token, j);
    y[j] = step * LevelOfCode(bits, code) + ReadCodedMean(tile, bits, head_dim, j);
  }
}

}  // namespace corpusd
