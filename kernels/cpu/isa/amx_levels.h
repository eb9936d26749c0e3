// kernels/cpu/isa/amx_levels.h -- coded tiles as AMX takes them, straight from the order in which
// they lie: keys as rows of tokens (its first factor), values as quads of tokens (its second). No
// dword of a lane is moved for keys, whole lanes are for values. A vector of 64 bytes is four lanes
// t of 16: the quads of token or dim g (and g + 8) that kernels/coded_tile.h gives to lane 4g + t.
// Included after coded_unpack.h by one translation unit with AVX512_VBMI.
#pragma once

namespace corpusd {
namespace {

constexpr uint32_t kChunk = 64;  // dims, or tokens, that one row of a tile register holds

// Asks for two tiles that a thread reads next while it works on those before. A processor waits for
// some 16 lines at a time, and with them for whoever asks for more: so they are asked for evenly.
class ReadAhead {
 public:
  static constexpr uint32_t kShares = 128;
  ReadAhead(const std::byte* first, uint32_t first_bytes, const std::byte* second,
            uint32_t second_bytes)
      : at_(first),
        left_((first_bytes + 63) / 64),
        second_(second),
        second_left_((second_bytes + 63) / 64),
        lines_(left_ + second_left_) {}
  // So many 128ths of all their lines.
  void Take(uint32_t shares) {
    credit_ += lines_ * shares;
    for (; credit_ >= kShares; credit_ -= kShares) Line();
  }
  // Those that are left.
  void Rest() {
    while (left_ + second_left_ > 0) Line();
  }

 private:
  void Line() {
    if (left_ == 0) {
      at_ = second_;
      left_ = second_left_;
      second_left_ = 0;
      if (left_ == 0) return;
    }
    __builtin_prefetch(at_, 0, 2);
    at_ += 64;
    --left_;
  }
  const std::byte* at_;
  uint32_t left_;
  const std::byte* second_;
  uint32_t second_left_;
  uint32_t lines_;
  uint32_t credit_ = 0;
};

inline __m512i LoadLine(const std::byte* p) { return _mm512_loadu_si512(p); }
// One 16-byte pattern in each lane.
inline __m512i FourTimes(const int8_t* sixteen) {
  return _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(sixteen)));
}

// Levels by the low 6 bits of a byte, of which kShift and up are the code.
template <uint32_t kBits, uint32_t kShift>
struct LevelsBySix {
  alignas(64) int8_t values[64];
  constexpr LevelsBySix() : values() {
    for (uint32_t i = 0; i < 64; ++i) {
      values[i] = static_cast<int8_t>(LevelOfCode(kBits, (i >> kShift) % (1u << kBits)));
    }
  }
};
template <uint32_t kBits, uint32_t kShift = 0>
inline __m512i LookUp(__m512i codes) {
  static constexpr LevelsBySix<kBits, kShift> kTable;
  return _mm512_permutexvar_epi8(codes, _mm512_load_si512(kTable.values));
}

// The levels of 64 dims or, of values, of 64 dims and 16 tokens: Load brings the words of g and
// g + 8 as kRaw vectors, whose lanes may then be moved; Split makes [t][f][4] levels of each.
template <uint32_t kBits>
class LevelRows;
template <uint32_t kBits>
struct BitWidth {
  static constexpr uint32_t kValue = kBits;
};

template <>
class LevelRows<4> {
 public:
  static constexpr uint32_t kRaw = 1;
  LevelRows(uint32_t /*words*/, uint32_t chunk) : offset_(chunk * 512) {}
  void Load(const std::byte* group, uint32_t g, __m512i* raw) const {
    raw[0] = LoadLine(group + offset_ + size_t{g} * 64);
  }
  void Split(const __m512i* raw, __m512i* low, __m512i* high) const {
    *low = LookUp<4>(raw[0]);
    *high = LookUp<4>(_mm512_srli_epi32(raw[0], 4));
  }

