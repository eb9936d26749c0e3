#include "engine/backend/cpu_attention.h"

#include <algorithm>

#include "engine/backend/attention_nodes.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

uint32_t CeilDiv(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

// Floats of a node's states before those of a task.
uint64_t StateOffset(const AttentionTask& task) {
  return NodeStateFloats(task.shape, task.first_row) +
         task.kv_head * AttentionStateFloats(task.shape, task.rows);
}

uint64_t PagesOf(const AttentionInput& input) {
  uint64_t pages = 0;
  for (const KvPageList& list : input.lists) pages += list.pages.size();
  return pages;
}

// Of the first page of all.
uint64_t FirstPosition(const AttentionInput& input) {
  for (const KvPageList& list : input.lists) {
    if (!list.pages.empty()) return list.pages.front().first_position;
  }
  return 0;
}

// Rows of a block: an even share of them, and a few more where those fill the tiles.
uint32_t BlockRows(const AttentionShape& shape, uint32_t rows, uint32_t blocks, uint32_t multiple) {
  const uint32_t even = CeilDiv(rows, std::max(blocks, 1u));
  if (blocks <= 1) return even;
  const uint32_t group = shape.q_heads / shape.kv_heads;
  for (uint32_t more = even; more <= AttentionRowsMax(shape); ++more) {
    if (more * group % multiple == 0) return more;
  }
  return even;
}

// Adds what a row's part of one KV head is read from.
void AddReads(std::span<const PageTiles> pages, uint32_t kv_head, uint32_t head_dim,
              std::vector<ReadRange>* reads) {
  for (const PageTiles& page : pages) {
    const std::byte* keys = page.keys + kv_head * page.key_stride;
    const std::byte* values = page.values + kv_head * page.value_stride;
    if (page.key_codec != KvCodec::kBf16 || page.value_codec != KvCodec::kBf16) {
      reads->push_back({keys, static_cast<uint32_t>(page.key_stride), 1, 0});
      reads->push_back({values, static_cast<uint32_t>(page.value_stride), 1, 0});
      continue;
    }
    // [dims / 2][kBlockTokens][2] and [tokens / 2][dims][2], of which the first tokens are there.
    reads->push_back({keys, page.tokens * 4, head_dim / 2, kBlockTokens * 4});
    reads->push_back({values, page.tokens * head_dim * 2, 1, 0});
  }
}

// A task over other pages than those of its call.
AttentionTask Over(std::span<const PageTiles> pages, AttentionTask task) {
  task.pages = pages.data();
  task.page_count = static_cast<uint32_t>(pages.size());
  return task;
}

}  // namespace

void CpuAttention::ResolvePages(const AttentionInput& input, std::vector<PageTiles>* pages) const {
  pages->clear();
  for (const KvPageList& list : input.lists) {
    const KvFormat& format = *list.format;
    CHECK(format.block_tokens == kBlockTokens && format.head_dim == input.shape.head_dim &&
          format.kv_heads == input.shape.kv_heads)
        << format.Canonical();
    CHECK(input.basis != nullptr || !IsCoded(format)) << format.Canonical();
    const LayerCodecs codecs = format.CodecsOf(input.layer);
    const uint64_t keys = format.KeyTileOffset(input.layer, 0);
    const uint64_t values = format.ValueTileOffset(input.layer, 0);
    const uint64_t key_bytes = format.KeyTileBytes(input.layer);
    const uint64_t value_bytes = format.ValueTileBytes(input.layer);
    for (const KvPage& page : list.pages) {
      pages->push_back({.keys = page.bytes + keys,
                        .values = page.bytes + values,
                        .key_stride = key_bytes,
                        .value_stride = value_bytes,
                        .first_position = page.first_position,
                        .tokens = page.tokens,
                        .hidden = page.hidden,
                        .key_codec = codecs.key,
                        .value_codec = codecs.value});
    }
  }
}

