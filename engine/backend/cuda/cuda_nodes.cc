// Attention over pages that lie in several places, on a CUDA device: the kernels that take all
// pages take those of a node, and leave the logarithm of each sum of weights beside the output.
#include <algorithm>
#include <functional>

#include "engine/backend/cuda/cuda_backend.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

// States of leaves beside those of nodes: rows are taken together that have so many bytes of them.
constexpr uint64_t kLeafBytes = uint64_t{2} << 30;
constexpr uint32_t kRowsTogether = 8192;  // at least
constexpr uint64_t kOutputAlignment = 16;

// Strand t's node of a width: what t folds to.
uint32_t NodeOfStrand(uint32_t strand, uint32_t width) {
  for (uint32_t half = kStrands / 2; half >= width; half /= 2) {
    if (strand >= half) strand = 2 * half - 1 - strand;
  }
  return strand;
}

uint32_t PageCount(const AttentionInput& input) {
  uint64_t pages = 0;
  for (const KvPageList& list : input.lists) pages += list.pages.size();
  return static_cast<uint32_t>(pages);
}

// Of all pages, also those that are not there: what keys are turned to must not hang on them.
int64_t FirstPosition(const AttentionInput& input) {
  uint64_t first = UINT64_MAX;
  for (const KvPageList& list : input.lists) {
    if (!list.pages.empty()) first = std::min(first, list.pages.front().first_position);
  }
  return first == UINT64_MAX ? 0 : static_cast<int64_t>(first);
}

// Outputs of many rows are written 16 bytes at a time.
bool IsAligned(std::span<const float> states, uint64_t node_floats) {
  return reinterpret_cast<uintptr_t>(states.data()) % kOutputAlignment == 0 &&
         node_floats * sizeof(float) % kOutputAlignment == 0;
}

cuda::DeviceMatrix LogSums(float* states, const cuda::NodeLayout& layout, uint32_t rows,
                           uint32_t q_heads) {
  return {states + layout.log_sums, rows, q_heads, layout.log_sum_stride};
}

}  // namespace

// Few rows' outputs and logarithms lie row by row, so that the rows of several nodes follow one
// another; those of many in two blocks, so that outputs are aligned.
cuda::NodeLayout CudaBackend::LayoutOf(const AttentionShape& shape, uint32_t rows) const {
  cuda::NodeLayout layout;
  const uint32_t cols = shape.q_heads * shape.head_dim;
  layout.node_floats = NodeStateFloats(shape, rows);
  if (rows <= few_rows()) {
    layout.output_stride = layout.log_sum_stride = cols + 2 * shape.q_heads;
    layout.log_sums = cols;
  } else {
    layout.output_stride = cols;
    layout.log_sum_stride = shape.q_heads;
    layout.log_sums = uint64_t{rows} * cols;
  }
  return layout;
}

Status CudaBackend::AddLeaves(const AttentionInput& input, uint64_t last_position,
                              std::span<const MergeNode> nodes, bool steady, Leaves* leaves) {
  const uint32_t spans = SpansOf(PageCount(input), kSpanPages);
  for (const MergeNode& node : nodes) {
    const uint32_t width = std::max(node.width, node_width_);
    for (uint32_t index = 0; index < width; ++index) {
      const bool below =
          width == node.width ? index == node.index : NodeOfStrand(index, node.width) == node.index;
      if (below && (index < spans || index == node.index)) leaves->nodes.push_back({width, index});
    }
  }
  pages_.BeginPieces(input.lists, steady);
  for (const MergeNode& leaf : leaves->nodes) {
    uint32_t& pages = leaves->pages.emplace_back();
    for (uint32_t span = 0; span < spans; ++span) {
      if (NodeOfStrand(StrandOf(span), leaf.width) != leaf.index) continue;
      ASSIGN_OR_RETURN(const uint32_t added,
                       pages_.AddPiece(uint64_t{span} * kSpanPages, kSpanPages, last_position));
      pages += added;
    }
  }
  return OkStatus();
}

