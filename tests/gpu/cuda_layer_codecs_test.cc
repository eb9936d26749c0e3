// Pages whose layers have codecs of their own, on the CUDA backend against the reference backend.
#include <gtest/gtest.h>

#include <cstring>

#include "engine/backend/device_backend.h"
#include "engine/backend/reference_backend.h"
#include "kernels/reference/attention.h"
#include "tests/unit/kernels/backend_fixture.h"
#include "tests/unit/kernels/basis_fixture.h"
#include "tests/unit/kernels/kernel_fixture.h"

namespace corpusd {
namespace {

// Layers of several codecs in one block: each is written and read where it lies.
TEST(CudaLayerCodecsTest, LayersOfOtherCodecsMatchTheReference) {
  if (CudaDeviceCount() == 0) GTEST_SKIP() << "this host has no CUDA device";
  auto backend = MakeCudaBackend(0, 0);
  ASSERT_TRUE(backend.ok()) << backend.status().ToString();
  Backend& cuda = **backend;
  const std::unique_ptr<Backend> reference = MakeReferenceBackend();
  const auto shared = [&](const std::vector<float>& values) {
    auto buffer = *cuda.AllocateShared(values.size() * sizeof(float), "test");
    std::memcpy(buffer->data(), values.data(), values.size() * sizeof(float));
    return buffer;
  };
  const AttentionShape shape{.q_heads = 9, .kv_heads = 3, .head_dim = 64, .scale = 0.125f};
  const TestRope rope(4096, 32);
  const TestBasis basis(shape.kv_heads, shape.head_dim, 11);
  KvFormat format{.layers = 4, .kv_heads = shape.kv_heads, .head_dim = shape.head_dim};
  ASSERT_EQ(ParseKvFormat("cq4+0:cq8+2:cq2k3v", &format), "");
  const uint32_t cols = shape.kv_heads * shape.head_dim, count = 3;
  const auto blocks = *cuda.AllocateShared(format.BlockBytes() * count, "pages");
  std::memset(blocks->data(), 0, blocks->bytes());
  std::vector<KvPage> pages;
  for (uint32_t p = 0; p < count; ++p) {
    std::byte* const block = blocks->data() + p * format.BlockBytes();
    std::vector<std::byte> expected(format.BlockBytes());
    for (uint32_t layer = 0; layer < format.layers; ++layer) {
      std::vector<float> x = RandomFloats(size_t{kBlockTokens} * 2 * cols, 1.0f, p * 7 + layer);
      const MatrixView all{x.data(), kBlockTokens, 2 * cols, 2 * cols};
      KvWriteTarget target{&format, expected.data(), layer, 0, basis.basis()};
      reference->WriteKv(target, all.Cols(0, cols), all.Cols(cols, cols), rope.table());
      const auto input = shared(x);
      const MatrixView in = input->Matrix(kBlockTokens, 2 * cols);
      target.block = block;
      cuda.WriteKv(target, in.Cols(0, cols), in.Cols(cols, cols), rope.table());
      ASSERT_TRUE(cuda.Synchronize().ok());
    }
    EXPECT_EQ(std::memcmp(block, expected.data(), expected.size()), 0) << p;
    pages.push_back({block, p * kBlockTokens, kBlockTokens});
  }
  const KvPageList lists[] = {{&format, pages}};
  std::vector<double> scratch(4096);
  for (const uint32_t rows : {1u, 40u}) {
    const uint32_t q_cols = shape.q_heads * shape.head_dim;
    std::vector<float> q = RandomFloats(size_t{rows} * q_cols, 1.0f, rows);
    const auto in = shared(q), out = shared(q);
    for (uint32_t layer = 0; layer < format.layers; ++layer) {
      std::vector<float> expected(q.size());
      const uint64_t position = count * kBlockTokens - rows;
      ReferenceAttention({expected.data(), rows, q_cols, q_cols}, {q.data(), rows, q_cols, q_cols},
                         {.shape = shape,
                          .layer = layer,
                          .first_position = position,
                          .lists = lists,
                          .rope = rope.table(),
                          .basis = basis.basis()},
                         scratch);
      const MatrixView to = out->Matrix(rows, q_cols);
      cuda.Attention(to, in->Matrix(rows, q_cols),
                     {.shape = shape,
                      .layer = layer,
                      .first_position = position,
                      .lists = lists,
                      .rope = rope.table(),
                      .basis = basis.basis()});
      ASSERT_TRUE(cuda.Synchronize().ok());
      const std::vector<float> got(to.data, to.data + q.size());
      EXPECT_LT(RelativeError(got, expected), rows <= 16 ? 1e-4 : 0.02) << layer;
    }
  }
}

}  // namespace
}  // namespace corpusd
