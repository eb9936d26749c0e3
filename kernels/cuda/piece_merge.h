// kernels/cuda/piece_merge.h -- attention over a history that is read in pieces: what rows get from
// two neighbouring pieces becomes what they get from both (log-sum-exp merge). Enqueues one kernel
// on the stream and returns a cudaError_t. Any thread.
#pragma once

#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/page.h"

namespace corpusd::cuda {

// out, more: [rows, q_heads * head_dim], results of attention; log_sums, more_log_sums: [rows,
// q_heads], as PrefillAttention gives them. out and log_sums become those of both.
struct PieceMerge {
  DeviceMatrix out, log_sums, more, more_log_sums;
  uint32_t q_heads = 0, head_dim = 0;
};
constexpr LaunchShape PieceMergeLaunch(const PieceMerge& call) {
  return RowLaunch(call.out.rows, call.q_heads);
}
int MergePieces(const PieceMerge& call, CUstream_st* stream);

}  // namespace corpusd::cuda
