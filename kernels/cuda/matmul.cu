// Which kernel multiplies: by the rows of the call and the kind of the weight.
#include "kernels/cuda/matmul.h"

#include <cuda_runtime.h>

#include "kernels/cuda/early_launch.h"
#include "kernels/cuda/few_rows.cuh"
#include "kernels/cuda/many_rows.cuh"

namespace corpusd::cuda {
namespace {

constexpr uint32_t kManyTiles = 264;            // two for each multiprocessor of a Hopper device
constexpr uint32_t kUnaskedShared = 48 * 1024;  // what a kernel may have without being allowed more

template <WeightKind Kind, int Rows>
int LaunchMany(const MatMulCall& call, uint32_t tiles, CUstream_st* stream) {
  constexpr int kBytes = kStages * sizeof(ManyStage<Rows>);
  if (kBytes > kUnaskedShared) {
    if (const cudaError_t error = cudaFuncSetAttribute(
            ManyRowsKernel<Kind, Rows>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes)) {
      return error;
    }
  }
  const dim3 grid((call.out.cols + kOutputs - 1) / kOutputs, tiles);
  ManyRowsKernel<Kind, Rows><<<grid, 2 * Rows, kBytes, stream>>>(call);
  return cudaGetLastError();
}

template <WeightKind Kind, int Tiles>
int LaunchFew(const MatMulCall& call, uint32_t rows, uint32_t slots, CUstream_st* stream) {
  const uint32_t bytes = FewBytes(rows, FewInputs(rows, call.x.cols));
  if (bytes + kFewPartsBytes > kUnaskedShared) {
    if (const cudaError_t error =
            cudaFuncSetAttribute(FewRowsKernel<Kind, Tiles>,
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, kFewSharedBytes)) {
      return error;
    }
  }
  const dim3 grid((call.out.cols + kFewOutputs - 1) / kFewOutputs, slots);
  return LaunchEarly(FewRowsKernel<Kind, Tiles>, grid, kFewWarps * 32, bytes, stream, call);
}

template <WeightKind Kind>
int Multiply(const MatMulCall& call, CUstream_st* stream) {
  const uint32_t rows = call.x.rows;
  if (rows <= 8) return LaunchFew<Kind, 1>(call, rows, 1, stream);
  if (rows <= kFewMatMulRows) return LaunchFew<Kind, 2>(call, rows, 1, stream);
  // Small tiles where large ones would leave multiprocessors idle. No sum depends on it.
  const uint32_t large = (call.out.cols + kOutputs - 1) / kOutputs * ((rows + 63) / 64);
  return large < kManyTiles ? LaunchMany<Kind, 32>(call, (rows + 31) / 32, stream)
                            : LaunchMany<Kind, 64>(call, (rows + 63) / 64, stream);
}

template <WeightKind Kind>
int MultiplyExperts(const MatMulCall& call, bool few, CUstream_st* stream) {
  if (few) return LaunchFew<Kind, 1>(call, 1, call.experts.slots, stream);
  return call.experts.tile_rows == 32 ? LaunchMany<Kind, 32>(call, call.experts.tile_count, stream)
                                      : LaunchMany<Kind, 64>(call, call.experts.tile_count, stream);
}

}  // namespace

int MatMulRows(const MatMulCall& call, WeightKind kind, CUstream_st* stream) {
  switch (kind) {
    case WeightKind::kBf16:
      return Multiply<WeightKind::kBf16>(call, stream);
    case WeightKind::kGroup8:
      return Multiply<WeightKind::kGroup8>(call, stream);
    default:
      return Multiply<WeightKind::kGroup4>(call, stream);
  }
}

int MatMulExperts(const MatMulCall& call, WeightKind kind, bool few, CUstream_st* stream) {
  switch (kind) {
    case WeightKind::kBf16:
      return MultiplyExperts<WeightKind::kBf16>(call, few, stream);
    case WeightKind::kGroup8:
      return MultiplyExperts<WeightKind::kGroup8>(call, few, stream);
    default:
      return MultiplyExperts<WeightKind::kGroup4>(call, few, stream);
  }
}

}  // namespace corpusd::cuda
