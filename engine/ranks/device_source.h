// engine/ranks/device_source.h -- where ranks get what a device is to them: a backend, room for
// blocks in its memory, and the way from it to the devices of the other ranks. Tests have devices
// of their own. Any thread.
#pragma once

#include <memory>
#include <string>

#include "engine/backend/device_backend.h"
#include "engine/ranks/transport.h"

namespace corpusd {

// Memory of a device for copies of blocks; none: its backend reads them in the host's.
struct DeviceRoom {
  std::shared_ptr<DeviceMemory> memory;
  uint64_t bytes = 0;
};

class DeviceSource {
 public:
  virtual ~DeviceSource() = default;
  // As MakeBackend of device_backend.h.
  virtual Result<std::unique_ptr<Backend>> MakeBackend(const std::string& device,
                                                       const CpuBackendOptions& cpu,
                                                       DeviceLost on_lost) = 0;
  // bytes 0: half of what is free there.
  virtual Result<DeviceRoom> MakeRoom(const std::string& device, uint64_t bytes) = 0;
  // Between the devices of the ranks that `control` connects; null: control carries everything. All
  // ranks call alike, and it returns when all have.
  virtual Result<std::unique_ptr<Transport>> Connect(Transport& control, const std::string& device,
                                                     std::chrono::milliseconds timeout) = 0;
};

// CPUs, and CUDA devices through NCCL and its own bootstrap.
std::shared_ptr<DeviceSource> HostDevices();

}  // namespace corpusd
