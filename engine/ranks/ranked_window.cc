// What rows that see a window get of others' pages.
#include <algorithm>

#include "engine/ranks/ranked_attention.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

// One layer of the page at this position, as the pages of an input have it.
std::span<std::byte> LayerAt(const AttentionInput& input, uint64_t position) {
  std::span<std::byte> found;  // the last: exact first tokens have a page of the same position
  for (const KvPageList& list : input.lists) {
    const auto page = std::find_if(list.pages.begin(), list.pages.end(),
                                   [&](const KvPage& p) { return p.first_position == position; });
    if (page == list.pages.end()) continue;
    const KvFormat& format = *list.format;
    found = {const_cast<std::byte*>(page->bytes) + format.LayerOffset(input.layer),
             format.LayerBytes(input.layer)};
  }
  CHECK(!found.empty()) << "no page at " << position;
  return found;
}

}  // namespace

Status RankedAttention::ShareWindow(std::span<const AttentionPart> parts, uint32_t window_tokens) {
  if (pass_.rows == RankedPass::Rows::kAlike) return OkStatus();
  const uint32_t me = transport_.rank();
  const std::vector<RowPiece>& own = pass_.pieces[me];
  CHECK(parts.size() == own.size()) << parts.size() << " pieces";
  // What this rank computed: in the piece that has it.
  const auto computed = [&](uint64_t position) {
    for (size_t i = 0; i < own.size(); ++i) {
      if (position >= own[i].first_position && position < own[i].end()) {
        return LayerAt(parts[i].input, position);
      }
    }
    CHECK(false) << "nothing was computed here at " << position;
    return std::span<std::byte>();
  };
  RETURN_IF_ERROR(local_.Synchronize());  // pages that were just written
  std::vector<TransferPtr> transfers;
  for (uint32_t reader = 0; reader < placement_.ranks; ++reader) {
    for (size_t i = 0; i < pass_.pieces[reader].size(); ++i) {
      const uint64_t begin = pass_.pieces[reader][i].first_position;
      const uint64_t seen = begin + 1 - std::min<uint64_t>(begin + 1, window_tokens);
      const uint64_t first = std::max(seen / kBlockTokens, pass_.first_token / kBlockTokens);
      for (uint64_t block = first; block * kBlockTokens < begin; ++block) {
        const uint64_t position = block * kBlockTokens;
        const uint32_t from = pass_.ComputedBy(block);
        if (from != me && reader != me) continue;
        if (from == reader) {
          const auto source = computed(position), target = LayerAt(parts[i].input, position);
          RETURN_IF_ERROR(local_.Copy(target.data(), source.data(), source.size()));
        } else if (from == me) {
          transfers.push_back(transport_.Send(reader, computed(position)));
        } else {
          transfers.push_back(transport_.Receive(from, LayerAt(parts[i].input, position)));
        }
      }
    }
  }
  const Status shared = WaitAll(transfers);
  // Nobody may go on with transfers whose memory goes away.
  if (!shared.ok()) transport_.Abort(shared);
  return shared;
}

}  // namespace corpusd
