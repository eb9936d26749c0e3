// engine/ranks/placement.h -- which rank holds which pages of a text and computes which of its
// rows, and what travels: arithmetic that all ranks do alike. Pages are counted as kernels see
// them: exact first tokens, if there are any, are page 0. Nothing here decides a bit of a result.
// Any thread.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/merge_order.h"

namespace corpusd {

// Spans of pages are dealt in zigzag, 0 .. ranks - 1, ranks - 1 .. 0, again: every prefix of a text
// is balanced, and so is the work of its rows.
struct Placement {
  uint32_t ranks = 1;
  uint32_t span_pages = kSpanPages;

  uint32_t RankOfPage(uint64_t page) const;
  // The largest nodes whose spans, among those of so many pages, are all this rank's: one, if the
  // ranks are a power of two; none, if it has no page.
  std::vector<MergeNode> NodesOf(uint32_t rank, uint64_t pages) const;
};

// Rows at positions [first_position, first_position + rows).
struct RowPiece {
  uint64_t first_position = 0;
  uint32_t rows = 0;
  uint64_t end() const { return first_position + rows; }
};

// Deals rows [first, end) in units of so many tokens, in zigzag: a causal layer is as much work for
// each. Borders are multiples of `unit` from `first` on. span_tokens: of a span of pages; where
// that is as balanced, whole spans go to the rank that keeps their pages, else a rank has two
// pieces at most. RETURNS no piece at all if there are fewer units than ranks.
std::vector<std::vector<RowPiece>> DealRows(uint64_t first, uint64_t end, uint32_t unit,
                                            uint32_t ranks, uint64_t span_tokens = 0);

// Whether keys and values should travel to the queries, or queries to them: what is less. With all
// in one width it is the rule of context parallelism (Yang et al. 2024, arXiv 2411.01783): keys if
// T / (T + P) > 2 N_kv / N_q, for T new tokens after P.
bool KeysTravel(uint64_t new_tokens, uint64_t history_tokens, uint64_t kv_bytes_token,
                uint64_t query_bytes_row);

}  // namespace corpusd
