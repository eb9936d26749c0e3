#include "engine/ranks/device_source.h"

#include "engine/ranks/nccl_transport.h"
#include "store/cuda/cuda_device_memory.h"

namespace corpusd {
namespace {

class HostDeviceSource final : public DeviceSource {
 public:
  Result<std::unique_ptr<Backend>> MakeBackend(const std::string& device,
                                               const CpuBackendOptions& cpu,
                                               DeviceLost on_lost) override {
    return corpusd::MakeBackend(device, cpu, std::move(on_lost));
  }

  Result<DeviceRoom> MakeRoom(const std::string& device, uint64_t bytes) override {
    ASSIGN_OR_RETURN(const std::optional<int> index, ResolveDevice(device));
    DeviceRoom room;
    if (!index.has_value()) return room;
    ASSIGN_OR_RETURN(room.memory, MakeCudaDeviceMemory(*index, bytes, &room.bytes));
    return room;
  }

  Result<std::unique_ptr<Transport>> Connect(Transport& control, const std::string& device,
                                             std::chrono::milliseconds timeout) override {
    ASSIGN_OR_RETURN(const std::optional<int> index, ResolveDevice(device));
    if (!index.has_value()) return std::unique_ptr<Transport>();
    NcclJob job;
    job.rank = control.rank();
    job.size = control.size();
    job.device = *index;
    job.transfer_timeout = timeout;
    if (job.rank == 0) {
      ASSIGN_OR_RETURN(job.id, MakeNcclJobId());
    }
    RETURN_IF_ERROR(control.Broadcast(0, std::as_writable_bytes(std::span(job.id))));
    return JoinNcclJob(job);
  }
};

}  // namespace

std::shared_ptr<DeviceSource> HostDevices() { return std::make_shared<HostDeviceSource>(); }

}  // namespace corpusd