CpuAttention::Cut CpuAttention::CutRows(MatrixView out, MatrixView q, const AttentionInput& input) {
  const AttentionShape& shape = input.shape;
  CHECK(shape.head_dim % 16 == 0 && shape.kv_heads > 0 && shape.q_heads % shape.kv_heads == 0)
      << shape.q_heads << " / " << shape.kv_heads << " heads of " << shape.head_dim;
  CHECK(q.cols == shape.q_heads * shape.head_dim && out.cols == q.cols && out.rows == q.rows);
  ResolvePages(input, &pages_);
  Cut cut = {};
  cut.blocks = CeilDiv(q.rows, AttentionRowsMax(shape));
  cut.block_rows = BlockRows(shape, q.rows, cut.blocks, kernels_.row_multiple);
  cut.items = cut.blocks * shape.kv_heads;
  cut.scratch_bytes = (AttentionScratchBytes(shape) + 4095) / 4096 * 4096;
  cut.scratch = HostBuffer::Grow(scratch_, cut.scratch_bytes * pool_.threads());
  cut.frame = FirstPosition(input);
  return cut;
}

AttentionTask CpuAttention::TaskOf(const Cut& cut, MatrixView out, MatrixView q,
                                   const AttentionInput& input, uint32_t item,
                                   unsigned thread) const {
  const uint32_t kv_heads = input.shape.kv_heads;
  const uint32_t first_row = std::min(item / kv_heads * cut.block_rows, q.rows);
  return {.shape = input.shape,
          .first_position = input.first_position,
          .pages = pages_.data(),
          .page_count = static_cast<uint32_t>(pages_.size()),
          .rope = input.rope,
          .basis = input.basis == nullptr ? nullptr : input.basis + item % kv_heads,
          .frame = cut.frame,
          .q = q.data,
          .q_stride = q.row_stride,
          .out = out.data,
          .out_stride = out.row_stride,
          .kv_head = item % kv_heads,
          .call_rows = q.rows,
          .first_row = first_row,
          .rows = std::min(cut.block_rows, q.rows - first_row),
          .scratch = cut.scratch + thread * cut.scratch_bytes,
          .span_pages = span_pages_};
}

void CpuAttention::Attend(MatrixView out, MatrixView q, const AttentionInput& input) {
  const Cut cut = CutRows(out, q, input);
  if (q.rows == 0) return;
  const auto task_of = [&](uint32_t item, unsigned thread) {
    return TaskOf(cut, out, q, input, item, thread);
  };
  if (!pages_.empty() && ExpandsPages(task_of(0, 0))) {
    const auto nodes = StrandsOf(pages_.size(), span_pages_);
    const uint64_t stride = NodeStateFloats(input.shape, q.rows);
    const Strands strands = BeginStrands(cut, out, q, input, nodes.size());
    FoldExpanded(cut, out, q, input, 0, strands);
    return MergeNodes(out, {strands.states, stride * nodes.size()}, input, nodes);
  }
  const uint32_t items = cut.items;
  const auto parts = AttentionParts(static_cast<uint32_t>(pages_.size()));
  if (parts <= 1 || items >= 4 * pool_.threads()) {
    pool_.ParallelFor(items, [&](uint32_t item, unsigned thread) {
      const AttentionTask task = task_of(item, thread);
      if (task.rows > 0) kernels_.attend(task);
    });
    return;
  }
  // Few rows: the parts of the context are spread over the threads and merged in order, which gives
  // the same bits.
  const uint64_t item_floats = AttentionStateFloats(input.shape, cut.block_rows) * parts;
  if (item_floats * items * sizeof(float) > part_state_bytes_) {
    return AttendInNodes(cut, out, q, input);
  }
  const float* const states = SpreadParts(cut, out, q, input, pages_);
  pool_.ParallelFor(items, [&](uint32_t item, unsigned thread) {
    const AttentionTask task = task_of(item, thread);
    if (task.rows > 0) kernels_.merge_parts(task, states + item * item_floats);
  });
}

// Over more parts than there is memory for states of: each thread folds what is below a node, of
// which there are as many as keep the threads busy.
void CpuAttention::AttendInNodes(const Cut& cut, MatrixView out, MatrixView q,
                                 const AttentionInput& input) {
  uint32_t width = 1;
  while (width < kStrands && width * cut.items < 8 * pool_.threads()) width *= 2;
  const auto nodes = NodesOfWidth(width, pages_.size(), span_pages_);
  const uint64_t floats = nodes.size() * NodeStateFloats(input.shape, q.rows);
  auto* const states = reinterpret_cast<float*>(HostBuffer::Grow(strands_, floats * 4));
  AttendNodes({states, floats}, q, input, nodes);
  MergeNodes(out, {states, floats}, input, nodes);
}

