// kernels/cpu/isa/vnni_coded.h -- the products of coded_terms.h by byte dot products (vpdpbusd),
// for few rows: a decode's rows share every load of levels. Included after coded_terms.h and
// int16_attention.h by one translation unit with AVX512_VNNI.
#pragma once

namespace corpusd {
namespace {

constexpr uint32_t kVnniRows = 4;  // two sums each for two vectors of columns: 16 registers

inline __m512i BroadcastQuad(const void* p) {
  int quad;
  __builtin_memcpy(&quad, p, 4);
  return _mm512_set1_epi32(quad);
}

// high * 2^kShift + low of kRows rows and 32 columns: terms of row r at rows + r * stride, its low
// bytes `below` behind; levels [quads][..][4], 32 of the columns. Weights are unsigned and levels
// signed; queries are signed, so levels are raised by 128 and `starts` takes that off again.
template <uint32_t kRows, bool kRaise, typename Emit>
inline void DotTerms(const uint8_t* rows, size_t stride, size_t below, const std::byte* levels,
                     size_t quad_stride, uint32_t quads, const int32_t (*starts)[2], Emit emit) {
  __m512i sums[kRows][2][2];
#pragma GCC unroll 4
  for (uint32_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (uint32_t term = 0; term < 2; ++term) {
      sums[r][term][0] = kRaise ? _mm512_set1_epi32(starts[r][term]) : _mm512_setzero_si512();
      sums[r][term][1] = sums[r][term][0];
    }
  }
  const __m512i raise = _mm512_set1_epi8(static_cast<char>(0x80));
  for (uint32_t k = 0; k < quads; ++k) {
    __m512i v[2];
#pragma GCC unroll 2
    for (uint32_t c = 0; c < 2; ++c) {
      v[c] = _mm512_loadu_si512(levels + k * quad_stride + size_t{c} * 64);
      if constexpr (kRaise) v[c] = _mm512_xor_si512(v[c], raise);
    }
#pragma GCC unroll 4
    for (uint32_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (uint32_t term = 0; term < 2; ++term) {
        const __m512i quad = BroadcastQuad(rows + r * stride + term * below + size_t{k} * 4);
#pragma GCC unroll 2
        for (uint32_t c = 0; c < 2; ++c) {
          sums[r][term][c] = kRaise ? _mm512_dpbusd_epi32(sums[r][term][c], v[c], quad)
                                    : _mm512_dpbusd_epi32(sums[r][term][c], quad, v[c]);
        }
      }
    }
  }
#pragma GCC unroll 4
  for (uint32_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (uint32_t c = 0; c < 2; ++c) {
      const __m512i high = _mm512_slli_epi32(sums[r][0][c], kRaise ? 7 : 8);
      emit(r, c * kLanes, Lanes{_mm512_cvtepi32_ps(_mm512_add_epi32(high, sums[r][1][c]))});
    }
  }
}

// Calls body.template Run<count>(first) for runs of up to kVnniRows rows of one block of terms.
template <uint32_t kRows, typename Body>
inline void RunTermRows(uint32_t count, uint32_t first, const Body& body) {
  if constexpr (kRows > 0) {
    if (count == kRows) return body.template Run<kRows>(first);
    RunTermRows<kRows - 1>(count, first, body);
  }
}
template <typename Body>
inline void ForEachTermRun(uint32_t stacked, const Body& body) {
  for (uint32_t s = 0; s < stacked; s += kVnniRows) {
    RunTermRows<kVnniRows>(MinU32(kVnniRows, stacked - s), s, body);
  }
}

struct ScoreRun {
  const TermWork& terms;
  const std::byte* levels;
  uint32_t head_dim;
  uint32_t padded;
  float* scores;

