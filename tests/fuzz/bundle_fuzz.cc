// Any bytes as a bundle: read with limits, or refused in one sentence. Bytes are fed whole, in
// pieces, and once more with every checksum of a record made right, or no input would get far.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "store/base/crc32c.h"
#include "store/bundle_reader.h"

namespace {

class CheckingSink : public corpusd::BundleSink {
 public:
  corpusd::Status OnHead(const corpusd::BundleHead& head) override {
    head_ = head;
    if (corpusd::EncodeBundleHead(head).empty()) std::abort();
    return corpusd::OkStatus();
  }
  corpusd::Status OnTokens(std::vector<corpusd::TokenId> tokens) override {
    if (tokens.size() != head_.tokens) std::abort();
    return corpusd::OkStatus();
  }
  corpusd::Status OnBlock(uint64_t index, const corpusd::BlockHeader& header,
                          std::span<const std::byte> payload) override {
    if (index >= head_.blocks || payload.size() != head_.block_bytes) std::abort();
    if (!corpusd::VerifyPayload(header, payload).ok()) std::abort();
    return corpusd::OkStatus();
  }
  corpusd::Status OnEnd() override { return corpusd::OkStatus(); }

 private:
  corpusd::BundleHead head_;
};

corpusd::Status Read(std::span<const std::byte> bytes, size_t piece) {
  CheckingSink sink;
  corpusd::BundleReader reader(sink);
  for (size_t at = 0; at < bytes.size(); at += piece) {
    const auto part = bytes.subspan(at, std::min(piece, bytes.size() - at));
    const corpusd::Status status = reader.Feed(part);
    if (!status.ok()) return status;
  }
  return reader.Finish();
}

// Walks the record headers as far as their lengths lead, and seals each.
std::vector<std::byte> Sealed(std::span<const std::byte> bytes) {
  std::vector<std::byte> out(bytes.begin(), bytes.end());
  const std::string prelude = corpusd::EncodeBundlePrelude();
  std::memcpy(out.data(), prelude.data(), std::min(prelude.size(), out.size()));
  constexpr size_t kHeader = corpusd::kBundleRecordHeaderBytes;
  size_t at = corpusd::kBundlePreludeBytes;
  while (at + kHeader <= out.size()) {
    uint64_t stored = 0;
    std::memcpy(&stored, out.data() + at + 8, sizeof stored);
    const size_t body = std::min<uint64_t>(stored, out.size() - at - kHeader);
    const uint32_t body_crc = corpusd::Crc32c(std::span(out).subspan(at + kHeader, body));
    std::memcpy(out.data() + at + 24, &body_crc, sizeof body_crc);
    const uint32_t crc = corpusd::Crc32c(std::span(out).subspan(at, 28));
    std::memcpy(out.data() + at + 28, &crc, sizeof crc);
    at += kHeader + body;
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;  // nothing to copy, and libFuzzer gives a null pointer
  const auto bytes = std::as_bytes(std::span(data, size));
  const corpusd::Status whole = Read(bytes, size);
  if (Read(bytes, 7).code() != whole.code()) std::abort();
  if (!whole.ok() && whole.message().empty()) std::abort();
  const std::vector<std::byte> sealed = Sealed(bytes);
  (void)Read(sealed, 4096);
  (void)corpusd::DecodeBundleHead({reinterpret_cast<const char*>(data), size});
  return 0;
}
