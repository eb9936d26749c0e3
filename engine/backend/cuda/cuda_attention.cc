// Attention of the CUDA backend: few rows over pages where they lie, many rows over pages that
// become plain bfloat16 keys and values first, a piece of a long history at a time.
#include <algorithm>
#include <cstring>

#include "engine/backend/cuda/cuda_backend.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/piece_merge.h"
#include "kernels/cuda/prefill_attention.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

// Of a longer history so many pages are expanded at once: 262,144 tokens. A row's result depends on
// where pieces begin, so it is a part of the arithmetic.
constexpr uint32_t kPiecePages = 2048;  // whole spans of any head size

}  // namespace

void CudaBackend::AttendFew(MatrixView out, MatrixView q, const AttentionInput& input,
                            std::span<const cuda::AttentionRow> rows, cuda::DeviceMatrix log_sums) {
  cuda::PageAttention call;
  // Of long histories and of pages that are copied first, the device has work enough.
  if (pages_.copies() || pages_.size() > graph_pages_) StopRecording();
  const auto pages = pages_.Upload();
  const auto rope = arrays_.Rope(input.rope);
  const auto basis = arrays_.Basis(input.basis, input.shape.kv_heads, input.shape.head_dim);
  if (!Keep(pages.status()) || !Keep(rope.status()) || !Keep(basis.status())) return;
  call.pages_min = rows.front().pages;
  for (const cuda::AttentionRow& row : rows) {
    call.pages_min = std::min(call.pages_min, row.pages);
    call.pages_max = std::max(call.pages_max, row.pages);
  }
  const auto sent = slots_.Put(rows.data(), rows.size_bytes());
  if (!Keep(sent.status())) return;
  const uint64_t floats = cuda::PageAttentionFloats(q.rows, call.pages_max, input.shape.q_heads,
                                                    input.shape.kv_heads, input.shape.head_dim);
  call.workspace = reinterpret_cast<float*>(Grow(&workspace_, floats * sizeof(float), "attention"));
  if (call.workspace == nullptr) return;
  call.out = View(out);
  call.log_sums = log_sums;
  call.q = View(q);
  call.q_heads = input.shape.q_heads;
  call.kv_heads = input.shape.kv_heads;
  call.head_dim = input.shape.head_dim;
  call.scale = input.shape.scale;
  call.layer = input.layer;
  call.pages = *pages;
  call.kinds = pages_.kinds();
  call.rows = reinterpret_cast<const cuda::AttentionRow*>(*sent);
  call.rope = *rope;
  call.basis = *basis;
  Do<cuda::AttendPages>("attend", call);
}

const cuda::PrefillTile* CudaBackend::SendTiles(std::span<const AttentionPart> parts,
                                                std::span<const uint32_t> part_pages,
                                                uint32_t first_page) {
  std::vector<cuda::PrefillTile> tiles;
  uint32_t row = 0, page = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    uint32_t visible = 0;  // pages that begin before the tile's end
    for (uint32_t done = 0; done < parts[i].rows; done += cuda::kPrefillTileRows) {
      const uint32_t rows = std::min(cuda::kPrefillTileRows, parts[i].rows - done);
      const int64_t position = static_cast<int64_t>(parts[i].input.first_position) + done;
      while (visible < part_pages[i] &&
             pages_.page(first_page + page + visible).first_position < position + rows) {
        ++visible;
      }
      // At least one, of which nothing is seen: a row's state must be written.
      const uint32_t pages = std::max(visible, std::min(part_pages[i], 1u));
      tiles.push_back({row + done, rows, page, pages, position});
    }
    row += parts[i].rows;
    page += part_pages[i];
  }
  std::ranges::reverse(tiles);
  const bool sent =
      tiles_ != nullptr && sent_tiles_.size() == tiles.size() &&
      std::memcmp(sent_tiles_.data(), tiles.data(), tiles.size() * sizeof(cuda::PrefillTile)) == 0;
  if (!sent) {
    sent_tiles_ = std::move(tiles);
    if (Send(&tiles_, sent_tiles_.data(), sent_tiles_.size() * sizeof(cuda::PrefillTile)) ==
        nullptr) {
      return nullptr;
    }
  }
  return reinterpret_cast<const cuda::PrefillTile*>(tiles_->data());
}

