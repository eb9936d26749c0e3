#include "engine/backend/cpu_backend.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "engine/backend/reference_backend.h"
#include "tests/unit/kernels/backend_fixture.h"
#include "tests/unit/kernels/basis_fixture.h"
#include "tests/unit/kernels/kernel_fixture.h"

namespace corpusd {
namespace {

std::unique_ptr<Backend> Cpu(unsigned threads) {
  auto backend = MakeCpuBackend({.threads = threads});
  EXPECT_TRUE(backend.ok()) << backend.status().ToString();
  return std::move(*backend);
}

TEST(CpuBackend, LayerMatchesTheReferenceBackend) {
  const auto reference = MakeReferenceBackend();
  const auto cpu = Cpu(2);
  for (const auto& [rows, pages] : {std::pair{1u, 9u}, {5u, 0u}, {150u, 1u}}) {
    const std::vector<float> expected = RunLayer(*reference, rows, pages);
    const std::vector<float> got = RunLayer(*cpu, rows, pages);
    EXPECT_LT(RelativeError(got, expected), cpu->name() == "cpu-avx2" ? 1e-3 : 0.02) << rows;
  }
}

// Fused matrices of a file that mixes types: every one keeps its own packed form and its own bits,
// wherever its rows begin.
TEST(CpuBackend, StackedSourcesOfDifferentKindsKeepTheirBits) {
  constexpr uint32_t kCols = 96;
  const RandomWeight parts[] = {{WeightType::kQ4_1, 40, kCols, 1},
                                {WeightType::kQ4_0, 8, kCols, 2},
                                {WeightType::kQ8_0, 23, kCols, 3},
                                {WeightType::kF32, 5, kCols, 4},
                                {WeightType::kQ4_1, 33, kCols, 5}};
  const auto cpu = Cpu(2);
  std::vector<WeightSource> sources;
  uint32_t total = 0;
  uint64_t bytes = 0;
  for (const RandomWeight& part : parts) {
    sources.push_back({"part", part.type, part.packed.rows, kCols, part.stored});
    total += part.packed.rows;
    bytes += part.packed.panels() * part.packed.panel_bytes;
  }
  const auto stacked = *cpu->LoadWeight(sources);
  ASSERT_EQ(stacked->rows(), total);
  EXPECT_LE(stacked->bytes(), bytes);
  for (const uint32_t rows : {1u, 3u, 40u}) {
    std::vector<float> x = RandomFloats(size_t{rows} * kCols, 1.0f, rows);
    const MatrixView inputs{x.data(), rows, kCols, kCols};
    std::vector<float> all(size_t{rows} * total);
    cpu->MatMul({all.data(), rows, total, total}, inputs, *stacked, false);
    uint32_t first = 0;
    for (const WeightSource& source : sources) {
      const auto alone = *cpu->LoadWeight(std::span(&source, 1));
      std::vector<float> out(size_t{rows} * source.rows);
      cpu->MatMul({out.data(), rows, source.rows, source.rows}, inputs, *alone, false);
      for (uint32_t n = 0; n < rows; ++n) {
        ASSERT_EQ(std::memcmp(&all[size_t{n} * total + first], &out[size_t{n} * source.rows],
                              source.rows * sizeof(float)),
                  0)
            << "row " << n << " of " << rows << ", outputs from " << first;
      }
      first += source.rows;
    }
  }
  std::vector<float> row(kCols);
  const uint32_t last = total - 1;
  UnpackRow(row.data(), parts[4].packed, 32);
  std::vector<float> embedded(kCols);
  cpu->Embed({embedded.data(), 1, kCols, kCols}, *stacked, std::span(&last, 1));
  EXPECT_EQ(row, embedded);
}

TEST(CpuBackend, BitsDoNotDependOnTheThreadCount) {
  const auto one = Cpu(1);
  for (const auto& [rows, pages] : {std::pair{1u, 9u}, {3u, 5u}, {150u, 1u}}) {
    const std::vector<float> expected = RunLayer(*one, rows, pages);
    for (const unsigned threads : {2u, 3u, 7u}) {
      const std::vector<float> got = RunLayer(*Cpu(threads), rows, pages);
      EXPECT_EQ(std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)), 0)
          << threads << " threads, " << rows << " rows";
    }
  }
}

