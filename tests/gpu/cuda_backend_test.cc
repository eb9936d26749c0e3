// The CUDA backend's operations against the reference backend.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <future>
#include <limits>
#include <list>

#include "engine/backend/device_backend.h"
#include "engine/backend/reference_backend.h"
#include "kernels/cuda/prefill_attention.h"
#include "kernels/reference/attention.h"
#include "tests/unit/kernels/backend_fixture.h"
#include "tests/unit/kernels/basis_fixture.h"
#include "tests/unit/kernels/kernel_fixture.h"

namespace corpusd {
namespace {

constexpr KvCodec kCodecs[] = {KvCodec::kBf16, KvCodec::kCq8, KvCodec::kCq4, KvCodec::kCq3,
                               KvCodec::kCq2};

class CudaBackendTest : public testing::Test {
 protected:
  void SetUp() override {
    if (CudaDeviceCount() == 0) GTEST_SKIP() << "this host has no CUDA device";
    auto backend = MakeCudaBackend(0, 0);
    ASSERT_TRUE(backend.ok()) << backend.status().ToString();
    cuda_ = std::move(*backend);
  }

  std::unique_ptr<Buffer> Shared(const std::vector<float>& values) {
    auto buffer = *cuda_->AllocateShared(values.size() * sizeof(float), "test");
    std::memcpy(buffer->data(), values.data(), values.size() * sizeof(float));
    return buffer;
  }

