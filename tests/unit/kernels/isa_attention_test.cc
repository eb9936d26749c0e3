// Every table's attention against the reference, and its independence of how the work is cut.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <utility>

#include "kernels/reference/attention.h"
#include "tests/unit/kernels/basis_fixture.h"
#include "tests/unit/kernels/kernel_fixture.h"

namespace corpusd {
namespace {

constexpr uint32_t kRopePositions = 4096;

struct Scene {
  AttentionShape shape = {};
  std::vector<std::unique_ptr<RandomPages>> lists = {};
  uint64_t first_position = 0;
  uint32_t rows = 0;
  const RopeTable* rope = nullptr;
  float query_deviation = 1.0f;
  std::shared_ptr<TestBasis> basis = nullptr;

  const KvBasis* bases() const { return basis == nullptr ? nullptr : basis->basis(); }
};

KvFormat FormatOf(KvCodec keys, KvCodec values, const AttentionShape& shape) {
  return {.key_codec = keys,
          .value_codec = values,
          .layers = 1,
          .kv_heads = shape.kv_heads,
          .head_dim = shape.head_dim};
}

struct Answer {
  std::vector<float> values;
  uint32_t cols = 0;
};

std::vector<float> Queries(const Scene& scene) {
  return RandomFloats(size_t{scene.rows} * scene.shape.q_heads * scene.shape.head_dim,
                      scene.query_deviation, 77);
}

// Rows [first, first + count) of the scene, computed by a table.
Answer Compute(const CpuKernels& kernels, const Scene& scene, uint32_t first, uint32_t count,
               uint32_t rows_each, bool in_parts, uint32_t call_rows = 0) {
  std::vector<float> queries = Queries(scene);
  const uint32_t cols = scene.shape.q_heads * scene.shape.head_dim;
  Answer answer{std::vector<float>(size_t{count} * cols), cols};
  AttentionCall call{.shape = scene.shape,
                     .first_position = scene.first_position + first,
                     .pages = {},
                     .rope = scene.rope,
                     .basis = scene.bases(),
                     .call_rows = call_rows == 0 ? scene.rows : call_rows};
  for (const auto& list : scene.lists) list->AppendTiles(call.pages);
  const MatrixView q{queries.data(), scene.rows, cols, cols};
  RunAttention(kernels, {answer.values.data(), count, cols, cols}, q.Rows(first, count), call,
               rows_each, in_parts);
  return answer;
}

// All rows over pages that expand_pages made, a part at a time through attend_parts.
Answer ComputeExpanded(const CpuKernels& kernels, const Scene& scene) {
  std::vector<float> queries = Queries(scene);
  const AttentionShape& shape = scene.shape;
  const uint32_t cols = shape.q_heads * shape.head_dim;
  Answer answer{std::vector<float>(size_t{scene.rows} * cols), cols};
  std::vector<PageTiles> pages;
  for (const auto& list : scene.lists) list->AppendTiles(pages);
  const uint64_t tile = ExpandedTileBytes(shape.head_dim);
  AlignedBytes copy(pages.size() * 2 * tile);
  AlignedBytes scratch(AttentionScratchBytes(shape));
  for (uint32_t h = 0; h < shape.kv_heads; ++h) {
    std::vector<PageTiles> plain = pages;
    for (uint32_t i = 0; i < pages.size(); i += 2) {
      std::byte* const out = copy.data() + i * 2 * tile;
      kernels.expand_pages({.pages = &pages[i],
                            .page_count = std::min(2u, static_cast<uint32_t>(pages.size()) - i),
                            .kv_head = h,
                            .head_dim = shape.head_dim,
                            .rope = scene.rope,
                            .basis = scene.bases() + h,
                            .out = out,
                            .out_stride = 2 * tile,
                            .scratch = scratch.data()});
    }
    for (uint32_t i = 0; i < pages.size(); ++i) {
      plain[i].keys = copy.data() + i * 2 * tile;
      plain[i].values = plain[i].keys + tile;
      plain[i].key_stride = plain[i].value_stride = 0;
      plain[i].key_codec = plain[i].value_codec = KvCodec::kBf16;
      plain[i].expanded = true;
    }
    AttentionTask task{.shape = shape,
                       .first_position = scene.first_position,
                       .pages = plain.data(),
                       .page_count = static_cast<uint32_t>(plain.size()),
                       .rope = scene.rope,
                       .basis = scene.bases() + h,
                       .q = queries.data(),
                       .q_stride = cols,
                       .out = answer.values.data(),
                       .out_stride = cols,
                       .kv_head = h,
                       .call_rows = scene.rows,
                       .scratch = scratch.data()};
    for (; task.first_row < scene.rows; task.first_row += task.rows) {
      task.rows = std::min(AttentionRowsMax(shape), scene.rows - task.first_row);
      std::vector<float> state(AttentionStateFloats(shape, task.rows));
      const size_t stacked = size_t{task.rows} * (shape.q_heads / shape.kv_heads);
      std::fill_n(state.begin() + static_cast<ptrdiff_t>(stacked * shape.head_dim), stacked,
                  -INFINITY);
      for (uint32_t part = 0; part < AttentionParts(task.page_count); ++part) {
        kernels.attend_parts(task, part, part + 1, state.data());
      }
      kernels.write_state(task, state.data());
    }
  }
  return answer;
}

// The reference's rows `first`, first + step, ..; one after the other.
Answer Reference(const Scene& scene, uint32_t first, uint32_t step) {
  std::vector<float> queries = Queries(scene);
  const uint32_t cols = scene.shape.q_heads * scene.shape.head_dim;
  Answer answer{{}, cols};
  std::vector<KvPageList> lists;
  for (const auto& list : scene.lists) lists.push_back(list->list());
  std::vector<double> scratch(kRopePositions * 2);
  for (uint32_t row = first; row < scene.rows; row += step) {
    answer.values.resize(answer.values.size() + cols);
    ReferenceAttention({answer.values.data() + answer.values.size() - cols, 1, cols, cols},
                       {queries.data() + size_t{row} * cols, 1, cols, cols},
                       {.shape = scene.shape,
                        .layer = 0,
                        .first_position = scene.first_position + row,
                        .lists = lists,
                        .rope = scene.rope,
                        .basis = scene.bases()},
                       scratch);
  }
  return answer;
}

void ExpectNear(const CpuKernels& kernels, const Scene& scene, const Answer& expected,
                uint32_t first, uint32_t step, double bound) {
  const Answer got = Compute(kernels, scene, 0, scene.rows, 1u << 20, false);
  for (size_t i = 0; i < expected.values.size(); ++i) {
    const size_t row = first + i / got.cols * step;
    ASSERT_NEAR(got.values[row * got.cols + i % got.cols], expected.values[i], bound)
        << kernels.name << " row " << row << " column " << i % got.cols;
  }
}

void ExpectNearReference(const CpuKernels& kernels, const Scene& scene, double bound) {
  ExpectNear(kernels, scene, Reference(scene, 0, 1), 0, 1, bound);
}

void ExpectSameBits(const Answer& whole, uint32_t first, const Answer& piece, const char* what) {
  ASSERT_EQ(std::memcmp(whole.values.data() + size_t{first} * whole.cols, piece.values.data(),
                        piece.values.size() * sizeof(float)),
            0)
      << what << " from row " << first;
}

// bf16 rounds queries and weights to 2^-9; scores of magnitude ~1 carry that into the weights.
double BoundFor(const CpuKernels& kernels) {
  return MultipliesBf16(kernels) ? 0.03 : MultipliesInt16(kernels) ? 1e-3 : 2e-5;
}

const TestRope& Rope(uint32_t half_dim) {
  static const TestRope kFull(kRopePositions, 32);
  static const TestRope kHalf(kRopePositions, 12);
  return half_dim == 32 ? kFull : kHalf;
}

// A chunk whose own tokens end the pages: full pages, a short one, and the causal diagonal.
Scene ChunkScene(KvCodec keys, KvCodec values) {
  Scene scene{.shape = {.q_heads = 9, .kv_heads = 3, .head_dim = 64, .scale = 0.125f}};
  scene.rope = Rope(32).table();
  scene.lists.push_back(std::make_unique<RandomPages>(
      FormatOf(keys, values, scene.shape), std::vector<uint32_t>{128, 128, 128, 128, 128, 77}, 0,
      scene.rope, 1.0f, 3));
  scene.first_position = 530;
  scene.rows = 717 - 530;
  return scene;
}

TEST(IsaAttention, EveryCodecMatchesTheReference) {
  for (const CpuKernels* kernels : TestedKernels()) {
    for (const KvCodec keys : {KvCodec::kBf16, KvCodec::kInt8}) {
      for (const KvCodec values : {KvCodec::kBf16, KvCodec::kInt8}) {
        ExpectNearReference(*kernels, ChunkScene(keys, values), BoundFor(*kernels));
      }
    }
  }
}

TEST(IsaAttention, OtherShapesMatchTheReference) {
  for (const CpuKernels* kernels : TestedKernels()) {
    for (const AttentionShape shape :
         {AttentionShape{.q_heads = 1, .kv_heads = 1, .head_dim = 16, .scale = 0.25f},
          AttentionShape{.q_heads = 14, .kv_heads = 2, .head_dim = 128, .scale = 0.09f},
          AttentionShape{.q_heads = 128, .kv_heads = 1, .head_dim = 48, .scale = 0.14f},
          AttentionShape{.q_heads = 4, .kv_heads = 4, .head_dim = 256, .scale = 0.06f}}) {
      Scene scene{.shape = shape};
      scene.rope = shape.head_dim == 16 ? nullptr : Rope(12).table();
      scene.lists.push_back(
          std::make_unique<RandomPages>(FormatOf(KvCodec::kBf16, KvCodec::kInt8, shape),
                                        std::vector<uint32_t>{128, 9}, 0, scene.rope, 1.0f, 5));
      scene.first_position = 100;
      scene.rows = 37;
      ExpectNearReference(*kernels, scene, BoundFor(*kernels));
    }
  }
}

// A corpus in int8 whose last page is short, then a session in bf16 that starts right after it.
Scene TwoListScene() {
  Scene scene{.shape = {.q_heads = 6, .kv_heads = 2, .head_dim = 64, .scale = 0.125f}};
  scene.rope = Rope(32).table();
  scene.lists.push_back(std::make_unique<RandomPages>(
      FormatOf(KvCodec::kInt8, KvCodec::kInt8, scene.shape),
      std::vector<uint32_t>{128, 128, 128, 128, 128, 50}, 0, scene.rope, 1.0f, 7));
  scene.lists.push_back(std::make_unique<RandomPages>(
      FormatOf(KvCodec::kBf16, KvCodec::kBf16, scene.shape), std::vector<uint32_t>{128, 5},
      scene.lists[0]->end_position(), scene.rope, 1.0f, 8));
  scene.first_position = scene.lists[0]->end_position();
  scene.rows = 133;
  return scene;
}

TEST(IsaAttention, TwoListsMatchTheReference) {
  for (const CpuKernels* kernels : TestedKernels()) {
    ExpectNearReference(*kernels, TwoListScene(), BoundFor(*kernels));
  }
}

TEST(IsaAttention, RowsBeforeAnyKeyAreZero) {
  for (const CpuKernels* kernels : TestedKernels()) {
    Scene scene{.shape = {.q_heads = 3, .kv_heads = 1, .head_dim = 64, .scale = 0.125f}};
    scene.rope = Rope(32).table();
    scene.lists.push_back(
        std::make_unique<RandomPages>(FormatOf(KvCodec::kBf16, KvCodec::kBf16, scene.shape),
                                      std::vector<uint32_t>{128, 128}, 10, scene.rope, 1.0f, 9));
    scene.rows = 30;
    const Answer got = Compute(*kernels, scene, 0, scene.rows, 1u << 20, false);
    for (size_t i = 0; i < 10 * size_t{got.cols}; ++i) ASSERT_EQ(got.values[i], 0.0f);
    ExpectNearReference(*kernels, scene, BoundFor(*kernels));
  }
}

// Scores of thousands: the softmax is a choice of one key and must neither overflow nor lose it.
TEST(IsaAttention, ExtremeScoresMatchTheReference) {
  for (const CpuKernels* kernels : TestedKernels()) {
    Scene scene = ChunkScene(KvCodec::kBf16, KvCodec::kBf16);
    scene.rope = nullptr;
    scene.query_deviation = 0.0f;  // all scores equal
    ExpectNearReference(*kernels, scene, BoundFor(*kernels));
    scene.query_deviation = 1000.0f;
    const Answer got = Compute(*kernels, scene, 0, scene.rows, 1u << 20, false);
    for (const float value : got.values) ASSERT_TRUE(std::isfinite(value)) << kernels->name;
    if (MultipliesBf16(*kernels)) continue;
    // int16 factors carry about 1e-5 of a score into it: scores of hundreds there.
    if (MultipliesInt16(*kernels)) scene.query_deviation = 30.0f;
    ExpectNearReference(*kernels, scene, 0.02);
  }
}

TEST(IsaAttention, RowsAreIndependentBitForBit) {
  for (const CpuKernels* kernels : TestedKernels()) {
    for (const KvCodec codec : {KvCodec::kBf16, KvCodec::kInt8}) {
      const Scene scene = ChunkScene(codec, codec);
      const Answer whole = Compute(*kernels, scene, 0, scene.rows, 1u << 20, false);
      for (const uint32_t row : {0u, 1u, 50u, 109u, 110u, 111u, 186u}) {
        ExpectSameBits(whole, row, Compute(*kernels, scene, row, 1, 1, false), "alone");
        ExpectSameBits(whole, row, Compute(*kernels, scene, row, 1, 1, true), "alone, in parts");
      }
      ExpectSameBits(whole, 13, Compute(*kernels, scene, 13, 100, 7, false), "by sevens");
      ExpectSameBits(whole, 0, Compute(*kernels, scene, 0, scene.rows, 20, true), "in parts");
    }
    const Scene two = TwoListScene();
    const Answer whole = Compute(*kernels, two, 0, two.rows, 1u << 20, false);
    ExpectSameBits(whole, 0, Compute(*kernels, two, 0, two.rows, 1, true), "two lists, alone");
  }
}

// A decode, alone or in a batch of questions, and its last row against the same in a prefill.
TEST(IsaAttention, FewRowsAreIndependentBitForBitAndMatchTheReference) {
  for (const CpuKernels* kernels : TestedKernels()) {
    for (const KvCodec codec : {KvCodec::kBf16, KvCodec::kInt8}) {
      Scene scene = ChunkScene(codec, codec);
      const uint32_t count = 16;
      const uint32_t first = scene.rows - count;
      const Answer batch = Compute(*kernels, scene, first, count, 1u << 20, false, count);
      for (uint32_t row = 0; row < count; ++row) {
        ExpectSameBits(batch, row, Compute(*kernels, scene, first + row, 1, 1, true, 1), "alone");
      }
      const Answer prefill = Compute(*kernels, scene, first, count, 1u << 20, false);
      for (size_t i = 0; i < batch.values.size(); ++i) {
        ASSERT_NEAR(batch.values[i], prefill.values[i], BoundFor(*kernels)) << kernels->name;
      }
    }
  }
}

// Hidden slots, full pages and a short one of coded tiles, then a session's own bf16 pages in the
// same coordinates, the last of them with the causal diagonal.
Scene CodedScene(KvCodec keys, KvCodec values, AttentionShape shape) {
  Scene scene{.shape = shape};
  scene.rope = Rope(32).table();
  scene.basis = std::make_shared<TestBasis>(shape.kv_heads, shape.head_dim, 21);
  scene.lists.push_back(std::make_unique<RandomPages>(
      FormatOf(keys, values, shape), std::vector<uint32_t>{128, 128, 128, 128, 128, 50}, 0,
      scene.rope, 1.0f, 13, scene.bases(), 4));
  scene.lists.push_back(std::make_unique<RandomPages>(
      FormatOf(KvCodec::kBf16, KvCodec::kBf16, shape), std::vector<uint32_t>{128, 41},
      scene.lists[0]->end_position(), scene.rope, 1.0f, 14, scene.bases()));
  scene.rows = 169 + 60;
  scene.first_position = scene.lists[1]->end_position() - scene.rows;
  return scene;
}

constexpr AttentionShape kCodedShape = {
    .q_heads = 6, .kv_heads = 2, .head_dim = 64, .scale = 0.125f};

// The same coded bytes for both, so what differs is the arithmetic of attention alone. The basis
// stretches values by up to 2, keys likewise. Many rows take keys and values in bf16 on all tables.
double CodedBoundFor(const CpuKernels& kernels, uint32_t rows) {
  return 3 * std::max(BoundFor(kernels), rows > kFewRows ? 0.01 : 0.0);
}

// Some rows of every kind, all tables.
void ExpectEveryTableNear(const Scene& scene) {
  SCOPED_TRACE(testing::Message() << KvFormatName(*scene.lists[0]->list().format) << " "
                                  << scene.shape.head_dim);
  constexpr uint32_t kFirst = 3, kStep = 15;
  const Answer expected = Reference(scene, kFirst, kStep);
  for (const CpuKernels* kernels : TestedKernels()) {
    ExpectNear(*kernels, scene, expected, kFirst, kStep, CodedBoundFor(*kernels, scene.rows));
  }
}

TEST(IsaAttention, EveryCodedFormatMatchesTheReference) {
  for (const KvCodec keys : {KvCodec::kCq8, KvCodec::kCq4, KvCodec::kCq3, KvCodec::kCq2}) {
    for (const KvCodec values : {keys, KvCodec::kCq2}) {
      ExpectEveryTableNear(CodedScene(keys, values, kCodedShape));
    }
  }
}

TEST(IsaAttention, CodedFormatsOfOtherHeadSizesMatchTheReference) {
  for (const uint32_t head_dim : {128u, 192u, 256u}) {
    const AttentionShape shape = {
        .q_heads = 7, .kv_heads = 1, .head_dim = head_dim, .scale = 0.07f};
    for (const KvCodec codec : {KvCodec::kCq8, KvCodec::kCq4, KvCodec::kCq3, KvCodec::kCq2}) {
      ExpectEveryTableNear(CodedScene(codec, codec, shape));
    }
  }
}

// Rows that see hidden slots alone see nothing.
TEST(IsaAttention, HiddenSlotsAreSeenByNobody) {
  for (const KvCodec codec : {KvCodec::kBf16, KvCodec::kCq4}) {
    Scene scene{.shape = kCodedShape};
    scene.rope = Rope(32).table();
    scene.basis = std::make_shared<TestBasis>(2, 64, 22);
    scene.lists.push_back(std::make_unique<RandomPages>(FormatOf(codec, codec, scene.shape),
                                                        std::vector<uint32_t>{128, 7}, 0,
                                                        scene.rope, 1.0f, 15, scene.bases(), 21));
    scene.rows = 135;
    for (const CpuKernels* kernels : TestedKernels()) {
      const Answer got = Compute(*kernels, scene, 0, scene.rows, 1u << 20, false);
      for (size_t i = 0; i < 21 * size_t{got.cols}; ++i) ASSERT_EQ(got.values[i], 0.0f);
    }
    ExpectEveryTableNear(scene);
  }
}

TEST(IsaAttention, CodedRowsAreIndependentBitForBit) {
  for (const KvCodec codec : {KvCodec::kCq8, KvCodec::kCq4, KvCodec::kCq3, KvCodec::kCq2}) {
    const Scene scene = CodedScene(codec, codec, kCodedShape);
    for (const CpuKernels* kernels : TestedKernels()) {
      const Answer whole = Compute(*kernels, scene, 0, scene.rows, 1u << 20, false);
      for (const uint32_t row : {0u, 1u, 59u, 60u, 187u, 188u, scene.rows - 1}) {
        ExpectSameBits(whole, row, Compute(*kernels, scene, row, 1, 1, false), "alone");
        ExpectSameBits(whole, row, Compute(*kernels, scene, row, 1, 1, true), "alone, in parts");
      }
      ExpectSameBits(whole, 13, Compute(*kernels, scene, 13, 100, 7, false), "by sevens");
      ExpectSameBits(whole, 0, Compute(*kernels, scene, 0, scene.rows, 20, true), "in parts");
      const uint32_t first = scene.rows - 16;
      const Answer few = Compute(*kernels, scene, first, 16, 1u << 20, false, 16);
      for (uint32_t row = 0; row < 16; ++row) {
        ExpectSameBits(few, row, Compute(*kernels, scene, first + row, 1, 1, true, 1), "few");
      }
      for (size_t i = 0; i < few.values.size(); ++i) {
        ASSERT_NEAR(few.values[i], whole.values[size_t{first} * whole.cols + i],
                    CodedBoundFor(*kernels, scene.rows))
            << kernels->name;
      }
    }
  }
}

// A few rows over coded pages in exact products, and pages with keys or values of either kind.
TEST(IsaAttention, FewCodedRowsMatchTheReference) {
  for (const KvCodec codec : {KvCodec::kCq8, KvCodec::kCq4, KvCodec::kCq3, KvCodec::kCq2}) {
    for (const uint32_t head_dim : {64u, 128u, 192u, 256u}) {
      AttentionShape shape = kCodedShape;
      shape.head_dim = head_dim;
      Scene scene = CodedScene(codec, head_dim == 128 ? KvCodec::kCq4 : codec, shape);
      scene.first_position += scene.rows - 16;
      scene.rows = 16;
      const Answer expected = Reference(scene, 0, 5);
      for (const CpuKernels* kernels : TestedKernels()) {
        ExpectNear(*kernels, scene, expected, 0, 5, CodedBoundFor(*kernels, scene.rows));
        const Answer few = Compute(*kernels, scene, 0, 16, 1u << 20, false, 16);
        for (const uint32_t row : {0u, 7u, 15u}) {
          ExpectSameBits(few, row, Compute(*kernels, scene, row, 1, 1, true, 1), "alone");
        }
      }
    }
  }
}

// Pages that were expanded for all rows of a call, in runs of two, or by every task for itself.
TEST(IsaAttention, ExpandedPagesGiveTheBitsOfPagesAsTheyLie) {
  for (const uint32_t head_dim : {64u, 128u}) {
    AttentionShape shape = kCodedShape;
    shape.head_dim = head_dim;
    for (const KvCodec codec : {KvCodec::kCq8, KvCodec::kCq4, KvCodec::kCq3, KvCodec::kCq2}) {
      const Scene scene = CodedScene(codec, KvCodec::kCq4, shape);
      for (const CpuKernels* kernels : TestedKernels()) {
        const Answer whole = Compute(*kernels, scene, 0, scene.rows, 1u << 20, false);
        ExpectSameBits(whole, 0, ComputeExpanded(*kernels, scene), "expanded");
      }
    }
  }
}

// A query sees the keys of its window, on every table and however the work is cut.
TEST(IsaAttention, WindowsMatchTheReferenceAndDoNotDependOnTheCut) {
  for (const uint32_t window : {1u, 40u, 128u, 300u, 100000u}) {
    SCOPED_TRACE(testing::Message() << "window " << window);
    Scene plain = ChunkScene(KvCodec::kBf16, KvCodec::kInt8);
    plain.shape.window = window;
    AttentionShape shape = kCodedShape;
    shape.window = window;
    const Scene coded = CodedScene(KvCodec::kCq4, KvCodec::kCq4, shape);
    for (const CpuKernels* kernels : TestedKernels()) {
      ExpectNearReference(*kernels, plain, BoundFor(*kernels));
      for (const Scene* scene : {&std::as_const(plain), &coded}) {
        const Answer whole = Compute(*kernels, *scene, 0, scene->rows, 1u << 20, false);
        for (const uint32_t row : {0u, 59u, 100u, scene->rows - 1}) {
          ExpectSameBits(whole, row, Compute(*kernels, *scene, row, 1, 1, true), "alone");
        }
        ExpectSameBits(whole, 13, Compute(*kernels, *scene, 13, 100, 7, false), "by sevens");
      }
    }
    ExpectEveryTableNear(coded);
  }
}

}  // namespace
}  // namespace corpusd
