// kernels/cuda/many_rows.cuh -- products of more than 16 rows: tiles of 32 or 64 rows x 64 outputs,
// 32 inputs at a time; four stages of copies past the registers. A warp has 32 x 32. Rows of x are
// rounded to bfloat16 on their way out of shared memory; codes become bfloat16 on their way into
// it, one step before it is their turn to be copied.
#pragma once

#include "kernels/cuda/matmul.h"
#include "kernels/cuda/ptx/async_copy.cuh"
#include "kernels/cuda/ptx/tensor_core.cuh"
#include "kernels/cuda/weight_codes.cuh"

namespace corpusd::cuda {

constexpr int kOutputs = 64;
constexpr int kStep = 32;
constexpr int kStages = 4;
constexpr int kRowFloats = kStep + 8;   // four rows of pairs meet no bank twice
constexpr int kRowWeights = kStep + 8;  // 80 bytes: nor do eight rows of 16 bytes

template <int Rows>
struct ManyStage {
  float x[Rows][kRowFloats];
  uint16_t weight[kOutputs][kRowWeights];
};

// A block's rows of x and where their results go: neighbours, or what an expert's tile names.
struct ManyRows {
  uint32_t first, count;
  const uint32_t* order;  // of slots; null: neighbours
  uint32_t slots_of_row;
  __device__ __forceinline__ uint32_t Slot(uint32_t i) const {
    return order == nullptr ? first + i : __ldg(order + first + i);
  }
};

template <int Rows>
__device__ __forceinline__ void FetchRows(ManyStage<Rows>* stage, const DeviceMatrix& x,
                                          const ManyRows& rows, int input) {
#pragma unroll
  for (int i = threadIdx.x; i < Rows * kStep / 4; i += 2 * Rows) {
    const int row = i / (kStep / 4), column = i % (kStep / 4) * 4;
    const bool real = row < rows.count;
    const uint32_t source = real ? rows.Slot(row) / rows.slots_of_row : 0;
    const float* from = x.data + static_cast<size_t>(source) * x.stride + input + column;
    ptx::CopyAsync16(&stage->x[row][column], from, real);
  }
}

// A step's weights of a block. Fetch: from memory to where Store finds them.
template <WeightKind Kind, int Rows>
struct StepWeights;

template <int Rows>
struct StepWeights<WeightKind::kBf16, Rows> {
  __device__ __forceinline__ void Fetch(const DeviceWeight&, uint32_t, uint32_t, int) {}
  __device__ __forceinline__ void Store(ManyStage<Rows>* stage, const DeviceWeight& weight,
                                        uint32_t cols, uint32_t first_output, int input) const {
    const uint16_t* from = reinterpret_cast<const uint16_t*>(weight.codes) +
                           static_cast<size_t>(first_output) * cols + input;
#pragma unroll
    for (int i = threadIdx.x; i < kOutputs * kStep / 8; i += 2 * Rows) {
      const int row = i / (kStep / 8), column = i % (kStep / 8) * 8;
      ptx::CopyAsync16(&stage->weight[row][column], from + static_cast<size_t>(row) * cols + column,
                       true);
    }
  }
};

// Eight weights of a lane as 16 bytes.
template <typename NumberAt>
__device__ __forceinline__ uint4 PackEight(const NumberAt& number) {
  return make_uint4(PackBf16(number(0), number(1)), PackBf16(number(2), number(3)),
                    PackBf16(number(4), number(5)), PackBf16(number(6), number(7)));
}

template <int Rows>
struct StepWeights<WeightKind::kGroup8, Rows> {
  static constexpr int kUnits = kOutputs / kUnitRows * 16 / Rows;  // of a warp
  uint4 codes[kUnits];
  uint32_t scales[kUnits];
  __device__ __forceinline__ void Fetch(const DeviceWeight& weight, uint32_t cols,
                                        uint32_t first_output, int input) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const size_t unit =
          static_cast<size_t>(first_output / kUnitRows + warp * kUnits + u) * (cols / 32) +
          input / 32;
      codes[u] = __ldg(reinterpret_cast<const uint4*>(weight.codes + unit * 512) + lane);
      scales[u] = __ldg(reinterpret_cast<const uint32_t*>(weight.scales + unit * 32) + lane / 4);
    }
  }
  __device__ __forceinline__ void Store(ManyStage<Rows>* stage, const DeviceWeight&, uint32_t,
                                        uint32_t, int) const {
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const float2 scale = HalvesOf(scales[u]);
#pragma unroll
      for (int upper = 0; upper < 2; ++upper) {
        const uint2 bytes =
            upper == 0 ? make_uint2(codes[u].x, codes[u].y) : make_uint2(codes[u].z, codes[u].w);
        const float d = upper == 0 ? scale.x : scale.y;
        const int row = (warp * kUnits + u) * kUnitRows + 8 * upper + g;
        *reinterpret_cast<uint4*>(&stage->weight[row][8 * t]) =
            PackEight([&](int i) { return ByteCode(i < 4 ? bytes.x : bytes.y, i % 4) * d; });
      }
    }
  }
};

