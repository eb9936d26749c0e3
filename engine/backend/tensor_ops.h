// engine/backend/tensor_ops.h -- what a device does beyond Backend where several have parts of one
// model's weights: messages between them in the order of its own calls, columns put where they
// belong, and a mixture of experts in two halves, between which devices exchange what they have. As
// Backend, one caller at a time.
#pragma once

#include <functional>
#include <span>

#include "engine/backend/backend.h"

namespace corpusd {

// One message of an exchange, between memory of this device and that of another.
struct DeviceMessage {
  uint32_t other = 0;  // rank
  uint32_t sends = 0;  // 1: to it; 0: from it
  std::byte* data = nullptr;
  uint64_t bytes = 0;
};
inline constexpr uint32_t kDevicesMax = 8;
inline constexpr uint32_t kDeviceMessagesMax = 2 * (kDevicesMax - 1);  // both ways with each
// Memory for as many bytes of every device, by rank, of which the own ones are there.
struct DeviceParts {
  std::byte* data = nullptr;  // [ranks][bytes]
  uint64_t bytes = 0;
};
inline constexpr uint32_t kDevicePartsMax = 2;  // that are gathered at once

// The way from one device to the others.
class DeviceLink {
 public:
  virtual ~DeviceLink() = default;
  // Puts an exchange on a stream of the device, where it may be captured in a graph; devices whose
  // memory is the host's have no stream, and it is over when this returns. All messages go at once.
  // RETURNS a cudaError_t; 0: no error.
  virtual int Enqueue(std::span<const DeviceMessage> messages, void* stream) = 0;
  // The same for every device's bytes to all. All devices call alike.
  virtual int Gather(std::span<const DeviceParts> parts, void* stream) = 0;
};

struct ColumnPiece {
  uint32_t from = 0, to = 0, count = 0;
};

// ExpertInput with its weights one by one: whole ones, or of each the same share of the outputs.
struct ExpertParts {
  ExpertInput input;
  std::span<const Weight* const> gate_up;  // [experts], [2 own, hidden]
  std::span<const Weight* const> down;     // [experts], [outputs, f]
  uint32_t first = 0;                      // of the f inner numbers, the first of `own`
};

class TensorOps {
 public:
  virtual ~TensorOps() = default;

  // In the order of the device's calls. At most kDeviceMessagesMax.
  virtual void Exchange(DeviceLink& link, std::span<const DeviceMessage> messages) = 0;
  // The same; at most kDevicePartsMax.
  virtual void Gather(DeviceLink& link, std::span<const DeviceParts> parts) = 0;
  // out[:, to .. to + count) = in[:, from .. from + count). At most four pieces; all numbers are
  // multiples of 4, and the matrices lie in no memory of each other.
  virtual void CopyColumns(MatrixView out, MatrixView in, std::span<const ColumnPiece> pieces) = 0;
  // MixExperts, up to the inner numbers: [slots, f] on the device, a row for each expert of each
  // row; columns [first, first + own) are computed, the others are left for others to fill.
  virtual MatrixView RaiseExperts(const ExpertParts& parts) = 0;
  // The rest of the last RaiseExperts: out[n, outputs] += what the experts make of it.
  virtual void LowerExperts(MatrixView out, const ExpertParts& parts) = 0;

  // Whether calls are only noted, to be launched together; Launch launches them, and those that
  // follow, at once. told: called whenever a device ends that by itself.
  virtual bool gathers() const { return false; }
  virtual void Launch() {}
  virtual void OnLaunch(std::function<void()> /*told*/) {}
  // What Synchronize would return, as far as is known.
  virtual Status error() const { return OkStatus(); }
  // Lets go of what was prepared over links that will go.
  virtual void ForgetSteps() {}
};

// What the backend has of it, or null.
inline TensorOps* TensorOpsOf(Backend& backend) { return dynamic_cast<TensorOps*>(&backend); }

}  // namespace corpusd