void CudaBackend::AttendMany(MatrixView out, MatrixView q, std::span<const AttentionPart> parts,
                             std::span<const uint32_t> part_pages) {
  const AttentionInput& input = parts.front().input;
  const AttentionShape& shape = input.shape;
  StopRecording();
  const auto pages = pages_.Upload();
  const auto rope = arrays_.Rope(input.rope);
  const auto basis = arrays_.Basis(input.basis, shape.kv_heads, shape.head_dim);
  if (!Keep(pages.status()) || !Keep(rope.status()) || !Keep(basis.status())) return;
  const auto count = static_cast<uint32_t>(pages_.size());
  const uint32_t piece = parts.size() == 1 ? std::min(count, kPiecePages) : count;
  const uint64_t side = uint64_t{shape.kv_heads} * piece * kBlockTokens * shape.head_dim;
  auto* const expanded = reinterpret_cast<uint16_t*>(
      Grow(&expanded_, std::max<uint64_t>(1, 2 * side) * sizeof(uint16_t), "pages as bfloat16"));
  // What lies behind the sums of two pieces is aligned to 16 bytes.
  const uint64_t sums = (uint64_t{q.rows} * shape.q_heads + 3) / 4 * 4;
  float* memory = nullptr;  // of what the pieces behind the first one give
  if (count > piece) {
    memory = reinterpret_cast<float*>(
        Grow(&pieces_, (2 * sums + uint64_t{q.rows} * q.cols) * sizeof(float), "attention"));
    if (memory == nullptr) return;
  }
  cuda::ExpandCall expand;
  expand.layer = input.layer;
  expand.kv_heads = shape.kv_heads;
  expand.head_dim = shape.head_dim;
  expand.rope = *rope;
  expand.basis = *basis;
  expand.frame = pages_.first_seen();
  expand.keys = expanded;
  expand.values = expanded + side;
  cuda::PrefillAttention call;
  call.out = View(out);
  call.q = View(q);
  call.q_heads = shape.q_heads;
  call.kv_heads = shape.kv_heads;
  call.head_dim = shape.head_dim;
  call.scale = shape.scale;
  call.window = shape.window;
  call.rope = *rope;
  call.frame = expand.frame;
  call.keys = expand.keys;
  call.values = expand.values;
  if (memory != nullptr) call.log_sums = {memory, q.rows, shape.q_heads, shape.q_heads};
  cuda::PieceMerge merge{.out = call.out,
                         .log_sums = call.log_sums,
                         .more = {memory + 2 * sums, q.rows, q.cols, q.cols},
                         .more_log_sums = {memory + sums, q.rows, shape.q_heads, shape.q_heads},
                         .q_heads = shape.q_heads,
                         .head_dim = shape.head_dim};
  for (uint32_t first = 0; expanded != nullptr && (first < count || first == 0); first += piece) {
    const uint32_t here = std::min(piece, count - first);
    call.tiles = SendTiles(parts, memory == nullptr ? part_pages : std::span(&here, 1), first);
    if (call.tiles == nullptr) return;
    call.tile_count = static_cast<uint32_t>(sent_tiles_.size());
    call.pages_max = 0;
    for (const cuda::PrefillTile& tile : sent_tiles_) {
      call.pages_max = std::max(call.pages_max, tile.pages);
    }
    const uint64_t floats = cuda::PrefillWorkspaceFloats(call.tile_count, call.pages_max,
                                                         shape.q_heads, shape.head_dim);
    call.workspace =
        reinterpret_cast<float*>(Grow(&workspace_, floats * sizeof(float), "attention"));
    if (call.workspace == nullptr) return;
    expand.pages = call.pages = *pages + first;
    expand.count = call.page_count = here;
    if (here > 0 && !Launched(cuda::ExpandPages(expand, stream_), "expand pages")) return;
    if (!Launched(cuda::AttendExpanded(call, stream_), "attend")) return;
    if (first > 0 && !Launched(cuda::MergePieces(merge, stream_), "merge")) return;
    call.out = merge.more;
    call.log_sums = merge.more_log_sums;
    if (here == 0) return;
  }
}