void CudaBackend::AttendFewLeaves(float* states, MatrixView q, const AttentionInput& input,
                                  const Leaves& leaves) {
  const auto count = static_cast<uint32_t>(leaves.nodes.size());
  std::vector<cuda::AttentionRow> rows;
  uint32_t first = 0;
  for (uint32_t leaf = 0; leaf < count; ++leaf) {
    uint32_t visible = 0;
    for (uint32_t r = 0; r < q.rows; ++r) {
      const auto position = static_cast<int64_t>(input.first_position) + r;
      while (visible < leaves.pages[leaf] &&
             pages_.page(first + visible).first_position <= position) {
        ++visible;
      }
      rows.push_back({first, visible, position});
    }
    first += leaves.pages[leaf];
  }
  MatrixView queries{q.data, count, q.cols, 0};  // one row, for every leaf
  if (q.rows > 1) {
    auto* const copies = reinterpret_cast<float*>(
        Grow(&leaf_queries_, uint64_t{count} * q.rows * q.cols * sizeof(float), "queries"));
    if (copies == nullptr) return;
    queries = {copies, count * q.rows, q.cols, q.cols};
    for (uint32_t leaf = 0; leaf < count; ++leaf) {
      CopyMatrix(queries.Rows(leaf * q.rows, q.rows), q);
    }
  }
  const cuda::NodeLayout layout = LayoutOf(input.shape, q.rows);
  const MatrixView out{states, queries.rows, q.cols, layout.output_stride};
  const cuda::DeviceMatrix log_sums = LogSums(states, layout, queries.rows, input.shape.q_heads);
  AttendFew(out, queries, input, rows, log_sums);
}

// All pages of pages_ as the kernel takes them.
bool CudaBackend::ExpandLeaves(const AttentionInput& input, cuda::PrefillAttention* call) {
  const AttentionShape& shape = input.shape;
  const auto pages = pages_.Upload();
  const auto rope = arrays_.Rope(input.rope);
  const auto basis = arrays_.Basis(input.basis, shape.kv_heads, shape.head_dim);
  if (!Keep(pages.status()) || !Keep(rope.status()) || !Keep(basis.status())) return false;
  cuda::ExpandCall expand;
  expand.pages = *pages;
  expand.count = static_cast<uint32_t>(pages_.size());
  expand.layer = input.layer;
  expand.kv_heads = shape.kv_heads;
  expand.head_dim = shape.head_dim;
  expand.rope = *rope;
  expand.basis = *basis;
  expand.frame = FirstPosition(input);
  const uint64_t side = uint64_t{shape.kv_heads} * expand.count * kBlockTokens * shape.head_dim;
  expand.keys = reinterpret_cast<uint16_t*>(
      Grow(&expanded_, std::max<uint64_t>(1, 2 * side) * sizeof(uint16_t), "pages as bfloat16"));
  if (expand.keys == nullptr) return false;
  expand.values = expand.keys + side;
  if (expand.count > 0 && !Launched(cuda::ExpandPages(expand, stream_), "expand pages")) {
    return false;
  }
  call->q_heads = shape.q_heads;
  call->kv_heads = shape.kv_heads;
  call->head_dim = shape.head_dim;
  call->scale = shape.scale;
  call->pages = *pages;
  call->page_count = expand.count;
  call->rope = *rope;
  call->frame = expand.frame;
  call->keys = expand.keys;
  call->values = expand.values;
  return true;
}

