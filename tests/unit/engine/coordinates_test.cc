#include "engine/calibration/coordinates.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace corpusd {
namespace {

constexpr uint32_t kDim = 64;

// A positive matrix with a spread of eigenvalues: A A^T of a random A with scaled columns.
std::vector<double> RandomMoments(std::mt19937& random) {
  std::normal_distribution<double> normal;
  std::vector<double> a(kDim * kDim), product(kDim * kDim);
  for (uint32_t i = 0; i < kDim * kDim; ++i) {
    a[i] = normal(random) * std::exp(-0.05 * (i % kDim));
  }
  for (uint32_t i = 0; i < kDim; ++i) {
    for (uint32_t j = 0; j < kDim; ++j) {
      for (uint32_t k = 0; k < kDim; ++k) {
        product[i * kDim + j] += a[i * kDim + k] * a[j * kDim + k];
      }
    }
  }
  return product;
}

class CoordinatesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::mt19937 random(7);
    moments_.mean.assign(kDim, 0.25);
    moments_.covariance = RandomMoments(random);
    moments_.price = RandomMoments(random);
    auto built = BuildCoordinates(moments_, kDim);
    ASSERT_TRUE(built.ok()) << built.status().ToString();
    arrays_ = std::move(*built);
  }
  KvMoments moments_;
  KvCoordinateArrays arrays_;
};

TEST_F(CoordinatesTest, InverseUndoesForward) {
  for (uint32_t i = 0; i < kDim; ++i) {
    for (uint32_t k = 0; k < kDim; ++k) {
      double sum = 0;
      for (uint32_t j = 0; j < kDim; ++j) {
        sum += double{arrays_.forward[i * kDim + j]} * arrays_.inverse[j * kDim + k];
      }
      EXPECT_NEAR(sum, i == k ? 1 : 0, 2e-4) << i << ", " << k;
    }
  }
}

TEST_F(CoordinatesTest, EveryCoordinateHasTheSameVariance) {
  for (uint32_t j = 0; j < kDim; ++j) {
    double variance = 0;
    for (uint32_t a = 0; a < kDim; ++a) {
      for (uint32_t b = 0; b < kDim; ++b) {
        variance += double{arrays_.forward[a * kDim + j]} * moments_.covariance[a * kDim + b] *
                    arrays_.forward[b * kDim + j];
      }
    }
    EXPECT_NEAR(variance, 1, 5e-3) << j;  // the ridge takes a little of the smallest directions
  }
}

// What the encoder minimises is the price of the error in the space of keys, up to a constant.
TEST_F(CoordinatesTest, FeedbackAndWeightGiveThePrice) {
  std::mt19937 random(8);
  std::normal_distribution<double> normal;
  double proportion = 0;
  for (int trial = 0; trial < 4; ++trial) {
    std::vector<double> error(kDim), key(kDim);
    for (double& e : error) e = normal(random);
    for (uint32_t j = 0; j < kDim; ++j) {
      for (uint32_t i = 0; i < kDim; ++i) key[i] += error[j] * arrays_.inverse[j * kDim + i];
    }
    double price = 0, coded = 0;
    for (uint32_t i = 0; i < kDim; ++i) {
      for (uint32_t k = 0; k < kDim; ++k) price += key[i] * moments_.price[i * kDim + k] * key[k];
    }
    for (uint32_t j = 0; j < kDim; ++j) {
      double folded = error[j];
      for (uint32_t i = j + 1; i < kDim; ++i) {
        folded += double{arrays_.feedback[j * kDim + i]} * error[i];
      }
      coded += double{arrays_.weight[j]} * folded * folded;
    }
    if (trial == 0) proportion = price / coded;
    EXPECT_NEAR(price / coded, proportion, 0.01 * proportion) << trial;
  }
}

TEST_F(CoordinatesTest, ADegenerateDirectionIsNotMadeInfinitelyFine) {
  for (uint32_t i = 0; i < kDim; ++i) {
    moments_.covariance[i * kDim + 5] = moments_.covariance[5 * kDim + i] = 0;
  }
  const auto built = BuildCoordinates(moments_, kDim);
  ASSERT_TRUE(built.ok()) << built.status().ToString();
  for (const float value : built->forward) EXPECT_TRUE(std::isfinite(value));
}

TEST_F(CoordinatesTest, WhatIsNotFiniteOrNoPowerOfTwoIsRefused) {
  moments_.price[3] = NAN;
  EXPECT_EQ(BuildCoordinates(moments_, kDim).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(BuildCoordinates(moments_, 96).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace corpusd
