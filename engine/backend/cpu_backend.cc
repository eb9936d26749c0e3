#include "engine/backend/cpu_backend.h"

#include <algorithm>
#include <string>
#include <vector>

#include "engine/backend/attention_nodes.h"
#include "engine/backend/cpu_weight.h"
#include "engine/backend/host_buffer.h"
#include "engine/backend/node_attention.h"
#include "engine/backend/panel_runs.h"
#include "engine/backend/shared_attention.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/reference/kv_tile.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

constexpr unsigned kMaxThreads = 1024;
constexpr uint32_t kElementwiseRows = 8;

uint32_t CeilDiv(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

// Floats of a node's states before those of a task.
uint64_t StateOffset(const AttentionTask& task) {
  return NodeStateFloats(task.shape, task.first_row) +
         task.kv_head * AttentionStateFloats(task.shape, task.rows);
}

class CpuBackend : public Backend, public NodeAttention {
 public:
  CpuBackend(const CpuKernels& kernels, unsigned threads, uint32_t span_pages)
      : kernels_(kernels),
        name_("cpu-" + std::string(kernels.name)),
        span_pages_(span_pages),
        pool_(threads) {}

  std::string_view name() const override { return name_; }
  uint32_t few_rows() const override { return kernels_.few_rows; }

  Result<std::unique_ptr<Buffer>> Allocate(uint64_t bytes, std::string_view purpose) override {
    ASSIGN_OR_RETURN(auto buffer, HostBuffer::Create(bytes, purpose));
    return std::unique_ptr<Buffer>(std::move(buffer));
  }

  Result<std::unique_ptr<Weight>> LoadWeight(std::span<const WeightSource> sources) override {
    ASSIGN_OR_RETURN(auto weight, CpuWeight::Load(sources, arena_, pool_));
    runs_.Add(*weight);
    return std::unique_ptr<Weight>(std::move(weight));
  }
  void Embed(MatrixView out, const Weight& table, std::span<const uint32_t> ids) override;
  void RmsNorm(MatrixView out, MatrixView x, const float* gain, float epsilon) override;
  void MatMul(MatrixView out, MatrixView x, const Weight& weight, bool accumulate) override;
  void SwiGlu(MatrixView out, MatrixView gate_up) override;
  void WriteKv(const KvWriteTarget& target, MatrixView keys, MatrixView values,
               const RopeTable* rope) override;
  void Attention(MatrixView out, MatrixView q, const AttentionInput& input) override;
  void AttentionEach(MatrixView out, MatrixView q, std::span<const AttentionInput> rows) override;
  Status AttentionInPieces(MatrixView out, MatrixView q, const AttentionInput& input,
                           PagePieces& pieces) override;
  Status AttendNodes(std::span<float> states, MatrixView q, const AttentionInput& input,
                     std::span<const MergeNode> nodes) override;
  Status MergeNodes(MatrixView out, std::span<const float> states, const AttentionInput& input,
                    std::span<const MergeNode> nodes) override;
  uint32_t span_pages() const override { return span_pages_; }
  Status Synchronize() override { return OkStatus(); }
  void HeadNorm(MatrixView x, uint32_t head_dim, const float* gain, float epsilon) override {
    ForEachRows(x.rows, [&](uint32_t first, uint32_t rows) {
      for (uint32_t r = first; r < first + rows; ++r) {
        const MatrixView heads{x.row(r), x.cols / head_dim, head_dim, head_dim};
        kernels_.rms_norm(heads, heads, gain, epsilon);
      }
    });
  }

 private:
  // Calls body(first_row, rows) for slices of rows, in parallel where there are enough.
  template <typename Body>
  void ForEachRows(uint32_t rows, const Body& body) {
    pool_.ParallelFor(CeilDiv(rows, kElementwiseRows), [&](uint32_t item, unsigned) {
      const uint32_t first = item * kElementwiseRows;
      body(first, std::min(kElementwiseRows, rows - first));
    });
  }

  // Scratch that grows to the largest call and stays: memory is bounded by the shapes of the model.
  static std::byte* Grow(std::unique_ptr<HostBuffer>& buffer, uint64_t bytes);
  std::byte* ThreadScratch(uint64_t bytes_per_thread);
  void ResolvePages(const AttentionInput& input, std::vector<PageTiles>* pages) const;
  // How the rows of a call are cut: blocks of rows, one item a block and KV head.
  struct AttentionCut {
    uint32_t blocks, block_rows, items;
    uint64_t scratch_bytes;
    std::byte* scratch;
  };
  AttentionCut CutRows(MatrixView out, MatrixView q, const AttentionInput& input);
  AttentionTask TaskOf(const AttentionCut& cut, MatrixView out, MatrixView q,
                       const AttentionInput& input, uint32_t item, unsigned thread) const;
  void WriteTile(std::byte* tile, const KvFormat& format, bool is_key, KvRows rows,
                 std::byte* scratch) const;
  const CpuKernels& kernels_;
  std::string name_;
  uint32_t span_pages_;
  ThreadPool pool_;
  WeightArena arena_;
  std::unique_ptr<HostBuffer> prepared_;
  std::unique_ptr<HostBuffer> scratch_;
  std::unique_ptr<HostBuffer> states_;
  std::unique_ptr<HostBuffer> strands_;  // of AttentionInPieces
  std::vector<PageTiles> pages_;
  std::vector<std::vector<PageTiles>> row_pages_;  // of AttentionEach
  PanelRuns runs_{kernels_, pool_};
};

std::byte* CpuBackend::Grow(std::unique_ptr<HostBuffer>& buffer, uint64_t bytes) {
  if (buffer == nullptr || buffer->bytes() < bytes) {
    buffer.reset();
    auto grown = HostBuffer::Create(bytes + bytes / 4, "scratch of the CPU backend");
    CHECK(grown.ok()) << grown.status().ToString();
    buffer = std::move(*grown);
  }
  return buffer->data();
}

std::byte* CpuBackend::ThreadScratch(uint64_t bytes_per_thread) {
  return Grow(scratch_, bytes_per_thread * pool_.threads());
}

void CpuBackend::Embed(MatrixView out, const Weight& table, std::span<const uint32_t> ids) {
  const auto& weight = static_cast<const CpuWeight&>(table);
  ForEachRows(static_cast<uint32_t>(ids.size()), [&](uint32_t first, uint32_t rows) {
    for (uint32_t i = first; i < first + rows; ++i) weight.Unpack(out.row(i), ids[i]);
  });
}

void CpuBackend::RmsNorm(MatrixView out, MatrixView x, const float* gain, float epsilon) {
  ForEachRows(x.rows, [&](uint32_t first, uint32_t rows) {
    kernels_.rms_norm(out.Rows(first, rows), x.Rows(first, rows), gain, epsilon);
  });
}

void CpuBackend::SwiGlu(MatrixView out, MatrixView gate_up) {
  ForEachRows(out.rows, [&](uint32_t first, uint32_t rows) {
    kernels_.swiglu(out.Rows(first, rows), gate_up.Rows(first, rows));
  });
}

void CpuBackend::MatMul(MatrixView out, MatrixView x, const Weight& weight, bool accumulate) {
  CHECK(x.cols == weight.cols() && out.cols == weight.rows() && out.rows == x.rows)
      << "[" << out.rows << ", " << out.cols << "] = [" << x.rows << ", " << x.cols << "] * ["
      << weight.rows() << ", " << weight.cols() << "]^T";
  if (x.rows == 0) return;
  MatMulTask task{.weight = {},
                  .x = x.data,
                  .x_stride = x.row_stride,
                  .out_stride = out.row_stride,
                  .call_rows = x.rows,
                  .accumulate = accumulate};
  const uint64_t prepared_bytes = kernels_.prepared_bytes(x.rows, x.cols);
  if (prepared_bytes > 0) {
    std::byte* prepared = Grow(prepared_, prepared_bytes);
    task.prepared = prepared;
    ForEachRows(x.rows, [&](uint32_t first, uint32_t rows) {
      kernels_.prepare_rows(prepared, x.data, x.row_stride, x.cols, x.rows, first, rows);
    });
  }
  const uint64_t scratch_bytes = kernels_.matmul_scratch_bytes();
  std::byte* scratch = ThreadScratch(scratch_bytes);
  const uint32_t row_blocks = CeilDiv(x.rows, kRowBlock);
  const uint32_t block_rows =
      CeilDiv(CeilDiv(x.rows, row_blocks), kernels_.row_multiple) * kernels_.row_multiple;
  const auto& packed = static_cast<const CpuWeight&>(weight);
  runs_.Cut(packed, x.rows);
  const auto runs = static_cast<uint32_t>(runs_.runs().size());
  const auto multiply = [&](uint32_t item, unsigned thread) {
    const PanelRun& run = runs_.runs()[item % runs];
    MatMulTask part = task;
    part.weight = run.segment->packed;
    part.out = out.data + run.segment->first_row;
    part.first_row = std::min(item / runs * block_rows, x.rows);
    part.rows = std::min(block_rows, x.rows - part.first_row);
    part.first_panel = run.first_panel;
    part.panels = run.panels;
    part.read_next = run.read_next;
    part.scratch = scratch + thread * scratch_bytes;
    if (part.rows > 0) kernels_.matmul(part);
  };
  if (row_blocks == 1 && x.rows <= kernels_.few_rows) {
    runs_.Link(packed.order(), x.rows);
    pool_.ParallelForRanges(runs, multiply);
  } else {
    pool_.ParallelFor(runs * row_blocks, multiply);
  }
}

void CpuBackend::WriteKv(const KvWriteTarget& target, MatrixView keys, MatrixView values,
                         const RopeTable* rope) {
  const KvFormat& format = *target.format;
  CHECK(target.first_slot + keys.rows <= format.block_tokens)
      << target.first_slot << " + " << keys.rows << " of " << format.block_tokens;
  CHECK(!IsCoded(format) || (target.basis != nullptr && target.first_slot == 0 &&
                             format.head_dim % 64 == 0 && format.block_tokens == kBlockTokens))
      << format.Canonical() << " from slot " << target.first_slot;
  if (keys.rows == 0) return;
  const uint64_t scratch_bytes = kernels_.encode_scratch_bytes(format.head_dim);
  std::byte* scratch = ThreadScratch(target.basis == nullptr ? 0 : scratch_bytes);
  pool_.ParallelFor(format.kv_heads * 2, [&](uint32_t item, unsigned thread) {
    const uint32_t head = item / 2;
    const bool is_key = item % 2 == 0;
    const MatrixView& source = is_key ? keys : values;
    KvRows rows{.data = source.data + size_t{head} * format.head_dim,
                .stride = source.row_stride,
                .rows = source.rows,
                .head_dim = format.head_dim,
                .first_slot = target.first_slot,
                .rope = is_key ? rope : nullptr};
    if (target.basis != nullptr) {
      rows.coordinates = is_key ? &target.basis[head].key : &target.basis[head].value;
    }
    std::byte* tile = target.block + (is_key ? format.KeyTileOffset(target.layer, head)
                                             : format.ValueTileOffset(target.layer, head));
    WriteTile(tile, format, is_key, rows, scratch + thread * scratch_bytes);
  });
}

// Rows of one KV head into a tile.
void CpuBackend::WriteTile(std::byte* tile, const KvFormat& format, bool is_key, KvRows rows,
                           std::byte* scratch) const {
  const KvCodec codec = is_key ? format.key_codec : format.value_codec;
  if (IsCoded(codec)) {
    return kernels_.encode_tile(
        {.tile = tile, .codec = codec, .is_key = is_key, .rows = rows, .scratch = scratch});
  }
  if (rows.coordinates != nullptr) {
    auto* y = reinterpret_cast<float*>(scratch);
    kernels_.to_coordinates(y, rows);
    rows.data = y;
    rows.stride = rows.head_dim;
    rows.rope = nullptr;
  }
  for (uint32_t r = 0; r < rows.rows; ++r) {
    if (is_key) {
      WriteKey(tile, format, rows.first_slot + r, rows.row(r), rows.rope);
    } else {
      WriteValue(tile, format, rows.first_slot + r, rows.row(r));
    }
  }
}

void CpuBackend::ResolvePages(const AttentionInput& input, std::vector<PageTiles>* pages) const {
  pages->clear();
  for (const KvPageList& list : input.lists) {
    const KvFormat& format = *list.format;
    CHECK(format.block_tokens == kBlockTokens && format.head_dim == input.shape.head_dim &&
          format.kv_heads == input.shape.kv_heads)
        << format.Canonical();
    CHECK(input.basis != nullptr || !IsCoded(format)) << format.Canonical();
    for (const KvPage& page : list.pages) {
      pages->push_back({.keys = page.bytes + format.KeyTileOffset(input.layer, 0),
                        .values = page.bytes + format.ValueTileOffset(input.layer, 0),
                        .key_stride = format.KeyTileBytes(),
                        .value_stride = format.ValueTileBytes(),
                        .first_position = page.first_position,
                        .tokens = page.tokens,
                        .hidden = page.hidden,
                        .key_codec = format.key_codec,
                        .value_codec = format.value_codec});
    }
  }
}

CpuBackend::AttentionCut CpuBackend::CutRows(MatrixView out, MatrixView q,
                                             const AttentionInput& input) {
  const AttentionShape& shape = input.shape;
  CHECK(shape.head_dim % 16 == 0 && shape.kv_heads > 0 && shape.q_heads % shape.kv_heads == 0)
      << shape.q_heads << " / " << shape.kv_heads << " heads of " << shape.head_dim;
  CHECK(q.cols == shape.q_heads * shape.head_dim && out.cols == q.cols && out.rows == q.rows);
  ResolvePages(input, &pages_);
  AttentionCut cut = {};
  cut.blocks = CeilDiv(q.rows, AttentionRowsMax(shape));
  cut.block_rows = CeilDiv(q.rows, std::max(cut.blocks, 1u));
  cut.items = cut.blocks * shape.kv_heads;
  cut.scratch_bytes = (AttentionScratchBytes(shape) + 4095) / 4096 * 4096;
  cut.scratch = ThreadScratch(cut.scratch_bytes);
  return cut;
}

AttentionTask CpuBackend::TaskOf(const AttentionCut& cut, MatrixView out, MatrixView q,
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

void CpuBackend::Attention(MatrixView out, MatrixView q, const AttentionInput& input) {
  const AttentionCut cut = CutRows(out, q, input);
  if (q.rows == 0) return;
  const auto task_of = [&](uint32_t item, unsigned thread) {
    return TaskOf(cut, out, q, input, item, thread);
  };
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
  const uint64_t state_floats = AttentionStateFloats(input.shape, cut.block_rows);
  auto* states = reinterpret_cast<float*>(Grow(states_, state_floats * parts * items * 4));
  pool_.ParallelFor(items * parts, [&](uint32_t item, unsigned thread) {
    const AttentionTask task = task_of(item / parts, thread);
    if (task.rows == 0) return;
    float* first_state = states + item / parts * parts * state_floats;
    kernels_.attend_part(task, item % parts,
                         first_state + item % parts * AttentionStateFloats(input.shape, task.rows));
  });
  pool_.ParallelFor(items, [&](uint32_t item, unsigned thread) {
    const AttentionTask task = task_of(item, thread);
    if (task.rows > 0) kernels_.merge_parts(task, states + item * parts * state_floats);
  });
}

Status CpuBackend::AttentionInPieces(MatrixView out, MatrixView q, const AttentionInput& input,
                                     PagePieces& pieces) {
  const uint64_t stride = NodeStateFloats(input.shape, q.rows);
  auto* const strands = reinterpret_cast<float*>(Grow(strands_, kStrands * stride * 4));
  AttentionInput piece = input;
  for (uint32_t first_part = 0;;) {
    ASSIGN_OR_RETURN(piece.lists, pieces.Next());
    if (piece.lists.empty()) break;
    const AttentionCut cut = CutRows(out, q, piece);
    const auto parts = AttentionParts(static_cast<uint32_t>(pages_.size()));
    const uint64_t item_floats = AttentionStateFloats(input.shape, cut.block_rows) * parts;
    auto* const states = reinterpret_cast<float*>(Grow(states_, item_floats * cut.items * 4));
    pool_.ParallelFor(cut.items * parts, [&](uint32_t i, unsigned thread) {
      const AttentionTask task = TaskOf(cut, out, q, piece, i / parts, thread);
      float* const state = states + i / parts * item_floats +
                           i % parts * AttentionStateFloats(input.shape, task.rows);
      if (task.rows > 0) kernels_.attend_part(task, i % parts, state);
    });
    pool_.ParallelFor(cut.items, [&](uint32_t item, unsigned thread) {
      const AttentionTask task = TaskOf(cut, out, q, piece, item, thread);
      if (task.rows == 0) return;
      FoldPiece(kernels_, task, first_part, states + item * item_floats,
                strands + StateOffset(task), stride);
    });
    first_part += parts;
  }
  uint64_t pages = 0;
  for (const KvPageList& list : input.lists) pages += list.pages.size();
  const auto nodes = StrandsOf(pages, span_pages_);
  return MergeNodes(out, {strands, stride * nodes.size()}, input, nodes);
}

// States of a node: block after block of rows, KV head after KV head.
Status CpuBackend::AttendNodes(std::span<float> states, MatrixView q, const AttentionInput& input,
                               std::span<const MergeNode> nodes) {
  const uint64_t node_floats = NodeStateFloats(input.shape, q.rows);
  CHECK(states.size() == node_floats * nodes.size()) << states.size();
  const AttentionCut cut = CutRows(q, q, input);
  if (q.rows == 0 || nodes.empty()) return OkStatus();
  const uint64_t stack = NodeStackFloats(TaskOf(cut, q, q, input, 0, 0));
  auto* const stacks = reinterpret_cast<float*>(Grow(states_, stack * pool_.threads() * 4));
  pool_.ParallelFor(cut.items * static_cast<uint32_t>(nodes.size()), [&](uint32_t i, unsigned t) {
    const uint32_t node = i / cut.items;
    const AttentionTask task = TaskOf(cut, q, q, input, i % cut.items, t);
    if (task.rows == 0) return;
    AttendNode(kernels_, task, nodes[node], &states[node * node_floats + StateOffset(task)],
               stacks + t * stack);
  });
  return OkStatus();
}

Status CpuBackend::MergeNodes(MatrixView out, std::span<const float> states,
                              const AttentionInput& input, std::span<const MergeNode> nodes) {
  const uint64_t node_floats = NodeStateFloats(input.shape, out.rows);
  CHECK(states.size() == node_floats * nodes.size()) << states.size();
  const AttentionCut cut = CutRows(out, out, input);
  if (out.rows == 0) return OkStatus();
  const uint64_t stack = NodeStackFloats(TaskOf(cut, out, out, input, 0, 0));
  auto* const stacks = reinterpret_cast<float*>(Grow(states_, stack * pool_.threads() * 4));
  pool_.ParallelFor(cut.items, [&](uint32_t item, unsigned t) {
    const AttentionTask task = TaskOf(cut, out, out, input, item, t);
    if (task.rows == 0) return;
    MergeNodeStates(kernels_, task, nodes, states.data() + StateOffset(task), node_floats,
                    stacks + t * stack);
  });
  return OkStatus();
}

void CpuBackend::AttentionEach(MatrixView out, MatrixView q, std::span<const AttentionInput> rows) {
  CHECK(q.rows == rows.size() && out.rows == q.rows) << q.rows << " rows of " << rows.size();
  CHECK(kernels_.few_rows == 0 || q.rows <= kernels_.few_rows) << q.rows;
  if (q.rows <= 1) return q.rows == 0 ? void() : Attention(out, q, rows[0]);
  const AttentionShape& shape = rows[0].shape;
  row_pages_.resize(std::max<size_t>(row_pages_.size(), q.rows));
  std::vector<uint64_t> positions;
  uint32_t parts_max = 0;
  for (uint32_t r = 0; r < q.rows; ++r) {
    ResolvePages(rows[r], &row_pages_[r]);
    positions.push_back(rows[r].first_position);
    parts_max = std::max(parts_max, AttentionParts(static_cast<uint32_t>(row_pages_[r].size())));
  }
  const auto plan = SharedAttentionPlan::Make(std::span(row_pages_).first(q.rows), shape);
  const uint64_t gathered = parts_max * AttentionStateFloats(shape, 1);
  auto* states = reinterpret_cast<float*>(
      Grow(states_, (plan.state_floats + pool_.threads() * gathered) * sizeof(float)));
  const uint64_t scratch_bytes = (AttentionScratchBytes(shape) + 4095) / 4096 * 4096;
  std::byte* scratch = ThreadScratch(scratch_bytes);
  const auto task_of = [&](uint32_t row, uint32_t count, uint32_t kv_head, unsigned thread) {
    return AttentionTask{.shape = shape,
                         .positions = positions.data(),
                         .pages = row_pages_[row].data(),
                         .page_count = static_cast<uint32_t>(row_pages_[row].size()),
                         .rope = rows[row].rope,
                         .basis = rows[row].basis == nullptr ? nullptr : rows[row].basis + kv_head,
                         .q = q.data,
                         .q_stride = q.row_stride,
                         .out = out.data,
                         .out_stride = out.row_stride,
                         .kv_head = kv_head,
                         .call_rows = 1,  // the arithmetic of a row alone
                         .first_row = row,
                         .rows = count,
                         .scratch = scratch + thread * scratch_bytes,
                         .span_pages = span_pages_};
  };
  const auto items = static_cast<uint32_t>(plan.items.size());
  pool_.ParallelFor(items * shape.kv_heads, [&](uint32_t i, unsigned thread) {
    const SharedAttentionItem& item = plan.items[i / shape.kv_heads];
    const uint32_t kv_head = i % shape.kv_heads;
    kernels_.attend_part(task_of(item.first_row, item.rows, kv_head, thread), item.part,
                         states + item.state + kv_head * AttentionStateFloats(shape, item.rows));
  });
  pool_.ParallelFor(q.rows * shape.kv_heads, [&](uint32_t i, unsigned thread) {
    const uint32_t row = i / shape.kv_heads, kv_head = i % shape.kv_heads;
    float* row_states = states + plan.state_floats + thread * gathered;
    GatherRowStates(plan, shape, row, kv_head, states, row_states);
    kernels_.merge_parts(task_of(row, 1, kv_head, thread), row_states);
  });
}

bool KnownIsa(const std::string& isa) {
  constexpr std::string_view kNames[] = {"auto", "avx2", "avx512", "avx512vnni", "amx"};
  return std::find(std::begin(kNames), std::end(kNames), isa) != std::end(kNames);
}

}  // namespace

Result<std::unique_ptr<Backend>> MakeCpuBackend(const CpuBackendOptions& options) {
  return MakeCpuBackend(options, kSpanPages);
}

Result<std::unique_ptr<Backend>> MakeCpuBackend(const CpuBackendOptions& options,
                                                uint32_t span_pages) {
  if (!KnownIsa(options.isa)) {
    return InvalidArgumentError("unknown instruction set '" + options.isa +
                                "': auto, avx2, avx512, avx512vnni and amx are known");
  }
  if (options.threads > kMaxThreads) {
    return InvalidArgumentError(std::to_string(options.threads) + " threads asked for; at most " +
                                std::to_string(kMaxThreads) + " are allowed");
  }
  const CpuKernels* kernels = SelectCpuKernels(DetectCpuFeatures(), options.isa);
  if (kernels == nullptr) {
    return FailedPreconditionError("this processor or its operating system lacks " +
                                   (options.isa == "auto" ? "avx2, fma and f16c" : options.isa));
  }
  CHECK(span_pages > 0 && span_pages % kPartPages == 0) << span_pages;
  return std::unique_ptr<Backend>(
      std::make_unique<CpuBackend>(*kernels, options.threads, span_pages));
}

}  // namespace corpusd
