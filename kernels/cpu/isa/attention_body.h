// kernels/cpu/isa/attention_body.h -- attention over KV pages with an online softmax, over Lanes
// and a Policy that says in which type queries and weights are multiplied with the tiles. For every
// page: the stacked query rows are rotated to the page's frame, multiplied with the K tile,
// exponentiated, and multiplied with the V tile. Included after attention_rows.h by one translation
// unit.
#pragma once

// Policy: Element (of queries and weights), Attend(task, page, next, work, state) for one page,
// FloatMapping's two functions; of tasks that ExpandsPages, BeginExpanded(task, work), which makes
// the queries of all their pages, and Expansion, how a page is expanded. Most take AttendPage for
// the former, which asks for StoreElements(Element*, Lanes), kTokenMultiple (of keys taken),
// kFetchesAhead (Multiply asks for the tile at `ahead` itself), and
//   Multiply(rows, a, a_stride, codec, tile, tile_cols, cols, depth, expanded, c, c_stride, add,
//            ahead, room):
//   c[rows][cols] (+)= a[rows][depth] * tile, the tile being [depth / g][tile_cols][g], g = 2 or 4;
//   rows of c up to `room` may be overwritten with anything.

namespace corpusd {
namespace {

// Asks for a tile of `tokens` slots. A tile is not read in the order of its addresses, so the
// processor does not foresee it.
inline void FetchTile(const std::byte* tile, uint32_t tokens, uint32_t head_dim, KvCodec codec) {
  size_t bytes = size_t{tokens} * head_dim * (codec == KvCodec::kBf16 ? 2 : 1);
  if (IsCoded(codec)) {
    bytes = static_cast<size_t>(
        CodedTileBytes(static_cast<int>(CodeBits(codec)), static_cast<int>(head_dim)));
  }
  for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(tile + i, 0, 2);
}

template <typename Policy>
void AttendPage(const AttentionTask& task, const PageTiles& page, const PageTiles* next,
                const AttentionWork<typename Policy::Element>& work, SoftmaxState state) {
  const PageView view = ViewOf(task, page, Policy::kTokenMultiple);
  if (view.stacked == 0) return;
  const uint32_t head_dim = task.shape.head_dim;
  const uint32_t group = task.shape.q_heads / task.shape.kv_heads;
  const uint32_t first = view.first;
  const std::byte* key_bytes = page.keys + task.kv_head * page.key_stride;
  const std::byte* value_bytes = page.values + task.kv_head * page.value_stride;
  const std::byte* next_keys =
      next == nullptr ? key_bytes : next->keys + task.kv_head * next->key_stride;
  // The values arrive while the keys are multiplied, the next keys while the values are. Products
  // over unpacked tiles ask for nothing ahead: their tile is not the size of what is needed next.
  const bool coded_keys = IsCoded(page.key_codec);
  const bool coded_values = IsCoded(page.value_codec);
  if (coded_keys || !Policy::kFetchesAhead) {
    FetchTile(value_bytes, view.padded, head_dim, page.value_codec);
  }
  const PageTile keys =
      ResolveTile(key_bytes, page.key_codec, true, head_dim, view.padded, work.keys);
  PreparePageQueries<Policy>(task, page, view, keys.means, work);
  Policy::Multiply(view.stacked, work.queries + size_t{first} * head_dim, head_dim, keys.codec,
                   keys.tile, kBlockTokens, view.padded, head_dim, work.expanded,
                   work.scores + size_t{first} * kBlockTokens, kBlockTokens, false,
                   coded_keys ? keys.tile : value_bytes, StackedRoom(task) - first);
  if ((coded_values || !Policy::kFetchesAhead) && next != nullptr) {
    FetchTile(next_keys, next->tokens, head_dim, next->key_codec);
  }
  const PageTile values =
      ResolveTile(value_bytes, page.value_codec, false, head_dim, view.padded, work.values);
  for (uint32_t s = first; s < first + view.stacked; ++s) {
    const ScoreMap map = {keys.scales, InBasis(task) ? work.constants[s] : 0.0f};
    work.masses[s] = WeighRow<Policy>(
        work.scores + size_t{s} * kBlockTokens, work.weights + size_t{s} * kBlockTokens,
        view.SeenAt(s / group), view.padded, map, values, s, state, head_dim);
  }
  Policy::Multiply(view.stacked, work.weights + size_t{first} * kBlockTokens, kBlockTokens,
                   values.codec, values.tile, head_dim, head_dim, view.padded, work.expanded,
                   state.values + size_t{first} * head_dim, head_dim, true,
                   coded_values ? values.tile : next_keys, view.stacked);
  AddMeans(values.means, work.masses, first, view.stacked, state, head_dim);
}

// REQUIRES: BeginTask before.
template <typename Policy>
void AttendPartInto(const AttentionTask& task, uint32_t part,
                    const AttentionWork<typename Policy::Element>& work, SoftmaxState state) {
  const uint32_t group = task.shape.q_heads / task.shape.kv_heads;
  ClearState(state, task.rows * group, task.shape.head_dim);
  const uint32_t first = part * kPartPages;
  const uint32_t end = MinU32(first + kPartPages, task.page_count);
  const bool expands = ExpandsPages(task);
  if (!expands) Policy::BeginPart(task, first, end, work);
  for (uint32_t i = first; i < end; ++i) {
    const PageTiles& page = task.pages[i];
    const PageTiles* next = i + 1 < task.page_count ? &task.pages[i + 1] : nullptr;
    if (!expands || page.expanded) {
      Policy::Attend(task, page, next, work, state);
    } else if (ViewOf(task, page, kLanes).stacked > 0) {
      const PageTiles plain = ExpandHere<typename Policy::Expansion>(task, page, work);
      Policy::Attend(task, plain, next, work, state);
    }
  }
}
template <typename Policy, typename Work>
inline void BeginTask(const AttentionTask& task, const Work& work) {
  if (ExpandsPages(task)) Policy::BeginExpanded(task, work);
}

// rows[stacked, head_dim] of y become values: mean + y * inverse, through `from`; rows that have
// seen nothing stay zero.
void LeaveBasis(float* rows, float* from, const float* sums, uint32_t stacked, uint32_t head_dim,
                const KvCoordinates& basis) {
  __builtin_memcpy(from, rows, size_t{stacked} * head_dim * sizeof(float));
  MatrixGemm(stacked, from, head_dim, basis.inverse, head_dim, rows, head_dim);
  for (uint32_t i = 0; i < head_dim; i += kLanes) {
    const Lanes mean = Load(basis.mean + i);
    for (uint32_t s = 0; s < stacked; ++s) {
      float* row = rows + size_t{s} * head_dim + i;
      Store(row, sums[s] == 0 ? Zero() : Add(Load(row), mean));
    }
  }
}

template <typename Work>
void WriteAttention(const AttentionTask& task, const Work& work, SoftmaxState total) {
  const uint32_t head_dim = task.shape.head_dim;
  const uint32_t group = task.shape.q_heads / task.shape.kv_heads;
  const uint32_t stacked = task.rows * group;
  for (uint32_t s = 0; s < stacked; ++s) {
    float* row = total.values + size_t{s} * head_dim;
    const Lanes inverse = Broadcast(total.sum[s] == 0 ? 0.0f : 1.0f / total.sum[s]);
    for (uint32_t i = 0; i < head_dim; i += kLanes) Store(row + i, Mul(Load(row + i), inverse));
  }
  if (InBasis(task)) {
    LeaveBasis(total.values, work.turned, total.sum, stacked, head_dim, task.basis->value);
  }
  for (uint32_t s = 0; s < stacked; ++s) {
    float* out = task.out + size_t{task.first_row + s / group} * task.out_stride +
                 (size_t{task.kv_head} * group + s % group) * head_dim;
    __builtin_memcpy(out, total.values + size_t{s} * head_dim, head_dim * sizeof(float));
  }
}

// Folds a task's parts in the order of merge_order.h; part_state(part) makes the state of one.
// RETURNS the whole.
template <typename Work, typename PartState>
SoftmaxState FoldParts(const AttentionTask& task, const Work& work, const PartState& part_state) {
  const uint32_t head_dim = task.shape.head_dim;
  const uint32_t stacked = task.rows * (task.shape.q_heads / task.shape.kv_heads);
  const uint32_t parts = AttentionParts(task.page_count);
  const uint32_t span_parts = task.span_pages / kPartPages;
  const uint32_t spans = SpansOf(task.page_count, task.span_pages);
  const auto at = [&](uint32_t depth) {
    float* memory =
        depth == 0 ? work.total : work.pending + size_t{depth - 1} * stacked * (head_dim + 2);
    return StateAt(memory, stacked, head_dim);
  };
  const auto fold_strand = [&](MergeNode strand, uint32_t depth) {
    const SoftmaxState total = at(depth);
    ClearState(total, stacked, head_dim);
    ForEachSpan(strand.index, spans, [&](uint32_t span) {
      const uint32_t first = span * span_parts;
      for (uint32_t part = first; part < MinU32(first + span_parts, parts); ++part) {
        MergeState(total, part_state(part), stacked, head_dim);
      }
    });
  };
  FoldStrands(
      MergeNode{}, spans, 0, [](MergeNode node) { return node.width == kStrands; }, fold_strand,
      [&](uint32_t depth) { MergeState(at(depth), at(depth + 1), stacked, head_dim); });
  return at(0);
}

template <typename Policy>
void Attend(const AttentionTask& task) noexcept {
  const auto work = Carve<typename Policy::Element>(task);
  const uint32_t stacked = task.rows * (task.shape.q_heads / task.shape.kv_heads);
  const SoftmaxState state = StateAt(work.part, stacked, task.shape.head_dim);
  BeginTask<Policy>(task, work);
  const SoftmaxState total = FoldParts(task, work, [&](uint32_t part) {
    AttendPartInto<Policy>(task, part, work, state);
    return state;
  });
  WriteAttention(task, work, total);
}

template <typename Policy>
void AttendPart(const AttentionTask& task, uint32_t part, float* memory) noexcept {
  const uint32_t stacked = task.rows * (task.shape.q_heads / task.shape.kv_heads);
  const auto work = Carve<typename Policy::Element>(task);
  BeginTask<Policy>(task, work);
  AttendPartInto<Policy>(task, part, work, StateAt(memory, stacked, task.shape.head_dim));
}

template <typename Policy>
void AttendParts(const AttentionTask& task, uint32_t first, uint32_t end, float* into) noexcept {
  const uint32_t head_dim = task.shape.head_dim;
  const uint32_t stacked = task.rows * (task.shape.q_heads / task.shape.kv_heads);
  const auto work = Carve<typename Policy::Element>(task);
  const SoftmaxState state = StateAt(work.part, stacked, head_dim);
  BeginTask<Policy>(task, work);
  for (uint32_t part = first; part < end; ++part) {
    AttendPartInto<Policy>(task, part, work, state);
    MergeState(StateAt(into, stacked, head_dim), state, stacked, head_dim);
  }
}

void MergeParts(const AttentionTask& task, const float* states) noexcept {
  const auto work = Carve<float>(task);
  const uint32_t stacked = task.rows * (task.shape.q_heads / task.shape.kv_heads);
  const SoftmaxState total = FoldParts(task, work, [&](uint32_t part) {
    auto* memory = const_cast<float*>(states) + part * AttentionStateFloats(task.shape, task.rows);
    return StateAt(memory, stacked, task.shape.head_dim);
  });
  WriteAttention(task, work, total);
}

void MergeInto(const AttentionShape& shape, uint32_t rows, float* into,
               const float* part) noexcept {
  const uint32_t stacked = rows * (shape.q_heads / shape.kv_heads);
  MergeState(StateAt(into, stacked, shape.head_dim),
             StateAt(const_cast<float*>(part), stacked, shape.head_dim), stacked, shape.head_dim);
}

void WriteState(const AttentionTask& task, const float* state) noexcept {
  const auto work = Carve<float>(task);
  const uint32_t stacked = task.rows * (task.shape.q_heads / task.shape.kv_heads);
  __builtin_memcpy(work.total, state, AttentionStateFloats(task.shape, task.rows) * sizeof(float));
  WriteAttention(task, work, StateAt(work.total, stacked, task.shape.head_dim));
}

}  // namespace
}  // namespace corpusd
