// kernels/cuda/elementwise.h -- the operations of a transformer that read and write every number
// once. Each call enqueues one kernel on the stream and returns a cudaError_t. A row of the output
// depends on its row of the input alone, bit for bit. Any thread.
#pragma once

#include "kernels/cuda/device_weight.h"
#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/page.h"

namespace corpusd::cuda {

// Blocks of so many threads, a thread a number.
constexpr LaunchShape ColumnLaunch(const DeviceMatrix& x, uint32_t threads) {
  return RowLaunch(x.rows, (x.cols + threads - 1) / threads);
}

// out[i, :] = table[ids[i], :]; ids: on the device.
int EmbedRows(DeviceMatrix out, WeightKind kind, DeviceWeight table, const uint32_t* ids,
              CUstream_st* stream);
// out = x / sqrt(mean(x^2) + epsilon) * gain, a row; gain: [x.cols] on the device. out may be x.
int RmsNormRows(DeviceMatrix out, DeviceMatrix x, const float* gain, float epsilon,
                CUstream_st* stream);
// out[n, f] = silu(gate_up[n, f]) * gate_up[n, out.cols + f]
int SwiGluRows(DeviceMatrix out, DeviceMatrix gate_up, CUstream_st* stream);
// out[n, f] = gelu(gate_up[n, f]) * gate_up[n, out.cols + f], by the tanh formula.
int GeGluRows(DeviceMatrix out, DeviceMatrix gate_up, CUstream_st* stream);
// Each head of each row of x, in place: head / rms(head) * gain; gain: [head_dim] on the device.
int NormHeads(DeviceMatrix x, uint32_t head_dim, const float* gain, float epsilon,
              CUstream_st* stream);
// x[r, :] *= factors[r]; factors: on the device.
int ScaleRows(DeviceMatrix x, const float* factors, CUstream_st* stream);
// x[r, :] += bias; bias: [x.cols] on the device.
int AddBiasRows(DeviceMatrix x, const float* bias, CUstream_st* stream);
// x += y
int AddRows(DeviceMatrix x, DeviceMatrix y, CUstream_st* stream);

}  // namespace corpusd::cuda
