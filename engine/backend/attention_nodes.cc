#include "engine/backend/attention_nodes.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "store/base/check.h"

namespace corpusd {
namespace {

uint64_t FloatsOf(const AttentionTask& task) { return AttentionStateFloats(task.shape, task.rows); }

}  // namespace

void ClearState(const AttentionTask& task, float* state) {
  const size_t stacked = size_t{task.rows} * (task.shape.q_heads / task.shape.kv_heads);
  float* const largest = state + stacked * task.shape.head_dim;
  std::fill(state, largest, 0.0F);
  std::fill_n(largest, stacked, -std::numeric_limits<float>::infinity());
  std::fill_n(largest + stacked, stacked, 0.0F);
}

uint64_t NodeStackFloats(const AttentionTask& task) { return kMergeDepth * FloatsOf(task); }

void FoldStrand(const CpuKernels& kernels, const AttentionTask& task, uint32_t strand,
                uint32_t first, uint32_t end, float* state) {
  const uint32_t span_parts = task.span_pages / kPartPages;
  ForEachSpan(strand, (end + span_parts - 1) / span_parts, [&](uint32_t span) {
    const uint32_t from = std::max(first, span * span_parts);
    const uint32_t to = std::min(end, (span + 1) * span_parts);
    if (from < to) kernels.attend_parts(task, from, to, state);
  });
}

void AttendNode(const CpuKernels& kernels, const AttentionTask& task, MergeNode node, float* state,
                float* stack) {
  const uint64_t floats = FloatsOf(task);
  const uint32_t spans = SpansOf(task.page_count, task.span_pages);
  const auto fold_strand = [&](MergeNode strand, uint32_t depth) {
    float* const total = stack + depth * floats;
    ClearState(task, total);
    FoldStrand(kernels, task, strand.index, 0, AttentionParts(task.page_count), total);
  };
  FoldStrands(node, spans, 0, IsStrand, fold_strand, [&](uint32_t depth) {
    kernels.merge_state(task.shape, task.rows, stack + depth * floats,
                        stack + (depth + 1) * floats);
  });
  std::memcpy(state, stack, floats * sizeof(float));
}

void MergeNodeStates(const CpuKernels& kernels, const AttentionTask& task,
                     std::span<const MergeNode> nodes, const float* states, uint64_t stride,
                     float* stack) {
  const uint64_t floats = FloatsOf(task);
  const auto find = [&](MergeNode node) {
    return std::find_if(nodes.begin(), nodes.end(), [&](const MergeNode& n) {
      return n.width == node.width && n.index == node.index;
    });
  };
  const auto take = [&](MergeNode node, uint32_t depth) {
    const auto found = find(node);
    CHECK(found != nodes.end()) << "strand " << node.index << " is below no node";
    std::memcpy(stack + depth * floats, states + (found - nodes.begin()) * stride,
                floats * sizeof(float));
  };
  FoldStrands(
      MergeNode{}, SpansOf(task.page_count, task.span_pages), 0,
      [&](MergeNode node) { return IsStrand(node) || find(node) != nodes.end(); }, take,
      [&](uint32_t depth) {
        kernels.merge_state(task.shape, task.rows, stack + depth * floats,
                            stack + (depth + 1) * floats);
      });
  kernels.write_state(task, stack);
}

void FoldPiece(const CpuKernels& kernels, const AttentionTask& task, uint32_t first_part,
               const float* states, float* strands, uint64_t stride) {
  const uint32_t span_parts = task.span_pages / kPartPages;
  for (uint32_t part = 0; part < AttentionParts(task.page_count); ++part) {
    const uint32_t strand = StrandOf((first_part + part) / span_parts);
    kernels.merge_state(task.shape, task.rows, strands + strand * stride,
                        states + part * FloatsOf(task));
  }
}

std::vector<MergeNode> NodesOfWidth(uint32_t width, uint64_t pages, uint32_t span_pages) {
  std::vector<MergeNode> nodes;
  const uint32_t spans = SpansOf(static_cast<uint32_t>(pages), span_pages);
  for (uint32_t i = 0; i < std::min(width, spans); ++i) nodes.push_back({width, i});
  return nodes;
}

}  // namespace corpusd
