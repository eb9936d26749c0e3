#include "engine/backend/device_backend.h"

#include <charconv>

namespace corpusd {

Result<std::optional<int>> ResolveDevice(std::string_view device) {
  if (device == "cpu") return std::optional<int>();
  const int count = CudaDeviceCount();
  if (device == "auto") return count == 0 ? std::optional<int>() : std::optional<int>(0);
  constexpr std::string_view kCuda = "cuda:";
  int index = -1;
  if (device.starts_with(kCuda)) {
    const std::string_view number = device.substr(kCuda.size());
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), index);
    if (error != std::errc() || end != number.data() + number.size()) index = -1;
  }
  if (index < 0) {
    return InvalidArgumentError("device '" + std::string(device) +
                                "' is not known: auto, cpu and cuda:N are");
  }
  if (index < count) return std::optional<int>(index);
  return FailedPreconditionError("device '" + std::string(device) + "': " +
                                 (count == 0 ? std::string("this host has no CUDA device, or this "
                                                           "build was made without CUDA")
                                             : "this host has " + std::to_string(count)) +
                                 "; use 'cpu'");
}

Result<std::unique_ptr<Backend>> MakeBackend(std::string_view device, const CpuBackendOptions& cpu,
                                             DeviceLost on_lost) {
  ASSIGN_OR_RETURN(const std::optional<int> index, ResolveDevice(device));
  if (!index.has_value()) return MakeCpuBackend(cpu);
  return MakeCudaBackend(*index, cpu.threads, std::move(on_lost));
}

}  // namespace corpusd