// One launch for all parts and leaves. Those of a leaf follow one another, as they read the same
// pages; the ones that see most come first, so that what ends last is short.
void CudaBackend::AttendManyLeaves(std::span<const LeafRows> parts, MatrixView q,
                                   const Leaves& leaves, bool folded, cuda::PrefillAttention call) {
  struct Tile {
    cuda::PrefillTile rows;
    cuda::PrefillPlace place;
  };
  std::vector<std::vector<Tile>> of_leaf(leaves.nodes.size());
  float* const base = parts.front().states;
  uint32_t first_page = 0;
  for (size_t leaf = 0; leaf < of_leaf.size(); ++leaf) {
    const uint32_t pages = leaves.pages[leaf];
    for (const LeafRows& part : parts) {
      const uint64_t before = folded ? 0 : leaf * part.layout.node_floats;
      const auto at = part.states - base + static_cast<int64_t>(before);
      const cuda::PrefillPlace place{at - int64_t{part.first_row} * part.layout.output_stride,
                                     at + static_cast<int64_t>(part.layout.log_sums) -
                                         int64_t{part.first_row} * part.layout.log_sum_stride};
      uint32_t visible = 0;  // pages that begin before the tile's end
      for (uint32_t done = 0; done < part.rows; done += cuda::kPrefillTileRows) {
        const uint32_t rows = std::min(cuda::kPrefillTileRows, part.rows - done);
        const int64_t position = part.first_position + done;
        while (visible < pages &&
               pages_.page(first_page + visible).first_position < position + rows) {
          ++visible;
        }
        // Of no page: a state of nothing.
        of_leaf[leaf].push_back(
            {{part.first_row + done, rows, first_page, visible, position}, place});
      }
      call.pages_max = std::max(call.pages_max, std::max(visible, 1u));
    }
    // All in one order: of the last position first.
    std::ranges::stable_sort(of_leaf[leaf], std::ranges::greater(),
                             [](const Tile& tile) { return tile.rows.first_position; });
    first_page += pages;
  }
  const size_t each = of_leaf.front().size(), count = each * of_leaf.size();
  std::vector<std::byte> bytes(count * sizeof(Tile));
  auto* tile = reinterpret_cast<cuda::PrefillTile*>(bytes.data());
  auto* place = reinterpret_cast<cuda::PrefillPlace*>(tile + count);
  for (const auto& tiles : of_leaf) {
    for (const Tile& one : tiles) {
      *tile++ = one.rows;
      *place++ = one.place;
    }
  }
  sent_tiles_.clear();  // what tiles_ holds is another list now
  const void* const sent = Send(&tiles_, bytes.data(), bytes.size());
  if (sent == nullptr) return;
  const cuda::NodeLayout& layout = parts.front().layout;
  call.q = View(q);
  call.tiles = static_cast<const cuda::PrefillTile*>(sent);
  call.places = reinterpret_cast<const cuda::PrefillPlace*>(call.tiles + count);
  call.twice = folded;
  call.tile_count = static_cast<uint32_t>(folded ? each : count);
  call.out = {base, q.rows, q.cols, layout.output_stride};
  call.log_sums = {base, q.rows, call.q_heads, layout.log_sum_stride};
  const uint64_t floats = cuda::PrefillWorkspaceFloats(call.tile_count, call.pages_max,
                                                       call.q_heads, call.head_dim, call.twice);
  call.workspace = reinterpret_cast<float*>(Grow(&workspace_, floats * sizeof(float), "attention"));
  if (call.workspace != nullptr) Launched(cuda::AttendExpanded(call, stream_), "attend");
}

