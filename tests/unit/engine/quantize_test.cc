#include "kernels/reference/quantize.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/reference/dequantize.h"

namespace corpusd {
namespace {

constexpr uint32_t kBlock = 32;

std::vector<float> RoundTrip(WeightType type, const std::vector<float>& row) {
  const auto cols = static_cast<uint32_t>(row.size());
  std::vector<std::byte> bytes(WeightRowBytes(type, cols));
  EXPECT_TRUE(QuantizeRow(type, row.data(), bytes.data(), cols));
  std::vector<float> back(cols);
  DequantizeRow(type, bytes.data(), back.data(), cols);
  return back;
}

double SquaredError(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
  return sum;
}

// From the smallest to the largest number of each block, in fifteen equal steps.
std::vector<float> NearestOfRange(const std::vector<float>& row) {
  std::vector<float> back;
  for (size_t first = 0; first < row.size(); first += kBlock) {
    const auto begin = row.begin() + static_cast<long>(first);
    const auto [low, high] = std::minmax_element(begin, begin + kBlock);
    const float scale = (*high - *low) / 15;
    for (auto x = begin; x != begin + kBlock; ++x) {
      back.push_back(*low + scale * std::nearbyint((*x - *low) / scale));
    }
  }
  return back;
}

std::vector<float> Normal(size_t count, float spread, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> row(count);
  for (float& x : row) x = normal(random);
  return row;
}

TEST(QuantizeRow, FourBitsAreBetterThanRoundingWithinTheRange) {
  const auto row = Normal(size_t{kBlock} * 400, 0.02F, 7);
  const double ours = SquaredError(row, RoundTrip(WeightType::kQ4_1, row));
  const double nearest = SquaredError(row, NearestOfRange(row));
  std::cout << "squared error " << ours / nearest << " of rounding to nearest\n";
  EXPECT_LT(ours, 0.86 * nearest);
}

TEST(QuantizeRow, NoBlockIsMuchWorseThanRounding) {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    auto row = Normal(kBlock, 0.05F, seed);
    row[seed % kBlock] *= 1 + static_cast<float>(seed % 40);  // one that sticks out
    // What float16 scales cost at most: 2^-11 of the largest number.
    double largest = 0;
    for (const float x : row) largest = std::max<double>(largest, std::fabs(x));
    const double slack = kBlock * std::pow(largest * std::ldexp(1, -10), 2);
    EXPECT_LE(SquaredError(row, RoundTrip(WeightType::kQ4_1, row)),
              SquaredError(row, NearestOfRange(row)) + slack)
        << "seed " << seed;
  }
}

TEST(QuantizeRow, WhatLiesOnAGridStaysThere) {
  for (const WeightType type : {WeightType::kQ4_1, WeightType::kQ8_0, WeightType::kBf16}) {
    const auto once = RoundTrip(type, Normal(size_t{kBlock} * 8, 0.1F, 3));
    const auto twice = RoundTrip(type, once);
    for (size_t i = 0; i < once.size(); ++i) EXPECT_NEAR(twice[i], once[i], 4e-4F) << i;
  }
}

TEST(QuantizeRow, EightBitsAreWithinHalfAStep) {
  const auto row = Normal(size_t{kBlock} * 50, 1, 11);
  const auto back = RoundTrip(WeightType::kQ8_0, row);
  for (size_t first = 0; first < row.size(); first += kBlock) {
    float largest = 0;
    for (size_t i = first; i < first + kBlock; ++i) largest = std::max(largest, std::fabs(row[i]));
    // The fitted scale may be a little under the largest number's.
    for (size_t i = first; i < first + kBlock; ++i) {
      EXPECT_NEAR(back[i], row[i], largest / 127 * 0.8F);
    }
  }
}

TEST(QuantizeRow, BlocksOfOneNumber) {
  for (const float value : {0.0F, 0.25F, -3.0F}) {
    const std::vector<float> row(kBlock, value);
    EXPECT_EQ(RoundTrip(WeightType::kQ4_1, row), row);
    const auto back = RoundTrip(WeightType::kQ8_0, row);
    for (const float x : back) EXPECT_NEAR(x, value, std::fabs(value) * 1e-3F);
  }
}

TEST(QuantizeRow, WhatNoScaleReachesIsRefused) {
  std::vector<std::byte> out(1024);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), INFINITY, -1e6F}) {
    for (const WeightType type : {WeightType::kQ4_1, WeightType::kQ8_0, WeightType::kBf16}) {
      std::vector<float> row(size_t{kBlock} * 2, 0.5F);
      row[40] = bad;
      const bool fits = type == WeightType::kBf16 && std::isfinite(bad);
      EXPECT_EQ(QuantizeRow(type, row.data(), out.data(), kBlock * 2), fits) << bad;
    }
  }
}

TEST(HalfFromFloat, EveryHalfComesBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = HalfToFloat(static_cast<uint16_t>(bits));
    if (!std::isfinite(value)) continue;
    EXPECT_EQ(HalfFromFloat(value), bits);
  }
  EXPECT_EQ(HalfFromFloat(1e9F), 0x7bff);
}

}  // namespace
}  // namespace corpusd
