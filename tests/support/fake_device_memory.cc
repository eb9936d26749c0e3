#include "tests/support/fake_device_memory.h"

#include <cstring>
#include <future>
#include <string>

#include "store/base/crc32c.h"

namespace corpusd {

class FakeDeviceMemory::Copy final : public DeviceCopy {
 public:
  explicit Copy(std::future<Status> done) : done_(std::move(done)) {}
  ~Copy() override {
    if (done_.valid()) done_.wait();
  }
  Status Wait() override { return done_.get(); }

 private:
  std::future<Status> done_;
};

FakeDeviceMemory::FakeDeviceMemory(uint64_t capacity_bytes)
    : capacity_bytes_(capacity_bytes), thread_([this] { Work(); }) {}

FakeDeviceMemory::~FakeDeviceMemory() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
}

void FakeDeviceMemory::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    const auto work = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    work();
    lock.lock();
  }
}

Result<uint64_t> FakeDeviceMemory::Allocate(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (used_bytes_ + bytes > capacity_bytes_) {
    return ResourceExhaustedError("the fake device is full: " + std::to_string(used_bytes_) +
                                  " of " + std::to_string(capacity_bytes_) + " bytes are used");
  }
  used_bytes_ += bytes;
  const uint64_t address = next_address_;
  next_address_ += (bytes + 511) / 256 * 256;  // pieces do not touch
  pieces_[address].resize(bytes, std::byte{0xa5});
  return address;
}

void FakeDeviceMemory::Free(uint64_t address) {
  const std::lock_guard lock(mutex_);
  const auto piece = pieces_.find(address);
  used_bytes_ -= piece->second.size();
  pieces_.erase(piece);
}

Result<std::byte*> FakeDeviceMemory::PlaceLocked(uint64_t address, uint64_t bytes) {
  auto piece = pieces_.upper_bound(address);
  if (piece == pieces_.begin()) return Status(StatusCode::kDeviceError, "no such address");
  --piece;
  const uint64_t offset = address - piece->first;
  if (offset + bytes > piece->second.size()) {
    return Status(StatusCode::kDeviceError, "outside of every piece");
  }
  return piece->second.data() + offset;
}

std::unique_ptr<DeviceCopy> FakeDeviceMemory::Enqueue(std::function<Status()> work) {
  auto promise = std::make_shared<std::promise<Status>>();
  auto copy = std::make_unique<Copy>(promise->get_future());
  {
    const std::lock_guard lock(mutex_);
    ++copies_;
    bool fails = false;
    if (fail_after_ > 0) {
      --fail_after_;
    } else if (fail_times_ > 0) {
      --fail_times_;
      fails = true;
    }
    queue_.emplace_back([promise, work = std::move(work), fails] {
      promise->set_value(fails ? Status(StatusCode::kDeviceError, "the fake device failed")
                               : work());
    });
  }
  changed_.notify_all();
  return copy;
}

std::unique_ptr<DeviceCopy> FakeDeviceMemory::CopyIn(uint64_t address,
                                                     std::span<const std::byte> source) {
  return Enqueue([this, address, source]() -> Status {
    const std::lock_guard lock(mutex_);
    ASSIGN_OR_RETURN(std::byte* const place, PlaceLocked(address, source.size()));
    std::memcpy(place, source.data(), source.size());
    return OkStatus();
  });
}

std::unique_ptr<DeviceCopy> FakeDeviceMemory::CopyOut(uint64_t address,
                                                      std::span<std::byte> target) {
  return Enqueue([this, address, target]() -> Status {
    const std::lock_guard lock(mutex_);
    ASSIGN_OR_RETURN(const std::byte* const place, PlaceLocked(address, target.size()));
    std::memcpy(target.data(), place, target.size());
    return OkStatus();
  });
}

Status FakeDeviceMemory::Verify(uint64_t address, uint64_t bytes, std::span<const uint32_t> crcs) {
  const std::lock_guard lock(mutex_);
  ASSIGN_OR_RETURN(const std::byte* const place, PlaceLocked(address, bytes));
  const size_t part = bytes / crcs.size();
  for (size_t i = 0; i < crcs.size(); ++i) {
    if (Crc32c({place + i * part, part}) != crcs[i]) {
      return CorruptionError("checksum of section " + std::to_string(i) + " differs on the device");
    }
  }
  return OkStatus();
}

void FakeDeviceMemory::FailCopies(uint64_t after, uint64_t times) {
  const std::lock_guard lock(mutex_);
  fail_after_ = after;
  fail_times_ = times;
}

void FakeDeviceMemory::DamageEverything() {
  const std::lock_guard lock(mutex_);
  for (auto& [address, piece] : pieces_) piece[piece.size() / 2] ^= std::byte{1};
}

uint64_t FakeDeviceMemory::used_bytes() const {
  const std::lock_guard lock(mutex_);
  return used_bytes_;
}

uint64_t FakeDeviceMemory::copies() const {
  const std::lock_guard lock(mutex_);
  return copies_;
}

}  // namespace corpusd
