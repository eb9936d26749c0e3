// The prefill kernels run on the CPU: pages of every codec expanded, and attention of many rows
// over expanded pages, against double sums.
#include "tests/gpu/emulated/device.h"
// The kernels' sources; the order matters.
#include "page_expand.inc"
#include "prefill_attention.inc"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/coded_tile_builder.h"

namespace corpusd::cuda {
namespace {

constexpr uint32_t kTurned = 64;  // floats of a row of the table

// Shared memory of the emulated block, full of numbers that are none.
void ClearBlock() {
  static std::vector<uint8_t> shared;
  shared.assign(size_t{229} << 10, 0xFF);
  emulated::block.shared =
      shared.data() + (1024 - reinterpret_cast<uintptr_t>(shared.data()) % 1024);
  ptx::counting_barriers.clear();
}

float FloatOf(uint16_t bfloat) { return ptx::BfloatOf(bfloat, 0); }
uint16_t BfloatOf(float x) { return static_cast<uint16_t>(__float_as_uint(x) >> 16); }

class Numbers {
 public:
  float Normal() { return normal_(random_); }
  uint32_t operator()() { return random_(); }
  std::vector<float> Turns(size_t positions) {
    std::vector<float> turns(positions * kTurned);
    for (size_t i = 0; i < turns.size(); i += 2) {
      const float angle = static_cast<float>(random_() % 6283) * 1e-3f;
      turns[i] = std::cos(angle);
      turns[i + 1] = std::sin(angle);
    }
    return turns;
  }

