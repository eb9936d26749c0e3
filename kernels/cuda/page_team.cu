// AttendTeamParts: pages in codes of 2 to 4 bits, of rows whose layer has no positions. Their
// queries are the same for every page, so they are brought into coordinates once; what is left of a
// page is its codes. A block takes a long stretch of one row's pages for one KV head, those whose
// keys and values are coded in one width. One warp asks for whole tiles by bulk copies, as far
// ahead as there is room, and finds what the means of their blocks add to scores. A page is the
// work of a team of warps: each scores some of the tokens (integer products with the keys' levels
// as bytes) and leaves their weights in shared memory; then each sums some dims of the values over
// all tokens. So a warp has few sums of its own, and warps are many: what one waits for others
// fill.
//
// 416 threads (352 at 64 dims), 113 KB of shared memory: two blocks a multiprocessor.
#include <cuda_runtime.h>

#include "kernels/cuda/team_group.cuh"

namespace corpusd::cuda {
namespace {

// What StorePart reads.
template <int Bits, int Dim>
struct TeamStates {
  static constexpr int kTeams = TeamShared<Bits, Dim>::kTeams;
  const float (&maxima)[kTeams][kHeads], (&sums)[kTeams][kHeads];
  const float (&outputs)[kTeams][kHeads][Dim];
};

// Block (part, KV head and eight of its query heads, row).
template <int Bits, int Dim>
__global__ void __launch_bounds__(TeamThreads(Dim), 2)
    TeamKernel(const __grid_constant__ PageAttention call) {
  extern __shared__ __align__(128) uint8_t memory[];
  using Shared = TeamShared<Bits, Dim>;
  auto& shared = *reinterpret_cast<Shared*>(memory);
  auto& fixed = shared.fixed;
  {
    const LongPart part(call);
    if (!part.any()) return;
    if (threadIdx.x == 0) fixed.part = part;  // for later: registers are few
    if (threadIdx.x < Shared::kSlots) {
      ptx::InitBarrier(&fixed.full[threadIdx.x], ptx::kWarpArrivals);
    }
    if (threadIdx.x < Shared::kStages) {
      ptx::InitBarrier(&fixed.empty[threadIdx.x], Shared::kTeamWarps * ptx::kWarpArrivals);
    }
    ptx::PublishBarriers();
    __syncthreads();
    if (threadIdx.x < 32 * TeamWorkers(Dim)) {
      BeginStill<Bits, Dim, 32 * TeamWorkers(Dim)>(
          &shared, part.Queries(call), part.heads, call.scale * kLog2E,
          call.basis.arrays + 2 * part.kv_head * BasisSideFloats(Dim));
    }
  }
  TeamWorker<Bits, Dim> worker(&shared);
  TeamSupply<Bits, Dim> supply(call, &shared);
  const bool supplies = threadIdx.x / 32 == TeamWorkers(Dim);
  if (supplies) supply.Begin();
  __syncthreads();  // the queries are in coordinates
  if (supplies) {
    supply.Run();
  } else {
    worker.Run();
  }
  __syncthreads();  // the stages are read
  if (!supplies) worker.Store();
  __syncthreads();
  constexpr int kTeams = Shared::kTeams;
  if (threadIdx.x < kTeams * kHeads) {
    const int team = threadIdx.x / kHeads, head = threadIdx.x % kHeads;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < Shared::kTeamWarps; ++w) sum += fixed.warp_sums[team][w][head];
    fixed.sums[team][head] = sum;
  }
  __syncthreads();
  const TeamStates<Bits, Dim> states{fixed.maxima, fixed.sums, shared.outputs};
  for (int h = 0; h < fixed.part.heads; ++h) {
    StorePart<Dim, kTeams>(fixed.part.State(call, PageKindOfBits(Bits), h), states, h);
  }
}

template <int Bits, int Dim>
int LaunchTeam(const PageAttention& call, CUstream_st* stream) {
  if (((call.kinds & ~LoneKinds(call)) >> PageKindOfBits(Bits) & 1) == 0) return cudaSuccess;
  constexpr int kBytes = sizeof(TeamShared<Bits, Dim>);
  static_assert(kBytes <= kStillSharedBytes);
  if (const cudaError_t error = cudaFuncSetAttribute(
          TeamKernel<Bits, Dim>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes)) {
    return error;
  }
  const dim3 grid(LongPartsMax(call.kv_blocks()), call.kv_blocks(), call.q.rows);
  TeamKernel<Bits, Dim><<<grid, TeamThreads(Dim), kBytes, stream>>>(call);
  return cudaGetLastError();
}

template <int Dim>
int LaunchWidths(const PageAttention& call, CUstream_st* stream) {
  if (const int error = LaunchTeam<2, Dim>(call, stream)) return error;
  if (const int error = LaunchTeam<3, Dim>(call, stream)) return error;
  return LaunchTeam<4, Dim>(call, stream);
}

}  // namespace

int AttendTeamParts(const PageAttention& call, CUstream_st* stream) {
  if (call.head_dim == 64) return LaunchWidths<64>(call, stream);
  if (call.head_dim == 128) return LaunchWidths<128>(call, stream);
  return cudaErrorInvalidValue;
}

}  // namespace corpusd::cuda
