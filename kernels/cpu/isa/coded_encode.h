// kernels/cpu/isa/coded_encode.h -- rows into the coordinates of a basis, and into coded tiles,
// over Lanes of 16 tokens: every lane runs the chain of operations that
// reference/coded_tile_codec.cc specifies, so that all tables give the same bytes. Included after
// float_matmul.h, a coded_lanes_*.h and coded_pack.h by one translation unit.
#pragma once

namespace corpusd {
namespace {

constexpr uint32_t kMaxCodedDim = 256;
constexpr float kLargestFloat = 3.40282347e+38f;

inline Lanes FiniteOrZero(Lanes v) { return ZeroBelow(v, Broadcast(kLargestFloat), Absolute(v)); }

// One row as the encoder takes it: rotated by its slot, finite, without the mean.
inline void CenterRow(float* out, const KvRows& rows, uint32_t r) {
  const float* x = rows.row(r);
  const uint32_t turned = rows.rope == nullptr ? 0 : rows.rope->half_dim * 2;
  const float* cos_sin = rows.rope == nullptr
                             ? nullptr
                             : rows.rope->cos_sin + size_t{rows.slot(r)} * rows.rope->half_dim * 2;
  for (uint32_t i = 0; i < rows.head_dim; i += kLanes) {
    Lanes v = Load(x + i);
    if (i + kLanes <= turned) {
      v = RotatePairs(v, Load(cos_sin + i));
    } else if (i < turned) {
      float angles[kLanes];
      for (uint32_t j = 0; j < kLanes; ++j) {
        angles[j] = i + j < turned ? cos_sin[i + j] : static_cast<float>(1 - j % 2);
      }
      v = RotatePairs(v, Load(angles));
    }
    Store(out + i, Sub(FiniteOrZero(v), Load(rows.coordinates->mean + i)));
  }
}

void ToCoordinates(float* y, const KvRows& rows) noexcept {
  constexpr uint32_t kBatch = 12;
  const uint32_t head_dim = rows.head_dim;
  alignas(64) float x[kBatch * kMaxCodedDim];
  const Lanes limit = Broadcast(kCoordinateLimit);
  const Lanes lowest = Broadcast(-kCoordinateLimit);
  for (uint32_t r = 0; r < rows.rows; r += kBatch) {
    const uint32_t count = MinU32(kBatch, rows.rows - r);
    for (uint32_t i = 0; i < count; ++i) CenterRow(x + i * head_dim, rows, r + i);
    float* out = y + size_t{r} * head_dim;
    MatrixGemm(count, x, head_dim, rows.coordinates->forward, head_dim, out, head_dim);
    for (uint32_t i = 0; i < count * head_dim; i += kLanes) {
      Store(out + i, Min(limit, Max(lowest, FiniteOrZero(Load(out + i)))));
    }
  }
}

// Chains of feedback: z itself in its metric, then a trial each.
constexpr uint32_t kAllChains = 1 + kScaleTrials;

// Groups of 16 tokens that are coded side by side: one decides while the other multiplies.
constexpr uint32_t kFeedGroups = 2;

// What a group being coded works in.
struct FeedWork {
  float* errors;    // [head_dim][kFeedChains][16]
  float* metric;    // [head_dim][16]: R z
  uint32_t* codes;  // [head_dim][16]: marks of every trial, a byte each
};
// The arrays of a tile being encoded, inside the task's scratch.
struct EncodeWork {
  float* rows;   // [kBlockTokens][head_dim]
  float* z;      // [kBlockTokens / 16][head_dim][16 tokens]
  float* roots;  // [head_dim]: of the weights
  FeedWork feeds[kFeedGroups];
  uint8_t* chosen;  // [kFeedGroups][head_dim][16]
};

constexpr uint32_t kFeedFloats = (kFeedChains + 2) * kLanes;  // of a group and dim
uint64_t EncodeScratchBytes(uint32_t head_dim) noexcept {
  return uint64_t{head_dim} *
         (2 * kBlockTokens * 4 + kFeedGroups * (kFeedFloats * 4 + kLanes) + sizeof(float));
}
inline EncodeWork CarveEncode(std::byte* scratch, uint32_t head_dim) {
  EncodeWork work;
  work.rows = reinterpret_cast<float*>(scratch);
  work.z = work.rows + size_t{head_dim} * kBlockTokens;
  float* next = work.z + size_t{head_dim} * kBlockTokens;
  for (FeedWork& feed : work.feeds) {
    feed.errors = next;
    feed.metric = feed.errors + size_t{head_dim} * kFeedChains * kLanes;
    feed.codes = reinterpret_cast<uint32_t*>(feed.metric + size_t{head_dim} * kLanes);
    next += size_t{head_dim} * kFeedFloats;
  }
  work.roots = next;
  work.chosen = reinterpret_cast<uint8_t*>(work.roots + head_dim);
  return work;
}

// z of `tokens` rows, zero behind them, for dims [j, j + 16). RETURNS in sums those of each dim, 16
// interleaved ones.
inline void TurnBlock(const EncodeWork& work, uint32_t tokens, uint32_t head_dim, uint32_t j,
                      Lanes (&sums)[kLanes]) {
  for (Lanes& sum : sums) sum = Zero();
  for (uint32_t t = 0; t < kBlockTokens; t += kLanes) {
    Lanes square[kLanes];
#pragma GCC unroll 16
    for (uint32_t i = 0; i < kLanes; ++i) {
      square[i] = t + i < tokens ? Load(work.rows + size_t{t + i} * head_dim + j) : Zero();
    }
    TransposeLanes(square);
#pragma GCC unroll 16
    for (uint32_t i = 0; i < kLanes; ++i) {
      Store(work.z + size_t{t} * head_dim + size_t{j + i} * kLanes, square[i]);
      if (t < tokens) sums[i] = Add(sums[i], square[i]);
    }
  }
}

// z of `tokens` rows, zero behind them, without the block's mean, whose bytes go to `means`.
inline void CenterBlock(const EncodeWork& work, uint32_t tokens, uint32_t head_dim,
                        std::byte* means) {
  for (uint32_t j = 0; j < head_dim; j += kLanes) {
    Lanes sums[kLanes];
    TurnBlock(work, tokens, head_dim, j, sums);
    TransposeLanes(sums);
    Lanes total = Zero();
    for (const Lanes& each : sums) total = Add(total, each);
    const Lanes mean = Div(total, Broadcast(static_cast<float>(tokens)));
    Lanes code = RoundToInt(Mul(mean, Broadcast(1.0f / kMeanStep)));
    code = Min(Broadcast(127.0f), Max(Broadcast(-127.0f), code));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(means + j),
                     LowBytes(AndInts(RoundedInt(code), BroadcastInt(0xff))));
    alignas(64) float shifts[kLanes];
    Store(shifts, Mul(code, Broadcast(kMeanStep)));
    for (uint32_t i = 0; i < kLanes; ++i) {
      const Lanes shift = BroadcastFrom(shifts + i);
      float* z = work.z + size_t{j + i} * kLanes;
      for (uint32_t t = 0; t < tokens; t += kLanes, z += size_t{kLanes} * head_dim) {
        Store(z, Sub(Load(z), shift));
      }
    }
  }
}

// 16 tokens at 8 bits: codes into chosen. RETURNS the scale bytes.
inline IntLanes EncodeWideGroup(const float* z, uint32_t head_dim, uint8_t* chosen) {
  Lanes largest = Zero();
  for (uint32_t j = 0; j < head_dim; ++j) {
    largest = Max(largest, Absolute(Load(z + size_t{j} * kLanes)));
  }
  const IntLanes bytes = ScaleBytesOf(Mul(largest, Broadcast(kUnit8 / 127)), kScaleAbove);
  const Lanes inverse = Div(Broadcast(kUnit8), ScalesOfBytes(bytes));
  for (uint32_t j = 0; j < head_dim; ++j) {
    const Lanes level = RoundToInt(Mul(Load(z + size_t{j} * kLanes), inverse));
    const Lanes bounded = Min(Broadcast(127.0f), Max(Broadcast(-127.0f), level));
    const IntLanes code = RoundedInt(Add(bounded, Broadcast(128.0f)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(chosen + size_t{j} * kLanes), LowBytes(code));
  }
  return bytes;
}

// What the chains of 16 tokens have come to.
struct FeedSums {
  Lanes squares = Zero();  // |R z|^2
  Lanes costs[kScaleTrials];
  Lanes overlaps[kScaleTrials];  // <R z, R (z - z^)>
};

// Noise feedback of 16 tokens, chains [kFirst, kFirst + kFeedChains) side by side.
template <uint32_t kBits, uint32_t kFirst>
struct FeedPass {
  FeedWork work;
  const float* z;  // [head_dim][16]
  uint32_t head_dim;
  const float* feedback;
  const float* roots;
  Lanes minus[kFeedChains];  // the steps, negated
  Lanes inverses[kFeedChains];

  // Chain s at coordinate j, `target` being what is to be coded. RETURNS its error.
  template <uint32_t kChain>
  Lanes Decide(uint32_t s, uint32_t j, Lanes target, Lanes start, Lanes root, Lanes* metric,
               IntLanes* packed, FeedSums* sums) const {
    if constexpr (kChain == 0) {
      *metric = Mul(root, target);
      if (kFeedChains < kAllChains) Store(work.metric + size_t{j} * kLanes, *metric);
      sums->squares = Fma(*metric, *metric, sums->squares);
      return start;
    } else {
      constexpr uint32_t kTrial = kChain - 1;
      IntLanes mark;
      const Lanes level = NearestLevel<kBits>(Mul(target, inverses[s]), &mark);
      const Lanes left = Mul(root, Fma(minus[s], level, target));
      sums->costs[kTrial] = Fma(left, left, sums->costs[kTrial]);
      sums->overlaps[kTrial] = Fma(*metric, left, sums->overlaps[kTrial]);
      *packed = PutMark<static_cast<int>(kTrial)>(*packed, mark);
      return Fma(minus[s], level, start);
    }
  }

  template <uint32_t s>
  void DecideFrom(uint32_t d, uint32_t j, Lanes start, Lanes root, Lanes* metric, IntLanes* packed,
                  const Lanes (&targets)[kFeedDims][kFeedChains], const float* pulls,
                  Lanes (&nearer)[kFeedDims][kFeedChains], FeedSums* sums) const {
    if constexpr (s < kFeedChains) {
      Lanes target = targets[d][s];
#pragma GCC unroll 4
      for (uint32_t later = kFeedDims - 1; later > d; --later) {
        target = Fma(BroadcastFrom(pulls + later), nearer[later][s], target);
      }
      nearer[d][s] = Decide<kFirst + s>(s, j, target, start, root, metric, packed, sums);
      Store(work.errors + (size_t{j} * kFeedChains + s) * kLanes, nearer[d][s]);
      DecideFrom<s + 1>(d, j, start, root, metric, packed, targets, pulls, nearer, sums);
    }
  }

  // Coordinates [first, first + kFeedDims), those after them being decided.
  void Block(uint32_t first, FeedSums* sums) const {
    Lanes targets[kFeedDims][kFeedChains];
#pragma GCC unroll 4
    for (uint32_t d = 0; d < kFeedDims; ++d) {
      const Lanes start = Load(z + size_t{first + d} * kLanes);
#pragma GCC unroll 4
      for (uint32_t s = 0; s < kFeedChains; ++s) targets[d][s] = start;
    }
    const float* weights = feedback + size_t{first} * head_dim;
    const float* rows[kFeedDims];
    for (uint32_t d = 0; d < kFeedDims; ++d) rows[d] = weights + size_t{d} * head_dim;
    const float* errors = work.errors + size_t{head_dim} * kFeedChains * kLanes;
    for (size_t i = head_dim; i-- > first + kFeedDims;) {
      errors -= kFeedChains * kLanes;
      Lanes error[kFeedChains];
#pragma GCC unroll 4
      for (uint32_t s = 0; s < kFeedChains; ++s) error[s] = Load(errors + s * kLanes);
#pragma GCC unroll 4
      for (uint32_t d = 0; d < kFeedDims; ++d) {
        const Lanes weight = BroadcastFrom(rows[d] + i);
#pragma GCC unroll 4
        for (uint32_t s = 0; s < kFeedChains; ++s) {
          targets[d][s] = Fma(weight, error[s], targets[d][s]);
        }
      }
    }
    Lanes nearer[kFeedDims][kFeedChains];
#pragma GCC unroll 4
    for (uint32_t back = 0; back < kFeedDims; ++back) {
      const uint32_t d = kFeedDims - 1 - back;
      const uint32_t j = first + d;
      const Lanes start = Load(z + size_t{j} * kLanes);
      Lanes metric = kFirst == 0 ? Zero() : Load(work.metric + size_t{j} * kLanes);
      IntLanes packed = kFirst == 0 ? BroadcastInt(0) : LoadInt(work.codes + size_t{j} * kLanes);
      DecideFrom<0>(d, j, start, BroadcastFrom(roots + j), &metric, &packed, targets,
                    weights + size_t{d} * head_dim + first, nearer, sums);
      StoreInts(work.codes + size_t{j} * kLanes, packed);
    }
  }
};

// A group of 16 tokens at 2 to 4 bits: the scales that are tried, and what came of them.
struct NarrowGroup {
  const float* z;
  IntLanes bytes[kScaleTrials];
  FeedSums sums;

  void Begin(uint32_t head_dim) {
    Lanes squares = Zero();
    for (uint32_t j = 0; j < head_dim; ++j) {
      const Lanes v = Load(z + size_t{j} * kLanes);
      squares = Fma(v, v, squares);
    }
    const Lanes size = Sqrt(Mul(squares, Broadcast(1.0f / static_cast<float>(head_dim))));
    const IntLanes nearest = ScaleBytesOf(size, kNearestScale);
    for (uint32_t i = 0; i < kScaleTrials; ++i) {
      bytes[i] = AddClamped(nearest, kFirstScaleTrial + static_cast<int>(i) * kScaleTrialStep);
      sums.costs[i] = Zero();
      sums.overlaps[i] = Zero();
    }
  }

  template <uint32_t kBits, uint32_t kFirst>
  FeedPass<kBits, kFirst> PassOf(const FeedWork& feed, const EncodeWork& work,
                                 const KvCoordinates& coordinates, uint32_t head_dim) const {
    FeedPass<kBits, kFirst> pass = {feed, z, head_dim, coordinates.feedback, work.roots, {}, {}};
    for (uint32_t s = 0; s < kFeedChains; ++s) {
      if (kFirst + s == 0) continue;
      const Lanes step =
          Mul(ScalesOfBytes(bytes[kFirst + s - 1]), Broadcast(1.0f / LevelUnit(kBits)));
      pass.minus[s] = Sub(Zero(), step);
      pass.inverses[s] = Div(Broadcast(1.0f), step);
    }
    return pass;
  }

  // The codes of the best trial into chosen. RETURNS the scale bytes.
  template <uint32_t kBits>
  IntLanes Choose(const FeedWork& feed, uint32_t head_dim, uint8_t* chosen) const {
    IntLanes best = bytes[0];
    IntLanes shift = BroadcastInt(0);
    Lanes least = sums.costs[0];
    Lanes overlap = sums.overlaps[0];
    for (uint32_t i = 1; i < kScaleTrials; ++i) {
      const Lanes cost = sums.costs[i];
      best = WhereLess(cost, least, bytes[i], best);
      shift = WhereLess(cost, least, BroadcastInt(static_cast<int>(8 * i)), shift);
      overlap = WhereLess(cost, least, sums.overlaps[i], overlap);
      least = WhereLess(cost, least, cost, least);
    }
    const IntLanes mask = BroadcastInt(0xff);
    for (uint32_t j = 0; j < head_dim; ++j) {
      const IntLanes code = CodesOfMarks<kBits>(
          AndInts(ShiftRightEach(LoadInt(feed.codes + size_t{j} * kLanes), shift), mask));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(chosen + size_t{j} * kLanes), LowBytes(code));
    }
    const Lanes along = Sub(sums.squares, overlap);
    const Lanes limit = Broadcast(kLargestCorrection);
    const Lanes ratio = Div(sums.squares, along);
    const Lanes scale = Mul(ScalesOfBytes(best), WhereLess(ratio, limit, ratio, limit));
    return WhereLess(Zero(), along, ScaleBytesOf(scale, kNearestScale), best);
  }
};

template <uint32_t kBits, uint32_t kFirst>
inline void RunPasses(const EncodeWork& work, const KvCoordinates& coordinates, uint32_t head_dim,
                      NarrowGroup (&groups)[kFeedGroups]) {
  if constexpr (kFirst < kAllChains) {
    static_assert(kAllChains % kFeedChains == 0 && kFeedGroups == 2);
    const auto one = groups[0].PassOf<kBits, kFirst>(work.feeds[0], work, coordinates, head_dim);
    const auto two = groups[1].PassOf<kBits, kFirst>(work.feeds[1], work, coordinates, head_dim);
    for (uint32_t first = head_dim; first > 0; first -= kFeedDims) {
      one.Block(first - kFeedDims, &groups[0].sums);
      two.Block(first - kFeedDims, &groups[1].sums);
    }
    RunPasses<kBits, kFirst + kFeedChains>(work, coordinates, head_dim, groups);
  }
}

// Groups of z next to each other at 2 to 4 bits: codes into work.chosen, scale bytes into bytes.
template <uint32_t kBits>
inline void EncodeNarrowGroups(const EncodeWork& work, const float* z,
                               const KvCoordinates& coordinates, uint32_t head_dim,
                               IntLanes (&bytes)[kFeedGroups]) {
  NarrowGroup groups[kFeedGroups];
  for (uint32_t g = 0; g < kFeedGroups; ++g) {
    groups[g].z = z + size_t{g} * head_dim * kLanes;
    groups[g].Begin(head_dim);
  }
  RunPasses<kBits, 0>(work, coordinates, head_dim, groups);
  for (uint32_t g = 0; g < kFeedGroups; ++g) {
    bytes[g] = groups[g].Choose<kBits>(work.feeds[g], head_dim,
                                       work.chosen + size_t{g} * head_dim * kLanes);
  }
}

inline void EncodeGroups(const EncodeTask& task, const EncodeWork& work, const float* z,
                         IntLanes (&bytes)[kFeedGroups]) {
  const uint32_t head_dim = task.rows.head_dim;
  switch (CodeBits(task.codec)) {
    case 8:
      for (uint32_t g = 0; g < kFeedGroups; ++g) {
        const size_t offset = size_t{g} * head_dim * kLanes;
        bytes[g] = EncodeWideGroup(z + offset, head_dim, work.chosen + offset);
      }
      return;
    case 4:
      return EncodeNarrowGroups<4>(work, z, *task.rows.coordinates, head_dim, bytes);
    case 3:
      return EncodeNarrowGroups<3>(work, z, *task.rows.coordinates, head_dim, bytes);
    default:
      return EncodeNarrowGroups<2>(work, z, *task.rows.coordinates, head_dim, bytes);
  }
}

// Codes and scale bytes of 16 slots from t on, of which those before `tokens` are filled.
inline void WriteGroup(const EncodeTask& task, uint32_t t, uint32_t tokens, uint8_t* chosen,
                       IntLanes scale_bytes, std::byte* scales) {
  const auto bits = static_cast<int>(CodeBits(task.codec));
  const uint32_t head_dim = task.rows.head_dim;
  const uint32_t count = MinU32(kLanes, tokens - t);
  const __m128i places = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m128i filled = _mm_cmpgt_epi8(_mm_set1_epi8(static_cast<char>(count)), places);
  if (count < kLanes) {  // slots that hold no token are zero bytes
    for (uint32_t j = 0; j < head_dim; ++j) {
      auto* codes = reinterpret_cast<__m128i*>(chosen + size_t{j} * kLanes);
      _mm_storeu_si128(codes, _mm_and_si128(_mm_loadu_si128(codes), filled));
    }
  }
  _mm_storeu_si128(reinterpret_cast<__m128i*>(scales + t),
                   _mm_shuffle_epi8(_mm_and_si128(LowBytes(scale_bytes), filled), SlotOrder()));
  PackGroup(
      task.tile +
          t / kLanes * static_cast<uint32_t>(CodedGroupBytes(bits, static_cast<int>(head_dim))),
      static_cast<uint32_t>(bits), task.is_key, head_dim, chosen);
}

void EncodeTile(const EncodeTask& task) noexcept {
  const auto bits = static_cast<int>(CodeBits(task.codec));
  const uint32_t head_dim = task.rows.head_dim;
  const uint32_t tokens = task.rows.rows;
  const auto dim = static_cast<int>(head_dim);
  const EncodeWork work = CarveEncode(task.scratch, head_dim);
  ToCoordinates(work.rows, task.rows);
  std::byte* scales = task.tile + CodedCodeBytes(bits, dim);
  __builtin_memset(task.tile, 0, static_cast<size_t>(CodedTileBytes(bits, dim)));
  CenterBlock(work, tokens, head_dim, scales + kTileTokens);
  for (uint32_t j = 0; j < head_dim; j += kLanes) {
    Store(work.roots + j, Sqrt(Load(task.rows.coordinates->weight + j)));
  }
  for (uint32_t t = 0; t < tokens; t += kFeedGroups * kLanes) {
    IntLanes bytes[kFeedGroups];
    EncodeGroups(task, work, work.z + size_t{t} * head_dim, bytes);
    for (uint32_t g = 0; g < kFeedGroups && t + g * kLanes < tokens; ++g) {
      WriteGroup(task, t + g * kLanes, tokens, work.chosen + size_t{g} * head_dim * kLanes,
                 bytes[g], scales);
    }
  }
}

}  // namespace
}  // namespace corpusd
