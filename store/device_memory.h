// store/device_memory.h -- an accelerator's memory as the store sees it: pieces of bytes, copies in
// and out that run while the caller goes on, and checksums computed where the bytes are. Knows no
// block and no format. Thread-safe. An implementation wraps one device (or, for tests, a memory of
// its own on the CPU) and translates its errors to kDeviceError.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "store/base/result.h"

namespace corpusd {

// Memory of the host is pinned in frames of so many bytes, aligned to as many: what lies in one
// frame is pinned as a whole or not at all. A copy that crosses a border is cut there.
inline constexpr uint64_t kPinFrameBytes = uint64_t{32} << 20;

// A copy under way. The host's bytes must stay until Wait returned.
class DeviceCopy {
 public:
  virtual ~DeviceCopy() = default;  // waits
  virtual Status Wait() = 0;        // kDeviceError: the target holds anything
};

class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  virtual std::string_view name() const = 0;  // such as "cuda:0"

  // RETURNS the device's address of so many bytes, aligned to 256: a number to hand to the device,
  // never to follow on the CPU. kResourceExhausted: the device is full, whatever the tier's cap.
  virtual Result<uint64_t> Allocate(uint64_t bytes) = 0;
  virtual void Free(uint64_t address) = 0;

  // Begin to copy, and return at once; errors of the start come with Wait.
  virtual std::unique_ptr<DeviceCopy> CopyIn(uint64_t address,
                                             std::span<const std::byte> source) = 0;
  virtual std::unique_ptr<DeviceCopy> CopyOut(uint64_t address, std::span<std::byte> target) = 0;
  // Makes a frame of the host's memory (kPinFrameBytes) one that copies reach without a detour.
  // RETURNS whether it is; it is kept so until Unpin. The memory must be there.
  virtual bool Pin(std::span<std::byte> frame) {
    (void)frame;
    return false;
  }
  // Undoes Pin of all frames that lie in or reach into this memory, when no copy is under way
  // there.
  virtual void Unpin(std::span<std::byte> memory) { (void)memory; }
  // Compares the CRC32C of equal parts of [address, address + bytes) with crcs, on the device.
  // kCorruption names the first part that differs.
  virtual Status Verify(uint64_t address, uint64_t bytes, std::span<const uint32_t> crcs) = 0;
};

}  // namespace corpusd