template <int Rows>
struct StepWeights<WeightKind::kGroup4, Rows> {
  static constexpr int kUnits = kOutputs / kUnitRows * 16 / Rows;  // of a warp
  uint2 codes[kUnits], scales[kUnits];
  __device__ __forceinline__ void Fetch(const DeviceWeight& weight, uint32_t cols,
                                        uint32_t first_output, int input) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, half = input / 32 % 2;
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const size_t unit =
          static_cast<size_t>(first_output / kUnitRows + warp * kUnits + u) * (cols / 64) +
          input / 64;
      codes[u] = __ldg(reinterpret_cast<const uint2*>(weight.codes + unit * 512) + 2 * lane + half);
      scales[u] =
          __ldg(reinterpret_cast<const uint2*>(weight.scales + unit * 128) + lane / 4 * 2 + half);
    }
  }
  __device__ __forceinline__ void Store(ManyStage<Rows>* stage, const DeviceWeight&, uint32_t,
                                        uint32_t, int) const {
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
#pragma unroll
      for (int upper = 0; upper < 2; ++upper) {
        const uint32_t word = upper == 0 ? codes[u].x : codes[u].y;
        const float2 scale = HalvesOf(upper == 0 ? scales[u].x : scales[u].y);
        uint32_t pairs[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const uint32_t q = NibblePair(word, j);
          pairs[j] =
              PackBf16(fmaf(LowBf16(q), scale.x, scale.y), fmaf(HighBf16(q), scale.x, scale.y));
        }
        const int row = (warp * kUnits + u) * kUnitRows + 8 * upper + g;
        *reinterpret_cast<uint4*>(&stage->weight[row][8 * t]) =
            make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
      }
    }
  }
};

template <int Rows>
__device__ __forceinline__ void MultiplyStep(float (&sums)[2][4][4], const ManyStage<Rows>& stage) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int row = warp / 2 * 32, output = warp % 2 * 32;
#pragma unroll
  for (int k = 0; k < kStep; k += 16) {
    uint32_t a[2][4], b[2][4];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const float2 pair = *reinterpret_cast<const float2*>(
            &stage.x[row + 16 * i + g + 8 * (r & 1)][k + 2 * t + 8 * (r >> 1)]);
        a[i][r] = PackBf16(pair.x, pair.y);
      }
      ptx::LoadMatrices(
          b[i],
          ptx::SharedAddress(
              &stage.weight[output + 16 * i + lane / 16 * 8 + lane % 8][k + lane / 8 % 2 * 8]));
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        ptx::MmaBf16(sums[i][n], a[i], b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
      }
    }
  }
}

template <int Rows>
__device__ __forceinline__ void StoreSums(const float (&sums)[2][4][4], const MatMulCall& call,
                                          const ManyRows& rows) {
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const uint32_t first_output = blockIdx.x * kOutputs + warp % 2 * 32;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t row = warp / 2 * 32 + 16 * i + g + half * 8;
      if (row >= rows.count) continue;
      const uint32_t slot = rows.Slot(row);
      const float factor =
          call.experts.factors == nullptr ? 1.0f : __ldg(call.experts.factors + slot);
      float* out = call.out.data + static_cast<size_t>(slot) * call.out.stride;
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const uint32_t column = first_output + 8 * n + 2 * t + c;
          if (column >= call.out.cols) continue;
          const float sum = sums[i][n][2 * half + c] * factor;
          out[column] = call.accumulate != 0 ? out[column] + sum : sum;
        }
      }
    }
  }
}

// Block (64 outputs, tile of rows).
template <WeightKind Kind, int Rows>
__global__ void __launch_bounds__(2 * Rows)
    ManyRowsKernel(const __grid_constant__ MatMulCall call) {
  extern __shared__ __align__(16) uint8_t memory[];
  auto* stages = reinterpret_cast<ManyStage<Rows>*>(memory);
  const DeviceMatrix x = call.x;
  DeviceWeight weight = call.weight;
  ManyRows rows{blockIdx.y * Rows, min(x.rows - blockIdx.y * Rows, static_cast<uint32_t>(Rows)),
                nullptr, 1};
  if (call.experts.weights != nullptr) {
    const ExpertTile tile = call.experts.tiles[blockIdx.y];
    if (tile.rows == 0) return;
    weight = call.experts.weights[tile.expert];
    rows = {tile.first, tile.rows, call.experts.order, call.experts.slots_of_row};
  }
  const uint32_t first_output = blockIdx.x * kOutputs;
  const int steps = x.cols / kStep;
  StepWeights<Kind, Rows> ahead_weights;
  ahead_weights.Fetch(weight, x.cols, first_output, 0);
  const auto fetch = [&](int step) {
    if (step < steps) {
      ManyStage<Rows>* const stage = &stages[step % kStages];
      FetchRows<Rows>(stage, x, rows, step * kStep);
      ahead_weights.Store(stage, weight, x.cols, first_output, step * kStep);
      if (step + 1 < steps) ahead_weights.Fetch(weight, x.cols, first_output, (step + 1) * kStep);
    }
    ptx::CommitCopies();
  };
  for (int step = 0; step < kStages - 1; ++step) fetch(step);
  float sums[2][4][4] = {};
  for (int step = 0; step < steps; ++step) {
    ptx::WaitCopies<kStages - 2>();
    __syncthreads();
    fetch(step + kStages - 1);
    MultiplyStep<Rows>(sums, stages[step % kStages]);
  }
  StoreSums<Rows>(sums, call, rows);
}

}  // namespace corpusd::cuda