void CudaBackend::FoldNode(cuda::NodeMerge call, const AttentionShape& shape, MergeNode node,
                           uint32_t spans, std::span<const MergeNode> parts) {
  call.q_heads = shape.q_heads;
  call.kv_heads = shape.kv_heads;
  call.head_dim = shape.head_dim;
  const auto find = [&](MergeNode wanted) {
    return std::find_if(parts.begin(), parts.end(), [&](const MergeNode& part) {
      return part.width == wanted.width && part.index == wanted.index;
    });
  };
  const auto add_step = [&](uint8_t number, uint32_t depth) {
    CHECK(call.steps < cuda::kNodeStepsMax) << call.steps;
    call.order[call.steps++] = {number, static_cast<uint8_t>(depth)};
  };
  FoldStrands(
      node, spans, 0, [&](MergeNode n) { return IsStrand(n) || find(n) != parts.end(); },
      [&](MergeNode n, uint32_t depth) {
        const auto found = find(n);
        CHECK(found != parts.end()) << "strand " << n.index << " is below no node";
        add_step(static_cast<uint8_t>(found - parts.begin()), depth);
      },
      [&](uint32_t depth) { add_step(cuda::NodeStep::kAdd, depth); });
  Launched(cuda::MergeNodeStates(call, stream_), "merge states");
}

Status CudaBackend::AttendNodes(std::span<float> states, MatrixView q, const AttentionInput& input,
                                std::span<const MergeNode> nodes) {
  const AttentionShape& shape = input.shape;
  CHECK(states.size() == nodes.size() * NodeStateFloats(shape, q.rows) &&
        q.cols == shape.q_heads * shape.head_dim)
      << states.size() << " floats for " << nodes.size() << " nodes";
  const AttentionPart whole_part{input, q.rows};
  if (const auto done = AttendInOne({&states, 1}, q, {&whole_part, 1}, nodes)) return *done;
  Begin();
  StopRecording();  // transfers between devices do not wait for the end of a pass
  if (q.rows == 0 || nodes.empty() || !failed_.ok()) return failed_;
  pages_.Begin(input.layer);
  Leaves leaves;
  const bool few = q.rows <= few_rows();
  const uint64_t last_position = input.first_position + q.rows - 1;
  if (!Keep(AddLeaves(input, last_position, nodes, /*steady=*/few, &leaves))) return failed_;
  const cuda::NodeLayout whole = LayoutOf(shape, q.rows);
  const bool folded =
      leaves.nodes.size() > nodes.size() || !(few || IsAligned(states, whole.node_floats));
  cuda::PrefillAttention expanded;
  if (!few && !ExpandLeaves(input, &expanded)) return failed_;
  const uint64_t row_bytes = leaves.nodes.size() * NodeStateFloats(shape, 1) * sizeof(float);
  uint32_t together =
      folded ? std::max(kRowsTogether, static_cast<uint32_t>(kLeafBytes / row_bytes)) : q.rows;
  if (const uint32_t pieces = (q.rows + together - 1) / together; pieces > 1) {  // alike, of tiles
    const uint32_t rows = (q.rows + pieces - 1) / pieces;
    together =
        (rows + cuda::kPrefillTileRows - 1) / cuda::kPrefillTileRows * cuda::kPrefillTileRows;
  }
  for (uint32_t first = 0; first < q.rows; first += together) {
    // A last piece of few rows would have their layout, and their arithmetic.
    const uint32_t left = q.rows - first;
    const uint32_t rows = left <= together + few_rows() ? left : together;
    AttentionInput piece = input;
    piece.first_position += first;
    cuda::NodeLayout layout = LayoutOf(shape, rows);
    if (folded && !few) layout.node_floats = (layout.node_floats + 3) / 4 * 4;
    float* target = states.data();
    if (folded) {
      target = reinterpret_cast<float*>(
          Grow(&leaf_states_, leaves.nodes.size() * layout.node_floats * sizeof(float), "states"));
    }
    if (target == nullptr) return failed_;
    if (few) {
      AttendFewLeaves(target, q, piece, leaves);
    } else {
      const LeafRows all{target, layout, 0, rows, static_cast<int64_t>(piece.first_position)};
      AttendManyLeaves({&all, 1}, q.Rows(first, rows), leaves, /*folded=*/false, expanded);
    }
    for (size_t i = 0; folded && i < nodes.size(); ++i) {
      float* const node = states.data() + i * whole.node_floats;
      cuda::NodeMerge merge;
      merge.states = target;
      merge.layout = layout;
      merge.out = {node + uint64_t{first} * whole.output_stride, rows, q.cols, whole.output_stride};
      merge.log_sums = {node + whole.log_sums + uint64_t{first} * whole.log_sum_stride, rows,
                        shape.q_heads, whole.log_sum_stride};
      FoldNode(merge, shape, nodes[i], SpansOf(PageCount(input), kSpanPages), leaves.nodes);
    }
    if (rows == left) break;
  }
  return failed_;
}

