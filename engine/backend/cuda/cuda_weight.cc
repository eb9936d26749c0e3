#include "engine/backend/cuda/cuda_weight.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "engine/backend/cuda/cuda_error.h"
#include "kernels/reference/dequantize.h"
#include "kernels/reference/kv_tile.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

constexpr uint32_t kRowsOfItem = 64;
constexpr uint64_t kSmallNumbers = uint64_t{4} << 20;  // models of less than a billion weights
constexpr uint64_t kStagedBytes = uint64_t{64} << 20;  // of blocks on their way

void Unpack(const WeightSource& source, uint32_t first, uint32_t rows, uint16_t* out) {
  const uint64_t row_bytes = WeightRowBytes(source.type, source.cols);
  std::vector<float> values(source.cols);
  for (uint32_t r = first; r < first + rows; ++r) {
    DequantizeRow(source.type, source.bytes.data() + r * row_bytes, values.data(), source.cols);
    uint16_t* const to = out + uint64_t{r} * source.cols;
    for (uint32_t c = 0; c < source.cols; ++c) to[c] = Bf16FromFloat(values[c]);
  }
}

struct PackedType {
  cuda::WeightKind kind;
  cuda::BlockLayout layout;
};
std::optional<PackedType> PackedTypeOf(WeightType type) {
  switch (type) {
    case WeightType::kQ4_0:
      return PackedType{cuda::WeightKind::kGroup4, cuda::BlockLayout::kQ4_0};
    case WeightType::kQ4_1:
      return PackedType{cuda::WeightKind::kGroup4, cuda::BlockLayout::kQ4_1};
    case WeightType::kQ5_0:
      return PackedType{cuda::WeightKind::kGroup8, cuda::BlockLayout::kQ5_0};
    case WeightType::kQ8_0:
      return PackedType{cuda::WeightKind::kGroup8, cuda::BlockLayout::kQ8_0};
    default:
      return std::nullopt;
  }
}

}  // namespace

cuda::WeightKind KindOfWeight(std::span<const WeightSource> sources) {
  const auto first = PackedTypeOf(sources[0].type);
  if (!first || sources[0].cols % cuda::WeightColMultiple(first->kind) != 0) {
    return cuda::WeightKind::kBf16;
  }
  const auto alike = [&](const WeightSource& source) {
    const auto packed = PackedTypeOf(source.type);
    return packed && packed->kind == first->kind;
  };
  return std::ranges::all_of(sources, alike) ? first->kind : cuda::WeightKind::kBf16;
}

CudaWeight::CudaWeight(std::unique_ptr<CudaBuffer> buffer, cuda::WeightKind kind, uint32_t rows,
                       uint32_t cols)
    : buffer_(std::move(buffer)),
      kind_(kind),
      rows_(rows),
      cols_(cols),
      view_{reinterpret_cast<const uint8_t*>(buffer_->data()),
            kind == cuda::WeightKind::kBf16 ? nullptr
                                            : reinterpret_cast<const uint8_t*>(buffer_->data()) +
                                                  cuda::WeightCodeBytes(kind, rows, cols)} {}

