#include "store/cuda/cuda_device_memory.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "store/base/check.h"
#include "store/base/units.h"
#include "store/cuda/device_crc32c.h"

namespace corpusd {
namespace {

constexpr uint64_t kAlignment = 256;
// What one half of a lane holds: long enough for a copy to run at the bus's speed, short enough for
// the next one to be filled meanwhile.
constexpr uint64_t kStageBytes = uint64_t{4} << 20;
constexpr uint32_t kPartsMax = 4096;

Status CudaStatus(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return OkStatus();
  const std::string text = std::string("cannot ") + what + ": " + cudaGetErrorString(error) + " (" +
                           cudaGetErrorName(error) + ")";
  return error == cudaErrorMemoryAllocation ? ResourceExhaustedError(text)
                                            : Status(StatusCode::kDeviceError, text);
}

// A stream with two pinned stages that take turns, and room for checksums. One user at a time.
class Lane {
 public:
  explicit Lane(int device) : device_(device) {}
  ~Lane() {
    cudaSetDevice(device_);
    if (stream_ != nullptr) cudaStreamSynchronize(stream_);
    for (int i = 0; i < 2; ++i) {
      if (passed_[i] != nullptr) cudaEventDestroy(passed_[i]);
    }
    cudaFreeHost(memory_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  Status Open() {
    Use();
    RETURN_IF_ERROR(
        CudaStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "make a stream"));
    RETURN_IF_ERROR(
        CudaStatus(cudaHostAlloc(&memory_, 2 * kStageBytes + kPartsMax * sizeof(uint32_t),
                                 cudaHostAllocPortable),
                   "allocate pinned memory"));
    for (cudaEvent_t& event : passed_) {
      RETURN_IF_ERROR(
          CudaStatus(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "make an event"));
    }
    return OkStatus();
  }
  void Use() const { cudaSetDevice(device_); }
  cudaStream_t stream() const { return stream_; }
  std::byte* stage(uint64_t turn) const {
    return static_cast<std::byte*>(memory_) + turn % 2 * kStageBytes;
  }
  uint32_t* crcs() const { return reinterpret_cast<uint32_t*>(stage(0) + 2 * kStageBytes); }
  // Waits until the stage's last copy is done; notes a copy that was begun.
  Status Await(uint64_t turn) {
    return CudaStatus(cudaEventSynchronize(passed_[turn % 2]), "copy a block");
  }
  Status Note(uint64_t turn) {
    return CudaStatus(cudaEventRecord(passed_[turn % 2], stream_), "copy a block");
  }

 private:
  const int device_;
  cudaStream_t stream_ = nullptr;
  void* memory_ = nullptr;
  cudaEvent_t passed_[2] = {};
};

class CudaDeviceMemory final : public DeviceMemory {
 public:
  CudaDeviceMemory(int device, std::byte* arena, uint64_t bytes)
      : device_(device), name_("cuda:" + std::to_string(device)), arena_(arena) {
    free_[0] = bytes;
  }
  ~CudaDeviceMemory() override {
    lanes_.clear();
    cudaSetDevice(device_);
    cudaFree(arena_);
  }

  std::string_view name() const override { return name_; }
  Result<uint64_t> Allocate(uint64_t bytes) override;
  void Free(uint64_t address) override;
  std::unique_ptr<DeviceCopy> CopyIn(uint64_t address, std::span<const std::byte> source) override;
  std::unique_ptr<DeviceCopy> CopyOut(uint64_t address, std::span<std::byte> target) override;
  Status Verify(uint64_t address, uint64_t bytes, std::span<const uint32_t> crcs) override;
  bool Pin(std::span<std::byte> frame) override;
  void Unpin(std::span<std::byte> memory) override;

