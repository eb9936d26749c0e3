// engine/backend/attention_nodes.h -- a task's softmax states of some nodes of merge_order.h, and
// what they become once those of all nodes are together: attention whose pages lie in several
// places. The bits are those of attend over all pages. Any thread, with memory of its own.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cpu/cpu_kernels.h"

namespace corpusd {

// The state of a task that has seen nothing.
void ClearState(const AttentionTask& task, float* state);

// Floats of the memory that AttendNode and MergeNodeStates work in.
uint64_t NodeStackFloats(const AttentionTask& task);

// Adds those of parts [first, end) of the task's pages that are dealt to a strand.
void FoldStrand(const CpuKernels& kernels, const AttentionTask& task, uint32_t strand,
                uint32_t first, uint32_t end, float* state);

// The state of what is below `node` among the task's pages, into AttentionStateFloats of `state`.
// Pages of other nodes are not read.
void AttendNode(const CpuKernels& kernels, const AttentionTask& task, MergeNode node, float* state,
                float* stack);

// Folds the states of all nodes into the task's out; state i, of nodes[i], is at states + i *
// stride. REQUIRES: every span of the task's pages is below one of the nodes.
void MergeNodeStates(const CpuKernels& kernels, const AttentionTask& task,
                     std::span<const MergeNode> nodes, const float* states, uint64_t stride,
                     float* stack);

// Pages that come piece after piece: adds the states of the parts of the task's pages, one behind
// the other, to those of the strands that their spans are dealt to; strand i is at strands + i *
// stride, each begun by ClearState. first_part: of all pages.
void FoldPiece(const CpuKernels& kernels, const AttentionTask& task, uint32_t first_part,
               const float* states, float* strands, uint64_t stride);
// The nodes of a width that so many pages have: states to be merged, however long the text is.
std::vector<MergeNode> NodesOfWidth(uint32_t width, uint64_t pages, uint32_t span_pages);
inline std::vector<MergeNode> StrandsOf(uint64_t pages, uint32_t span_pages) {
  return NodesOfWidth(kStrands, pages, span_pages);
}

}  // namespace corpusd
