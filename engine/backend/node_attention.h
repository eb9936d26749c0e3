// engine/backend/node_attention.h -- attention over pages that lie in several places, for backends
// that can: the softmax states of some nodes of merge_order.h, for which only the pages below them
// are read, and, once those of all nodes are together, their end. The bits are those of
// Backend::Attention over all pages, where the backend says so. Calls may return before the work is
// done, as those of a Backend; states are its memory. One caller at a time, the backend's.
#pragma once

#include <memory>
#include <span>

#include "engine/backend/backend.h"
#include "engine/backend/cpu_backend.h"
#include "kernels/merge_order.h"

namespace corpusd {

// Floats of the softmax state of so many rows, all heads.
constexpr uint64_t NodeStateFloats(const AttentionShape& shape, uint32_t rows) {
  return uint64_t{rows} * shape.q_heads * (shape.head_dim + 2);
}

class NodeAttention {
 public:
  virtual ~NodeAttention() = default;
  // states: [nodes][NodeStateFloats]. REQUIRES: of both calls equal rows, and equal lists but for
  // the bytes of pages.
  virtual Status AttendNodes(std::span<float> states, MatrixView q, const AttentionInput& input,
                             std::span<const MergeNode> nodes) = 0;
  // The same for parts of q's rows, one after the other, all over the same pages: states[i] of part
  // i. REQUIRES: inputs that are equal but for their first positions.
  virtual Status AttendNodesOfParts(std::span<const std::span<float>> states, MatrixView q,
                                    std::span<const AttentionPart> parts,
                                    std::span<const MergeNode> nodes) {
    uint32_t row = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      RETURN_IF_ERROR(AttendNodes(states[i], q.Rows(row, parts[i].rows), parts[i].input, nodes));
      row += parts[i].rows;
    }
    return OkStatus();
  }
  // REQUIRES: every span of the pages is below one of the nodes.
  virtual Status MergeNodes(MatrixView out, std::span<const float> states,
                            const AttentionInput& input, std::span<const MergeNode> nodes) = 0;
  // Pages of a span, as this backend merges them.
  virtual uint32_t span_pages() const = 0;
  // States of nodes narrower than this are put together from those of this width below them.
  virtual uint32_t leaf_width() const { return 1; }
  // Where both are done one after the other, for Transport::RunOn; null: when they return, they are
  // done.
  virtual void* stream() const { return nullptr; }
};

// What the backend has of it, or null.
inline NodeAttention* NodeAttentionOf(Backend& backend) {
  return dynamic_cast<NodeAttention*>(&backend);
}

// Bytes of softmax states, one a part of the text, that the CPU backend keeps at once; longer texts
// are folded while they are read, to the same bits.
inline constexpr uint64_t kPartStateBytes = uint64_t{32} << 20;

// A CPU backend with spans of so many pages, a multiple of kPartPages, in place of kSpanPages. They
// decide the last bits of longer texts: only tests want less, so that short texts have many.
Result<std::unique_ptr<Backend>> MakeCpuBackend(const CpuBackendOptions& options,
                                                uint32_t span_pages,
                                                uint64_t part_state_bytes = kPartStateBytes);

}  // namespace corpusd
