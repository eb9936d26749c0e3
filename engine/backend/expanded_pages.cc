#include "engine/backend/expanded_pages.h"

#include <algorithm>

namespace corpusd {
namespace {

// Of a copy: what two cores' L2 caches hold, beside what they compute with.
constexpr uint64_t kPieceBytes = 2 << 20;

}  // namespace

uint32_t ExpandedPages::PiecePages(const AttentionShape& shape, uint32_t span_pages) {
  const uint64_t page_bytes = 2 * ExpandedTileBytes(shape.head_dim) * shape.kv_heads;
  const uint64_t parts = std::max<uint64_t>(kPieceBytes / (page_bytes * kPartPages), 1);
  return static_cast<uint32_t>(std::min<uint64_t>(parts * kPartPages, span_pages));
}

std::span<const PageTiles> ExpandedPages::Expand(std::span<const PageTiles> pages,
                                                 const AttentionTask& task, const KvBasis* bases) {
  const uint32_t head_dim = task.shape.head_dim;
  const uint32_t kv_heads = task.shape.kv_heads;
  const uint64_t tile_bytes = ExpandedTileBytes(head_dim);
  const uint64_t head_bytes = 2 * tile_bytes;
  const uint64_t page_bytes = head_bytes * kv_heads;
  const uint64_t scratch_bytes = (ExpandScratchBytes(head_dim) + 4095) / 4096 * 4096;
  std::byte* const copy = HostBuffer::Grow(copy_, page_bytes * pages.size());
  std::byte* const scratch = HostBuffer::Grow(scratch_, scratch_bytes * pool_.threads());
  tiles_.assign(pages.begin(), pages.end());
  const auto count = static_cast<uint32_t>(pages.size());
  const uint32_t parts = AttentionParts(count);
  pool_.ParallelFor(parts * kv_heads, [&](uint32_t item, unsigned thread) {
    const uint32_t first = item / kv_heads * kPartPages;
    const uint32_t kv_head = item % kv_heads;
    kernels_.expand_pages({.pages = &pages[first],
                           .page_count = std::min(kPartPages, count - first),
                           .kv_head = kv_head,
                           .head_dim = head_dim,
                           .rope = task.rope,
                           .basis = bases + kv_head,
                           .frame = task.frame,
                           .out = copy + first * page_bytes + kv_head * head_bytes,
                           .out_stride = page_bytes,
                           .scratch = scratch + thread * scratch_bytes});
  });
  for (uint32_t i = 0; i < count; ++i) {
    PageTiles& tile = tiles_[i];
    tile.keys = copy + i * page_bytes;
    tile.values = tile.keys + tile_bytes;
    tile.key_stride = tile.value_stride = head_bytes;
    tile.key_codec = tile.value_codec = KvCodec::kBf16;
    tile.expanded = true;
  }
  return tiles_;
}

}  // namespace corpusd
