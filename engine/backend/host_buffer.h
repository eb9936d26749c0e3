// engine/backend/host_buffer.h -- a Buffer of host memory, zeroed, 64-byte aligned, in huge pages
// where the system grants them. Owned by whoever holds it; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "engine/backend/buffer.h"
#include "store/base/result.h"

namespace corpusd {

class HostBuffer : public Buffer {
 public:
  // kResourceExhausted if the system has no such memory; `purpose` is named in the message.
  static Result<std::unique_ptr<HostBuffer>> Create(uint64_t bytes, std::string_view purpose);
  // The data of a buffer that is made anew where it is null or smaller: for scratch that grows to
  // the largest call and stays. No memory for it is a CHECK.
  static std::byte* Grow(std::unique_ptr<HostBuffer>& buffer, uint64_t bytes);
  ~HostBuffer() override;
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;

  std::byte* data() override { return data_; }
  const std::byte* data() const { return data_; }
  uint64_t bytes() const override { return bytes_; }

 private:
  HostBuffer(std::byte* data, uint64_t bytes, uint64_t mapped_bytes)
      : data_(data), bytes_(bytes), mapped_bytes_(mapped_bytes) {}

  std::byte* data_;
  uint64_t bytes_;
  uint64_t mapped_bytes_;
};

}  // namespace corpusd