// The states of every part of `pages` for every item, [items][parts], in states_.
float* CpuAttention::SpreadParts(const Cut& cut, MatrixView out, MatrixView q,
                                 const AttentionInput& input, std::span<const PageTiles> pages) {
  const auto parts = AttentionParts(static_cast<uint32_t>(pages.size()));
  const uint64_t item_floats = AttentionStateFloats(input.shape, cut.block_rows) * parts;
  auto* const states =
      reinterpret_cast<float*>(HostBuffer::Grow(states_, item_floats * cut.items * 4));
  // A thread's parts follow each other: a part asks for the first page of the next.
  pool_.ParallelForRanges(cut.items * parts, [&](uint32_t i, unsigned thread) {
    const AttentionTask task = Over(pages, TaskOf(cut, out, q, input, i / parts, thread));
    float* const state =
        states + i / parts * item_floats + i % parts * AttentionStateFloats(input.shape, task.rows);
    if (task.rows > 0) kernels_.attend_part(task, i % parts, state);
  });
  return states;
}

CpuAttention::Strands CpuAttention::BeginStrands(const Cut& cut, MatrixView out, MatrixView q,
                                                 const AttentionInput& input, size_t count) {
  const Strands strands{.states = nullptr, .stride = NodeStateFloats(input.shape, q.rows)};
  auto* const states =
      reinterpret_cast<float*>(HostBuffer::Grow(strands_, count * strands.stride * 4));
  for (uint32_t item = 0; item < cut.items; ++item) {
    const AttentionTask task = TaskOf(cut, out, q, input, item, 0);
    if (task.rows == 0) continue;
    for (size_t i = 0; i < count; ++i) {
      ClearState(task, states + i * strands.stride + StateOffset(task));
    }
  }
  return {states, strands.stride};
}

// Folds parts of pages, of which `first_part` is the first of all, into their strands.
void CpuAttention::FoldPages(const Cut& cut, MatrixView out, MatrixView q,
                             const AttentionInput& input, std::span<const PageTiles> pages,
                             uint32_t first_part, Strands strands) {
  const auto parts = AttentionParts(static_cast<uint32_t>(pages.size()));
  if (parts == 0 || cut.items == 0) return;
  const uint32_t span_parts = span_pages_ / kPartPages;
  const uint32_t span = first_part / span_parts;
  const uint32_t kv_heads = input.shape.kv_heads;
  if (span == (first_part + parts - 1) / span_parts && cut.items >= 4 * pool_.threads()) {
    float* const strand = strands.states + StrandOf(span) * strands.stride;
    pool_.ParallelFor(cut.items, [&](uint32_t i, unsigned thread) {
      // The blocks of one KV head after the other, as they share its pages.
      const uint32_t item = i % cut.blocks * kv_heads + i / cut.blocks;
      const AttentionTask task = Over(pages, TaskOf(cut, out, q, input, item, thread));
      if (task.rows > 0) kernels_.attend_parts(task, 0, parts, strand + StateOffset(task));
    });
    return;
  }
  // As many parts at once as there is memory for states of.
  const uint64_t state_floats = AttentionStateFloats(input.shape, cut.block_rows);
  const uint64_t fit = part_state_bytes_ / (state_floats * cut.items * sizeof(float));
  const auto each = static_cast<uint32_t>(std::clamp<uint64_t>(fit, 1, parts));
  for (uint32_t first = 0; first < parts; first += each) {
    const uint32_t first_page = first * kPartPages;
    const auto some = pages.subspan(
        first_page, std::min<size_t>(size_t{each} * kPartPages, pages.size() - first_page));
    const uint64_t item_floats = state_floats * AttentionParts(static_cast<uint32_t>(some.size()));
    const float* const states = SpreadParts(cut, out, q, input, some);
    pool_.ParallelFor(cut.items, [&](uint32_t item, unsigned thread) {
      const AttentionTask task = Over(some, TaskOf(cut, out, q, input, item, thread));
      if (task.rows == 0) return;
      FoldPiece(kernels_, task, first_part + first, states + item * item_floats,
                strands.states + StateOffset(task), strands.stride);
    });
  }
}

