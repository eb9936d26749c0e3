// engine/backend/attention_nodes.h -- a task's softmax states of some nodes of merge_order.h, and
// what they become once those of all nodes are together: attention whose pages lie in several
// places. The bits are those of attend over all pages. Any thread, with memory of its own.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cpu/cpu_kernels.h"

namespace corpusd {

// Floats of the memory that both functions work in.
uint64_t NodeStackFloats(const AttentionTask& task);

// The state of what is below `node` among the task's pages, into AttentionStateFloats of `state`.
// Pages of other nodes are not read.
void AttendNode(const CpuKernels& kernels, const AttentionTask& task, MergeNode node, float* state,
                float* stack);

// Folds the states of all nodes into the task's out; state i, of nodes[i], is at states + i *
// stride. REQUIRES: every span of the task's pages is below one of the nodes.
void MergeNodeStates(const CpuKernels& kernels, const AttentionTask& task,
                     std::span<const MergeNode> nodes, const float* states, uint64_t stride,
                     float* stack);

}  // namespace corpusd