 private:
  uint32_t offset_;
};

template <>
class LevelRows<8> {
 public:
  static constexpr uint32_t kRaw = 2;  // of fragments 0, 1 and 2, 3
  LevelRows(uint32_t /*words*/, uint32_t chunk) : offset_(chunk * 1024) {}
  void Load(const std::byte* group, uint32_t g, __m512i* raw) const {
    raw[0] = LoadLine(group + offset_ + size_t{g} * 64);
    raw[1] = LoadLine(group + offset_ + 512 + size_t{g} * 64);
  }
  void Split(const __m512i* raw, __m512i* low, __m512i* high) const {
    alignas(16) static constexpr int8_t kSlots[16] = {0, 2,  1, 3,  4,  6,  5,  7,
                                                      8, 10, 9, 11, 12, 14, 13, 15};
    const __m512i slots = FourTimes(kSlots);
    const __m512i middle = _mm512_set1_epi8(static_cast<char>(0x80));
    const __m512 first = _mm512_castsi512_ps(raw[0]);
    const __m512 second = _mm512_castsi512_ps(raw[1]);
    const __m512i even = _mm512_castps_si512(_mm512_shuffle_ps(first, second, 0x88));
    const __m512i odd = _mm512_castps_si512(_mm512_shuffle_ps(first, second, 0xdd));
    *low = _mm512_xor_si512(_mm512_shuffle_epi8(even, slots), middle);
    *high = _mm512_xor_si512(_mm512_shuffle_epi8(odd, slots), middle);
  }

 private:
  uint32_t offset_;
};

// Four words of each lane, of one run of words or two neighbouring ones.
class WordPicker {
 public:
  WordPicker(uint32_t words, const uint32_t (&picks)[4]) {
    const auto at = [&](uint32_t k, int lane) {
      return CodedWordOffset(static_cast<int>(words), static_cast<int>(picks[k]), lane);
    };
    const uint32_t begin = RunBegin(words, picks[0]);
    alignas(64) int32_t index[16];
    for (uint32_t k = 0; k < 4; ++k) {
      const uint32_t run = RunBegin(words, picks[k]);
      const uint32_t place = run == begin ? 0 : 1;
      run_[place] = {run, static_cast<uint32_t>(at(k, 4) - at(k, 0))};
      for (int t = 0; t < 4; ++t) {
        index[static_cast<uint32_t>(t) * 4 + k] =
            (at(k, t) - static_cast<int>(run)) / 4 + static_cast<int>(place) * 16;
      }
    }
    index_ = _mm512_load_si512(index);
  }
  __m512i operator()(const std::byte* group, uint32_t g) const {
    return _mm512_permutex2var_epi32(LoadLine(group + run_[0].begin + size_t{g} * run_[0].stride),
                                     index_,
                                     LoadLine(group + run_[1].begin + size_t{g} * run_[1].stride));
  }

 private:
  // Four lanes of a run are `stride` bytes. A load may reach beyond the run, not beyond the tile.
  struct Run {
    uint32_t begin, stride;
  };
  // Bytes before the run of words that `word` belongs to.
  static uint32_t RunBegin(uint32_t words, uint32_t word) {
    const uint32_t whole = words / 4 * 4;
    if (word < whole) return word / 4 * 4 * 128;
    return words % 4 >= 2 && word - whole < 2 ? whole * 128 : (words - 1) * 128;
  }
  Run run_[2] = {};
  __m512i index_;
};

template <>
class LevelRows<2> {
 public:
  static constexpr uint32_t kRaw = 1;
  LevelRows(uint32_t words, uint32_t chunk)
      : pick_(words, {2 * chunk, 2 * chunk, 2 * chunk + 1, 2 * chunk + 1}) {}
  void Load(const std::byte* group, uint32_t g, __m512i* raw) const {
    raw[0] = _mm512_srlv_epi32(pick_(group, g), _mm512_set1_epi64(int64_t{4} << 32));
  }
  void Split(const __m512i* raw, __m512i* low, __m512i* high) const {
    *low = LookUp<2>(raw[0]);
    *high = LookUp<2, 2>(raw[0]);
  }