  template <uint32_t kRows>
  void Run(uint32_t first) const {
    const auto* rows = reinterpret_cast<const uint8_t*>(terms.QueryAt(first, head_dim));
    const size_t below = size_t{kTermRows} * head_dim;
    int32_t starts[kRows][2];
    for (uint32_t r = 0; r < kRows; ++r) {
      for (uint32_t term = 0; term < 2; ++term) {
        const auto* bytes = reinterpret_cast<const int8_t*>(rows + r * head_dim + term * below);
        __m512i sum = _mm512_setzero_si512();
        for (uint32_t i = 0; i < head_dim; i += 64) {
          sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), _mm512_loadu_si512(bytes + i));
        }
        starts[r][term] = -128 * _mm512_reduce_add_epi32(sum);
      }
    }
    for (uint32_t t = 0; t < padded; t += 2 * kLanes) {
      DotTerms<kRows, true>(rows, head_dim, below, levels + size_t{t} * 4, kBlockTokens * 4,
                            head_dim / 4, starts, [&](uint32_t r, uint32_t i, Lanes dot) {
                              Store(scores + size_t{first + r} * kBlockTokens + t + i,
                                    Mul(dot, Broadcast(terms.query_scales[first + r])));
                            });
    }
  }
};

struct GatherRun {
  const TermWork& terms;
  const PageTile& values;
  const float* masses;
  uint32_t head_dim;
  uint32_t padded;
  float* gathered;

  template <uint32_t kRows>
  void Run(uint32_t first) const {
    const uint8_t* rows = terms.WeightAt(first);
    for (uint32_t j = 0; j < head_dim; j += 2 * kLanes) {
      DotTerms<kRows, false>(
          rows, kBlockTokens, size_t{kTermRows} * kBlockTokens, values.tile + size_t{j} * 4,
          size_t{head_dim} * 4, padded / 4, nullptr, [&](uint32_t r, uint32_t i, Lanes dot) {
            float* row = gathered + size_t{first + r} * head_dim + j + i;
            const Lanes mean = Load(values.means + j + i);
            const Lanes before = Fma(Broadcast(masses[first + r]), mean, Load(row));
            Store(row, Fma(dot, Broadcast(terms.weight_scales[first + r]), before));
          });
    }
  }
};

struct VnniTerms {
  template <typename Work>
  static const float* MappedQueries(const AttentionTask& task, const PageTiles& page,
                                    const PageView& view, const Work& work) {
    RotateQueries<FloatRow>(task, page, view, work.turned);
    FloatMapping::MapRows(task, view.first, view.stacked, work);
    return work.mapped + size_t{view.first} * task.shape.head_dim;
  }
  static void Score(const TermWork& terms, const std::byte* levels, uint32_t stacked,
                    uint32_t head_dim, uint32_t padded, float* scores) {
    ForEachTermRun(stacked, ScoreRun{terms, levels, head_dim, padded, scores});
  }
  static void Gather(const TermWork& terms, const PageTile& values, const float* masses,
                     uint32_t stacked, uint32_t head_dim, uint32_t padded, float* gathered) {
    ForEachTermRun(stacked, GatherRun{terms, values, masses, head_dim, padded, gathered});
  }
};

// Few rows over coded pages; bf16 pages of the same list as many rows take them.
struct VnniPolicy : Int16Policy {
  static void Attend(const AttentionTask& task, const PageTiles& page, const PageTiles* next,
                     const AttentionWork<float>& work, SoftmaxState state) {
    if (IsCodedPage(page)) return AttendCodedPage<VnniTerms>(task, page, next, work, state);
    Int16Policy::Attend(task, page, next, work, state);
  }
};

inline bool MultipliesBytes(const AttentionTask& task) {
  return task.call_rows <= kFewRows && task.basis != nullptr;
}
void VnniAttend(const AttentionTask& task) noexcept {
  if (MultipliesBytes(task)) return Attend<VnniPolicy>(task);
  Int16Attend(task);
}
void VnniAttendPart(const AttentionTask& task, uint32_t part, float* state) noexcept {
  if (MultipliesBytes(task)) return AttendPart<VnniPolicy>(task, part, state);
  Int16AttendPart(task, part, state);
}
void VnniAttendParts(const AttentionTask& task, uint32_t first, uint32_t end,
                     float* into) noexcept {
  if (MultipliesBytes(task)) return AttendParts<VnniPolicy>(task, first, end, into);
  Int16AttendParts(task, first, end, into);
}

}  // namespace
}  // namespace corpusd
