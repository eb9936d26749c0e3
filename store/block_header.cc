#include "store/block_header.h"

#include <cstring>

#include "store/base/crc32c.h"

namespace corpusd {
namespace {

constexpr uint32_t kMagic = 0x4b425043;  // "CPBK"
constexpr uint16_t kVersion = 1;
// magic 4, version 2, reserved 2, header bytes 4, tokens 4, payload bytes 8, sections 4, digest 32
constexpr size_t kFixedBytes = 60;
constexpr size_t kCrcBytes = 4;

static_assert(std::endian::native == std::endian::little, "headers are little-endian");

template <typename T>
void Append(std::vector<std::byte>* out, T value) {
  const auto* p = reinterpret_cast<const std::byte*>(&value);
  out->insert(out->end(), p, p + sizeof value);
}

template <typename T>
T Read(std::span<const std::byte> bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

Status Damaged(const std::string& what) { return CorruptionError("block header: " + what); }

}  // namespace

uint64_t BlockHeader::EncodedBytes() const {
  return kFixedBytes + section_crcs.size() * kCrcBytes + kCrcBytes;
}

BlockHeader MakeBlockHeader(const Digest& digest, uint32_t tokens,
                            std::span<const std::byte> payload, uint32_t sections) {
  CHECK(sections >= 1 && sections <= kMaxSections && payload.size() % sections == 0)
      << sections << " sections of " << payload.size() << " bytes";
  BlockHeader header{digest, tokens, payload.size(), {}};
  const size_t part = payload.size() / sections;
  for (uint32_t s = 0; s < sections; ++s) {
    header.section_crcs.push_back(Crc32c(payload.subspan(s * part, part)));
  }
  return header;
}

void EncodeBlockHeader(const BlockHeader& header, std::vector<std::byte>* out) {
  const size_t start = out->size();
  Append(out, kMagic);
  Append(out, kVersion);
  Append(out, uint16_t{0});
  Append(out, static_cast<uint32_t>(header.EncodedBytes()));
  Append(out, header.tokens);
  Append(out, header.payload_bytes);
  Append(out, static_cast<uint32_t>(header.section_crcs.size()));
  const auto digest = std::as_bytes(std::span(header.digest.bytes));
  out->insert(out->end(), digest.begin(), digest.end());
  for (const uint32_t crc : header.section_crcs) Append(out, crc);
  Append(out, Crc32c(std::span(*out).subspan(start)));
}

Result<BlockHeader> DecodeBlockHeader(std::span<const std::byte> bytes) {
  if (bytes.size() < kFixedBytes + kCrcBytes) return Damaged("shorter than its fixed part");
  if (Read<uint32_t>(bytes, 0) != kMagic) return Damaged("wrong magic number");
  if (const auto version = Read<uint16_t>(bytes, 4); version != kVersion) {
    return Damaged("version " + std::to_string(version) + " is not known");
  }
  if (Read<uint16_t>(bytes, 6) != 0) return Damaged("its reserved bytes are in use");
  const auto header_bytes = Read<uint32_t>(bytes, 8);
  const auto sections = Read<uint32_t>(bytes, 24);
  if (sections < 1 || sections > kMaxSections) {
    return Damaged(std::to_string(sections) + " sections");
  }
  if (header_bytes != kFixedBytes + (size_t{sections} + 1) * kCrcBytes ||
      header_bytes > bytes.size()) {
    return Damaged("length " + std::to_string(header_bytes) + " does not fit");
  }
  const size_t crc_offset = header_bytes - kCrcBytes;
  if (Crc32c(bytes.first(crc_offset)) != Read<uint32_t>(bytes, crc_offset)) {
    return Damaged("checksum differs");
  }
  BlockHeader header;
  header.tokens = Read<uint32_t>(bytes, 12);
  header.payload_bytes = Read<uint64_t>(bytes, 16);
  std::memcpy(header.digest.bytes.data(), bytes.data() + 28, 32);
  for (uint32_t s = 0; s < sections; ++s) {
    header.section_crcs.push_back(Read<uint32_t>(bytes, kFixedBytes + s * kCrcBytes));
  }
  if (header.tokens == 0) return Damaged("no tokens");
  if (header.payload_bytes == 0 || header.payload_bytes > kMaxPayloadBytes ||
      header.payload_bytes % sections != 0) {
    return Damaged(std::to_string(header.payload_bytes) + " payload bytes");
  }
  return header;
}

Status VerifyPayload(const BlockHeader& header, std::span<const std::byte> payload) {
  return VerifySections(header, payload, {0, static_cast<uint32_t>(header.section_crcs.size())});
}

Status VerifySections(const BlockHeader& header, std::span<const std::byte> payload,
                      SectionRange range) {
  if (range.end > header.section_crcs.size()) {
    return CorruptionError("it has " + std::to_string(header.section_crcs.size()) + " sections, " +
                           std::to_string(range.end) + " expected");
  }
  if (payload.size() != header.payload_bytes) {
    return CorruptionError("payload has " + std::to_string(payload.size()) +
                           " bytes, its header says " + std::to_string(header.payload_bytes));
  }
  const size_t part = header.SectionBytes();
  for (size_t s = range.first; s < range.end; ++s) {
    if (Crc32c(payload.subspan(s * part, part)) != header.section_crcs[s]) {
      return CorruptionError("checksum of section " + std::to_string(s) + " differs");
    }
  }
  return OkStatus();
}

}  // namespace corpusd
