#include "engine/backend/cpu_backend.h"

#include <algorithm>
#include <string>
#include <vector>

#include "engine/backend/cpu_weight.h"
#include "engine/backend/host_buffer.h"
#include "engine/backend/shared_attention.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/reference/kv_tile.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

constexpr unsigned kMaxThreads = 1024;
// Rows that share one expansion of a weight panel: enough to make its cost a few percent, few
// enough that their activations (128 x 576 x 4 B = 288 KiB) stay in a core's L2 cache.
constexpr uint32_t kRowBlock = 128;
// Items a thread should find in a product, so that the last one to finish is not waited for long.
constexpr uint32_t kItemsPerThread = 8;
constexpr uint32_t kElementwiseRows = 8;

uint32_t CeilDiv(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

class CpuBackend : public Backend {
 public:
  CpuBackend(const CpuKernels& kernels, unsigned threads)
      : kernels_(kernels), name_("cpu-" + std::string(kernels.name)), pool_(threads) {}

  std::string_view name() const override { return name_; }
  uint32_t few_rows() const override { return kernels_.few_rows; }

  Result<std::unique_ptr<Buffer>> Allocate(uint64_t bytes, std::string_view purpose) override {
    ASSIGN_OR_RETURN(auto buffer, HostBuffer::Create(bytes, purpose));
    return std::unique_ptr<Buffer>(std::move(buffer));
  }

  Result<std::unique_ptr<Weight>> LoadWeight(std::span<const WeightSource> sources) override {
    ASSIGN_OR_RETURN(auto weight, CpuWeight::Load(sources, arena_, pool_));
    weight->set_order(static_cast<uint32_t>(extents_.size()));
    const PackedWeight& first = weight->segments().front().packed;
    extents_.push_back({first.data, first.panel_bytes, first.panels(), CountPanels(*weight)});
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
  // Rows of one call, cut for the threads: items of some rows and a KV head.
  struct RowBlocks {
    MatrixView out, q;
    const AttentionInput& input;
    uint32_t block_rows = 0;
    uint32_t items = 0;
    uint64_t scratch_bytes = 0;
    std::byte* scratch = nullptr;
  };
  RowBlocks BlocksOf(MatrixView out, MatrixView q, const AttentionInput& input);
  AttentionTask TaskOf(const RowBlocks& rows, uint32_t item, unsigned thread) const;
  // States of all parts of pages_: [items][parts][state_floats].
  float* AttendParts(const RowBlocks& rows, uint32_t parts, uint64_t state_floats);
  void WriteTile(std::byte* tile, const KvFormat& format, bool is_key, KvRows rows,
                 std::byte* scratch) const;
  uint32_t PanelsOfRun(uint32_t total, uint32_t x_rows) const;
  void CutPanels(const CpuWeight& weight, uint32_t x_rows);
  void LinkRuns(uint32_t order, uint32_t x_rows);
  static uint32_t CountPanels(const CpuWeight& weight);

  struct PanelRun {
    const CpuWeight::Segment* segment;
    uint32_t first_panel, panels;
    const std::byte* read_next;  // what the thread reads behind it, or null
  };
  // Where a weight's first segment lies. Only ever a hint: the weight may be gone.
  struct Extent {
    const std::byte* data;
    uint64_t panel_bytes;
    uint32_t panels, total_panels;
  };

  const CpuKernels& kernels_;
  std::string name_;
  ThreadPool pool_;
  WeightArena arena_;
  std::unique_ptr<HostBuffer> prepared_;
  std::unique_ptr<HostBuffer> scratch_;
  std::unique_ptr<HostBuffer> states_;
  std::unique_ptr<HostBuffer> totals_;  // of AttentionInPieces
  std::vector<PageTiles> pages_;
  std::vector<std::vector<PageTiles>> row_pages_;  // of AttentionEach
  std::vector<PanelRun> runs_;
  std::vector<Extent> extents_;  // of the weights, as they were loaded
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

uint32_t CpuBackend::CountPanels(const CpuWeight& weight) {
  uint32_t total = 0;
  for (const CpuWeight::Segment& segment : weight.segments()) total += segment.packed.panels();
  return total;
}

// Panels of one item of a product with x_rows rows: some items for every thread, in multiples that
// suit the table.
uint32_t CpuBackend::PanelsOfRun(uint32_t total, uint32_t x_rows) const {
  const uint32_t row_blocks = CeilDiv(x_rows, kRowBlock);
  const uint32_t wanted = std::max(1u, CeilDiv(pool_.threads() * kItemsPerThread, row_blocks));
  const uint32_t multiple = x_rows == 1 ? kernels_.row_panel_multiple : kernels_.panel_multiple;
  const uint32_t each = total / wanted / multiple * multiple;
  if (each > 0) return each;
  // Whole tiles beat an even share, as long as there are some for every thread.
  return total / multiple * row_blocks >= 2 * pool_.threads() ? multiple : 1;
}

void CpuBackend::CutPanels(const CpuWeight& weight, uint32_t x_rows) {
  runs_.clear();
  const uint32_t each = PanelsOfRun(CountPanels(weight), x_rows);
  for (const CpuWeight::Segment& segment : weight.segments()) {
    const uint32_t panels = segment.packed.panels();
    for (uint32_t p = 0; p < panels; p += each) {
      runs_.push_back({&segment, p, std::min(each, panels - p), nullptr});
    }
  }
}

// Few rows read every weight at the speed of memory, which must not stand idle between two runs or
// two products: each run knows what its thread reads next, at the end of the thread's share the
// beginning of its share of the weight that was loaded next. That is the order of a model.
void CpuBackend::LinkRuns(uint32_t order, uint32_t x_rows) {
  const Extent& next = extents_[(order + 1) % extents_.size()];
  const uint32_t each = PanelsOfRun(next.total_panels, x_rows);
  const uint32_t next_runs = CeilDiv(next.total_panels, each);
  for (size_t i = 0; i + 1 < runs_.size(); ++i) {
    runs_[i].read_next = runs_[i + 1].segment->packed.panel(runs_[i + 1].first_panel);
  }
  for (unsigned thread = 0; thread < pool_.threads(); ++thread) {
    const uint32_t end = pool_.RangeBegin(static_cast<uint32_t>(runs_.size()), thread + 1);
    const uint32_t panel = pool_.RangeBegin(next_runs, thread) * each;
    if (end > 0 && panel < next.panels) {
      runs_[end - 1].read_next = next.data + panel * next.panel_bytes;
    }
  }
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
  CutPanels(packed, x.rows);
  const auto runs = static_cast<uint32_t>(runs_.size());
  const auto multiply = [&](uint32_t item, unsigned thread) {
    const PanelRun& run = runs_[item % runs];
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
    LinkRuns(packed.order(), x.rows);
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

CpuBackend::RowBlocks CpuBackend::BlocksOf(MatrixView out, MatrixView q,
                                           const AttentionInput& input) {
  const AttentionShape& shape = input.shape;
  CHECK(shape.head_dim % 16 == 0 && shape.kv_heads > 0 && shape.q_heads % shape.kv_heads == 0)
      << shape.q_heads << " / " << shape.kv_heads << " heads of " << shape.head_dim;
  CHECK(q.cols == shape.q_heads * shape.head_dim && out.cols == q.cols && out.rows == q.rows);
  const uint32_t blocks = CeilDiv(q.rows, AttentionRowsMax(shape));
  RowBlocks rows{out, q, input, CeilDiv(q.rows, std::max(blocks, 1U)), blocks * shape.kv_heads};
  rows.scratch_bytes = (AttentionScratchBytes(shape) + 4095) / 4096 * 4096;
  rows.scratch = ThreadScratch(rows.scratch_bytes);
  return rows;
}

// Of some rows and one KV head, over pages_.
AttentionTask CpuBackend::TaskOf(const RowBlocks& rows, uint32_t item, unsigned thread) const {
  const AttentionShape& shape = rows.input.shape;
  const uint32_t first_row = std::min(item / shape.kv_heads * rows.block_rows, rows.q.rows);
  return {.shape = shape,
          .first_position = rows.input.first_position,
          .pages = pages_.data(),
          .page_count = static_cast<uint32_t>(pages_.size()),
          .rope = rows.input.rope,
          .basis = rows.input.basis == nullptr ? nullptr : rows.input.basis + item % shape.kv_heads,
          .q = rows.q.data,
          .q_stride = rows.q.row_stride,
          .out = rows.out.data,
          .out_stride = rows.out.row_stride,
          .kv_head = item % shape.kv_heads,
          .call_rows = rows.q.rows,
          .first_row = first_row,
          .rows = std::min(rows.block_rows, rows.q.rows - first_row),
          .scratch = rows.scratch + thread * rows.scratch_bytes};
}

void CpuBackend::Attention(MatrixView out, MatrixView q, const AttentionInput& input) {
  if (q.rows == 0) return;
  ResolvePages(input, &pages_);
  const RowBlocks rows = BlocksOf(out, q, input);
  const auto parts = AttentionParts(static_cast<uint32_t>(pages_.size()));
  if (parts <= 1 || rows.items >= 4 * pool_.threads()) {
    pool_.ParallelFor(rows.items, [&](uint32_t item, unsigned thread) {
      const AttentionTask task = TaskOf(rows, item, thread);
      if (task.rows > 0) kernels_.attend(task);
    });
    return;
  }
  // Few rows: the parts of the context are spread over the threads and merged in order, which gives
  // the same bits.
  const uint64_t state_floats = AttentionStateFloats(input.shape, rows.block_rows);
  const float* const states = AttendParts(rows, parts, state_floats);
  pool_.ParallelFor(rows.items, [&](uint32_t item, unsigned thread) {
    const AttentionTask task = TaskOf(rows, item, thread);
    if (task.rows > 0) kernels_.merge_parts(task, states + item * parts * state_floats);
  });
}

float* CpuBackend::AttendParts(const RowBlocks& rows, uint32_t parts, uint64_t state_floats) {
  auto* const states =
      reinterpret_cast<float*>(Grow(states_, state_floats * parts * rows.items * sizeof(float)));
  pool_.ParallelFor(rows.items * parts, [&](uint32_t item, unsigned thread) {
    const AttentionTask task = TaskOf(rows, item / parts, thread);
    if (task.rows == 0) return;
    const uint64_t floats = AttentionStateFloats(rows.input.shape, task.rows);
    float* first_state = states + item / parts * parts * state_floats;
    kernels_.attend_part(task, item % parts, first_state + item % parts * floats);
  });
  return states;
}

Status CpuBackend::AttentionInPieces(MatrixView out, MatrixView q, const AttentionInput& input,
                                     PagePieces& pieces) {
  const RowBlocks rows = BlocksOf(out, q, input);
  const uint64_t state_floats = AttentionStateFloats(input.shape, rows.block_rows);
  auto* const totals =
      reinterpret_cast<float*>(Grow(totals_, state_floats * rows.items * sizeof(float)));
  for (bool first = true;; first = false) {
    AttentionInput piece = input;
    ASSIGN_OR_RETURN(piece.lists, pieces.Next());
    if (piece.lists.empty()) break;
    ResolvePages(piece, &pages_);
    const auto parts = AttentionParts(static_cast<uint32_t>(pages_.size()));
    const float* const states = AttendParts(rows, parts, state_floats);
    pool_.ParallelFor(rows.items, [&](uint32_t item, unsigned thread) {
      const AttentionTask task = TaskOf(rows, item, thread);
      if (task.rows == 0) return;
      kernels_.fold_parts(task, states + item * parts * state_floats, totals + item * state_floats,
                          first);
    });
  }
  pool_.ParallelFor(rows.items, [&](uint32_t item, unsigned thread) {
    const AttentionTask task = TaskOf(rows, item, thread);
    if (task.rows > 0) kernels_.finish_parts(task, totals + item * state_floats);
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
                         .scratch = scratch + thread * scratch_bytes};
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

}  // namespace

Result<std::unique_ptr<Backend>> MakeCpuBackend(const CpuBackendOptions& options) {
  constexpr std::string_view kNames[] = {"auto", "avx2", "avx512", "avx512vnni", "amx"};
  if (std::find(std::begin(kNames), std::end(kNames), options.isa) == std::end(kNames)) {
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
  return std::unique_ptr<Backend>(std::make_unique<CpuBackend>(*kernels, options.threads));
}

}  // namespace corpusd
