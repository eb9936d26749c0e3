// Index tiles: what the codes keep of keys, and every table's scan against the specification.
#include "kernels/index_tile.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/reference/index_tile_codec.h"
#include "tests/unit/kernels/kernel_fixture.h"

namespace corpusd {
namespace {

struct EncodedQueries {
  EncodedQueries(uint32_t rows, uint32_t head_dim, uint32_t seed)
      : values(RandomFloats(size_t{rows} * head_dim, 3.0f, seed)),
        codes(values.size()),
        sums(rows),
        scales(rows) {
    for (uint32_t r = 0; r < rows; ++r) {
      EncodeIndexQuery(&values[size_t{r} * head_dim], head_dim, &codes[size_t{r} * head_dim],
                       &sums[r], &scales[r]);
    }
  }
  IndexQueries view() const {
    return {codes.data(), sums.data(), scales.data(), static_cast<uint32_t>(sums.size())};
  }
  std::vector<float> values;
  std::vector<int8_t> codes;
  std::vector<int32_t> sums;
  std::vector<float> scales;
};

// Keys with a mean, and odd ones among them.
std::vector<float> OddKeys(uint32_t tokens, uint32_t head_dim, uint32_t seed) {
  std::vector<float> x = RandomFloats(size_t{tokens} * head_dim, 1.0f, seed);
  for (uint32_t t = 0; t < tokens; ++t) {
    float* row = &x[size_t{t} * head_dim];
    for (uint32_t i = 0; i < head_dim; ++i) {
      row[i] += static_cast<float>(i % 7) - 2;
      if (t % 11 == 3) row[i] = 0;
      if (t % 11 == 4) row[i] *= 1e-40f;
      if (t % 11 == 5 && i == 5) row[i] = std::numeric_limits<float>::quiet_NaN();
      if (t % 11 == 6) row[i] *= 50;
    }
  }
  return x;
}

TEST(IndexTile, EveryTableScansAsTheReference) {
  for (const uint32_t head_dim : {16u, 48u, 64u, 128u, 256u}) {
    for (const uint32_t tokens : {1u, 16u, 77u, 128u}) {
      AlignedBytes tile(IndexTileBytes(head_dim));
      EncodeIndexTile(tile.data(), OddKeys(tokens, head_dim, tokens).data(), tokens, head_dim);
      const EncodedQueries queries(19, head_dim, 5);
      std::vector<float> best(19), scores(size_t{19} * kBlockTokens);
      const IndexScanTask task{.tile = tile.data(),
                               .head_dim = head_dim,
                               .tokens = tokens,
                               .queries = queries.view(),
                               .best = best.data(),
                               .scores = scores.data()};
      ReferenceScanIndex(task);
      for (const CpuKernels* kernels : TestedKernels()) {
        std::vector<float> got_best(19), got(size_t{19} * kBlockTokens);
        IndexScanTask same = task;
        same.best = got_best.data();
        same.scores = got.data();
        kernels->scan_index(same);
        for (uint32_t r = 0; r < 19; ++r) {
          ASSERT_EQ(got_best[r], best[r]) << kernels->name << " " << head_dim << " row " << r;
          for (uint32_t t = 0; t < tokens; ++t) {
            ASSERT_EQ(got[r * kBlockTokens + t], scores[r * kBlockTokens + t])
                << kernels->name << " " << head_dim << " row " << r << " token " << t;
          }
        }
        same.scores = nullptr;
        got_best.assign(19, 0);
        kernels->scan_index(same);
        EXPECT_EQ(got_best, best) << kernels->name;
      }
    }
  }
}

TEST(IndexTile, MassesOfEveryTableAreTheReferences) {
  constexpr uint32_t kDim = 64;
  for (const uint32_t tokens : {1u, 40u, 128u}) {
    AlignedBytes tile(IndexTileBytes(kDim));
    EncodeIndexTile(tile.data(), OddKeys(tokens, kDim, 2).data(), tokens, kDim);
    const EncodedQueries queries(11, kDim, 8);
    std::vector<float> best(11), mass(11), first;
    IndexScanTask task{.tile = tile.data(),
                       .head_dim = kDim,
                       .tokens = tokens,
                       .queries = queries.view(),
                       .best = best.data(),
                       .mass = mass.data(),
                       .exponent = 0.18f};
    ReferenceScanIndex(task);
    for (const CpuKernels* kernels : TestedKernels()) {
      std::vector<float> got(11);
      task.mass = got.data();
      kernels->scan_index(task);
      for (uint32_t r = 0; r < 11; ++r) {
        EXPECT_NEAR(got[r] / mass[r], 1, 1e-5) << kernels->name << " row " << r;
      }
      if (first.empty()) first = got;
      EXPECT_EQ(got, first) << kernels->name;
    }
  }
}

TEST(IndexTile, ProductsAreThoseOfTheKeysWithinTheirPrecision) {
  constexpr uint32_t kDim = 64;
  std::vector<float> keys = RandomFloats(size_t{kBlockTokens} * kDim, 1.0f, 3);
  for (size_t i = 0; i < keys.size(); ++i) keys[i] += i % kDim == 9 ? 12.0f : 0.0f;
  AlignedBytes tile(IndexTileBytes(kDim));
  EncodeIndexTile(tile.data(), keys.data(), kBlockTokens, kDim);
  const EncodedQueries queries(4, kDim, 6);
  std::vector<float> best(4), scores(size_t{4} * kBlockTokens);
  ReferenceScanIndex({.tile = tile.data(),
                      .head_dim = kDim,
                      .tokens = kBlockTokens,
                      .queries = queries.view(),
                      .best = best.data(),
                      .scores = scores.data()});
  double error = 0;
  double spread = 0;
  for (uint32_t r = 0; r < 4; ++r) {
    for (uint32_t t = 0; t < kBlockTokens; ++t) {
      double exact = 0;
      double mean = 0;
      for (uint32_t i = 0; i < kDim; ++i) {
        exact += double{queries.values[r * kDim + i]} * keys[t * kDim + i];
        mean += double{queries.values[r * kDim + i]} * (i == 9 ? 12 : 0);
      }
      error += std::pow(scores[r * kBlockTokens + t] - exact, 2);
      spread += std::pow(exact - mean, 2);
    }
  }
  // 16 levels to the largest of 64: a tenth of a number's deviation.
  EXPECT_LT(std::sqrt(error / spread), 0.12);
}

TEST(IndexTile, ReadsBackSpread) {
  constexpr uint32_t kDim = 48;
  const std::vector<float> keys = RandomFloats(size_t{30} * kDim, 1.0f, 4);
  AlignedBytes tile(IndexTileBytes(kDim));
  EncodeIndexTile(tile.data(), keys.data(), 30, kDim);
  for (uint32_t t = 0; t < 30; ++t) {
    std::vector<float> spread(keys.begin() + t * kDim, keys.begin() + (t + 1) * kDim);
    SpreadDims(spread.data(), kDim);
    float read[kDim];
    ReadIndexKey(read, tile.data(), kDim, t);
    for (uint32_t i = 0; i < kDim; ++i) EXPECT_NEAR(read[i], spread[i], 0.35) << t << " " << i;
  }
}

}  // namespace
}  // namespace corpusd