  std::unique_ptr<Backend> cuda_;
  const std::unique_ptr<Backend> reference_ = MakeReferenceBackend();
};

TEST_F(CudaBackendTest, LayerMatchesTheReferenceBackend) {
  for (const auto& [rows, pages] : {std::pair{1u, 9u}, {5u, 0u}, {16u, 2u}, {150u, 1u}}) {
    const std::vector<float> expected = RunLayer(*reference_, rows, pages);
    const double error = RelativeError(RunLayer(*cuda_, rows, pages), expected);
    std::printf("%u rows: relative error %.2e\n", rows, error);
    EXPECT_LT(error, 0.02) << rows;
  }
}

// Products of any height: against the reference, and every row as alone in its class of calls.
TEST_F(CudaBackendTest, ProductsMatchTheReferenceAndRowsStandAlone) {
  for (const auto& [outputs, inputs] : {std::pair{100u, 96u}, {576u, 1536u}, {1000u, 2112u}}) {
    const RandomWeight weight(WeightType::kQ4_1, outputs, inputs, 1);
    const WeightSource source[] = {{"w", weight.type, outputs, inputs, weight.stored}};
    const auto loaded = *cuda_->LoadWeight(source);
    const auto exact = *reference_->LoadWeight(source);
    for (const uint32_t rows : {1u, 7u, 16u, 17u, 130u}) {
      std::vector<float> x = RandomFloats(size_t{rows} * inputs, 1.0f, rows);
      std::vector<float> start = RandomFloats(size_t{rows} * outputs, 1.0f, 9);
      std::vector<float> expected = start;
      reference_->MatMul({expected.data(), rows, outputs, outputs},
                         {x.data(), rows, inputs, inputs}, *exact, true);
      const auto in = Shared(x), out = Shared(start);
      const MatrixView to = out->Matrix(rows, outputs), from = in->Matrix(rows, inputs);
      cuda_->MatMul(to, from, *loaded, true);
      ASSERT_TRUE(cuda_->Synchronize().ok());
      const std::vector<float> got(to.data, to.data + start.size());
      EXPECT_LT(RelativeError(got, expected), 5e-3) << rows << " x " << outputs;
      const uint32_t least = rows <= 16 ? 1 : 17;
      std::memcpy(to.data, start.data(), start.size() * sizeof(float));
      cuda_->MatMul(to.Rows(rows - least, least), from.Rows(rows - least, least), *loaded, true);
      ASSERT_TRUE(cuda_->Synchronize().ok());
      EXPECT_EQ(std::memcmp(to.row(rows - least), &got[size_t{rows - least} * outputs],
                            size_t{least} * outputs * sizeof(float)),
                0)
          << rows << " x " << outputs;
    }
  }
}

// Ordinary rows with odd ones among them.
std::vector<float> OddRows(uint32_t rows, uint32_t cols, uint32_t seed) {
  std::vector<float> x = RandomFloats(size_t{rows} * cols, 1.0f, seed);
  for (uint32_t r = 0; r < rows; ++r) {
    for (uint32_t i = 0; i < cols; ++i) {
      float& value = x[size_t{r} * cols + i];
      if (r % 9 == 3) value = 0;
      if (r % 9 == 4) value *= 1e-40f;
      if (r % 9 == 5 && i % 64 == 5) value = 1e4f;
      if (r % 9 == 6 && i % 64 == 6) value = std::numeric_limits<float>::infinity();
      if (r % 9 == 7) value *= 1e35f;
    }
  }
  return x;
}

TEST_F(CudaBackendTest, PagesAreTheReferencesBytes) {
  const TestRope rope(kBlockTokens, 32);
  for (const uint32_t dim : {64u, 128u}) {
    const TestBasis bases(3, dim, 5);
    for (const KvCodec keys : {KvCodec::kBf16, KvCodec::kInt8, KvCodec::kCq8, KvCodec::kCq4,
                               KvCodec::kCq3, KvCodec::kCq2}) {
      const KvFormat format{.key_codec = keys,
                            .value_codec = keys == KvCodec::kCq4 ? KvCodec::kCq2 : keys,
                            .layers = 2,
                            .kv_heads = 3,
                            .head_dim = dim};
      for (const bool in_basis : {false, true}) {
        if (in_basis ? keys == KvCodec::kInt8 : IsCoded(keys)) continue;
        for (const uint32_t rows : {128u, 1u, 77u}) {
          const uint32_t cols = 3 * dim, slot = IsCoded(keys) ? 0 : 128 - rows;
          // What is no number has no specified code in int8.
          std::vector<float> x = keys == KvCodec::kInt8
                                     ? RandomFloats(size_t{rows} * 2 * cols, 1, 3)
                                     : OddRows(rows, 2 * cols, rows + dim);
          std::vector<std::byte> expected(format.BlockBytes());
          const MatrixView all{x.data(), rows, 2 * cols, 2 * cols};
          KvWriteTarget target{&format, expected.data(), 1, slot,
                               in_basis ? bases.basis() : nullptr};
          reference_->WriteKv(target, all.Cols(0, cols), all.Cols(cols, cols), rope.table());
          const auto input = Shared(x);
          const auto page = *cuda_->AllocateShared(format.BlockBytes(), "page");
          target.block = page->data();
          const MatrixView in = input->Matrix(rows, 2 * cols);
          cuda_->WriteKv(target, in.Cols(0, cols), in.Cols(cols, cols), rope.table());
          ASSERT_TRUE(cuda_->Synchronize().ok());
          size_t different = 0;
          for (size_t i = 0; i < expected.size(); ++i) different += page->data()[i] != expected[i];
          EXPECT_EQ(different, 0u) << format.Canonical() << " " << rows << " rows, basis "
                                   << in_basis << ", of " << expected.size();
        }
      }
    }
  }
}

struct Scene {
  AttentionShape shape;
  std::vector<std::unique_ptr<RandomPages>> lists;
  const RopeTable* rope = nullptr;
  const KvBasis* basis = nullptr;
  std::vector<KvPageList> Lists() const {
    std::vector<KvPageList> all;
    for (const auto& list : lists) all.push_back(list->list());
    return all;
  }
};

// Sinks, a coded history, a question's own bf16 pages.
Scene MixedScene(const AttentionShape& shape, KvCodec keys, KvCodec values, const RopeTable* rope,
                 const KvBasis* basis) {
  Scene scene{.shape = shape, .lists = {}, .rope = rope, .basis = basis};
  KvFormat plain{.layers = 1, .kv_heads = shape.kv_heads, .head_dim = shape.head_dim};
  KvFormat coded = plain;
  coded.key_codec = keys;
  coded.value_codec = values;
  scene.lists.push_back(
      std::make_unique<RandomPages>(plain, std::vector<uint32_t>{4}, 0, rope, 1.0f, 3, basis));
  scene.lists.push_back(std::make_unique<RandomPages>(
      coded, std::vector<uint32_t>{128, 128, 128, 128, 128, 61}, 0, rope, 1.0f, 5, basis, 4));
  scene.lists.push_back(std::make_unique<RandomPages>(plain, std::vector<uint32_t>{128, 70}, 701,
                                                      rope, 1.0f, 7, basis));
  return scene;
}

class CudaAttentionTest : public CudaBackendTest {
 protected:
  // Rows of the CUDA backend from `position` on.
  std::vector<float> Attend(const Scene& scene, const std::vector<float>& q, uint32_t rows,
                            uint64_t position) {
    const uint32_t cols = scene.shape.q_heads * scene.shape.head_dim;
    const auto in = Shared(q);
    const auto out = Shared(std::vector<float>(size_t{rows} * cols, 7.0f));
    const auto lists = scene.Lists();
    cuda_->Attention(out->Matrix(rows, cols), in->Matrix(rows, cols),
                     {.shape = scene.shape,
                      .first_position = position,
                      .lists = lists,
                      .rope = scene.rope,
                      .basis = scene.basis});
    const Status status = cuda_->Synchronize();
    EXPECT_TRUE(status.ok()) << status.ToString();
    const float* data = out->Matrix(rows, cols).data;
    return {data, data + size_t{rows} * cols};
  }