// The same for pages_, through working copies.
void CpuAttention::FoldExpanded(const Cut& cut, MatrixView out, MatrixView q,
                                const AttentionInput& input, uint32_t first_part, Strands strands) {
  const auto first_page = first_part * kPartPages;
  const auto count = static_cast<uint32_t>(pages_.size());
  const uint32_t piece = ExpandedPages::PiecePages(input.shape, span_pages_);
  const AttentionTask any = TaskOf(cut, out, q, input, 0, 0);
  for (uint32_t page = 0, next; page < count; page = next) {
    const uint32_t left_of_span = span_pages_ - (first_page + page) % span_pages_;
    next = std::min({page + piece, page + left_of_span, count});
    const auto pages = std::span<const PageTiles>(pages_).subspan(page, next - page);
    FoldPages(cut, out, q, input, expanded_.Expand(pages, any, input.basis),
              first_part + page / kPartPages, strands);
  }
}

Status CpuAttention::AttendInPieces(MatrixView out, MatrixView q, const AttentionInput& input,
                                    PagePieces& pieces) {
  const auto nodes = StrandsOf(PagesOf(input), span_pages_);
  const Strands strands = BeginStrands(CutRows(out, q, input), out, q, input, nodes.size());
  AttentionInput piece = input;
  for (uint32_t first_part = 0;;) {
    ASSIGN_OR_RETURN(piece.lists, pieces.Next());
    if (piece.lists.empty()) break;
    Cut cut = CutRows(out, q, piece);
    cut.frame = FirstPosition(input);
    if (ExpandsPages(TaskOf(cut, out, q, piece, 0, 0))) {
      FoldExpanded(cut, out, q, piece, first_part, strands);
    } else {
      FoldPages(cut, out, q, piece, pages_, first_part, strands);
    }
    first_part += AttentionParts(static_cast<uint32_t>(pages_.size()));
  }
  MergeNodes(out, {strands.states, strands.stride * nodes.size()}, input, nodes);
  return OkStatus();
}

// States of a node: block after block of rows, KV head after KV head.
void CpuAttention::AttendNodes(std::span<float> states, MatrixView q, const AttentionInput& input,
                               std::span<const MergeNode> nodes) {
  const uint64_t node_floats = NodeStateFloats(input.shape, q.rows);
  CHECK(states.size() == node_floats * nodes.size()) << states.size();
  const Cut cut = CutRows(q, q, input);
  if (q.rows == 0 || nodes.empty()) return;
  const uint64_t stack = NodeStackFloats(TaskOf(cut, q, q, input, 0, 0));
  auto* const stacks =
      reinterpret_cast<float*>(HostBuffer::Grow(states_, stack * pool_.threads() * 4));
  pool_.ParallelFor(cut.items * static_cast<uint32_t>(nodes.size()), [&](uint32_t i, unsigned t) {
    const uint32_t node = i / cut.items;
    const AttentionTask task = TaskOf(cut, q, q, input, i % cut.items, t);
    if (task.rows == 0) return;
    AttendNode(kernels_, task, nodes[node], &states[node * node_floats + StateOffset(task)],
               stacks + t * stack);
  });
}

void CpuAttention::MergeNodes(MatrixView out, std::span<const float> states,
                              const AttentionInput& input, std::span<const MergeNode> nodes) {
  const uint64_t node_floats = NodeStateFloats(input.shape, out.rows);
  CHECK(states.size() == node_floats * nodes.size()) << states.size();
  const Cut cut = CutRows(out, out, input);
  if (out.rows == 0) return;
  const uint64_t stack = NodeStackFloats(TaskOf(cut, out, out, input, 0, 0));
  auto* const stacks =
      reinterpret_cast<float*>(HostBuffer::Grow(states_, stack * pool_.threads() * 4));
  pool_.ParallelFor(cut.items, [&](uint32_t item, unsigned t) {
    const AttentionTask task = TaskOf(cut, out, out, input, item, t);
    if (task.rows == 0) return;
    MergeNodeStates(kernels_, task, nodes, states.data() + StateOffset(task), node_floats,
                    stacks + t * stack);
  });
}

