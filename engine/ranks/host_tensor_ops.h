// engine/ranks/host_tensor_ops.h -- TensorOps of a backend whose memory the host addresses: every
// call is over when it returns. For CPUs in the place of devices, in tests; also any Transport
// between such as a DeviceLink. As thread-safe as the backend.
#pragma once

#include <memory>

#include "engine/backend/expert_routing.h"
#include "engine/backend/tensor_ops.h"
#include "engine/ranks/transport.h"

namespace corpusd {

class HostTensorOps final : public TensorOps {
 public:
  // backend must outlive this.
  explicit HostTensorOps(Backend& backend) : backend_(backend) {}

  void Exchange(DeviceLink& link, std::span<const DeviceMessage> messages) override;
  void Gather(DeviceLink& link, std::span<const DeviceParts> parts) override;
  void CopyColumns(MatrixView out, MatrixView in, std::span<const ColumnPiece> pieces) override;
  MatrixView RaiseExperts(const ExpertParts& parts) override;
  void LowerExperts(MatrixView out, const ExpertParts& parts) override;
  Status error() const override { return error_; }

 private:
  // Rows that a product of an expert's is made with: as many as decide its arithmetic.
  uint32_t PaddedRows(uint32_t rows, uint32_t call_rows) const;

  Backend& backend_;
  std::vector<ExpertRows> routed_;  // of the mixture under way
  std::vector<float> activated_, padded_, made_;
  Status error_;
};

// transport must outlive it.
std::unique_ptr<DeviceLink> LinkOver(Transport& transport);

}  // namespace corpusd