  void Check(const Scene& scene, double few_bound, double many_bound) {
    const uint32_t cols = scene.shape.q_heads * scene.shape.head_dim;
    const auto lists = scene.Lists();
    std::vector<double> scratch(4096);
    for (const uint32_t rows : {1u, 11u, 40u}) {
      const uint64_t position = 899 - rows;  // the last row sees all
      std::vector<float> q = RandomFloats(size_t{rows} * cols, 1.0f, rows);
      std::vector<float> expected(q.size());
      ReferenceAttention({expected.data(), rows, cols, cols}, {q.data(), rows, cols, cols},
                         {.shape = scene.shape,
                          .first_position = position,
                          .lists = lists,
                          .rope = scene.rope,
                          .basis = scene.basis},
                         scratch);
      const std::vector<float> got = Attend(scene, q, rows, position);
      const double error = RelativeError(got, expected);
      EXPECT_LT(error, rows <= 16 ? few_bound : many_bound) << rows << " rows";
      // The last rows in a call of their own.
      const uint32_t least = rows <= 16 ? 1 : 17;
      const std::vector<float> last(q.end() - static_cast<ptrdiff_t>(least) * cols, q.end());
      const std::vector<float> alone = Attend(scene, last, least, position + rows - least);
      EXPECT_EQ(std::memcmp(alone.data(), got.data() + got.size() - alone.size(),
                            alone.size() * sizeof(float)),
                0)
          << rows << " rows";
    }
  }
};

TEST_F(CudaAttentionTest, EveryCodecMatchesTheReference) {
  const TestRope rope(4096, 32);
  for (const AttentionShape& shape :
       {AttentionShape{.q_heads = 9, .kv_heads = 3, .head_dim = 64, .scale = 0.125f},
        AttentionShape{.q_heads = 10, .kv_heads = 2, .head_dim = 128, .scale = 0.09f},
        AttentionShape{.q_heads = 11, .kv_heads = 1, .head_dim = 64, .scale = 0.125f}}) {
    const TestBasis basis(shape.kv_heads, shape.head_dim, 11);
    for (const KvCodec keys : kCodecs) {
      SCOPED_TRACE(std::string(KvCodecName(keys)) + ", " + std::to_string(shape.head_dim));
      Check(MixedScene(shape, keys, keys, rope.table(), basis.basis()), 1e-4, 0.02);
    }
    Check(MixedScene(shape, KvCodec::kCq4, KvCodec::kCq2, nullptr, basis.basis()), 1e-4, 0.02);
    for (const KvCodec codec : {KvCodec::kBf16, KvCodec::kInt8}) {
      SCOPED_TRACE(std::string("plain ") + std::string(KvCodecName(codec)));
      Check(MixedScene(shape, codec, codec, rope.table(), nullptr), 1e-4, 0.02);
    }
  }
}

// A mixed scene's coded pages again and again, then its own pages.
struct LongLists {
  std::vector<KvPage> pages, own;
  std::vector<KvPageList> lists;
  uint64_t last_position;
  LongLists(const Scene& scene, uint32_t count) : lists(scene.Lists()) {
    for (uint32_t i = 0; i < count; ++i) {
      KvPage page = lists[1].pages[i == 0 ? 0 : i % 5];
      page.first_position = uint64_t{i} * kBlockTokens;
      page.hidden = i % 7 == 3 ? 40 : page.hidden;
      pages.push_back(page);
    }
    own.assign(lists[2].pages.begin(), lists[2].pages.end());
    for (KvPage& page : own) page.first_position += (count - 5) * kBlockTokens;
    lists[1].pages = pages;
    lists[2].pages = own;
    last_position = own.back().first_position + 69;
  }
};

// Many rows over more pages than a span has, and over fewer. Very many rows: of the first, one
// block takes all spans of its rows, else several do; of the second, blocks share stacks of rows.
// All the same bits.
TEST_F(CudaAttentionTest, ManyRowsOverSpansMatchTheReference) {
  for (const AttentionShape& shape :
       {AttentionShape{.q_heads = 9, .kv_heads = 3, .head_dim = 64, .scale = 0.125f},
        AttentionShape{.q_heads = 10, .kv_heads = 2, .head_dim = 128, .scale = 0.09f}}) {
    const uint32_t span = cuda::PrefillSpanPages(shape.head_dim), few = 33, many = 7800;
    const TestRope rope((span + 8) * kBlockTokens, 32);
    const TestBasis basis(shape.kv_heads, shape.head_dim, 11);
    ASSERT_GT(cuda::PrefillParts(1, span + 5, shape.q_heads, shape.head_dim), 1u);
    ASSERT_EQ(
        cuda::PrefillParts(many / cuda::kPrefillTileRows, span + 5, shape.q_heads, shape.head_dim),
        1u);
    for (const auto& [codec, pages] : {std::pair{KvCodec::kBf16, span + 5},
                                       {KvCodec::kCq4, span + 5},
                                       {KvCodec::kBf16, span - 7},
                                       {KvCodec::kInt8, span - 7},
                                       {KvCodec::kCq8, span - 7},
                                       {KvCodec::kCq4, span - 7},
                                       {KvCodec::kCq3, span - 7},
                                       {KvCodec::kCq2, span - 7}}) {
      SCOPED_TRACE(std::string(KvCodecName(codec)) + ", " + std::to_string(shape.head_dim) + ", " +
                   std::to_string(pages) + " pages");
      const bool coded = IsCoded(codec);
      const Scene scene =
          MixedScene(shape, codec, codec, rope.table(), coded ? basis.basis() : nullptr);
      const LongLists longer(scene, pages);
      const uint32_t cols = shape.q_heads * shape.head_dim;
      const auto q = Shared(RandomFloats(size_t{many} * cols, 1.0f, 8));
      const auto attend = [&](uint32_t rows) {
        const auto out = Shared(std::vector<float>(size_t{rows} * cols, 7.0f));
        MatrixView last = q->Matrix(many, cols);
        last.data += size_t{many - rows} * cols;
        last.rows = rows;
        cuda_->Attention(out->Matrix(rows, cols), last,
                         {.shape = shape,
                          .first_position = longer.last_position + 1 - rows,
                          .lists = longer.lists,
                          .rope = scene.rope,
                          .basis = scene.basis});
        const Status status = cuda_->Synchronize();
        EXPECT_TRUE(status.ok()) << status.ToString();
        const float* data = out->Matrix(rows, cols).row(rows - few);
        return std::vector<float>(data, data + size_t{few} * cols);
      };
      const std::vector<float> got = attend(few), among = attend(many);
      EXPECT_EQ(std::memcmp(got.data(), among.data(), got.size() * sizeof(float)), 0);
      std::vector<float> expected(cols);  // of the last row
      std::vector<double> scratch((pages + 4) * kBlockTokens);
      MatrixView last = q->Matrix(many, cols);
      last.data += size_t{many - 1} * cols;
      last.rows = 1;
      ReferenceAttention({expected.data(), 1, cols, cols}, last,
                         {.shape = shape,
                          .first_position = longer.last_position,
                          .lists = longer.lists,
                          .rope = scene.rope,
                          .basis = scene.basis},
                         scratch);
      const std::vector<float> row(got.end() - cols, got.end());
      const double error = RelativeError(row, expected);
      std::printf("relative error %.1e\n", error);
      EXPECT_LT(error, 0.02);
    }
  }
}

// Rows of very many pages have a kernel of their own: sinks, eight pages again and again, own
// pages.
class CudaLongRowsTest : public CudaAttentionTest, public testing::WithParamInterface<bool> {};

TEST_P(CudaLongRowsTest, MatchTheReference) {
  constexpr uint32_t kPages = 1029;
  const TestRope table((kPages + 3) * kBlockTokens, 32);
  const RopeTable* const rope = GetParam() ? table.table() : nullptr;
  for (const AttentionShape& shape :
       {AttentionShape{.q_heads = 6, .kv_heads = 2, .head_dim = 64, .scale = 0.125f},
        AttentionShape{.q_heads = 5, .kv_heads = 1, .head_dim = 128, .scale = 0.09f}}) {
    const TestBasis basis(shape.kv_heads, shape.head_dim, 11);
    const uint32_t cols = shape.q_heads * shape.head_dim;
    std::vector<float> q = RandomFloats(cols, 1.0f, 8);
    struct Case {
      KvCodec codec;
      Scene scene;
      LongLists longer{scene, kPages};
      std::future<std::vector<float>> expected;
    };
    std::list<Case> cases;  // the reference takes seconds each: on threads of their own
    for (const KvCodec codec : kCodecs) {
      Case& one = cases.emplace_back(codec, MixedScene(shape, codec, codec, rope, basis.basis()));
      one.expected = std::async(std::launch::async, [&] {
        std::vector<float> expected(cols);
        std::vector<double> scratch((kPages + 4) * kBlockTokens);
        ReferenceAttention({expected.data(), 1, cols, cols}, {q.data(), 1, cols, cols},
                           {.shape = shape,
                            .first_position = one.longer.last_position,
                            .lists = one.longer.lists,
                            .rope = rope,
                            .basis = basis.basis()},
                           scratch);
        return expected;
      });
    }
    for (Case& one : cases) {
      SCOPED_TRACE(std::string(KvCodecName(one.codec)) + ", " + std::to_string(shape.head_dim));
      const auto in = Shared(q), out = Shared(std::vector<float>(cols, 7.0f));
      std::vector<float> got[2];
      for (std::vector<float>& each : got) {
        cuda_->Attention(out->Matrix(1, cols), in->Matrix(1, cols),
                         {.shape = shape,
                          .first_position = one.longer.last_position,
                          .lists = one.longer.lists,
                          .rope = rope,
                          .basis = basis.basis()});
        ASSERT_TRUE(cuda_->Synchronize().ok());
        const float* data = out->Matrix(1, cols).data;
        each.assign(data, data + cols);
      }
      EXPECT_EQ(std::memcmp(got[0].data(), got[1].data(), cols * sizeof(float)), 0);
      const double error = RelativeError(got[0], one.expected.get());
      std::printf("relative error %.1e\n", error);
      // Single halves and integers of 16 bits over codes: far below the codes' own errors.
      EXPECT_LT(error, one.codec == KvCodec::kBf16  ? 2e-4
                       : one.codec == KvCodec::kCq8 ? 6e-4
                                                    : 5e-3);
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Positions, CudaLongRowsTest, testing::Bool());

// Long rows without positions have a kernel of their own; a table that turns nothing leads to the
// other.
TEST_F(CudaAttentionTest, LongRowsWithoutPositionsAreThoseThatNothingTurns) {
  constexpr uint32_t kPages = 1029;
  std::vector<float> ones(size_t{kPages + 3} * kBlockTokens * 64);
  for (size_t i = 0; i < ones.size(); i += 2) ones[i] = 1;
  const RopeTable nothing{ones.data(), (kPages + 3) * kBlockTokens, 32};
  for (const AttentionShape& shape :
       {AttentionShape{.q_heads = 9, .kv_heads = 3, .head_dim = 64, .scale = 0.125f},
        AttentionShape{.q_heads = 10, .kv_heads = 2, .head_dim = 128, .scale = 0.09f}}) {
    const TestBasis basis(shape.kv_heads, shape.head_dim, 11);
    for (const KvCodec codec : {KvCodec::kCq8, KvCodec::kCq4, KvCodec::kCq3, KvCodec::kCq2}) {
      SCOPED_TRACE(std::string(KvCodecName(codec)) + ", " + std::to_string(shape.head_dim));
      Scene scene = MixedScene(shape, codec, codec, nullptr, basis.basis());
      const LongLists longer(scene, kPages);
      const uint32_t cols = shape.q_heads * shape.head_dim;
      const auto q = Shared(RandomFloats(cols, 1.0f, 8));
      const auto attend = [&](const RopeTable* rope) {
        const auto out = Shared(std::vector<float>(cols, 7.0f));
        cuda_->Attention(out->Matrix(1, cols), q->Matrix(1, cols),
                         {.shape = shape,
                          .first_position = longer.last_position,
                          .lists = longer.lists,
                          .rope = rope,
                          .basis = scene.basis});
        const Status status = cuda_->Synchronize();
        EXPECT_TRUE(status.ok()) << status.ToString();
        const float* data = out->Matrix(1, cols).data;
        return std::vector<float>(data, data + cols);
      };
      const double error = RelativeError(attend(nullptr), attend(&nothing));
      std::printf("relative difference %.1e\n", error);
      EXPECT_LT(error, codec == KvCodec::kCq8 ? 1e-3 : 5e-3);
    }
  }
}

// Questions that decode together: each its bits alone, whatever pages the others have.
TEST_F(CudaAttentionTest, SequencesTogetherAreEachAsAlone) {
  const TestRope rope(4096, 32);
  const AttentionShape shape{.q_heads = 9, .kv_heads = 3, .head_dim = 64, .scale = 0.125f};
  const TestBasis basis(3, 64, 11);
  const Scene one = MixedScene(shape, KvCodec::kCq4, KvCodec::kCq4, rope.table(), basis.basis());
  const Scene two = MixedScene(shape, KvCodec::kCq8, KvCodec::kCq8, rope.table(), basis.basis());
  const Scene* scenes[] = {&one, &two, &one};
  const uint32_t cols = 9 * 64;
  const std::vector<float> q = RandomFloats(size_t{3} * cols, 1.0f, 4);
  std::vector<std::vector<KvPageList>> lists;
  std::vector<AttentionInput> inputs;
  for (const Scene* scene : scenes) lists.push_back(scene->Lists());
  for (size_t r = 0; r < 3; ++r) {
    inputs.push_back({.shape = shape,
                      .first_position = 898,
                      .lists = lists[r],
                      .rope = rope.table(),
                      .basis = basis.basis()});
  }
  const auto in = Shared(q);
  const auto out = Shared(std::vector<float>(q.size()));
  cuda_->AttentionEach(out->Matrix(3, cols), in->Matrix(3, cols), inputs);
  ASSERT_TRUE(cuda_->Synchronize().ok());
  for (uint32_t r = 0; r < 3; ++r) {
    const std::vector<float> own(q.begin() + r * cols, q.begin() + (r + 1) * cols);
    const std::vector<float> alone = Attend(*scenes[r], own, 1, 898);
    EXPECT_EQ(std::memcmp(alone.data(), out->Matrix(3, cols).row(r), cols * sizeof(float)), 0) << r;
  }
}

TEST_F(CudaBackendTest, SaysWhyThereIsNoMemory) {
  const auto huge = cuda_->Allocate(~uint64_t{0}, "the moon");
  ASSERT_FALSE(huge.ok());
  EXPECT_EQ(huge.status().code(), StatusCode::kResourceExhausted);
  EXPECT_NE(huge.status().message().find("the moon"), std::string::npos);
  const auto large = cuda_->Allocate(uint64_t{1} << 42, "the earth");
  EXPECT_EQ(large.status().code(), StatusCode::kResourceExhausted);
  EXPECT_TRUE(cuda_->Synchronize().ok()) << "a refused allocation harms nothing else";
}

}  // namespace
}  // namespace corpusd
