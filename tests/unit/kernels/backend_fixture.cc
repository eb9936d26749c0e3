#include "tests/unit/kernels/backend_fixture.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/unit/kernels/kernel_fixture.h"

namespace corpusd {

std::vector<float> RunLayer(Backend& backend, uint32_t rows, uint32_t pages_filled) {
  constexpr uint32_t kHidden = 192;
  constexpr AttentionShape kShape = {.q_heads = 3, .kv_heads = 1, .head_dim = 64, .scale = 0.125f};
  const TestRope rope(4096, 32);
  const RandomWeight q(WeightType::kQ4_1, 192, kHidden, 1);
  const RandomWeight kv(WeightType::kQ8_0, 128, kHidden, 2);
  const RandomWeight embedding(WeightType::kQ8_0, 50, kHidden, 3);
  const RandomWeight gate_up(WeightType::kQ4_0, 2 * 96, kHidden, 4);
  const auto source = [&](const RandomWeight& w) {
    return WeightSource{"w", w.type, w.packed.rows, w.packed.cols, w.stored};
  };
  const WeightSource stacked[] = {source(q), source(kv)};
  const WeightSource table[] = {source(embedding)};
  const WeightSource gates[] = {source(gate_up)};
  auto qkv_weight = *backend.LoadWeight(stacked);
  auto table_weight = *backend.LoadWeight(table);
  auto gate_weight = *backend.LoadWeight(gates);
  const KvFormat format{.layers = 2, .kv_heads = 1, .head_dim = 64};
  const uint32_t total = pages_filled * kBlockTokens + rows;
  const uint32_t page_count = (total + kBlockTokens - 1) / kBlockTokens;
  auto blocks = *backend.Allocate(format.BlockBytes() * page_count, "blocks");
  auto hidden = *backend.AllocateShared(size_t{total} * kHidden * 4, "hidden");
  auto qkv = *backend.AllocateShared(size_t{total} * 320 * 4, "qkv");
  auto mixed = *backend.AllocateShared(size_t{rows} * 192 * 4, "mixed");
  auto gated = *backend.AllocateShared(size_t{rows} * 192 * 4, "gated");
  backend.Clear(blocks->data(), blocks->bytes());
  std::vector<uint32_t> ids(total);
  for (uint32_t i = 0; i < total; ++i) ids[i] = i * 7 % 50;
  const MatrixView h = hidden->Matrix(total, kHidden);
  backend.Embed(h, *table_weight, ids);
  // Small, so that scores stay near 1 and the softmax does not blow up the rounding of keys.
  const std::vector<float> gain = RandomFloats(kHidden, 0.05f, 5);
  backend.RmsNorm(h, h, gain.data(), 1e-5f);
  const MatrixView all = qkv->Matrix(total, 320);
  backend.MatMul(all, h, *qkv_weight, false);
  std::vector<KvPage> pages;
  for (uint32_t p = 0; p < page_count; ++p) {
    std::byte* block = blocks->data() + p * format.BlockBytes();
    const uint32_t first = p * kBlockTokens;
    const uint32_t count = std::min(kBlockTokens, total - first);
    for (uint32_t slot = 0; slot < count; slot += 50) {  // in pieces, as a decode fills it
      const MatrixView piece = all.Rows(first + slot, std::min(50u, count - slot));
      backend.WriteKv({&format, block, 1, slot}, piece.Cols(192, 64), piece.Cols(256, 64),
                      rope.table());
    }
    pages.push_back({block, first, count});
  }
  const KvPageList lists[] = {{&format, pages}};
  const MatrixView m = mixed->Matrix(rows, 192);
  backend.Attention(m, all.Rows(total - rows, rows).Cols(0, 192),
                    {.shape = kShape,
                     .layer = 1,
                     .first_position = total - rows,
                     .lists = lists,
                     .rope = rope.table()});
  const MatrixView g = gated->Matrix(rows, 192);
  backend.MatMul(g, m, *gate_weight, false);
  backend.SwiGlu(m.Cols(0, 96), g);
  EXPECT_TRUE(backend.Synchronize().ok());
  return {m.data, m.data + size_t{rows} * 192};
}

double RelativeError(const std::vector<float>& got, const std::vector<float>& expected) {
  double squares = 0;
  double error = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    squares += double{expected[i]} * expected[i];
    error += (double{got[i]} - expected[i]) * (double{got[i]} - expected[i]);
  }
  EXPECT_GT(squares, 0);
  EXPECT_TRUE(std::isfinite(error));
  return std::sqrt(error / squares);
}

}  // namespace corpusd
