// kernels/merge_order.h -- the order in which softmax states of a row's pages become one: a
// function of the number of pages alone, so that processors that share a text compute the bits of
// one alone. Parts (kPartPages) of a span are merged one after the other, spans are dealt to
// strands in zigzag (0 .. 63, 63 .. 0, again), and strands are folded in half like a strip of
// paper: t with 63 - t, then with 31 - t, down to one. For any power of two that divides them, a
// node of that width holds a zigzag share of the spans: one state is all that its owner has to
// send. Arithmetic; any thread.
#pragma once

#include <cstdint>

#include "kernels/shapes.h"

namespace corpusd {

// Pages of a span: 8192 tokens, Llama 4's chunk. A context of one span is merged part after part.
inline constexpr uint32_t kSpanPages = 64;
inline constexpr uint32_t kStrands = 64;  // a power of two
// States that a fold keeps at once, beside that of the part being computed.
inline constexpr uint32_t kMergeDepth = 7;
static_assert(kStrands == 1u << (kMergeDepth - 1));

// What strands fold to: of `width` of them the index-th; {kStrands, t} is strand t, {1, 0} all.
struct MergeNode {
  uint32_t width = 1;
  uint32_t index = 0;
};

constexpr uint32_t SpansOf(uint32_t pages, uint32_t span_pages) noexcept {
  return (pages + span_pages - 1) / span_pages;
}

// Place i of a zigzag deal to `count`: 0, 1, .., count - 1, count - 1, .., 0, 0, ..
constexpr uint32_t Zigzag(uint64_t i, uint32_t count) noexcept {
  const auto place = static_cast<uint32_t>(i % (2 * count));
  return place < count ? place : 2 * count - 1 - place;
}
constexpr uint32_t StrandOf(uint64_t span) noexcept { return Zigzag(span, kStrands); }

// Calls visit(span) for the spans below `spans` of a strand, in order.
template <typename Visit>
constexpr void ForEachSpan(uint32_t strand, uint32_t spans, const Visit& visit) {
  for (uint32_t round = 0; round < spans; round += 2 * kStrands) {
    if (round + strand < spans) visit(round + strand);
    const uint32_t back = round + 2 * kStrands - 1 - strand;
    if (back < spans) visit(back);
  }
}

// Folds what is below a node: leaf(node, depth) makes state `depth` of a node that is_leaf takes,
// and merge(depth) adds state depth + 1 to state depth. Nodes without a span are left out, but a
// strand 0 is always there.
template <typename IsLeaf, typename Leaf, typename Merge>
constexpr void FoldStrands(MergeNode node, uint32_t spans, uint32_t depth, const IsLeaf& is_leaf,
                           const Leaf& leaf, const Merge& merge) {
  if (is_leaf(node)) return leaf(node, depth);
  FoldStrands({2 * node.width, node.index}, spans, depth, is_leaf, leaf, merge);
  const uint32_t other = 2 * node.width - 1 - node.index;
  if (other >= spans) return;  // the first span of a node is that of its index
  FoldStrands({2 * node.width, other}, spans, depth + 1, is_leaf, leaf, merge);
  merge(depth);
}
constexpr bool IsStrand(MergeNode node) noexcept { return node.width == kStrands; }

}  // namespace corpusd
