// Rows that all ranks have alike: each computes the nodes it has, and states travel.
#include <algorithm>

#include "engine/ranks/ranked_attention.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

uint64_t PagesOf(const AttentionInput& input) {
  uint64_t pages = 0;
  for (const KvPageList& list : input.lists) pages += list.pages.size();
  return pages;
}

}  // namespace

// All pages that this rank keeps are there. Placement is asked once a span.
void RankedAttention::CheckKept(const AttentionInput& input) const {
  const uint32_t me = transport_.rank();
  uint64_t first = 0;  // of the list
  for (const KvPageList& list : input.lists) {
    const uint64_t end = first + list.pages.size();
    for (uint64_t index = first, next = 0; index < end; index = next) {
      next = std::min(end, (index / placement_.span_pages + 1) * placement_.span_pages);
      if (placement_.RankOfPage(index) != me) continue;
      for (uint64_t page = index; page < next; ++page) {
        CHECK(list.pages[page - first].bytes != RemotePage())
            << "page " << page << " is kept by " << transport_.NameOf(me) << " but is not there";
      }
    }
    first = end;
  }
}

std::vector<TransferPtr> RankedAttention::ExchangeStates(std::span<const Nodes> nodes,
                                                         std::span<const std::span<float>> states) {
  const uint32_t ranks = placement_.ranks, me = transport_.rank();
  std::vector<TransferPtr> transfers;
  for (size_t i = 0; i < nodes.size() && ranks > 1; ++i) {
    const size_t all = nodes[i].all.size(), each = states[i].size() / std::max<size_t>(all, 1);
    bool alike = all > 0;
    for (uint32_t rank = 0; rank < ranks; ++rank) {
      alike = alike && nodes[i].Of(rank).size() * ranks == all;
    }
    if (alike) {
      transfers.push_back(transport_.Gather(std::as_writable_bytes(states[i])));
      continue;
    }
    const auto of = [&](uint32_t rank) {
      return states[i].subspan(nodes[i].first[rank] * each, nodes[i].Of(rank).size() * each);
    };
    for (uint32_t step = 1; step < ranks; ++step) {
      const uint32_t to = (me + step) % ranks, from = (me + ranks - step) % ranks;
      if (!of(me).empty()) transfers.push_back(transport_.Send(to, std::as_bytes(of(me))));
      if (of(from).empty()) continue;
      transfers.push_back(transport_.Receive(from, std::as_writable_bytes(of(from))));
    }
  }
  return transfers;
}

Status RankedAttention::AttendAlike(MatrixView out, MatrixView q,
                                    std::span<const AttentionPart> parts) {
  const uint32_t me = transport_.rank();
  std::vector<Nodes> nodes;
  std::vector<size_t> begins;  // of each part's states, [nodes][NodeStateFloats]
  size_t floats = 0;
  for (const AttentionPart& part : parts) {
    // Few rows' states are small: put together once, where all are.
    const bool few = part.rows <= local_.few_rows();
    nodes.push_back(NodesOver(PagesOf(part.input), few ? nodes_.leaf_width() : 1));
    begins.push_back(floats);
    floats += nodes.back().all.size() * NodeStateFloats(part.input.shape, part.rows);
  }
  RETURN_IF_ERROR(Grow(&states_, floats * sizeof(float)));
  const auto all_states = FloatsIn(states_, floats);
  std::vector<std::span<float>> states;
  uint32_t row = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto& [input, rows] = parts[i];
    const uint64_t each = NodeStateFloats(input.shape, rows);
    states.push_back(all_states.subspan(begins[i], nodes[i].all.size() * each));
    CheckKept(input);
    const auto mine = states[i].subspan(nodes[i].first[me] * each, nodes[i].Of(me).size() * each);
    RETURN_IF_ERROR(nodes_.AttendNodes(mine, q.Rows(row, rows), input, nodes[i].Of(me)));
    row += rows;
  }
  // Small, and everybody waits for it: in the order of the device's own work, if that is possible.
  const bool in_order = transport_.RunOn(nodes_.stream());
  if (!in_order) RETURN_IF_ERROR(local_.Synchronize());
  auto transfers = ExchangeStates(nodes, states);
  if (in_order) {
    (void)transport_.RunOn(nullptr);  // they begin
    left_ = std::move(transfers);
  } else {
    RETURN_IF_ERROR(WaitAll(transfers));
  }
  row = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    RETURN_IF_ERROR(
        nodes_.MergeNodes(out.Rows(row, parts[i].rows), states[i], parts[i].input, nodes[i].all));
    row += parts[i].rows;
  }
  return OkStatus();
}

}  // namespace corpusd
