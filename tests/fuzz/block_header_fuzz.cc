// Any bytes as a stored block: parsed with limits, or refused in one sentence. What parses must
// encode to the same bytes again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "store/base/crc32c.h"
#include "store/block_header.h"
#include "store/record_codec.h"

namespace {

constexpr size_t kCrcBytes = 4;

void Try(std::span<const std::byte> bytes) {
  const auto header = corpusd::DecodeBlockHeader(bytes);
  if (!header.ok()) {
    if (header.status().message().empty()) std::abort();
    return;
  }
  std::vector<std::byte> encoded;
  corpusd::EncodeBlockHeader(*header, &encoded);
  if (encoded.size() > bytes.size()) std::abort();
  if (std::memcmp(encoded.data(), bytes.data(), encoded.size()) != 0) std::abort();
  (void)corpusd::VerifyPayload(*header, bytes.subspan(encoded.size()));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  Try(bytes);
  // The same with a right checksum, or no input would ever get past it.
  if (size > kCrcBytes) {
    std::vector<std::byte> sealed(bytes.begin(), bytes.end());
    const uint32_t crc = corpusd::Crc32c(bytes.first(size - kCrcBytes));
    std::memcpy(sealed.data() + size - kCrcBytes, &crc, kCrcBytes);
    Try(sealed);
  }
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)corpusd::DecodeChainEntry(text);
  std::vector<corpusd::TokenId> tokens;
  (void)corpusd::DecodeTokens(text, &tokens);
  return 0;
}