Result<std::unique_ptr<CudaWeight>> CudaWeight::Load(std::span<const WeightSource> sources,
                                                     const std::shared_ptr<CudaPool>& memory,
                                                     ThreadPool& threads, CUstream_st* stream) {
  CHECK(!sources.empty());
  const uint32_t cols = sources[0].cols;
  const cuda::WeightKind kind = KindOfWeight(sources);
  if (cols % cuda::WeightColMultiple(kind) != 0) {
    return UnimplementedError("tensor '" + sources[0].name + "' has " + std::to_string(cols) +
                              " inputs; a CUDA device takes multiples of " +
                              std::to_string(cuda::WeightColMultiple(kind)));
  }
  uint32_t rows = 0;
  for (const WeightSource& source : sources) {
    CHECK(source.cols == cols) << source.name;
    rows += source.rows;
  }
  ASSIGN_OR_RETURN(auto buffer, CudaBuffer::Create(memory,
                                                   cuda::WeightCodeBytes(kind, rows, cols) +
                                                       cuda::WeightScaleBytes(kind, rows, cols),
                                                   "weight " + sources[0].name));
  std::unique_ptr<CudaWeight> weight(new CudaWeight(std::move(buffer), kind, rows, cols));
  if (kind == cuda::WeightKind::kBf16) {
    RETURN_IF_ERROR(weight->Fill(sources, threads, stream, weight->buffer_->data()));
    return weight;
  }
  RETURN_IF_ERROR(weight->Pack(sources, memory, stream));
  if (uint64_t{rows} * cols > kSmallNumbers) return weight;
  ASSIGN_OR_RETURN(
      weight->wide_,
      CudaBuffer::Create(memory, cuda::WeightCodeBytes(cuda::WeightKind::kBf16, rows, cols),
                         "weight " + sources[0].name));
  RETURN_IF_ERROR(weight->Fill(sources, threads, stream, weight->wide_->data()));
  return weight;
}

Status CudaWeight::Fill(std::span<const WeightSource> sources, ThreadPool& threads,
                        CUstream_st* stream, std::byte* to) const {
  std::vector<uint16_t> values(cuda::PaddedWeightRows(rows_) * cols_);
  uint64_t first = 0;
  for (const WeightSource& source : sources) {
    threads.ParallelFor((source.rows + kRowsOfItem - 1) / kRowsOfItem,
                        [&](uint32_t item, unsigned) {
                          const uint32_t begin = item * kRowsOfItem;
                          Unpack(source, begin, std::min(kRowsOfItem, source.rows - begin),
                                 values.data() + first * cols_);
                        });
    first += source.rows;
  }
  // On the stream that will read it: a plain cudaMemcpy of a small piece returns before it is there
  // (CUDA Runtime API, "API synchronization behavior"), and this stream does not wait for it.
  const Status begun =
      CudaStatus(cudaMemcpyAsync(to, values.data(), values.size() * sizeof(uint16_t),
                                 cudaMemcpyHostToDevice, stream),
                 "copy a weight");
  const Status done = CudaStatus(cudaStreamSynchronize(stream), "load a weight");
  return begun.ok() ? done : begun;
}

// Blocks go through a piece of device memory, some rows at a time.
Status CudaWeight::Pack(std::span<const WeightSource> sources,
                        const std::shared_ptr<CudaPool>& memory, CUstream_st* stream) {
  auto* const codes = reinterpret_cast<uint8_t*>(buffer_->data());
  uint8_t* const scales = codes + cuda::WeightCodeBytes(kind_, rows_, cols_);
  ASSIGN_OR_RETURN(const auto staged, CudaBuffer::Create(memory, kStagedBytes, "blocks"));
  Status status = CudaStatus(cudaMemsetAsync(codes, 0, buffer_->bytes(), stream), "clear a weight");
  uint32_t first = 0;
  for (const WeightSource& source : sources) {
    const uint64_t row_bytes = WeightRowBytes(source.type, cols_);
    const auto together = static_cast<uint32_t>(std::max<uint64_t>(kStagedBytes / row_bytes, 1));
    CHECK(row_bytes <= kStagedBytes) << row_bytes;
    for (uint32_t row = 0; row < source.rows && status.ok(); row += together) {
      const uint32_t count = std::min(together, source.rows - row);
      status = CudaStatus(cudaMemcpyAsync(staged->data(), source.bytes.data() + row * row_bytes,
                                          count * row_bytes, cudaMemcpyHostToDevice, stream),
                          "copy a weight");
      if (!status.ok()) break;
      status = CudaStatus(cuda::PackBlocks(kind_, PackedTypeOf(source.type)->layout,
                                           reinterpret_cast<const uint8_t*>(staged->data()), count,
                                           cols_, first + row, codes, scales, stream),
                          "pack a weight");
    }
    first += source.rows;
  }
  const Status done = CudaStatus(cudaStreamSynchronize(stream), "load a weight");
  return status.ok() ? done : status;
}

}  // namespace corpusd
