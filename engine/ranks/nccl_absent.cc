// A build without NCCL: ranks are CPUs.
#include "engine/ranks/nccl_transport.h"

namespace corpusd {
namespace {

Status Absent() {
  return FailedPreconditionError("this build was made without NCCL: ranks of CUDA devices need it");
}

}  // namespace

Result<NcclJobId> MakeNcclJobId() { return Absent(); }
Result<std::unique_ptr<Transport>> JoinNcclJob(const NcclJob& /*job*/) { return Absent(); }

}  // namespace corpusd