std::optional<Status> CudaBackend::AttendInOne(std::span<const std::span<float>> states,
                                               MatrixView q, std::span<const AttentionPart> parts,
                                               std::span<const MergeNode> nodes) {
  if (parts.empty() || nodes.empty()) return std::nullopt;
  bool in_one = true;
  std::vector<LeafRows> rows;
  uint32_t first = 0, tiles = 0;
  uint64_t end = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto& [input, count] = parts[i];
    const cuda::NodeLayout layout = LayoutOf(input.shape, count);
    in_one = in_one && count > few_rows() && IsAligned(states[i], layout.node_floats);
    rows.push_back(
        {states[i].data(), layout, first, count, static_cast<int64_t>(input.first_position)});
    first += count;
    tiles += (count + cuda::kPrefillTileRows - 1) / cuda::kPrefillTileRows;
    end = std::max(end, input.first_position + count);
  }
  CHECK(first == q.rows) << first << " rows of " << q.rows;
  const AttentionInput& input = parts.front().input;
  const auto is_leaf = [&](const MergeNode& node) { return node.width >= node_width_; };
  // Two leaves of a node are folded by the kernel, where stacks are many.
  const bool pair = nodes.size() == 1 && 2 * nodes[0].width == node_width_ &&
                    tiles * input.shape.q_heads >= 4 * cuda::kPrefillBlocks;
  if (!in_one || !(pair || std::ranges::all_of(nodes, is_leaf))) return std::nullopt;
  Begin();
  StopRecording();
  if (!failed_.ok()) return failed_;
  pages_.Begin(input.layer);
  Leaves leaves;
  if (!Keep(AddLeaves(input, end - 1, nodes, /*steady=*/false, &leaves))) return failed_;
  const bool folded = leaves.nodes.size() > nodes.size();
  cuda::PrefillAttention expanded;
  if (ExpandLeaves(input, &expanded)) AttendManyLeaves(rows, q, leaves, folded, expanded);
  return failed_;
}

Status CudaBackend::AttendNodesOfParts(std::span<const std::span<float>> states, MatrixView q,
                                       std::span<const AttentionPart> parts,
                                       std::span<const MergeNode> nodes) {
  if (const auto done = AttendInOne(states, q, parts, nodes)) return *done;
  return NodeAttention::AttendNodesOfParts(states, q, parts, nodes);
}

Status CudaBackend::MergeNodes(MatrixView out, std::span<const float> states,
                               const AttentionInput& input, std::span<const MergeNode> nodes) {
  const AttentionShape& shape = input.shape;
  CHECK(states.size() == nodes.size() * NodeStateFloats(shape, out.rows))
      << states.size() << " floats for " << nodes.size() << " nodes";
  Begin();
  StopRecording();
  if (out.rows == 0 || !failed_.ok()) return failed_;
  cuda::NodeMerge merge;
  merge.states = states.data();
  merge.layout = LayoutOf(shape, out.rows);
  merge.out = View(out);
  if (out.rows <= few_rows()) {  // many rows see expanded pages, which are plain
    const auto basis = arrays_.Basis(input.basis, shape.kv_heads, shape.head_dim);
    if (!Keep(basis.status())) return failed_;
    merge.basis = *basis;
  }
  FoldNode(merge, shape, MergeNode{}, SpansOf(PageCount(input), kSpanPages), nodes);
  return failed_;
}

}  // namespace corpusd
