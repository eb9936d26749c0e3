// kernels/coded_levels.h -- what the codes of a cq tile stand for, and the constants that its
// encoder works with; the same numbers for the reference and for every instruction set. Plain
// constants; any thread.
#pragma once

#include <cstdint>

namespace corpusd {

// A code c stands for scale * level[c] / unit. Levels ascend with the code and are symmetric: those
// of least squared error for a unit normal (Lloyd 1982, Max 1960), times unit, rounded to integers.
constexpr int8_t kLevels4[16] = {-127, -96, -75, -58, -44, -31, -18, -6,
                                 6,    18,  31,  44,  58,  75,  96,  127};
constexpr int8_t kLevels3[8] = {-127, -79, -45, -14, 14, 45, 79, 127};
constexpr int8_t kLevels2[4] = {-127, -38, 38, 127};
constexpr float kUnit8 = 31.75f;  // 8 bits: level c - 128; a scale holds 4 times itself
constexpr float kUnit4 = 46.5f;
constexpr float kUnit3 = 59.0f;
constexpr float kUnit2 = 84.1f;

constexpr float LevelUnit(uint32_t bits) {
  return bits == 8 ? kUnit8 : bits == 4 ? kUnit4 : bits == 3 ? kUnit3 : kUnit2;
}
constexpr int LevelOfCode(uint32_t bits, uint32_t code) {
  if (bits == 8) return static_cast<int>(code) - 128;
  return bits == 4 ? kLevels4[code] : bits == 3 ? kLevels3[code] : kLevels2[code];
}
// The positive levels, ascending: 2^(bits - 1) of them.
constexpr float PositiveLevel(uint32_t bits, uint32_t i) {
  return static_cast<float>(LevelOfCode(bits, (1u << (bits - 1)) + i));
}
// The border between positive levels i and i + 1.
constexpr float LevelBorder(uint32_t bits, uint32_t i) {
  return (PositiveLevel(bits, i) + PositiveLevel(bits, i + 1)) * 0.5f;
}

// The positive levels as floats, for looking them up.
template <uint32_t kBits>
struct PositiveLevels {
  alignas(64) float values[16];
  constexpr PositiveLevels() : values() {
    for (uint32_t i = 0; i < 1u << (kBits - 1); ++i) values[i] = PositiveLevel(kBits, i);
  }
};

// A block's mean is a multiple of this, kept as int8.
constexpr float kMeanStep = 0.125f;
// Coordinates have unit variance; what is beyond this is cut off.
constexpr float kCoordinateLimit = 4096.0f;

// Scales tried for a token: the byte nearest to its root mean square and so many 32nds of an octave
// beside it.
constexpr uint32_t kScaleTrials = 3;
constexpr int kFirstScaleTrial = -4;
constexpr int kScaleTrialStep = 4;
// The stored scale is at most so many times the one that was tried.
constexpr float kLargestCorrection = 4.0f;

}  // namespace corpusd