 private:
  std::mt19937 random_{5};
  std::normal_distribution<float> normal_;
};

void Turn(std::vector<double>* x, const float* turn) {
  for (uint32_t d = 0; d < kTurned; d += 2) {
    const double a = (*x)[d], b = (*x)[d + 1];
    (*x)[d] = a * turn[d] - b * turn[d + 1];
    (*x)[d + 1] = b * turn[d] + a * turn[d + 1];
  }
}

// One tile and what it holds, [128][Dim].
template <PageCodec Codec, int Dim>
std::vector<double> FillTile(uint8_t* tile, bool is_key, Numbers* random) {
  constexpr int kBits = static_cast<int>(Codec);
  std::vector<double> numbers(kTileTokens * Dim);
  if constexpr (IsCodedPage(Codec)) {
    std::vector<uint8_t> codes(kTileTokens * Dim), scales(kTileTokens);
    for (uint8_t& code : codes) code = (*random)() & ((1 << kBits) - 1);
    for (uint8_t& scale : scales) scale = static_cast<uint8_t>(140 + (*random)() % 40);
    const auto bytes = BuildCodedTile<kBits, Dim>(codes, scales, !is_key);
    std::memcpy(tile, bytes.data(), bytes.size());
    auto* const means =
        reinterpret_cast<int8_t*>(tile + CodedTile<kBits, Dim>::kCodeBytes + kTileTokens);
    for (int d = 0; d < Dim; ++d)
      means[d] = static_cast<int8_t>(static_cast<int>((*random)() % 21) - 10);
    for (int i = 0; i < kTileTokens * Dim; ++i) {
      numbers[i] = double{__uint_as_float(ScaleBits(scales[i / Dim]))} / LevelUnit(kBits) *
                       LevelOfCode(kBits, codes[i]) +
                   means[i % Dim] * double{kMeanStep};
    }
    return numbers;
  }
  constexpr int kNear = Codec == PageCodec::kBf16 ? 2 : 4;
  for (int i = 0; i < kTileTokens * Dim; ++i) {
    const int token = i / Dim, d = i % Dim;
    const int at = is_key ? (d / kNear * kTileTokens + token) * kNear + d % kNear
                          : (token / kNear * Dim + d) * kNear + token % kNear;
    if constexpr (Codec == PageCodec::kBf16) {
      const uint16_t number = BfloatOf(random->Normal());
      numbers[i] = FloatOf(number);
      std::memcpy(tile + 2 * at, &number, 2);
    } else {
      const float scale = 0.01f + 0.001f * static_cast<float>(token % 10);
      std::memcpy(tile + kTileTokens * Dim + 4 * token, &scale, 4);
      tile[at] = static_cast<uint8_t>((*random)());
      numbers[i] = static_cast<int8_t>(tile[at]) * double{scale};
    }
  }
  return numbers;
}

template <int Dim>
void RunExpand(const ExpandCall& call) {
  constexpr uint32_t kEach = 2;
  const bool plain = call.basis.arrays == nullptr;
  for (unsigned side = 0; side < 2; ++side) {
    for (unsigned head = 0; head < call.kv_heads; ++head) {
      for (unsigned x = 0; x < (plain ? call.count : (call.count + kEach - 1) / kEach); ++x) {
        ClearBlock();
        emulated::block.index = {x, head, side};
        EXPECT_TRUE(emulated::Run(kThreads, [&] {
          if (plain) return ExpandPlainKernel<Dim>(call);
          ExpandKernel<Dim>(call, kEach);
        }));
      }
    }
  }
}

// Three pages of two KV heads. RETURNS the error, a share of the norm.
template <PageCodec Codec, int Dim>
double ExpandError(bool in_basis) {
  constexpr uint32_t kHeads = 2, kCount = 3;
  constexpr int kBits = static_cast<int>(Codec);
  constexpr uint32_t kTile = IsCodedPage(Codec)          ? CodedTileBytes(kBits, Dim)
                             : Codec == PageCodec::kBf16 ? kTileTokens * Dim * 2
                                                         : kTileTokens * (Dim + 4);
  Numbers random;
  std::vector<uint8_t> bytes(size_t{kCount} * 2 * kHeads * kTile + 64);
  uint8_t* const base = bytes.data() + (64 - reinterpret_cast<uintptr_t>(bytes.data()) % 64);
  const std::vector<float> turns = random.Turns(kCount * kTileTokens);
  std::vector<float> basis(2 * kHeads * BasisSideFloats(Dim));
  for (float& x : basis) x = random.Normal() / std::sqrt(static_cast<float>(Dim));
  std::vector<DevicePage> pages(kCount);
  std::vector<double> numbers[kCount][kHeads][2];
  for (uint32_t p = 0; p < kCount; ++p) {
    pages[p].bytes = base + size_t{p} * 2 * kHeads * kTile;
    pages[p].key_tile_bytes = pages[p].value_tile_bytes = kTile;
    pages[p].first_position = 100 + int64_t{p} * kTileTokens;
    pages[p].key_codec = pages[p].value_codec = Codec;
    for (uint32_t i = 0; i < 2 * kHeads; ++i) {
      numbers[p][i % kHeads][i / kHeads] =
          FillTile<Codec, Dim>(base + (size_t{p} * 2 * kHeads + i) * kTile, i < kHeads, &random);
    }
  }
  std::vector<uint16_t> expanded[2];
  for (auto& side : expanded) side.assign(size_t{kHeads} * kCount * kTileTokens * Dim, 0x7FC0);
  ExpandCall call;
  call.pages = pages.data();
  call.count = kCount;
  call.kv_heads = kHeads;
  call.head_dim = Dim;
  call.rope = {turns.data(), kTurned / 2};
  call.basis.arrays = in_basis ? basis.data() : nullptr;
  call.frame = 100;
  call.keys = expanded[0].data();
  call.values = expanded[1].data();
  RunExpand<Dim>(call);
  double error = 0, norm = 0;
  for (uint32_t i = 0; i < kCount * kHeads * 2 * kTileTokens; i += 3) {
    const uint32_t token = i % kTileTokens, side = i / kTileTokens % 2;
    const uint32_t head = i / kTileTokens / 2 % kHeads, p = i / kTileTokens / 2 / kHeads;
    const double* y = &numbers[p][head][side][size_t{token} * Dim];
    const float* of = basis.data() + (2 * head + side) * BasisSideFloats(Dim);
    std::vector<double> x(y, y + Dim);
    for (int d = 0; d < Dim && in_basis; ++d) {
      x[d] = of[BasisPartOffset(BasisPart::kMean, Dim) + d];
      for (int j = 0; j < Dim; ++j) {
        x[d] += y[j] * of[BasisPartOffset(BasisPart::kInverse, Dim) + j * Dim + d];
      }
    }
    if (side == 0) Turn(&x, turns.data() + (pages[p].first_position - call.frame) * kTurned);
    const uint16_t* tile = &expanded[side][(size_t{head} * kCount + p) * kTileTokens * Dim];
    for (int d = 0; d < Dim; ++d) {
      const double got = FloatOf(tile[ExpandedOffset(token, d) / 2]);
      error += (got - x[d]) * (got - x[d]);
      norm += x[d] * x[d];
    }
  }
  return std::sqrt(error / norm);
}

template <int Dim>
void CheckExpansions() {
  SCOPED_TRACE(Dim);
  EXPECT_LT((ExpandError<PageCodec::kCq8, Dim>(true)), 3e-3);
  EXPECT_LT((ExpandError<PageCodec::kCq4, Dim>(true)), 3e-3);
  EXPECT_LT((ExpandError<PageCodec::kCq3, Dim>(true)), 3e-3);
  EXPECT_LT((ExpandError<PageCodec::kCq2, Dim>(true)), 3e-3);
  EXPECT_LT((ExpandError<PageCodec::kBf16, Dim>(true)), 3e-3);
  EXPECT_LT((ExpandError<PageCodec::kBf16, Dim>(false)), 3e-3);
  EXPECT_LT((ExpandError<PageCodec::kInt8, Dim>(false)), 3e-3);
}

TEST(PrefillKernelTest, ExpandedPagesHoldWhatTheirTilesSay) {
  CheckExpansions<64>();
  CheckExpansions<128>();
}

// Rows at the end of a text, five heads to a KV head; some pages hide slots, the last is short.
template <int Dim>
class PrefillScene {
 public:
  static constexpr uint32_t kKvHeads = 2, kGroup = 5, kCols = kKvHeads * kGroup * Dim;
  PrefillScene(uint32_t rows, uint32_t pages, uint32_t window, bool positions)
      : rows_(rows), first_position_(int64_t{pages} * kTileTokens - 58 - rows), pages_(pages) {
    for (uint32_t p = 0; p < pages; ++p) {
      pages_[p].tokens = p == pages - 1 ? 70 : kTileTokens;
      pages_[p].hidden = p % 3 == 1 ? 17 : 0;
      pages_[p].first_position = int64_t{p} * kTileTokens;
    }
    for (auto* side : {&keys_, &values_}) {
      side->resize(size_t{kKvHeads} * pages * kTileTokens * Dim);
      for (uint16_t& x : *side) x = BfloatOf(random_.Normal());
    }
    q_.resize(size_t{rows} * kCols);
    for (float& x : q_) x = random_.Normal();
    turns_ = random_.Turns(size_t{pages} * kTileTokens);
    for (uint32_t row = 0; row < rows; row += kPrefillTileRows) {
      tiles_.push_back(
          {row, std::min(kPrefillTileRows, rows - row), 0, pages, first_position_ + row});
    }
    call_.q = {q_.data(), rows, kCols, kCols};
    call_.q_heads = kKvHeads * kGroup;
    call_.kv_heads = kKvHeads;
    call_.head_dim = Dim;
    call_.scale = 1 / std::sqrt(static_cast<float>(Dim));
    call_.window = window;
    call_.tiles = tiles_.data();
    call_.tile_count = static_cast<uint32_t>(tiles_.size());
    call_.pages_max = call_.page_count = pages;
    call_.pages = pages_.data();
    if (positions) call_.rope = {turns_.data(), kTurned / 2};
    call_.keys = keys_.data();
    call_.values = values_.data();
  }
  uint32_t parts() const {
    return PrefillParts(call_.tile_count, call_.pages_max, call_.q_heads, Dim);
  }

