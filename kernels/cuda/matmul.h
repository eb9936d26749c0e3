// kernels/cuda/matmul.h -- out (+)= x * weight^T with bfloat16 weights, float32 rows and float32
// sums. Each call enqueues one kernel on the stream and returns a cudaError_t. An output depends on
// its row of x and its row of the weight alone, bit for bit, among calls of at most
// kFewMatMulRows rows and among calls of more: the order of every sum is fixed by the inputs'
// count, so a library's choice of algorithm by shape has no place here. Any thread.
#pragma once

#include "kernels/cuda/page.h"

namespace corpusd::cuda {

inline constexpr uint32_t kFewMatMulRows = 16;
// What the rows of a weight are padded to with zeros, so that tiles need no border.
inline constexpr uint32_t kWeightRowMultiple = 64;
inline constexpr uint32_t kWeightColMultiple = 32;

// weight: [rows rounded up to kWeightRowMultiple, cols], cols a multiple of kWeightColMultiple,
// aligned to 16 bytes. out.cols is the number of real rows. x.data and x.stride: multiples of 4
// floats.
int MatMulRows(DeviceMatrix out, DeviceMatrix x, const uint16_t* weight, bool accumulate,
               CUstream_st* stream);

}  // namespace corpusd::cuda