 private:
  WordPicker pick_;
};

// Words w0 w1 w2 w0 of a lane: fragments 0 to 2 have a word each, fragment 3 the third field of
// each half, and for g + 8 the odd columns in the last bits of the halves.
template <>
class LevelRows<3> {
 public:
  static constexpr uint32_t kRaw = 1;
  LevelRows(uint32_t words, uint32_t chunk)
      : pick_(words, {3 * chunk, 3 * chunk + 1, 3 * chunk + 2, 3 * chunk}) {}
  void Load(const std::byte* group, uint32_t g, __m512i* raw) const { raw[0] = pick_(group, g); }
  void Split(const __m512i* raw, __m512i* low, __m512i* high) const {
    // First bits of each byte's code among the 64 of two words.
    alignas(16) static constexpr int8_t kLow[16] = {0, 9, 16, 25, 32, 41, 48, 57,
                                                    0, 9, 16, 25, 38, 6,  54, 22};
    alignas(16) static constexpr int8_t kHigh[16] = {3, 12, 19, 28, 35, 44, 51, 60,
                                                     3, 12, 19, 28, 0,  0,  0,  0};
    // w0 >> 7, w1 >> 6 and w2 >> 5, put together.
    const __m512i shifts = _mm512_setr4_epi32(7, 6, 5, 0);
    const __m512i parts = _mm512_setr4_epi32(0x01000100, 0x02070207, 0x04000400, 0);
    const __m512i last = _mm512_and_si512(_mm512_srlv_epi32(raw[0], shifts), parts);
    const __m512i pairs =
        _mm512_or_si512(last, _mm512_shuffle_epi32(last, static_cast<_MM_PERM_ENUM>(0xb1)));
    const __m512i all =
        _mm512_or_si512(pairs, _mm512_shuffle_epi32(pairs, static_cast<_MM_PERM_ENUM>(0x4e)));
    *low = LookUp<3>(_mm512_multishift_epi64_epi8(FourTimes(kLow), raw[0]));
    *high = LookUp<3>(
        _mm512_mask_mov_epi32(_mm512_multishift_epi64_epi8(FourTimes(kHigh), raw[0]), 0x8888, all));
  }

 private:
  WordPicker pick_;
};

// Where slot i of a group of 16 has its row, so that four rows of scores turned four by four come
// out in slot order.
constexpr uint32_t RowOfSlot(uint32_t slot) { return slot % 4 * 4 + slot / 4; }

// out[head_dim / 64][8 groups][16 rows][64]: levels of a K tile, quads of dims in the order [t][f].
template <uint32_t kBits>
inline void UnpackKeyRows(std::byte* out, const std::byte* tile, uint32_t head_dim,
                          ReadAhead& ahead) {
  const auto words =
      static_cast<uint32_t>(CodedLaneWords(static_cast<int>(kBits), static_cast<int>(head_dim)));
  for (uint32_t chunk = 0; chunk < head_dim / kChunk; ++chunk) {
    const LevelRows<kBits> rows(words, chunk);
    const std::byte* group = tile;
    for (uint32_t i = 0; i < kBlockTokens / 16; ++i, group += size_t{words} * 128, out += 1024) {
#pragma GCC unroll 8
      for (uint32_t g = 0; g < 8; ++g) {
        __m512i raw[LevelRows<kBits>::kRaw];
        __m512i low, high;
        rows.Load(group, g, raw);
        rows.Split(raw, &low, &high);
        _mm512_store_si512(out + size_t{RowOfSlot(2 * g)} * 64, low);
        _mm512_store_si512(out + size_t{RowOfSlot(2 * g + 1)} * 64, high);
      }
      if (chunk == 0) ahead.Take(2);
    }
  }
}

