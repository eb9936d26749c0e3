// engine/ranks/nccl_transport.h -- ranks that are CUDA devices, of one host or several, through
// NCCL and its own bootstrap. Bytes are device memory of the rank's device, and a transfer runs on
// a stream of the transport's own, beside what the device computes: what is sent must be complete
// before, and Wait waits on the host; or, by RunOn, on a stream of the device, in its order.
// Transfers posted one after the other begin together, at Start or at the first Wait. Sums are
// added in NCCL's order. One thread per Transport, but Abort.
#pragma once

#include <array>
#include <memory>

#include "engine/ranks/transport.h"

namespace corpusd {

// What rank 0 makes and tells all others before any of them joins.
using NcclJobId = std::array<char, 128>;
Result<NcclJobId> MakeNcclJobId();

struct NcclJob {
  NcclJobId id = {};
  uint32_t rank = 0;
  uint32_t size = 1;
  int device = 0;  // of this rank; no two ranks may share one
  std::chrono::milliseconds transfer_timeout = kTransferTimeout;
};

// Returns when all ranks have joined. NVLink multicast stays off unless NCCL_NVLS_ENABLE says
// otherwise. kDeviceError, with what NCCL says.
Result<std::unique_ptr<Transport>> JoinNcclJob(const NcclJob& job);

}  // namespace corpusd