void CudaBackend::Attention(MatrixView out, MatrixView q, const AttentionInput& input) {
  const AttentionShape& shape = input.shape;
  CHECK(q.cols == shape.q_heads * shape.head_dim && out.cols == q.cols && out.rows == q.rows);
  Begin();
  if (q.rows == 0 || !failed_.ok()) return;
  pages_.Begin(input.layer);
  if (q.rows > few_rows()) {
    const auto count = pages_.Add(input.lists, 0, /*seen_only=*/true);
    if (!Keep(count.status())) return;
    const AttentionPart part{input, q.rows};
    const auto last = static_cast<int64_t>(input.first_position) + q.rows;
    if (input.rope != nullptr && last - pages_.first_seen() > input.rope->positions) {
      return AttendWindow(out, q, input);
    }
    return AttendMany(out, q, {&part, 1}, {&*count, 1});
  }
  std::vector<cuda::AttentionRow> rows(q.rows);
  uint32_t first = 0, count = 0, visible = 0;
  for (uint32_t r = 0; r < q.rows; ++r) {
    const auto position = static_cast<int64_t>(input.first_position) + r;
    // What a window hides differs by row.
    if (r == 0 || shape.window > 0) {
      const int64_t first_seen = shape.window == 0 ? 0 : position + 1 - shape.window;
      const auto added = pages_.Add(input.lists, first_seen);
      if (!Keep(added.status())) return;
      first = static_cast<uint32_t>(pages_.size()) - *added;
      count = *added;
      visible = 0;
    }
    while (visible < count && pages_.page(first + visible).first_position <= position) ++visible;
    rows[r] = {first, visible, position};
  }
  AttendFew(out, q, input, rows);
}

// The model's table of angles ends soon behind its window: rows take the pages before them in turn.
void CudaBackend::AttendWindow(MatrixView out, MatrixView q, const AttentionInput& input) {
  for (uint32_t row = 0; row < q.rows; row += cuda::kPrefillTileRows) {
    AttentionPart part{input, std::min(cuda::kPrefillTileRows, q.rows - row)};
    part.input.first_position += row;
    const auto first = static_cast<int64_t>(part.input.first_position);
    pages_.Begin(input.layer);
    const auto count = pages_.Add(input.lists, first + 1 - int64_t{input.shape.window}, true);
    if (!Keep(count.status())) return;
    AttendMany(out.Rows(row, part.rows), q.Rows(row, part.rows), {&part, 1}, {&*count, 1});
  }
}

void CudaBackend::AttentionEach(MatrixView out, MatrixView q,
                                std::span<const AttentionInput> inputs) {
  CHECK(q.rows == inputs.size() && out.rows == q.rows && q.rows <= few_rows()) << q.rows;
  Begin();
  if (q.rows == 0 || !failed_.ok()) return;
  pages_.Begin(inputs[0].layer);
  std::vector<cuda::AttentionRow> rows;
  for (const AttentionInput& input : inputs) {
    const auto first = static_cast<uint32_t>(pages_.size());
    const auto count = pages_.Add(input.lists);
    if (!Keep(count.status())) return;
    rows.push_back({first, *count, static_cast<int64_t>(input.first_position)});
  }
  const auto same_basis = [&](const AttentionInput& input) {
    return input.basis == inputs[0].basis;
  };
  if (std::ranges::all_of(inputs, same_basis)) return AttendFew(out, q, inputs[0], rows);
  for (uint32_t r = 0; r < q.rows; ++r) {
    AttendFew(out.Rows(r, 1), q.Rows(r, 1), inputs[r], std::span(rows).subspan(r, 1));
  }
}

// Parts of many rows are one pass if all begin at one position, as sequences do: keys are turned to
// that one. Others would have the bits of their company, and angles beyond the model's table.
void CudaBackend::AttentionOfParts(MatrixView out, MatrixView q,
                                   std::span<const AttentionPart> parts) {
  const auto begin_of = [](const AttentionPart& part) {
    uint64_t begin = UINT64_MAX;
    for (const KvPageList& list : part.input.lists) {
      for (const KvPage& page : list.pages) begin = std::min(begin, page.first_position);
    }
    return begin;
  };
  const auto alone = [&](const AttentionPart& part) {
    const AttentionInput& input = part.input;
    if (input.rope != nullptr &&
        input.first_position + part.rows > begin_of(part) + input.rope->positions) {
      return true;
    }
    size_t pages = 0;
    for (const KvPageList& list : part.input.lists) pages += list.pages.size();
    return part.rows <= few_rows() || pages > kPiecePages || begin_of(part) != begin_of(parts[0]) ||
           part.input.shape.window != parts[0].input.shape.window;
  };
  if (std::ranges::any_of(parts, alone)) return Backend::AttentionOfParts(out, q, parts);
  Begin();
  if (parts.empty() || !failed_.ok()) return;
  pages_.Begin(parts.front().input.layer);
  std::vector<uint32_t> part_pages;
  for (const AttentionPart& part : parts) {
    const auto count = pages_.Add(part.input.lists, 0, /*seen_only=*/true);
    if (!Keep(count.status())) return;
    part_pages.push_back(*count);
  }
  AttendMany(out, q, parts, part_pages);
}

}  // namespace corpusd
