// The CUDA backend's products over every kind of weight, its mixtures of experts and what else
// layers of other families need, against the reference backend.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>

#include "engine/backend/device_backend.h"
#include "engine/backend/reference_backend.h"
#include "tests/unit/kernels/backend_fixture.h"
#include "tests/unit/kernels/basis_fixture.h"
#include "tests/unit/kernels/kernel_fixture.h"

namespace corpusd {
namespace {

constexpr WeightType kTypes[] = {WeightType::kF32,  WeightType::kQ4_0, WeightType::kQ4_1,
                                 WeightType::kQ5_0, WeightType::kQ8_0, WeightType::kQ4_K};

class CudaLayersTest : public testing::Test {
 protected:
  void SetUp() override {
    if (CudaDeviceCount() == 0) GTEST_SKIP() << "this host has no CUDA device";
    auto backend = MakeCudaBackend(0, 0);
    ASSERT_TRUE(backend.ok()) << backend.status().ToString();
    cuda_ = std::move(*backend);
  }

  // Numbers that both backends work on: the reference's copy is `values`.
  struct Shared {
    std::vector<float> values;
    std::unique_ptr<Buffer> buffer;
    uint32_t rows, cols;
    MatrixView host() { return {values.data(), rows, cols, cols}; }
    MatrixView device() { return buffer->Matrix(rows, cols); }
  };
  Shared Random(uint32_t rows, uint32_t cols, uint32_t seed, float deviation = 1) {
    Shared shared{RandomFloats(size_t{rows} * cols, deviation, seed), nullptr, rows, cols};
    shared.buffer = *cuda_->AllocateShared(shared.values.size() * sizeof(float), "test");
    std::memcpy(shared.buffer->data(), shared.values.data(), shared.values.size() * sizeof(float));
    return shared;
  }
  // After Synchronize: the device's numbers beside the reference's.
  double Error(Shared& shared) {
    const Status status = cuda_->Synchronize();
    EXPECT_TRUE(status.ok()) << status.ToString();
    const float* const data = shared.device().data;
    return RelativeError({data, data + shared.values.size()}, shared.values);
  }