  // Splits the pages at these into results of their own for the same rows. Tiles come in any order:
  // here the last result's first.
  void Split(const std::vector<uint32_t>& ends) {
    const std::vector<PrefillTile> whole = std::exchange(tiles_, {});
    for (uint32_t i = 0, first = 0; i < ends.size(); first = ends[i++]) {
      std::vector<PrefillTile> tiles = whole;
      for (PrefillTile& tile : tiles) tile.first_page = first, tile.pages = ends[i] - first;
      tiles_.insert(tiles_.begin(), tiles.begin(), tiles.end());
      const PrefillPlace place{static_cast<int64_t>(i * result_floats()),
                               static_cast<int64_t>(i * result_floats())};
      places_.insert(places_.begin(), tiles.size(), place);
    }
    call_.places = places_.data();
    call_.tiles = tiles_.data();
    call_.tile_count = static_cast<uint32_t>(tiles_.size());
  }
  // The same for one of the results alone.
  void KeepResult(uint32_t which, uint32_t results) {
    const size_t each = tiles_.size() / results;
    tiles_.erase(tiles_.begin(), tiles_.begin() + (results - 1 - which) * each);
    tiles_.resize(each);
    call_.tiles = tiles_.data();
    call_.tile_count = static_cast<uint32_t>(each);
    call_.places = nullptr;
    places_.clear();
  }
  // Of two results: the second one's tiles become those that are added to the first one's.
  void Fold() {
    std::rotate(tiles_.begin(), tiles_.begin() + tiles_.size() / 2, tiles_.end());
    places_.clear();
    call_.places = nullptr;
    call_.twice = true;
    call_.tile_count /= 2;
  }
  uint64_t result_floats() const { return q_.size() + 4; }  // with a gap
  // Of the last Run: the logarithms of a result's sums.
  const float* log_sums(uint32_t result) const { return &log_sums_[result * result_floats()]; }