AttentionTask CpuAttention::TaskOf(const EachRow& call, uint32_t row, uint32_t count,
                                   uint32_t kv_head, unsigned thread) const {
  const AttentionInput& input = call.rows[row];
  return {.shape = input.shape,
          .positions = call.positions.data(),
          .pages = row_pages_[row].data(),
          .page_count = static_cast<uint32_t>(row_pages_[row].size()),
          .rope = input.rope,
          .basis = input.basis == nullptr ? nullptr : input.basis + kv_head,
          .q = call.q.data,
          .q_stride = call.q.row_stride,
          .out = call.out.data,
          .out_stride = call.out.row_stride,
          .kv_head = kv_head,
          .call_rows = 1,  // the arithmetic of a row alone
          .first_row = row,
          .rows = count,
          .scratch = call.scratch + thread * call.scratch_bytes,
          .span_pages = span_pages_};
}

void CpuAttention::AttendEach(MatrixView out, MatrixView q, std::span<const AttentionInput> rows) {
  CHECK(q.rows == rows.size() && out.rows == q.rows) << q.rows << " rows of " << rows.size();
  CHECK(kernels_.few_rows == 0 || q.rows <= kernels_.few_rows) << q.rows;
  if (q.rows <= 1) return q.rows == 0 ? void() : Attend(out, q, rows[0]);
  const AttentionShape& shape = rows[0].shape;
  row_pages_.resize(std::max<size_t>(row_pages_.size(), q.rows));
  EachRow call = {.out = out, .q = q, .rows = rows};
  for (uint32_t r = 0; r < q.rows; ++r) {
    ResolvePages(rows[r], &row_pages_[r]);
    call.positions.push_back(rows[r].first_position);
  }
  call.scratch_bytes = (AttentionScratchBytes(shape) + 4095) / 4096 * 4096;
  call.scratch = HostBuffer::Grow(scratch_, call.scratch_bytes * pool_.threads());
  const auto plan = SharedAttentionPlan::Make(std::span(row_pages_).first(q.rows), shape);
  if (plan.state_floats * sizeof(float) > part_state_bytes_) return AttendEachInStrands(call, plan);
  AttendEachInParts(call, plan);
}

// Task i of a plan, item after item, KV head after KV head, into its state in states_.
void CpuAttention::AttendItem(const EachRow& call, const SharedAttentionPlan& plan, uint32_t i,
                              unsigned thread, std::span<const ReadRange> read_next) {
  const AttentionShape& shape = call.rows[0].shape;
  const SharedAttentionItem& item = plan.items[i / shape.kv_heads];
  const uint32_t kv_head = i % shape.kv_heads;
  AttentionTask task = TaskOf(call, item.first_row, item.rows, kv_head, thread);
  task.read_next = read_next.data();
  task.read_ranges = static_cast<uint32_t>(read_next.size());
  kernels_.attend_part(task, item.part,
                       reinterpret_cast<float*>(states_->data()) + item.state +
                           kv_head * AttentionStateFloats(shape, item.rows));
}

// All tasks of a plan. Those of several rows multiply for long over few bytes, those of a row alone
// wait for many: a thread takes some of both, and asks for the latter while it does the former.
void CpuAttention::AttendItems(const EachRow& call, const SharedAttentionPlan& plan) {
  const AttentionShape& shape = call.rows[0].shape;
  const auto tasks = static_cast<uint32_t>(plan.items.size()) * shape.kv_heads;
  const uint32_t shared = plan.shared_items * shape.kv_heads;
  if (shared < 2 * pool_.threads()) {
    return pool_.ParallelFor(
        tasks, [&](uint32_t i, unsigned thread) { AttendItem(call, plan, i, thread, {}); });
  }
  const uint32_t lists = std::min(shared, 4 * pool_.threads());
  reads_.resize(std::max<size_t>(reads_.size(), lists));
  pool_.ParallelFor(lists, [&](uint32_t list, unsigned thread) {
    std::vector<ReadRange>& reads = reads_[list];
    reads.clear();
    for (uint32_t i = shared + list; i < tasks; i += lists) {
      const SharedAttentionItem& item = plan.items[i / shape.kv_heads];
      const std::span<const PageTiles> pages(row_pages_[item.first_row]);
      const size_t first = size_t{item.part} * kPartPages;
      AddReads(pages.subspan(first, std::min<size_t>(kPartPages, pages.size() - first)),
               i % shape.kv_heads, shape.head_dim, &reads);
    }
    const size_t count = CeilDiv(shared - list, lists);
    for (size_t k = 0; k < count; ++k) {
      const size_t begin = reads.size() * k / count, end = reads.size() * (k + 1) / count;
      AttendItem(call, plan, list + static_cast<uint32_t>(k) * lists, thread,
                 std::span(reads).subspan(begin, end - begin));
    }
    for (uint32_t i = shared + list; i < tasks; i += lists) AttendItem(call, plan, i, thread, {});
  });
}

