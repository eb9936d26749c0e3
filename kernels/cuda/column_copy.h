// kernels/cuda/column_copy.h -- some columns of one matrix to some of another: what devices that
// share a model's weights pass on lies in one piece, and in a model's matrices it does not.
// Enqueues one kernel on the stream and returns a cudaError_t. Any thread.
#pragma once

#include "kernels/cuda/page.h"

namespace corpusd::cuda {

inline constexpr uint32_t kColumnPiecesMax = 4;

// out[:, to .. to + cols) = in[:, from .. from + cols), piece by piece; all of these, and both
// strides, are multiples of 4, and both matrices begin at a multiple of 16 bytes. Of equal rows, in
// no memory of each other.
struct ColumnCopy {
  DeviceMatrix out, in;
  uint32_t count = 0;
  uint32_t unused = 0;  // no padding, as in DeviceMatrix
  struct Piece {
    uint32_t from = 0, to = 0, cols = 0, unused = 0;
  } pieces[kColumnPiecesMax];
};
int CopyColumns(const ColumnCopy& call, CUstream_st* stream);

}  // namespace corpusd::cuda