  // RETURNS all rows, the stacks' spans being spread over so many parts, on so many blocks; of all
  // results.
  std::vector<float> Run(uint32_t parts, unsigned blocks) {
    const uint64_t before = places_.empty() ? 0 : places_.front().out;
    std::vector<float> out(before + q_.size(), -7.0f);
    const uint32_t states = call_.twice
                                ? 2 * kPrefillBlocks
                                : std::max(call_.tile_count * call_.q_heads * parts, blocks);
    std::vector<float> workspace(PrefillStateFloats(Dim) * states);
    call_.out = {out.data(), rows_, kCols, kCols};
    log_sums_.assign(before + size_t{rows_} * call_.q_heads, -7.0f);
    call_.log_sums = {log_sums_.data(), rows_, call_.q_heads, call_.q_heads};
    call_.workspace = workspace.data();
    emulated::block.grid = {blocks, 1, 1};
    for (unsigned i = 0; i < blocks; ++i) {
      uint32_t next = i;
      ClearBlock();
      emulated::block.index = {i, 0, 0};
      EXPECT_TRUE(emulated::Run(kBlockThreads, [&] { PrefillKernel<Dim>(call_, parts, &next); }));
    }
    for (unsigned i = 0; i < kGroup * call_.tile_count * kKvHeads && parts > 1; ++i) {
      emulated::block.index = {i % kGroup, i / kGroup % call_.tile_count,
                               i / kGroup / call_.tile_count};
      EXPECT_TRUE(emulated::Run(kPrefillThreads, [&] { PrefillMergeKernel<Dim>(call_, parts); }));
    }
    return out;
  }

  // The error of every so many rows.
  double Error(const std::vector<float>& out, uint32_t step) const {
    double error = 0, norm = 0;
    for (uint32_t i = 0; i < rows_ * kKvHeads * kGroup; i += step) {
      const std::vector<double> want = Row(i / (kKvHeads * kGroup), i % (kKvHeads * kGroup));
      for (int d = 0; d < Dim; ++d) {
        const double got = out[size_t{i} * Dim + d];
        error += (got - want[d]) * (got - want[d]);
        norm += want[d] * want[d];
      }
    }
    return std::sqrt(error / norm);
  }

 private:
  std::vector<double> Row(uint32_t row, uint32_t head) const {
    const int64_t position = first_position_ + row;
    const float* from = &q_[size_t{row} * kCols + head * Dim];
    std::vector<double> q(from, from + Dim), sums(Dim);
    if (call_.rope.cos_sin != nullptr) Turn(&q, &turns_[position * kTurned]);
    double mass = 0;
    for (uint32_t p = 0; p < pages_.size(); ++p) {
      for (uint32_t token = pages_[p].hidden; token < pages_[p].tokens; ++token) {
        const int64_t distance = position - pages_[p].first_position - token;
        if (distance < 0 || (call_.window > 0 && distance >= call_.window)) continue;
        const size_t tile = (size_t{head / kGroup} * pages_.size() + p) * kTileTokens * Dim;
        double score = 0;
        for (int d = 0; d < Dim; ++d) {
          score += q[d] * FloatOf(keys_[tile + ExpandedOffset(token, d) / 2]);
        }
        const double weight = std::exp(score * call_.scale);
        mass += weight;
        for (int d = 0; d < Dim; ++d) {
          sums[d] += weight * FloatOf(values_[tile + ExpandedOffset(token, d) / 2]);
        }
      }
    }
    for (double& x : sums) x = mass > 0 ? x / mass : 0;
    return sums;
  }