void CpuAttention::AttendEachInParts(const EachRow& call, const SharedAttentionPlan& plan) {
  const AttentionShape& shape = call.rows[0].shape;
  size_t pages_max = 0;
  for (uint32_t r = 0; r < call.q.rows; ++r) {
    pages_max = std::max(pages_max, row_pages_[r].size());
  }
  const uint64_t gathered =
      AttentionParts(static_cast<uint32_t>(pages_max)) * AttentionStateFloats(shape, 1);
  auto* states = reinterpret_cast<float*>(
      HostBuffer::Grow(states_, (plan.state_floats + pool_.threads() * gathered) * sizeof(float)));
  AttendItems(call, plan);
  // The rows of a KV head one after the other: its basis stays in a cache.
  pool_.ParallelFor(call.q.rows * shape.kv_heads, [&](uint32_t i, unsigned thread) {
    const uint32_t row = i % call.q.rows, kv_head = i / call.q.rows;
    float* row_states = states + plan.state_floats + thread * gathered;
    GatherRowStates(plan, shape, row, kv_head, states, row_states);
    kernels_.merge_parts(TaskOf(call, row, 1, kv_head, thread), row_states);
  });
}

// Over more parts than there is memory for states of: strand after strand, what rows have in common
// once for them all, what each has alone behind it.
void CpuAttention::AttendEachInStrands(const EachRow& call, const SharedAttentionPlan& plan) {
  const AttentionShape& shape = call.rows[0].shape;
  const uint32_t rows = call.q.rows;
  const uint64_t row_floats = AttentionStateFloats(shape, 1);
  const uint64_t stride = rows * shape.kv_heads * row_floats;
  const auto state_of = [&](float* states, uint32_t row, uint32_t kv_head) {
    return states + (uint64_t{row} * shape.kv_heads + kv_head) * row_floats;
  };
  std::vector<std::vector<MergeNode>> strands;
  size_t strands_max = 0;
  for (uint32_t r = 0; r < rows; ++r) {
    strands.push_back(StrandsOf(row_pages_[r].size(), span_pages_));
    strands_max = std::max(strands_max, strands[r].size());
  }
  auto* const states =
      reinterpret_cast<float*>(HostBuffer::Grow(strands_, strands_max * stride * sizeof(float)));
  const uint64_t work = std::max(uint64_t{rows}, uint64_t{kMergeDepth}) * row_floats;
  auto* const works =
      reinterpret_cast<float*>(HostBuffer::Grow(states_, pool_.threads() * work * sizeof(float)));
  const auto groups = static_cast<uint32_t>(plan.groups.size());
  const auto count = static_cast<uint32_t>(strands_max);
  pool_.ParallelFor(groups * shape.kv_heads * count, [&](uint32_t i, unsigned thread) {
    const SharedRows& group = plan.groups[i % groups];
    const uint32_t kv_head = i / groups % shape.kv_heads;
    const uint32_t strand = i / groups / shape.kv_heads;
    float* const common = works + thread * work;
    const AttentionTask all = TaskOf(call, group.first_row, group.rows, kv_head, thread);
    ClearState(all, common);
    FoldStrand(kernels_, all, strand, 0, group.common_parts, common);
    for (uint32_t r = 0; r < group.rows; ++r) {
      const AttentionTask task = TaskOf(call, group.first_row + r, 1, kv_head, thread);
      float* const state = state_of(states + strand * stride, task.first_row, kv_head);
      CopyRowState(shape, group.rows, r, common, state);
      FoldStrand(kernels_, task, strand, group.common_parts, AttentionParts(task.page_count),
                 state);
    }
  });
  pool_.ParallelFor(rows * shape.kv_heads, [&](uint32_t i, unsigned thread) {
    const uint32_t row = i / shape.kv_heads, kv_head = i % shape.kv_heads;
    MergeNodeStates(kernels_, TaskOf(call, row, 1, kv_head, thread), strands[row],
                    state_of(states, row, kv_head), stride, works + thread * work);
  });
}

}  // namespace corpusd
