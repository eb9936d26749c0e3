// kernels/cuda/elementwise.h -- the operations of a transformer that read and write every number
// once. Each call enqueues one kernel on the stream and returns a cudaError_t. A row of the output
// depends on its row of the input alone, bit for bit. Any thread.
#pragma once

#include "kernels/cuda/page.h"

namespace corpusd::cuda {

// out[i, :] = table[ids[i], :]; table: bfloat16 [any, out.cols], rows table_stride apart; ids: on
// the device.
int EmbedRows(DeviceMatrix out, const uint16_t* table, uint32_t table_stride, const uint32_t* ids,
              CUstream_st* stream);
// out = x / sqrt(mean(x^2) + epsilon) * gain, a row; gain: [x.cols] on the device. out may be x.
int RmsNormRows(DeviceMatrix out, DeviceMatrix x, const float* gain, float epsilon,
                CUstream_st* stream);
// out[n, f] = silu(gate_up[n, f]) * gate_up[n, out.cols + f]
int SwiGluRows(DeviceMatrix out, DeviceMatrix gate_up, CUstream_st* stream);

}  // namespace corpusd::cuda
