// kernels/cuda/team_group.cuh -- what a warp of a team of page_team.cu does by products of its
// warpgroup, which take one operand out of shared memory and run beside other instructions.
#pragma once

#include "kernels/cuda/team_worker.cuh"

namespace corpusd::cuda {

// Scores by products of the warpgroup, out of shared memory: the high bytes of the queries, then
// the low ones.
template <int Bits, int Dim>
__device__ __forceinline__ void TeamWorker<Bits, Dim>::GroupScores(
    Score& score, const typename Shared::Stage& stage, float2 constant) const {
  constexpr int kStep = 2;  // pairs whose products are asked for together
  const auto& fixed = shared_->fixed;
  const LevelTable<Bits> table = fixed.key_table[lane_ % 2];
  int sums[kOwn][8] = {};  // by the high bytes, then by the low
  const ptx::PiecesOperand<256, 128> terms(ptx::SharedAddress(fixed.terms));
  constexpr int kParts = Bits == 4 ? kPairs / kStep : 1;  // in which a group's words are read
  uint32_t words[kOwn][Tile::kWords / kParts], a[2][kStep][4];
#pragma unroll
  for (int s = 0; s < kOwn * kPairs / kStep; ++s) {
    const int i = s / (kPairs / kStep), p = s % (kPairs / kStep) * kStep;
    const uint8_t* const group = stage.keys + (own_ * kOwn + i) * Tile::kGroupBytes;
    if constexpr (Bits == 4) {
      const auto v = *reinterpret_cast<const uint4*>(group + Tile::WordOffset(2 * p, lane_));
      words[i][0] = v.x, words[i][1] = v.y, words[i][2] = v.z, words[i][3] = v.w;
    } else if (p == 0) {
      ReadGroupWords<Tile>(words[i], group, lane_);
    }
    if (s >= 2) ptx::WaitProducts<1>();
#pragma unroll
    for (int q = 0; q < kStep; ++q) {
      KeyBytes<Bits>(table, words[i], kParts > 1 ? q : p + q, a[s % 2][q]);
    }
    if (p == 0) ptx::KeepOrder(sums[i]);
    ptx::FenceProducts();
#pragma unroll
    for (int q = 0; q < kStep; ++q) {
      ptx::MultiplyBytes<kSigned>(sums[i], a[s % 2][q], terms.At((p + q) * sizeof(fixed.terms[0])));
    }
    ptx::CommitProducts();
  }
  ptx::WaitProducts<0>();
  const uint8_t* const scales = stage.keys + Tile::kCodeBytes + own_ * kOwn * kGroupTokens;
#pragma unroll
  for (int i = 0; i < kOwn; ++i) {
    ptx::KeepOrder(sums[i]);
    if constexpr (!kSigned) {
      const auto offset = *reinterpret_cast<const int2*>(&fixed.offsets[2 * t_]);
      sums[i][4] -= offset.x, sums[i][6] -= offset.x;
      sums[i][5] -= offset.y, sums[i][7] -= offset.y;
    }
    Scale(score[i], sums[i], sums[i] + 4, scales + i * kGroupTokens, constant);
  }
}

// AddValues by products of the warpgroup, those of AddSums among them. The warps go one way: but
// for codes of 3 bits, whose pairs lie in two ways.
template <int Bits, int Dim>
__device__ __forceinline__ void TeamWorker<Bits, Dim>::AddGroupValues(
    const typename Shared::Stage& stage, const typename Shared::Weights& weights) {
  constexpr int kStep = 2;  // groups whose products are asked for together
  const LevelTable<Bits> table = shared_->fixed.table[lane_ % 2];
  const PairWords<Bits, Dim> reader(stage.values, pair_, lane_);
  const ptx::PiecesOperand<128, 128> operand(ptx::SharedAddress(weights.pieces));
  uint32_t a[2][kStep][2][4];
#pragma unroll
  for (int i = -kStep; i < kGroups; i += kStep) {
    auto& of = a[i / kStep & 1];
    const int count = i < 0 ? 1 : kStep;
    if (i < 0) {
      MeanHalves(stage.values + Shared::kKeyBytes, of[0]);
    } else {
      if (i >= kStep) ptx::WaitProducts<1>();
      GroupHalves(reader, table, i, of);
    }
    if (i < 0) ptx::KeepOrder(output_[0]), ptx::KeepOrder(output_[1]);
    ptx::FenceProducts();
#pragma unroll
    for (int j = 0; j < count; ++j) {
      const uint64_t b = operand.At((i < 0 ? kGroups : i + j) * sizeof(weights.pieces[0]));
      ptx::MultiplyHalves(output_[0], of[j][0], b);
      ptx::MultiplyHalves(output_[1], of[j][1], b);
    }
    ptx::CommitProducts();
  }
  ptx::WaitProducts<0>();
  ptx::KeepOrder(output_[0]);
  ptx::KeepOrder(output_[1]);
}

// Operands of the pair's fragments of `Step` groups, from `group` on.
template <int Bits, int Dim>
template <int Step>
__device__ __forceinline__ void TeamWorker<Bits, Dim>::GroupHalves(
    const PairWords<Bits, Dim>& reader, const LevelTable<Bits>& table, int group,
    uint32_t (&of)[Step][2][4]) const {
  uint32_t words[Step][PairWords<Bits, Dim>::kWords];
#pragma unroll
  for (int j = 0; j < Step; ++j) reader.Read(words[j], group + j);
  if constexpr (Bits == 3) {
    uint32_t nibbles[Step][2];
    if (pair_ % 2 == 1) {
#pragma unroll
      for (int j = 0; j < Step; ++j) PairNibbles<3>(words[j], 1, nibbles[j]);
    } else {
#pragma unroll
      for (int j = 0; j < Step; ++j) PairNibbles<3>(words[j], 0, nibbles[j]);
    }
#pragma unroll
    for (int j = 0; j < Step; ++j) NibbleHalves<3>(table, nibbles[j], of[j]);
  } else {
#pragma unroll
    for (int j = 0; j < Step; ++j) ValueHalves<Bits>(table, words[j], 0, of[j]);
  }
}

// The means of the pair's dims as operands, and what takes off the bias: in turn, of columns that
// are masses and of those that are sums of scaled weights.
template <int Bits, int Dim>
__device__ __forceinline__ void TeamWorker<Bits, Dim>::MeanHalves(const uint8_t* means,
                                                                  uint32_t (&a)[2][4]) const {
  const __half2 octaves = __floats2half2_rn(1 << kSumOctaves, 1 << kSumOctaves);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int mean = reinterpret_cast<const int8_t*>(means)[32 * pair_ + 8 * i + g_];
    // Two halves of 1152 + mean, then of the mean times 2^5.
    const uint32_t biased = static_cast<uint32_t>(mean) * 0x10001u + kLevelBias;
    a[i / 2][i % 2] = HalfBits(__hfma2(HalfPair(biased), octaves, HalfPair(kMinusBias)));
    a[i / 2][2 + i % 2] = kMinusBias;
  }
}

}  // namespace corpusd::cuda