 private:
  friend class LaneHold;
  Result<std::unique_ptr<Lane>> TakeLane();
  // Copies between the lane's stages, or pinned memory itself, and the device.
  Status Fill(Lane& lane, uint64_t address, std::span<const std::byte> source);
  Status Drain(Lane& lane, uint64_t address, std::span<std::byte> target);
  bool IsPinnedLocked(const std::byte* memory) const {
    return pinned_.contains(reinterpret_cast<uintptr_t>(memory) / kPinFrameBytes * kPinFrameBytes);
  }

  const int device_;
  const std::string name_;
  std::byte* const arena_;
  std::mutex mutex_;
  std::map<uint64_t, uint64_t> free_;  // offset -> bytes; neighbours are joined
  std::map<uint64_t, uint64_t> used_;
  std::vector<std::unique_ptr<Lane>> lanes_;  // idle
  uint32_t lanes_out_ = 0;
  std::condition_variable lane_back_;
  std::set<uintptr_t> pinned_;  // frames
};

// A lane that goes back when it is done.
class LaneHold {
 public:
  LaneHold(CudaDeviceMemory& memory, std::unique_ptr<Lane> lane)
      : memory_(memory), lane_(std::move(lane)) {}
  ~LaneHold() {
    if (lane_ == nullptr) return;
    lane_->Use();
    cudaStreamSynchronize(lane_->stream());
    {
      const std::lock_guard lock(memory_.mutex_);
      memory_.lanes_.push_back(std::move(lane_));
      --memory_.lanes_out_;
    }
    memory_.lane_back_.notify_all();
  }
  LaneHold(LaneHold&& other) = default;
  LaneHold& operator=(LaneHold&&) = delete;
  Lane* operator->() const { return lane_.get(); }
  Lane& operator*() const { return *lane_; }

 private:
  CudaDeviceMemory& memory_;
  std::unique_ptr<Lane> lane_;
};

// Begun copies of a block; for copies out, the second half, out of the stages, is in Wait.
class CudaCopy final : public DeviceCopy {
 public:
  CudaCopy(Status begun, std::unique_ptr<LaneHold> lane)
      : begun_(std::move(begun)), lane_(std::move(lane)) {}
  ~CudaCopy() override { (void)Wait(); }
  Status Wait() override {
    if (lane_ == nullptr) return begun_;
    (*lane_)->Use();
    const Status status = CudaStatus(cudaStreamSynchronize((*lane_)->stream()), "copy a block");
    lane_.reset();
    if (begun_.ok()) begun_ = status;
    return begun_;
  }

