// tests/support/fake_device_memory.h -- a device on the CPU: memory of its own, reached by
// addresses that the CPU must not follow, copies that run on a thread of their own when they like,
// errors and damage on order. For tests of the device tier where there is no accelerator.
// Thread-safe; copies must end before it does.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "store/device_memory.h"

namespace corpusd {

class FakeDeviceMemory final : public DeviceMemory {
 public:
  explicit FakeDeviceMemory(uint64_t capacity_bytes);
  ~FakeDeviceMemory() override;

  std::string_view name() const override { return "fake"; }
  Result<uint64_t> Allocate(uint64_t bytes) override;
  void Free(uint64_t address) override;
  std::unique_ptr<DeviceCopy> CopyIn(uint64_t address, std::span<const std::byte> source) override;
  std::unique_ptr<DeviceCopy> CopyOut(uint64_t address, std::span<std::byte> target) override;
  Status Verify(uint64_t address, uint64_t bytes, std::span<const uint32_t> crcs) override;

  // --- what a test orders and asks
  // The copies after the next `after` fail, `times` of them.
  void FailCopies(uint64_t after, uint64_t times);
  // Flips a bit of every piece in use.
  void DamageEverything();
  uint64_t used_bytes() const;
  uint64_t copies() const;

 private:
  class Copy;
  std::unique_ptr<DeviceCopy> Enqueue(std::function<Status()> work);
  // The piece that holds [address, address + bytes), and the offset in it.
  Result<std::byte*> PlaceLocked(uint64_t address, uint64_t bytes);
  void Work();

  const uint64_t capacity_bytes_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<uint64_t, std::vector<std::byte>> pieces_;  // by address
  uint64_t used_bytes_ = 0;
  uint64_t next_address_ = uint64_t{1} << 56;  // no address of this process
  uint64_t copies_ = 0, fail_after_ = 0, fail_times_ = 0;
  std::deque<std::function<void()>> queue_;
  bool stopping_ = false;
  std::jthread thread_;
};

}  // namespace corpusd
