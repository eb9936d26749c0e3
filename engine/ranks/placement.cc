#include "engine/ranks/placement.h"

#include <algorithm>

#include "store/base/check.h"

namespace corpusd {
namespace {

// The rank of everything below a node, or `ranks` if there are several.
uint32_t OwnerOf(MergeNode node, uint32_t spans, uint32_t ranks) {
  if (IsStrand(node)) return Zigzag(node.index, ranks);
  const uint32_t first = OwnerOf({2 * node.width, node.index}, spans, ranks);
  const uint32_t other = 2 * node.width - 1 - node.index;
  if (other >= spans || OwnerOf({2 * node.width, other}, spans, ranks) == first) return first;
  return ranks;
}

void AddNodes(MergeNode node, uint32_t spans, uint32_t ranks, uint32_t rank,
              std::vector<MergeNode>* nodes) {
  const uint32_t owner = OwnerOf(node, spans, ranks);
  if (owner == rank) nodes->push_back(node);
  if (owner != ranks) return;
  const uint32_t other = 2 * node.width - 1 - node.index;
  AddNodes({2 * node.width, node.index}, spans, ranks, rank, nodes);
  if (other < spans) AddNodes({2 * node.width, other}, spans, ranks, rank, nodes);
}

// Empty: it cannot be done, or some would have more to do.
std::vector<std::vector<RowPiece>> DealSpans(uint64_t first, uint64_t end, uint32_t unit,
                                             uint32_t ranks, uint64_t span_tokens) {
  // From where a run of all ranks begins in the zigzag, two runs are balanced: everywhere, if the
  // strands are a multiple of two runs.
  if (span_tokens == 0 || span_tokens % unit != 0 || first % (span_tokens * ranks) != 0) return {};
  if (kStrands % (2 * ranks) != 0) return {};
  const uint64_t spans = (end - first) / span_tokens;  // what is left over goes with the last one
  if (spans < ranks || (span_tokens > unit && spans % (2 * ranks) != 0)) return {};
  std::vector<std::vector<RowPiece>> dealt(ranks);
  for (uint64_t i = 0; i < spans; ++i) {
    const uint64_t begin = first + i * span_tokens;
    const uint64_t stop = i + 1 == spans ? end : begin + span_tokens;
    // Neighbours stay apart: half of each rank's pieces are as much work as half of another's.
    dealt[Zigzag(StrandOf(begin / span_tokens), ranks)].push_back(
        {begin, static_cast<uint32_t>(stop - begin)});
  }
  const bool all = std::ranges::none_of(dealt, [](const auto& pieces) { return pieces.empty(); });
  return all ? dealt : std::vector<std::vector<RowPiece>>();
}

}  // namespace

uint32_t Placement::RankOfPage(uint64_t page) const {
  return Zigzag(StrandOf(page / span_pages), ranks);
}

std::vector<MergeNode> Placement::NodesOf(uint32_t rank, uint64_t pages) const {
  std::vector<MergeNode> nodes;
  if (pages == 0) return nodes;
  const uint32_t spans = SpansOf(static_cast<uint32_t>(pages), span_pages);
  AddNodes(MergeNode{}, spans, ranks, rank, &nodes);
  return nodes;
}

std::vector<std::vector<RowPiece>> DealRows(uint64_t first, uint64_t end, uint32_t unit,
                                            uint32_t ranks, uint64_t span_tokens) {
  CHECK(unit > 0 && end >= first) << first << " .. " << end;
  const uint64_t units = (end - first) / unit;  // what is left over goes with the last one
  if (units < ranks) return {};
  if (auto spans = DealSpans(first, end, unit, ranks, span_tokens); !spans.empty()) return spans;
  const uint64_t pieces = units >= 2 * ranks ? 2 * ranks : ranks;
  std::vector<std::vector<RowPiece>> dealt(ranks);
  for (uint64_t i = 0; i < pieces; ++i) {
    const uint64_t begin = first + units * i / pieces * unit;
    const uint64_t stop = i + 1 == pieces ? end : first + units * (i + 1) / pieces * unit;
    dealt[Zigzag(i, ranks)].push_back({begin, static_cast<uint32_t>(stop - begin)});
  }
  return dealt;
}

bool KeysTravel(uint64_t new_tokens, uint64_t history_tokens, uint64_t kv_bytes_token,
                uint64_t query_bytes_row) {
  return new_tokens * query_bytes_row > (new_tokens + history_tokens) * kv_bytes_token;
}

}  // namespace corpusd
