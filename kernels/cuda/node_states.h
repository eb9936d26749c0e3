// kernels/cuda/node_states.h -- attention over pages that lie in several places, put together from
// what was found in each: outputs and the logarithms of their sums of weights, merged two by two in
// an order of the caller's (kernels/merge_order.h). Enqueues one kernel on the stream, returns a
// cudaError_t. Any thread.
#pragma once

#include "kernels/cuda/page.h"

namespace corpusd::cuda {

// One step of a merge on a stack of states: puts a node's state at `depth`, or adds the one at
// depth + 1 to it.
struct NodeStep {
  static constexpr uint8_t kAdd = 255;
  uint8_t node = 0;  // or kAdd
  uint8_t depth = 0;
};
constexpr uint32_t kNodeStepsMax = 128, kNodeDepthMax = 7;

// Where the state of a row of a node lies: q_heads * head_dim outputs, and q_heads base-2
// logarithms of sums, -infinity of none.
struct NodeLayout {
  uint64_t node_floats = 0;                        // from one node to the next
  uint32_t output_stride = 0, log_sum_stride = 0;  // from one row to the next
  uint64_t log_sums = 0;                           // from a node's begin to its first
};

struct NodeMerge {
  const float* states = nullptr;  // of all nodes
  NodeLayout layout;
  DeviceMatrix out;                                  // [rows, q_heads * head_dim]
  DeviceMatrix log_sums;                             // [rows, q_heads]; data null: not wanted
  uint32_t q_heads = 0, kv_heads = 0, head_dim = 0;  // head_dim: 64, 128
  DeviceBasis basis;  // outputs are in its coordinates, `out` is not; null: they are plain
  uint32_t steps = 0;
  NodeStep order[kNodeStepsMax];
};

int MergeNodeStates(const NodeMerge& call, CUstream_st* stream);

}  // namespace corpusd::cuda