 private:
  Status begun_;
  std::unique_ptr<LaneHold> lane_;
};

Result<std::unique_ptr<Lane>> CudaDeviceMemory::TakeLane() {
  {
    const std::lock_guard lock(mutex_);
    if (!lanes_.empty()) {
      auto lane = std::move(lanes_.back());
      lanes_.pop_back();
      ++lanes_out_;
      return lane;
    }
  }
  auto lane = std::make_unique<Lane>(device_);
  RETURN_IF_ERROR(lane->Open());
  const std::lock_guard lock(mutex_);
  ++lanes_out_;
  return lane;
}

bool CudaDeviceMemory::Pin(std::span<std::byte> frame) {
  cudaSetDevice(device_);
  if (cudaHostRegister(frame.data(), frame.size(), cudaHostRegisterPortable) != cudaSuccess) {
    (void)cudaGetLastError();  // copies take the detour
    return false;
  }
  const std::lock_guard lock(mutex_);
  pinned_.insert(reinterpret_cast<uintptr_t>(frame.data()));
  return true;
}

void CudaDeviceMemory::Unpin(std::span<std::byte> memory) {
  const auto first = reinterpret_cast<uintptr_t>(memory.data()) / kPinFrameBytes * kPinFrameBytes;
  const auto end = reinterpret_cast<uintptr_t>(memory.data() + memory.size());
  cudaSetDevice(device_);
  std::unique_lock lock(mutex_);
  for (auto frame = pinned_.lower_bound(first); frame != pinned_.end() && *frame < end;) {
    lane_back_.wait(lock, [&] { return lanes_out_ == 0; });
    cudaHostUnregister(reinterpret_cast<void*>(*frame));
    frame = pinned_.erase(frame);
  }
}

// First fit: blocks of a corpus have one size, so what one leaves the next takes.
Result<uint64_t> CudaDeviceMemory::Allocate(uint64_t bytes) {
  const uint64_t size = (std::max<uint64_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  const std::lock_guard lock(mutex_);
  for (auto [offset, free] : free_) {
    if (free < size) continue;
    free_.erase(offset);
    if (free > size) free_[offset + size] = free - size;
    used_[offset] = size;
    return reinterpret_cast<uint64_t>(arena_) + offset;
  }
  return ResourceExhaustedError(name_ + " has no " + FormatBytes(bytes) +
                                " in one piece left for blocks: raise --device-bytes");
}

void CudaDeviceMemory::Free(uint64_t address) {
  const uint64_t offset = address - reinterpret_cast<uint64_t>(arena_);
  const std::lock_guard lock(mutex_);
  const auto piece = used_.find(offset);
  CHECK(piece != used_.end()) << address;
  uint64_t begin = offset, bytes = piece->second;
  used_.erase(piece);
  const auto next = free_.lower_bound(begin);
  if (next != free_.end() && next->first == begin + bytes) {
    bytes += next->second;
    free_.erase(next);
  }
  const auto after = free_.lower_bound(begin);
  if (after != free_.begin()) {
    const auto before = std::prev(after);
    if (before->first + before->second == begin) {
      begin = before->first;
      bytes += before->second;
      free_.erase(before);
    }
  }
  free_[begin] = bytes;
}

// Bytes from `memory` on that one copy may take: to the end of the frame, and no more than a stage
// if it is not pinned.
uint64_t PieceBytes(const std::byte* memory, uint64_t left, bool pinned) {
  const uint64_t frame_left = kPinFrameBytes - reinterpret_cast<uintptr_t>(memory) % kPinFrameBytes;
  return std::min({left, frame_left, pinned ? kPinFrameBytes : kStageBytes});
}

Status CudaDeviceMemory::Fill(Lane& lane, uint64_t address, std::span<const std::byte> source) {
  uint64_t turn = 0, bytes = 0;
  for (uint64_t at = 0; at < source.size(); at += bytes) {
    const std::byte* from = source.data() + at;
    bool pinned = false;
    {
      const std::lock_guard lock(mutex_);
      pinned = IsPinnedLocked(from);
    }
    bytes = PieceBytes(from, source.size() - at, pinned);
    if (!pinned) {
      RETURN_IF_ERROR(lane.Await(turn));
      std::memcpy(lane.stage(turn), from, bytes);
      from = lane.stage(turn);
    }
    RETURN_IF_ERROR(CudaStatus(cudaMemcpyAsync(reinterpret_cast<void*>(address + at), from, bytes,
                                               cudaMemcpyHostToDevice, lane.stream()),
                               "copy a block"));
    if (!pinned) RETURN_IF_ERROR(lane.Note(turn++));
  }
  return OkStatus();
}

std::unique_ptr<DeviceCopy> CudaDeviceMemory::CopyIn(uint64_t address,
                                                     std::span<const std::byte> source) {
  auto taken = TakeLane();
  if (!taken.ok()) return std::make_unique<CudaCopy>(taken.status(), nullptr);
  auto lane = std::make_unique<LaneHold>(*this, std::move(*taken));
  (*lane)->Use();
  Status begun = Fill(**lane, address, source);
  return std::make_unique<CudaCopy>(std::move(begun), std::move(lane));
}

// Stage n is emptied while stage n + 1 fills.
Status CudaDeviceMemory::Drain(Lane& lane, uint64_t address, std::span<std::byte> target) {
  std::span<std::byte> full;  // what the last stage is for
  uint64_t turn = 0, bytes = 0;
  const auto empty = [&]() -> Status {
    if (full.empty()) return OkStatus();
    RETURN_IF_ERROR(lane.Await(turn - 1));
    std::memcpy(full.data(), lane.stage(turn - 1), full.size());
    full = {};
    return OkStatus();
  };
  for (uint64_t at = 0; at < target.size(); at += bytes) {
    std::byte* const to = target.data() + at;
    bool pinned = false;
    {
      const std::lock_guard lock(mutex_);
      pinned = IsPinnedLocked(to);
    }
    bytes = PieceBytes(to, target.size() - at, pinned);
    RETURN_IF_ERROR(CudaStatus(
        cudaMemcpyAsync(pinned ? to : lane.stage(turn), reinterpret_cast<const void*>(address + at),
                        bytes, cudaMemcpyDeviceToHost, lane.stream()),
        "copy a block"));
    if (pinned) continue;
    RETURN_IF_ERROR(lane.Note(turn));
    RETURN_IF_ERROR(empty());
    ++turn;
    full = {to, bytes};
  }
  return empty();
}

std::unique_ptr<DeviceCopy> CudaDeviceMemory::CopyOut(uint64_t address,
                                                      std::span<std::byte> target) {
  auto taken = TakeLane();
  if (!taken.ok()) return std::make_unique<CudaCopy>(taken.status(), nullptr);
  auto lane = std::make_unique<LaneHold>(*this, std::move(*taken));
  (*lane)->Use();
  Status copied = Drain(**lane, address, target);
  return std::make_unique<CudaCopy>(std::move(copied), std::move(lane));
}

Status CudaDeviceMemory::Verify(uint64_t address, uint64_t bytes, std::span<const uint32_t> crcs) {
  CHECK(!crcs.empty() && bytes % crcs.size() == 0) << bytes << " in " << crcs.size();
  const uint64_t part = bytes / crcs.size();
  if (part % 16 != 0) {
    return UnimplementedError("sections of " + std::to_string(part) +
                              " bytes cannot be checked on the device: no multiple of 16");
  }
  ASSIGN_OR_RETURN(auto taken, TakeLane());
  const LaneHold lane(*this, std::move(taken));
  lane->Use();
  for (size_t first = 0; first < crcs.size(); first += kPartsMax) {
    const auto count = static_cast<uint32_t>(std::min<size_t>(kPartsMax, crcs.size() - first));
    const int launched =
        cuda::DeviceCrc32c(lane->crcs(), reinterpret_cast<const void*>(address + first * part),
                           part, count, lane->stream());
    RETURN_IF_ERROR(CudaStatus(static_cast<cudaError_t>(launched), "check a block"));
    RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(lane->stream()), "check a block"));
    for (uint32_t i = 0; i < count; ++i) {
      if (lane->crcs()[i] == crcs[first + i]) continue;
      return CorruptionError("checksum of section " + std::to_string(first + i) +
                             " differs on the device");
    }
  }
  return OkStatus();
}

}  // namespace

Result<std::shared_ptr<DeviceMemory>> MakeCudaDeviceMemory(int index, uint64_t bytes,
                                                           uint64_t* taken_bytes) {
  *taken_bytes = 0;
  RETURN_IF_ERROR(CudaStatus(cudaSetDevice(index), "choose the device"));
  size_t free = 0, total = 0;
  RETURN_IF_ERROR(CudaStatus(cudaMemGetInfo(&free, &total), "ask for the device's memory"));
  if (bytes == 0) bytes = free / 2;
  bytes = bytes / kAlignment * kAlignment;
  void* arena = nullptr;
  const cudaError_t error = cudaMalloc(&arena, bytes);
  if (error != cudaSuccess) {
    (void)cudaGetLastError();
    return CudaStatus(error, "allocate the device tier")
        .WithContext("cuda:" + std::to_string(index) + " has " + FormatBytes(free) +
                     " free, --device-bytes asks for " + FormatBytes(bytes));
  }
  *taken_bytes = bytes;
  return std::shared_ptr<DeviceMemory>(
      std::make_shared<CudaDeviceMemory>(index, static_cast<std::byte*>(arena), bytes));
}

}  // namespace corpusd
