// kernels/cuda/ptx/dependent_launch.cuh -- a kernel that is launched while the one before it ends
// (programmatic dependent launch: PTX ISA 9.0, section griddepcontrol).
#pragma once

namespace corpusd::cuda::ptx {

// Until all that kernels before this one wrote is there.
__device__ __forceinline__ void AwaitKernelBefore() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}
// This block needs no more of the multiprocessor than it has: blocks of the next kernel may come.
__device__ __forceinline__ void AdmitKernelBehind() {
  asm volatile("griddepcontrol.launch_dependents;");
}

// The begin of a small kernel: what it has to wait for is not its launch.
__device__ __forceinline__ void BeginBehind() {
  AdmitKernelBehind();
  AwaitKernelBefore();
}

}  // namespace corpusd::cuda::ptx
