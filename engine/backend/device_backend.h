// engine/backend/device_backend.h -- chooses where a model runs: "cpu", "cuda:N", or "auto", which
// is the first CUDA device if this build knows CUDA and the host has one, else the CPU. What a CUDA
// device does is behind MakeCudaBackend, which builds without CUDA have as a refusal. Any thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "engine/backend/backend.h"
#include "engine/backend/cpu_backend.h"
#include "store/device_memory.h"

namespace corpusd {

// The number of the CUDA device that `device` means on this host; none: the CPU.
// kInvalidArgument: no such name; kFailedPrecondition: the host or this build has no such device.
Result<std::optional<int>> ResolveDevice(std::string_view device);

// CUDA devices of this host; 0 in a build without CUDA.
int CudaDeviceCount();

// Told once, by the thread that found out, that a device does not answer any more. May be empty.
using DeviceLost = std::function<void(const Status& why)>;

// The backend for EngineOptions.device; cpu: for the CPU. Errors: as ResolveDevice, and those of
// the backend.
Result<std::unique_ptr<Backend>> MakeBackend(std::string_view device, const CpuBackendOptions& cpu,
                                             DeviceLost on_lost = {});

// Device `index` as a Backend; `threads` repack weights (0: all cores). kFailedPrecondition: there
// is none; kUnimplemented: it is older than this build's kernels.
Result<std::unique_ptr<Backend>> MakeCudaBackend(int index, unsigned threads,
                                                 DeviceLost on_lost = {});

}  // namespace corpusd