  Numbers random_;
  const uint32_t rows_;
  const int64_t first_position_;
  std::vector<DevicePage> pages_;
  std::vector<uint16_t> keys_, values_;
  std::vector<float> q_, turns_;
  std::vector<PrefillTile> tiles_;
  std::vector<PrefillPlace> places_;
  std::vector<float> log_sums_;
  PrefillAttention call_;
};

TEST(PrefillKernelTest, RowsMatchDoubleSumsOnAnyNumberOfBlocks) {
  PrefillScene<128> few(40, 3, 0, true);
  const std::vector<float> out = few.Run(1, 3);
  EXPECT_LT(few.Error(out, 37), 5e-3);
  EXPECT_EQ(out, few.Run(1, 1));
  PrefillScene<64> windowed(150, 4, 200, false);
  EXPECT_LT(windowed.Error(windowed.Run(1, 4), 101), 5e-3);
}

TEST(PrefillKernelTest, SpansGiveTheSameBitsApartAndInOneBlock) {
  PrefillScene<64> scene(20, PrefillSpanPages(64) + 2, 0, true);
  ASSERT_EQ(scene.parts(), 2u);
  const std::vector<float> apart = scene.Run(2, 5);
  EXPECT_LT(scene.Error(apart, 41), 5e-3);
  EXPECT_EQ(apart, scene.Run(1, 2));
}

TEST(PrefillKernelTest, SeveralResultsAreEachAsAlone) {
  const std::vector<uint32_t> ends = {2, 2, 5};  // the second has no pages
  PrefillScene<64> together(130, 5, 0, true);
  together.Split(ends);
  const std::vector<float> all = together.Run(1, 3);
  for (uint32_t i = 0; i < ends.size(); ++i) {
    PrefillScene<64> alone(130, 5, 0, true);
    alone.Split(ends);
    alone.KeepResult(i, ends.size());
    const std::vector<float> one = alone.Run(1, 2);
    EXPECT_EQ(std::memcmp(one.data(), all.data() + i * together.result_floats(),
                          one.size() * sizeof(float)),
              0)
        << i;
  }
  EXPECT_EQ(std::count(all.begin(), all.end(), -7.0f), 2 * 4) << "the gaps alone are untouched";
}

TEST(PrefillKernelTest, TwoTilesOfOneStackAreAddedAsTheirStatesAre) {
  // Of all pages, of the first ones alone, of the last ones alone, and of several spans.
  struct Case {
    uint32_t rows, pages, first;
  };
  for (const auto& [rows, pages, first] :
       {Case{130, 5, 2},
        {40, 3, 3},
        {40, 3, 0},
        {20, PrefillSpanPages(64) + 4, PrefillSpanPages(64) + 2}}) {
    PrefillScene<64> apart(rows, pages, 0, true), folded(rows, pages, 0, true);
    apart.Split({first, pages});
    folded.Split({first, pages});
    folded.Fold();
    const std::vector<float> states = apart.Run(1, 3), out = folded.Run(1, 2);
    constexpr uint32_t kHeads = PrefillScene<64>::kKvHeads * PrefillScene<64>::kGroup;
    uint32_t others = 0;
    for (uint32_t i = 0; i < rows * kHeads; ++i) {
      const float a = apart.log_sums(0)[i], b = apart.log_sums(1)[i], top = std::fmax(a, b);
      ASSERT_NE(top, -INFINITY);
      const float weight = exp2f(a - top), other = exp2f(b - top), sum = weight + other;
      others += folded.log_sums(0)[i] == top + log2f(sum) ? 0 : 1;
      for (uint32_t d = 0; d < 64; ++d) {
        const size_t at = size_t{i} * 64 + d;
        const float value =
            fmaf(states[at], weight, states[at + apart.result_floats()] * other) / sum;
        others += out[at] == value ? 0 : 1;
      }
    }
    EXPECT_EQ(others, 0u) << pages << " pages, " << first;
    EXPECT_LT(folded.Error(out, 41), 5e-3);
  }
}

}  // namespace
}  // namespace corpusd::cuda