  std::unique_ptr<Backend> cuda_;
  const std::unique_ptr<Backend> reference_ = MakeReferenceBackend();
};

// A launch has at most 65,535 blocks in every way but the first.
TEST_F(CudaLayersTest, MoreRowsThanALaunchHasBlocks) {
  Shared x = Random(70'000, 8, 1), y = Random(70'000, 8, 2);
  cuda_->Add(x.device(), y.device());
  reference_->Add(x.host(), y.host());
  EXPECT_EQ(Error(x), 0);
}

// Few rows: codes are multiplied as whole numbers by two terms of each activation; matrices of
// other types are bfloat16, and so are both sides of products of many rows.
TEST_F(CudaLayersTest, ProductsOverEveryKindOfWeight) {
  for (const WeightType type : kTypes) {
    for (const auto& [outputs, inputs] :
         {std::pair{100u, 256u}, {576u, 1536u}, {130u, 5120u}, {1024u, 5120u}}) {
      const RandomWeight weight(type, outputs, inputs, 1);
      const WeightSource source[] = {{"w", type, outputs, inputs, weight.stored}};
      const auto loaded = *cuda_->LoadWeight(source);
      const auto exact = *reference_->LoadWeight(source);
      const bool codes = type != WeightType::kF32 && type != WeightType::kQ4_K;
      // Codes of small matrices have bfloat16 beside them, which many rows read.
      const bool large = outputs == 1024;
      EXPECT_EQ(loaded->bytes() < uint64_t{outputs} * inputs * 2, codes && large);
      const std::vector<uint32_t> heights =
          large ? std::vector<uint32_t>{1, 17} : std::vector<uint32_t>{1, 3, 9, 16, 17, 130};
      for (const uint32_t rows : heights) {
        SCOPED_TRACE(testing::Message() << "type " << static_cast<int>(type) << ", " << rows
                                        << " x " << outputs << " x " << inputs);
        Shared x = Random(rows, inputs, rows), out = Random(rows, outputs, 9);
        const std::vector<float> start = out.values;
        reference_->MatMul(out.host(), x.host(), *exact, /*accumulate=*/true);
        cuda_->MatMul(out.device(), x.device(), *loaded, /*accumulate=*/true);
        EXPECT_LT(Error(out), rows <= cuda_->few_rows() && codes ? 1e-4 : 5e-3);
        // Every row as alone in its class of calls.
        const std::vector<float> got(out.device().data, out.device().data + start.size());
        const uint32_t least = rows <= cuda_->few_rows() ? 1 : 17;
        std::memcpy(out.device().data, start.data(), start.size() * sizeof(float));
        cuda_->MatMul(out.device().Rows(rows - least, least), x.device().Rows(rows - least, least),
                      *loaded, true);
        ASSERT_TRUE(cuda_->Synchronize().ok());
        EXPECT_EQ(std::memcmp(out.device().row(rows - least), &got[size_t{rows - least} * outputs],
                              size_t{least} * outputs * sizeof(float)),
                  0);
      }
      // Rows of the table are what the products multiply with.
      const uint32_t ids[] = {0, outputs - 1, 17};
      Shared table = Random(3, inputs, 1);
      reference_->Embed(table.host(), *exact, ids);
      cuda_->Embed(table.device(), *loaded, ids);
      EXPECT_LT(Error(table), codes ? 1e-6 : 5e-3);
    }
  }
}

TEST_F(CudaLayersTest, StackedMatricesOfTwoKinds) {
  const RandomWeight a(WeightType::kQ4_0, 70, 128, 1), b(WeightType::kQ4_1, 50, 128, 2),
      c(WeightType::kQ8_0, 40, 128, 3);
  const WeightSource sources[] = {{"a", a.type, 70, 128, a.stored},
                                  {"b", b.type, 50, 128, b.stored},
                                  {"c", c.type, 40, 128, c.stored}};
  for (const size_t count : {2, 3}) {  // of one kind; of two, so bfloat16
    const auto loaded = *cuda_->LoadWeight(std::span(sources).first(count));
    const auto exact = *reference_->LoadWeight(std::span(sources).first(count));
    for (const uint32_t rows : {1u, 40u}) {
      Shared x = Random(rows, 128, rows), out = Random(rows, loaded->rows(), 2);
      reference_->MatMul(out.host(), x.host(), *exact, false);
      cuda_->MatMul(out.device(), x.device(), *loaded, false);
      EXPECT_LT(Error(out), rows == 1 && count == 2 ? 1e-4 : 5e-3) << count << ", " << rows;
    }
  }
}

TEST_F(CudaLayersTest, MixturesOfExpertsMatchTheReferenceAndRowsStandAlone) {
  constexpr uint32_t kHidden = 128, kInner = 192;
  for (const WeightType type : {WeightType::kBf16, WeightType::kQ4_1, WeightType::kQ8_0}) {
    for (const auto& [experts, used] : {std::pair{1u, 1u}, {4u, 1u}, {16u, 2u}, {40u, 3u}}) {
      std::vector<RandomWeight> weights;
      for (uint32_t e = 0; e < experts; ++e) {
        weights.emplace_back(type, 2 * kInner, kHidden, 2 * e);
        weights.emplace_back(type, kHidden, kInner, 2 * e + 1);
      }
      std::vector<Expert> loaded(experts), exact(experts);
      for (uint32_t e = 0; e < experts; ++e) {
        const WeightSource up[] = {{"up", type, 2 * kInner, kHidden, weights[2 * e].stored}};
        const WeightSource down[] = {{"down", type, kHidden, kInner, weights[2 * e + 1].stored}};
        loaded[e] = {*cuda_->LoadWeight(up), *cuda_->LoadWeight(down)};
        exact[e] = {*reference_->LoadWeight(up), *reference_->LoadWeight(down)};
      }
      for (const uint32_t rows : {1u, 16u, 17u, 300u}) {
        SCOPED_TRACE(testing::Message() << "type " << static_cast<int>(type) << ", " << rows
                                        << " rows, " << used << " of " << experts);
        Shared x = Random(rows, kHidden, rows), out = Random(rows, kHidden, 5);
        Shared logits = Random(rows, experts, 6, 2);
        if (rows > 3 && experts > 2) {  // equal logits, and what is no number
          for (Shared* all : {&logits}) {
            for (MatrixView view : {all->host(), all->device()}) {
              view.row(1)[0] = view.row(1)[1] = view.row(1)[2] = 9;
              view.row(2)[1] = NAN;
            }
          }
        }
        const std::vector<float> start = out.values;
        Shared lent[] = {Random(rows, kHidden, 7), Random(rows, kHidden, 7),
                         Random(rows, 2 * kInner, 7), Random(rows, kInner, 7)};
        const auto mix = [&](Backend& backend, bool device, std::span<const Expert> of,
                             uint32_t first, uint32_t count) {
          const auto view = [&](Shared& shared) {
            return (device ? shared.device() : shared.host()).Rows(first, count);
          };
          ExpertInput input{view(x),       view(logits),  of,           used, view(lent[0]),
                            view(lent[1]), view(lent[2]), view(lent[3])};
          backend.MixExperts(view(out), input);
        };
        mix(*reference_, false, exact, 0, rows);
        mix(*cuda_, true, loaded, 0, rows);
        const double error = Error(out);
        EXPECT_LT(error, 1e-2);
        if (rows == 300) std::printf("relative error %.1e\n", error);
        const std::vector<float> got(out.device().data, out.device().data + start.size());
        const uint32_t least = rows <= cuda_->few_rows() ? 1 : 17;
        std::memcpy(out.device().data, start.data(), start.size() * sizeof(float));
        mix(*cuda_, true, loaded, rows - least, least);
        ASSERT_TRUE(cuda_->Synchronize().ok());
        EXPECT_EQ(std::memcmp(out.device().row(rows - least), &got[size_t{rows - least} * kHidden],
                              size_t{least} * kHidden * sizeof(float)),
                  0);
      }
    }
  }
}

TEST_F(CudaLayersTest, WhatLayersOfOtherFamiliesNeed) {
  const std::vector<float> gain = RandomFloats(512, 1, 3);
  for (const uint32_t rows : {1u, 5u, 300u}) {
    SCOPED_TRACE(rows);
    Shared x = Random(rows, 512, rows), y = Random(rows, 512, 8), out = Random(rows, 256, 9);
    const std::vector<float> factors = RandomFloats(rows, 1, 10);
    const auto both = [&](const auto& operation) {
      operation(*reference_, [](Shared& shared) { return shared.host(); });
      operation(*cuda_, [](Shared& shared) { return shared.device(); });
    };
    both([&](Backend& backend, const auto& view) {
      backend.HeadNorm(view(x).Cols(64, 256), 64, gain.data(), 1e-5F);
    });
    EXPECT_LT(Error(x), 1e-6) << "norm of heads";
    both([&](Backend& backend, const auto& view) {
      backend.ScaleRows(view(x).Cols(0, 128), factors);
    });
    EXPECT_LT(Error(x), 1e-6) << "factors";
    both([&](Backend& backend, const auto& view) { backend.AddBias(view(x), gain.data()); });
    both([&](Backend& backend, const auto& view) { backend.Add(view(x), view(y)); });
    EXPECT_LT(Error(x), 1e-6) << "bias and sum";
    both([&](Backend& backend, const auto& view) { backend.GeGlu(view(out), view(x)); });
    EXPECT_LT(Error(out), 1e-5) << "GELU";
  }
}

// A window hides other keys of every row.
TEST_F(CudaLayersTest, WindowsMatchTheReference) {
  const TestRope rope(4096, 32);
  const AttentionShape shape{.q_heads = 4, .kv_heads = 2, .head_dim = 64, .scale = 0.125F};
  const KvFormat format{.layers = 1, .kv_heads = 2, .head_dim = 64};
  const RandomPages pages(format, {128, 128, 128, 128, 128, 100}, 0, rope.table(), 1, 5);
  const KvPageList list = pages.list();
  for (const uint32_t window : {1u, 20u, 128u, 300u, 5000u}) {
    for (const uint32_t rows : {1u, 11u, 40u, 150u, 740u}) {
      SCOPED_TRACE(testing::Message() << rows << " rows, window " << window);
      Shared q = Random(rows, 256, rows), out = Random(rows, 256, 3);
      AttentionInput input{
          .shape = shape, .first_position = 740 - rows, .lists = {&list, 1}, .rope = rope.table()};
      input.shape.window = window;
      reference_->Attention(out.host(), q.host(), input);
      cuda_->Attention(out.device(), q.device(), input);
      EXPECT_LT(Error(out), rows <= cuda_->few_rows() ? 1e-4 : 2e-2);
      // A table that ends soon behind the window serves as well.
      const RopeTable* const whole = rope.table();
      const RopeTable cut{whole->cos_sin, std::min(window + 256, whole->positions),
                          whole->half_dim};
      input.rope = &cut;
      std::memset(out.device().data, 0, out.values.size() * sizeof(float));
      cuda_->Attention(out.device(), q.device(), input);
      EXPECT_LT(Error(out), rows <= cuda_->few_rows() ? 1e-4 : 2e-2);
    }
  }
}

// A history of many pages goes in pieces, and its splits are merged.
TEST_F(CudaLayersTest, ManyRowsOverALongHistory) {
  constexpr uint32_t kPages = 2100, kRows = 20;
  const TestRope rope((kPages + 3) * kBlockTokens, 32);
  for (const uint32_t dim : {64u, 128u}) {
    const AttentionShape shape{.q_heads = 1, .kv_heads = 1, .head_dim = dim, .scale = 0.1F};
    const TestBasis basis(1, dim, 11);
    const KvFormat coded{.key_codec = KvCodec::kCq4,
                         .value_codec = KvCodec::kCq4,
                         .layers = 1,
                         .kv_heads = 1,
                         .head_dim = dim};
    const KvFormat plain{.layers = 1, .kv_heads = 1, .head_dim = dim};
    const RandomPages some(coded, {128, 128, 128, 128, 128}, 0, rope.table(), 1, 5, basis.basis());
    const RandomPages own(plain, {kRows}, uint64_t{kPages} * kBlockTokens, rope.table(), 1, 7,
                          basis.basis());
    std::vector<KvPage> pages;
    for (uint32_t i = 0; i < kPages; ++i) {
      KvPage page = some.list().pages[i % 5];
      page.first_position = uint64_t{i} * kBlockTokens;
      page.hidden = i % 7 == 3 ? 40 : 0;
      pages.push_back(page);
    }
    const KvPageList lists[] = {{&coded, pages}, own.list()};
    for (const RopeTable* const turns : {rope.table(), static_cast<const RopeTable*>(nullptr)}) {
      Shared q = Random(kRows, dim, 8), out = Random(kRows, dim, 9);
      AttentionInput input{.shape = shape,
                           .first_position = uint64_t{kPages} * kBlockTokens,
                           .lists = lists,
                           .rope = turns,
                           .basis = basis.basis()};
      cuda_->Attention(out.device(), q.device(), input);
      // The reference takes seconds a row.
      const MatrixView last = out.host().Rows(kRows - 1, 1);
      input.first_position += kRows - 1;
      reference_->Attention(last, q.host().Rows(kRows - 1, 1), input);
      input.first_position -= kRows - 1;
      ASSERT_TRUE(cuda_->Synchronize().ok());
      const float* const data = out.device().row(kRows - 1);
      const double error = RelativeError({data, data + dim}, {last.data, last.data + dim});
      std::printf("relative error %.1e\n", error);
      EXPECT_LT(error, 0.02) << dim;
      const std::vector<float> got(out.device().data, out.device().data + out.values.size());
      // An odd number of rows: what a piece gives must be aligned all the same.
      input.first_position += kRows - 17;
      cuda_->Attention(out.device().Rows(kRows - 17, 17), q.device().Rows(kRows - 17, 17), input);
      const Status status = cuda_->Synchronize();
      ASSERT_TRUE(status.ok()) << status.ToString();
      EXPECT_EQ(std::memcmp(out.device().data, got.data(), got.size() * sizeof(float)), 0);
    }
  }
}

}  // namespace
}  // namespace corpusd