// v[j] lane t <-> v[t] lane j, lanes of 16 bytes.
inline void TurnLanes(__m512i (&v)[4]) {
  const __m512i a = _mm512_shuffle_i32x4(v[0], v[1], 0x44);
  const __m512i b = _mm512_shuffle_i32x4(v[0], v[1], 0xee);
  const __m512i c = _mm512_shuffle_i32x4(v[2], v[3], 0x44);
  const __m512i d = _mm512_shuffle_i32x4(v[2], v[3], 0xee);
  v[0] = _mm512_shuffle_i32x4(a, c, 0x88);
  v[1] = _mm512_shuffle_i32x4(a, c, 0xdd);
  v[2] = _mm512_shuffle_i32x4(b, d, 0x88);
  v[3] = _mm512_shuffle_i32x4(b, d, 0xdd);
}

// out[head_dim / 16][2][16 quads][16 dims][4]: levels of a V tile, of 64 tokens at a time; quad t
// of group i at row 4t + i % 4. Block b of 64 dims holds dim 16f + 4b + j at place 4j + f.
template <uint32_t kBits>
inline void UnpackValueQuads(std::byte* out, const std::byte* tile, uint32_t head_dim,
                             ReadAhead& ahead) {
  constexpr uint32_t kRaw = LevelRows<kBits>::kRaw;
  constexpr size_t kBlockBytes = size_t{kBlockTokens} * 16;
  const auto words =
      static_cast<uint32_t>(CodedLaneWords(static_cast<int>(kBits), static_cast<int>(head_dim)));
  for (uint32_t chunk = 0; chunk < head_dim / kChunk; ++chunk, out += 4 * kBlockBytes) {
    const LevelRows<kBits> rows(words, chunk);
    const std::byte* group = tile;
    for (uint32_t i = 0; i < kBlockTokens / 16; ++i, group += size_t{words} * 128) {
      std::byte* target = out + (i / 4 * 16 + i % 4) * 64;
#pragma GCC unroll 2
      for (uint32_t b = 0; b < 2; ++b) {
        __m512i turned[kRaw][4];
#pragma GCC unroll 4
        for (uint32_t j = 0; j < 4; ++j) {
          __m512i raw[kRaw];
          rows.Load(group, 4 * b + j, raw);
#pragma GCC unroll 2
          for (uint32_t k = 0; k < kRaw; ++k) turned[k][j] = raw[k];
        }
#pragma GCC unroll 2
        for (uint32_t k = 0; k < kRaw; ++k) TurnLanes(turned[k]);
#pragma GCC unroll 4
        for (uint32_t t = 0; t < 4; ++t) {
          __m512i raw[kRaw];
#pragma GCC unroll 2
          for (uint32_t k = 0; k < kRaw; ++k) raw[k] = turned[k][t];
          __m512i low, high;
          rows.Split(raw, &low, &high);
          _mm512_store_si512(target + b * kBlockBytes + size_t{t} * 256, low);
          _mm512_store_si512(target + (b + 2) * kBlockBytes + size_t{t} * 256, high);
        }
      }
      if (chunk == 0) ahead.Take(4);
    }
  }
}

inline void UnpackRowsOf(uint32_t bits, bool is_key, std::byte* out, const std::byte* tile,
                         uint32_t head_dim, ReadAhead& ahead) {
  const auto unpack = [&](auto width) {
    constexpr uint32_t kBits = decltype(width)::kValue;
    if (is_key) return UnpackKeyRows<kBits>(out, tile, head_dim, ahead);
    UnpackValueQuads<kBits>(out, tile, head_dim, ahead);
  };
  if (bits == 8) return unpack(BitWidth<8>{});
  if (bits == 4) return unpack(BitWidth<4>{});
  if (bits == 3) return unpack(BitWidth<3>{});
  unpack(BitWidth<2>{});
}

}  // namespace
}  // namespace corpusd
