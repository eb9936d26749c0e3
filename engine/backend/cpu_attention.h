// engine/backend/cpu_attention.h -- how the CPU backend cuts attention into tasks for its threads:
// blocks of query rows and KV heads, parts of the pages where rows are few, pieces of working
// copies where they are many. No result depends on the cut, and no memory but the list of pages on
// how many pages there are. Used by the CPU backend; one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/backend/expanded_pages.h"
#include "engine/backend/node_attention.h"
#include "engine/backend/shared_attention.h"

namespace corpusd {

class CpuAttention {
 public:
  // part_state_bytes: of states of parts that are kept side by side (node_attention.h).
  CpuAttention(const CpuKernels& kernels, ThreadPool& pool, uint32_t span_pages,
               uint64_t part_state_bytes)
      : kernels_(kernels),
        pool_(pool),
        span_pages_(span_pages),
        part_state_bytes_(part_state_bytes),
        expanded_(kernels, pool) {}

  uint32_t span_pages() const { return span_pages_; }
  // As Backend and NodeAttention say it.
  void Attend(MatrixView out, MatrixView q, const AttentionInput& input);
  void AttendEach(MatrixView out, MatrixView q, std::span<const AttentionInput> rows);
  Status AttendInPieces(MatrixView out, MatrixView q, const AttentionInput& input,
                        PagePieces& pieces);
  void AttendNodes(std::span<float> states, MatrixView q, const AttentionInput& input,
                   std::span<const MergeNode> nodes);
  void MergeNodes(MatrixView out, std::span<const float> states, const AttentionInput& input,
                  std::span<const MergeNode> nodes);

 private:
  // How the rows of a call are cut: blocks of rows, one item a block and KV head.
  struct Cut {
    uint32_t blocks, block_rows, items;
    uint64_t frame;  // of expanded pages
    uint64_t scratch_bytes;
    std::byte* scratch;
  };
  // States of the strands of merge_order.h, all items of a call in each.
  struct Strands {
    float* states;
    uint64_t stride;
  };
  // A call of rows that each have pages of their own: AttendEach.
  struct EachRow {
    MatrixView out, q;
    std::span<const AttentionInput> rows;
    std::vector<uint64_t> positions = {};
    uint64_t scratch_bytes = 0;
    std::byte* scratch = nullptr;
  };
  void ResolvePages(const AttentionInput& input, std::vector<PageTiles>* pages) const;
  Cut CutRows(MatrixView out, MatrixView q, const AttentionInput& input);
  AttentionTask TaskOf(const Cut& cut, MatrixView out, MatrixView q, const AttentionInput& input,
                       uint32_t item, unsigned thread) const;
  AttentionTask TaskOf(const EachRow& call, uint32_t row, uint32_t count, uint32_t kv_head,
                       unsigned thread) const;
  void AttendInNodes(const Cut& cut, MatrixView out, MatrixView q, const AttentionInput& input);
  void AttendEachInParts(const EachRow& call, const SharedAttentionPlan& plan);
  void AttendItem(const EachRow& call, const SharedAttentionPlan& plan, uint32_t i, unsigned thread,
                  std::span<const ReadRange> read_next);
  void AttendItems(const EachRow& call, const SharedAttentionPlan& plan);
  void AttendEachInStrands(const EachRow& call, const SharedAttentionPlan& plan);
  float* SpreadParts(const Cut& cut, MatrixView out, MatrixView q, const AttentionInput& input,
                     std::span<const PageTiles> pages);
  Strands BeginStrands(const Cut& cut, MatrixView out, MatrixView q, const AttentionInput& input,
                       size_t count);
  void FoldPages(const Cut& cut, MatrixView out, MatrixView q, const AttentionInput& input,
                 std::span<const PageTiles> pages, uint32_t first_part, Strands strands);
  void FoldExpanded(const Cut& cut, MatrixView out, MatrixView q, const AttentionInput& input,
                    uint32_t first_part, Strands strands);

  const CpuKernels& kernels_;
  ThreadPool& pool_;
  uint32_t span_pages_;
  uint64_t part_state_bytes_;
  ExpandedPages expanded_;
  std::unique_ptr<HostBuffer> scratch_;
  std::unique_ptr<HostBuffer> states_;
  std::unique_ptr<HostBuffer> strands_;
  std::vector<PageTiles> pages_;
  std::vector<std::vector<PageTiles>> row_pages_;  // of AttendEach
  std::vector<std::vector<ReadRange>> reads_;      // of its lists of items
};

}  // namespace corpusd
