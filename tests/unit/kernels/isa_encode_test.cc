// Every table's encoder of cq tiles against the specification, byte for byte.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "kernels/reference/coded_tile_codec.h"
#include "tests/unit/kernels/basis_fixture.h"
#include "tests/unit/kernels/kernel_fixture.h"

namespace corpusd {
namespace {

constexpr KvCodec kCoded[] = {KvCodec::kCq8, KvCodec::kCq4, KvCodec::kCq3, KvCodec::kCq2};

// Ordinary rows with odd ones among them.
std::vector<float> OddRows(uint32_t rows, uint32_t head_dim, uint32_t seed) {
  std::vector<float> x = RandomFloats(size_t{rows} * head_dim, 1.0f, seed);
  for (uint32_t r = 0; r < rows; ++r) {
    float* row = &x[size_t{r} * head_dim];
    for (uint32_t i = 0; i < head_dim; ++i) {
      if (r % 9 == 3) row[i] = 0;
      if (r % 9 == 4) row[i] *= 1e-40f;
      if (r % 9 == 5 && i == 5) row[i] = 1e4f;
      if (r % 9 == 6 && i == 6) row[i] = std::numeric_limits<float>::infinity();
      if (r % 9 == 7) row[i] *= 1e35f;
    }
  }
  return x;
}

void ExpectSameTiles(const KvRows& rows, bool is_key) {
  for (const KvCodec codec : kCoded) {
    const size_t bytes = KvTileBytes(codec, kBlockTokens, rows.head_dim);
    AlignedBytes expected(bytes);
    ReferenceEncodeTile(expected.data(), codec, is_key, rows);
    for (const CpuKernels* kernels : TestedKernels()) {
      AlignedBytes got(bytes);
      std::memset(got.data(), 0x55, bytes);
      AlignedBytes scratch(kernels->encode_scratch_bytes(rows.head_dim));
      kernels->encode_tile({.tile = got.data(),
                            .codec = codec,
                            .is_key = is_key,
                            .rows = rows,
                            .scratch = scratch.data()});
      for (size_t i = 0; i < bytes; ++i) {
        ASSERT_EQ(static_cast<int>(got.data()[i]), static_cast<int>(expected.data()[i]))
            << kernels->name << " " << KvCodecName(codec) << " byte " << i << ", " << rows.rows
            << " rows of " << rows.head_dim;
      }
    }
  }
}

TEST(IsaEncode, TilesAreTheReferencesBytes) {
  const TestRope rope(kBlockTokens, 32);
  for (const uint32_t head_dim : {64u, 128u, 192u, 256u}) {
    const TestBasis basis(1, head_dim, 3);
    for (const uint32_t count : {128u, 1u, 77u}) {
      if (head_dim > 128 && count == 77) continue;
      const std::vector<float> x = OddRows(count, head_dim + 3, count);
      KvRows rows{.data = x.data(),
                  .stride = head_dim + 3,
                  .rows = count,
                  .head_dim = head_dim,
                  .coordinates = &basis.basis()->value};
      ExpectSameTiles(rows, false);
      rows.rope = rope.table();
      rows.coordinates = &basis.basis()->key;
      ExpectSameTiles(rows, true);
    }
  }
}

// As bf16 pages hold them: any slots, the same floats however the rows are cut.
TEST(IsaEncode, CoordinatesAreTheReferencesFloats) {
  constexpr uint32_t kDim = 64;
  const TestRope rope(kBlockTokens, 32);
  const TestBasis basis(1, kDim, 4);
  const std::vector<float> x = OddRows(50, kDim, 9);
  KvRows rows{.data = x.data(),
              .stride = kDim,
              .rows = 50,
              .head_dim = kDim,
              .first_slot = 70,
              .rope = rope.table(),
              .coordinates = &basis.basis()->key};
  std::vector<float> expected(x.size());
  ReferenceToCoordinates(expected.data(), rows);
  for (const CpuKernels* kernels : TestedKernels()) {
    std::vector<float> got(x.size());
    kernels->to_coordinates(got.data(), rows);
    EXPECT_EQ(std::memcmp(got.data(), expected.data(), got.size() * 4), 0) << kernels->name;
    KvRows one = rows;
    one.rows = 1;
    one.data = rows.row(31);
    one.first_slot = 101;
    kernels->to_coordinates(got.data(), one);
    EXPECT_EQ(std::memcmp(got.data(), &expected[31 * kDim], kDim * 4), 0) << kernels->name;
  }
}

// Rows of several sequences are in slots of their own: each as it is alone.
TEST(IsaEncode, CoordinatesOfRowsInSlotsOfTheirOwn) {
  constexpr uint32_t kDim = 64, kRows = 16;
  const TestRope rope(kBlockTokens, 32);
  const TestBasis basis(1, kDim, 4);
  const std::vector<float> x = OddRows(kRows, kDim, 9);
  std::vector<uint32_t> slots;
  for (uint32_t r = 0; r < kRows; ++r) slots.push_back((r * 53 + 101) % kBlockTokens);
  for (const CpuKernels* kernels : TestedKernels()) {
    std::vector<float> got(x.size()), alone(kDim);
    kernels->to_coordinates(got.data(), {.data = x.data(),
                                         .stride = kDim,
                                         .rows = kRows,
                                         .head_dim = kDim,
                                         .slots = slots.data(),
                                         .rope = rope.table(),
                                         .coordinates = &basis.basis()->key});
    for (uint32_t r = 0; r < kRows; ++r) {
      kernels->to_coordinates(alone.data(), {.data = &x[r * kDim],
                                             .stride = kDim,
                                             .rows = 1,
                                             .head_dim = kDim,
                                             .first_slot = slots[r],
                                             .rope = rope.table(),
                                             .coordinates = &basis.basis()->key});
      EXPECT_EQ(std::memcmp(&got[r * kDim], alone.data(), kDim * 4), 0)
          << kernels->name << " row " << r;
    }
  }
}

}  // namespace
}  // namespace corpusd