// Keys and values of several sequences, in a basis and plain: the bytes of each written alone.
TEST(CpuBackend, WritesSeveralSequencesAsEachAlone) {
  constexpr uint32_t kRows = 16, kHeads = 2, kDim = 64, kCols = kHeads * kDim;
  const TestRope rope(kBlockTokens, 32);
  const TestBasis basis(kHeads, kDim, 4);
  std::vector<float> keys = RandomFloats(size_t{kRows} * kCols, 1.0f, 6);
  std::vector<float> values = RandomFloats(size_t{kRows} * kCols, 1.0f, 7);
  const MatrixView k{keys.data(), kRows, kCols, kCols}, v{values.data(), kRows, kCols, kCols};
  const KvFormat format{.layers = 2, .kv_heads = kHeads, .head_dim = kDim};
  for (const std::string isa : {"avx2", "avx512", "avx512vnni", "amx"}) {
    auto backend = MakeCpuBackend({2, isa});
    if (!backend.ok()) continue;  // this processor lacks it
    for (const KvBasis* with : {basis.basis(), static_cast<const KvBasis*>(nullptr)}) {
      std::vector<std::byte> alone(format.BlockBytes() * kRows), together(alone.size());
      std::vector<KvWriteTarget> targets;
      for (uint32_t r = 0; r < kRows; ++r) {
        const uint32_t slot = (r * 53 + 101) % kBlockTokens;
        const auto target = [&](std::vector<std::byte>& blocks) {
          return KvWriteTarget{&format, blocks.data() + r * format.BlockBytes(), 1, slot, with};
        };
        (*backend)->WriteKv(target(alone), k.Rows(r, 1), v.Rows(r, 1), rope.table());
        targets.push_back(target(together));
      }
      (*backend)->WriteKvEach(targets, k, v, rope.table());
      EXPECT_TRUE(alone == together) << isa << (with == nullptr ? "" : ", in a basis");
    }
  }
}

TEST(CpuBackend, RefusesUnknownOptionsWithASentence) {
  const auto unknown = MakeCpuBackend({.isa = "sse9"});
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(unknown.status().message().find("sse9"), std::string::npos);
  EXPECT_EQ(MakeCpuBackend({.threads = 100'000}).status().code(), StatusCode::kInvalidArgument);
  if (!DetectCpuFeatures().amx_bf16) {
    EXPECT_EQ(MakeCpuBackend({.isa = "amx"}).status().code(), StatusCode::kFailedPrecondition);
  }
}

TEST(CpuBackend, MayBeLoweredButNotRaised) {
  const CpuFeatures none;
  EXPECT_EQ(SelectCpuKernels(none, "auto"), nullptr);
  const CpuFeatures old{.avx2 = true};
  EXPECT_EQ(SelectCpuKernels(old, "auto")->name, "avx2");
  EXPECT_EQ(SelectCpuKernels(old, "avx512"), nullptr);
  const CpuFeatures all{.avx2 = true, .avx512 = true, .avx512_vnni = true, .amx_bf16 = true};
  EXPECT_EQ(SelectCpuKernels(all, "auto")->name, "amx");
  EXPECT_EQ(SelectCpuKernels(all, "avx512")->name, "avx512vnni");
  EXPECT_EQ(SelectCpuKernels(all, "avx2")->name, "avx2");
  EXPECT_EQ(SelectCpuKernels(all, "avx512vnni")->name, "avx512vnni");
  const CpuFeatures vnni{.avx2 = true, .avx512 = true, .avx512_vnni = true};
  EXPECT_EQ(SelectCpuKernels(vnni, "auto")->name, "avx512vnni");
  EXPECT_EQ(SelectCpuKernels(vnni, "avx512")->name, "avx512vnni");
  EXPECT_EQ(SelectCpuKernels(vnni, "amx"), nullptr);
  const CpuFeatures plain{.avx2 = true, .avx512 = true};
  EXPECT_EQ(SelectCpuKernels(plain, "avx512")->name, "avx512");
}

TEST(CpuBackend, AllocatesZeroedAlignedMemoryAndSaysWhyNot) {
  const auto cpu = Cpu(1);
  auto buffer = *cpu->Allocate(3 << 20, "test");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0u);
  for (uint64_t i = 0; i < buffer->bytes(); i += 4096) EXPECT_EQ(buffer->data()[i], std::byte{0});
  const auto huge = cpu->Allocate(~uint64_t{0}, "the moon");
  ASSERT_FALSE(huge.ok());
  EXPECT_EQ(huge.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(huge.status().message().find("the moon"), std::string::npos);
}

}  // namespace
}  // namespace corpusd
