// kernels/cuda/matmul.h -- out (+)= x * weight^T with float32 rows and float32 sums, over weights
// in any kind of device_weight.h; of one weight, or of the expert that a row was sent to. Each call
// enqueues one kernel on the stream and returns a cudaError_t. An output depends on its row of x
// and its row of the weight alone, bit for bit, among calls of at most kFewMatMulRows rows and
// among calls of more: the order of every sum is fixed by the inputs' count, so a library's choice
// of algorithm by shape has no place here. Any thread.
#pragma once

#include "kernels/cuda/device_weight.h"
#include "kernels/cuda/page.h"

namespace corpusd::cuda {

inline constexpr uint32_t kFewMatMulRows = 16;

// Slots of one expert that a block of rows takes together.
struct ExpertTile {
  uint32_t expert = 0, first = 0, rows = 0;  // slots order[first] ..; 0 rows: none
};

// Which expert multiplies which row. A row of the model is sent to slots_of_row experts; slot s is
// row s / slots_of_row. All arrays on the device.
struct ExpertRows {
  const DeviceWeight* weights = nullptr;  // [experts]; null: no experts, one weight for all rows
  const uint32_t* chosen = nullptr;       // [slots], the expert of each
  const float* factors = nullptr;         // [slots], what results are multiplied by; null: 1
  const uint32_t* order = nullptr;        // [slots], by expert
  const ExpertTile* tiles = nullptr;      // [tile_count]
  uint32_t slots = 0, tile_count = 0, tile_rows = 0;
  uint32_t slots_of_row = 1;  // of a row of x
};

struct MatMulCall {
  DeviceMatrix out;  // out.cols: the number of real rows of the weight; with experts a row a slot
  DeviceMatrix x;    // x.data and x.stride: multiples of 4 floats
  DeviceWeight weight;
  uint32_t accumulate = 0;  // 0 or 1
  uint32_t unused = 0;      // no padding, as in DeviceMatrix
  ExpertRows experts;
};

// x.cols: a multiple of WeightColMultiple(kind). With experts, calls of at most kFewMatMulRows rows
// of the model (`few`) need `chosen`, others `order` and `tiles`.
int MatMulRows(const MatMulCall& call, WeightKind kind, CUstream_st* stream);
int MatMulExperts(const MatMulCall& call, WeightKind kind, bool few, CUstream_st* stream);

}  // namespace corpusd::cuda
