#include "engine/backend/cpu_backend.h"

#include <algorithm>
#include <string>
#include <vector>

#include "engine/backend/cpu_attention.h"
#include "engine/backend/cpu_weight.h"
#include "engine/backend/host_buffer.h"
#include "engine/backend/node_attention.h"
#include "engine/backend/panel_runs.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/reference/kv_tile.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

constexpr unsigned kMaxThreads = 1024;
constexpr uint32_t kElementwiseRows = 8;

uint32_t CeilDiv(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

class CpuBackend : public Backend, public NodeAttention {
 public:
  CpuBackend(const CpuKernels& kernels, unsigned threads, uint32_t span_pages,
             uint64_t part_state_bytes)
      : kernels_(kernels),
        name_("cpu-" + std::string(kernels.name)),
        pool_(threads),
        attention_(kernels, pool_, span_pages, part_state_bytes) {}

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
  void WriteKvEach(std::span<const KvWriteTarget> targets, MatrixView keys, MatrixView values,
                   const RopeTable* rope) override;
  void Attention(MatrixView out, MatrixView q, const AttentionInput& input) override {
    attention_.Attend(out, q, input);
  }
  void AttentionEach(MatrixView out, MatrixView q, std::span<const AttentionInput> rows) override {
    attention_.AttendEach(out, q, rows);
  }
  Status AttentionInPieces(MatrixView out, MatrixView q, const AttentionInput& input,
                           PagePieces& pieces) override {
    return attention_.AttendInPieces(out, q, input, pieces);
  }
  Status AttendNodes(std::span<float> states, MatrixView q, const AttentionInput& input,
                     std::span<const MergeNode> nodes) override {
    attention_.AttendNodes(states, q, input, nodes);
    return OkStatus();
  }
  Status MergeNodes(MatrixView out, std::span<const float> states, const AttentionInput& input,
                    std::span<const MergeNode> nodes) override {
    attention_.MergeNodes(out, states, input, nodes);
    return OkStatus();
  }
  uint32_t span_pages() const override { return attention_.span_pages(); }
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

  std::byte* ThreadScratch(uint64_t bytes_per_thread);
  void WriteTile(const KvWriteTarget& target, uint32_t head, bool is_key, KvRows rows,
                 std::byte* scratch) const;
  const CpuKernels& kernels_;
  std::string name_;
  ThreadPool pool_;
  CpuAttention attention_;
  WeightArena arena_;
  std::unique_ptr<HostBuffer> prepared_;
  std::unique_ptr<HostBuffer> scratch_;
  PanelRuns runs_{kernels_, pool_};
};

std::byte* CpuBackend::ThreadScratch(uint64_t bytes_per_thread) {
  return HostBuffer::Grow(scratch_, bytes_per_thread * pool_.threads());
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
    std::byte* prepared = HostBuffer::Grow(prepared_, prepared_bytes);
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
    WriteTile(target, head, is_key, rows, scratch + thread * scratch_bytes);
  });
}

// What a basis costs is paid once for all rows of a KV head.
void CpuBackend::WriteKvEach(std::span<const KvWriteTarget> targets, MatrixView keys,
                             MatrixView values, const RopeTable* rope) {
  const bool alike = std::all_of(targets.begin(), targets.end(), [&](const KvWriteTarget& target) {
    return target.basis == targets[0].basis && target.basis != nullptr &&
           !IsCoded(*target.format) && target.format->head_dim == targets[0].format->head_dim;
  });
  if (keys.rows <= 1 || !alike) return Backend::WriteKvEach(targets, keys, values, rope);
  const KvFormat& format = *targets[0].format;
  const uint64_t scratch_bytes = kernels_.encode_scratch_bytes(format.head_dim);
  CHECK(uint64_t{keys.rows} * format.head_dim * sizeof(float) <= scratch_bytes) << keys.rows;
  std::byte* scratch = ThreadScratch(scratch_bytes);
  std::vector<uint32_t> slots;
  for (const KvWriteTarget& target : targets) slots.push_back(target.first_slot);
  pool_.ParallelFor(format.kv_heads * 2, [&](uint32_t item, unsigned thread) {
    const uint32_t head = item / 2;
    const bool is_key = item % 2 == 0;
    const MatrixView& source = is_key ? keys : values;
    const KvBasis& basis = targets[0].basis[head];
    auto* y = reinterpret_cast<float*>(scratch + thread * scratch_bytes);
    kernels_.to_coordinates(y, {.data = source.data + size_t{head} * format.head_dim,
                                .stride = source.row_stride,
                                .rows = source.rows,
                                .head_dim = format.head_dim,
                                .slots = slots.data(),
                                .rope = is_key ? rope : nullptr,
                                .coordinates = is_key ? &basis.key : &basis.value});
    for (uint32_t r = 0; r < source.rows; ++r, y += format.head_dim) {
      const KvWriteTarget& t = targets[r];
      if (is_key) {
        WriteKey(t.block + t.format->KeyTileOffset(t.layer, head), *t.format, slots[r], y, nullptr);
      } else {
        WriteValue(t.block + t.format->ValueTileOffset(t.layer, head), *t.format, slots[r], y);
      }
    }
  });
}

// Rows of one KV head into a tile.
void CpuBackend::WriteTile(const KvWriteTarget& target, uint32_t head, bool is_key, KvRows rows,
                           std::byte* scratch) const {
  const KvFormat& format = *target.format;
  const LayerCodecs codecs = format.CodecsOf(target.layer);
  const KvCodec codec = is_key ? codecs.key : codecs.value;
  std::byte* tile = target.block + (is_key ? format.KeyTileOffset(target.layer, head)
                                           : format.ValueTileOffset(target.layer, head));
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

bool KnownIsa(const std::string& isa) {
  constexpr std::string_view kNames[] = {"auto", "avx2", "avx512", "avx512vnni", "amx"};
  return std::find(std::begin(kNames), std::end(kNames), isa) != std::end(kNames);
}

}  // namespace

Result<std::unique_ptr<Backend>> MakeCpuBackend(const CpuBackendOptions& options) {
  return MakeCpuBackend(options, kSpanPages);
}

Result<std::unique_ptr<Backend>> MakeCpuBackend(const CpuBackendOptions& options,
                                                uint32_t span_pages, uint64_t part_state_bytes) {
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
      std::make_unique<CpuBackend>(*kernels, options.threads, span_pages, part_state_bytes));
}

}  // namespace corpusd
