#include "engine/backend/cuda/cuda_weight.h"

#include <cuda_runtime_api.h>

#include <string>
#include <vector>

#include "engine/backend/cuda/cuda_error.h"
#include "kernels/cuda/matmul.h"
#include "kernels/reference/dequantize.h"
#include "kernels/reference/kv_tile.h"
#include "store/base/check.h"

namespace corpusd {
namespace {

constexpr uint32_t kRowsOfItem = 64;

void Unpack(const WeightSource& source, uint32_t first, uint32_t rows, uint16_t* out) {
  const uint64_t row_bytes = WeightRowBytes(source.type, source.cols);
  std::vector<float> values(source.cols);
  for (uint32_t r = first; r < first + rows; ++r) {
    DequantizeRow(source.type, source.bytes.data() + r * row_bytes, values.data(), source.cols);
    uint16_t* const to = out + uint64_t{r} * source.cols;
    for (uint32_t c = 0; c < source.cols; ++c) to[c] = Bf16FromFloat(values[c]);
  }
}

}  // namespace

Result<std::unique_ptr<CudaWeight>> CudaWeight::Load(std::span<const WeightSource> sources,
                                                     const std::shared_ptr<CudaPool>& memory,
                                                     ThreadPool& threads) {
  CHECK(!sources.empty());
  const uint32_t cols = sources[0].cols;
  if (cols % cuda::kWeightColMultiple != 0) {
    return UnimplementedError("tensor '" + sources[0].name + "' has " + std::to_string(cols) +
                              " inputs; a CUDA device takes multiples of " +
                              std::to_string(cuda::kWeightColMultiple));
  }
  uint32_t rows = 0;
  for (const WeightSource& source : sources) {
    CHECK(source.cols == cols) << source.name;
    rows += source.rows;
  }
  const uint64_t padded = (uint64_t{rows} + cuda::kWeightRowMultiple - 1) /
                          cuda::kWeightRowMultiple * cuda::kWeightRowMultiple;
  std::vector<uint16_t> values(padded * cols);
  uint64_t first = 0;
  for (const WeightSource& source : sources) {
    threads.ParallelFor((source.rows + kRowsOfItem - 1) / kRowsOfItem,
                        [&](uint32_t item, unsigned) {
                          const uint32_t begin = item * kRowsOfItem;
                          Unpack(source, begin, std::min(kRowsOfItem, source.rows - begin),
                                 values.data() + first * cols);
                        });
    first += source.rows;
  }
  ASSIGN_OR_RETURN(auto buffer, CudaBuffer::Create(memory, values.size() * sizeof(uint16_t),
                                                   "weight " + sources[0].name));
  RETURN_IF_ERROR(CudaStatus(cudaMemcpy(buffer->data(), values.data(),
                                        values.size() * sizeof(uint16_t), cudaMemcpyHostToDevice),
                             "copy a weight"));
  return std::unique_ptr<CudaWeight>(new CudaWeight(std::move(buffer), rows, cols));
}

}  // namespace corpusd
