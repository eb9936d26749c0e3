#include "store/payload_store.h"

#include <algorithm>
#include <cstring>

#include "store/base/fault_point.h"
#include "store/block_header.h"
#include "store/key_codec.h"

namespace corpusd {
namespace {

constexpr size_t kBlocks = 0;  // the only column family

std::string_view AsText(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string NameOf(const BlockLocation& location, const Digest& digest) {
  return "block " + digest.Hex().substr(0, 12) + " at extent " + std::to_string(location.extent) +
         "." + std::to_string(location.ordinal);
}

// The header of a stored value, if it is of the block asked for.
Result<BlockHeader> HeaderOf(std::span<const std::byte> value, const Digest& digest,
                             uint32_t tokens) {
  ASSIGN_OR_RETURN(BlockHeader header, DecodeBlockHeader(value));
  if (header.digest != digest || header.tokens != tokens) {
    return CorruptionError("holds another block");
  }
  return header;
}

}  // namespace

Result<std::unique_ptr<PayloadStore>> PayloadStore::Open(const std::string& folder,
                                                         uint64_t above) {
  ASSIGN_OR_RETURN(auto database,
                   RocksDatabase::Open(folder, RocksDatabase::Use::kPayload, {"blocks"}));
  std::unique_ptr<PayloadStore> store(new PayloadStore(std::move(database)));
  const auto extents = store->Extents();
  store->next_extent_ = std::max(above, extents.empty() ? 0 : extents.rbegin()->first) + 1;
  return store;
}

Result<uint64_t> PayloadStore::WriteExtent(std::span<const BlockWrite* const> blocks) {
  RETURN_IF_ERROR(FaultPoint("payload.write"));
  const uint64_t extent = next_extent_.fetch_add(1);
  std::vector<std::vector<std::byte>> headers(blocks.size());
  std::vector<RocksDatabase::Row> rows;
  for (size_t i = 0; i < blocks.size(); ++i) {
    const BlockWrite& block = *blocks[i];
    EncodeBlockHeader(MakeBlockHeader(block.digest, static_cast<uint32_t>(block.tokens.size()),
                                      block.payload, block.sections),
                      &headers[i]);
    rows.push_back(
        {KeyOf(extent, static_cast<uint32_t>(i)), {AsText(headers[i]), AsText(block.payload)}});
  }
  RETURN_IF_ERROR(database_->IngestRows(kBlocks, rows));
  RETURN_IF_ERROR(FaultPoint("payload.written"));
  return extent;
}

Status PayloadStore::Read(const BlockLocation& location, const Digest& digest, uint32_t tokens,
                          std::span<std::byte> payload) const {
  return ReadSections(location, digest, tokens, kAllSections, payload);
}

Status PayloadStore::ReadSections(const BlockLocation& location, const Digest& digest,
                                  uint32_t tokens, SectionRange range,
                                  std::span<std::byte> payload) const {
  RETURN_IF_ERROR(FaultPoint("payload.read"));
  const auto use = [&](std::span<const std::byte> value) -> Status {
    ASSIGN_OR_RETURN(const BlockHeader header, HeaderOf(value, digest, tokens));
    const auto stored = value.subspan(header.EncodedBytes());
    if (stored.size() != payload.size()) {
      return CorruptionError(std::to_string(stored.size()) + " payload bytes, " +
                             std::to_string(payload.size()) + " expected");
    }
    const auto sections = static_cast<uint32_t>(header.section_crcs.size());
    if (range.end == kAllSections.end) range.end = sections;
    const size_t offset = header.SectionBytes() * range.first;
    const size_t end = std::min(header.SectionBytes() * range.end, stored.size());
    // Copied first and checked where it will be used, so that what was checked is what is served.
    if (offset < end) std::memcpy(payload.data() + offset, stored.data() + offset, end - offset);
    return VerifySections(header, payload, range);
  };
  return database_->Read(kBlocks, KeyOf(location.extent, location.ordinal), use)
      .WithContext(NameOf(location, digest));
}

Result<uint64_t> PayloadStore::CopyToNewExtent(std::span<const StoredBlock> blocks) {
  std::vector<std::string> values(blocks.size());
  for (size_t i = 0; i < blocks.size(); ++i) {
    const StoredBlock& block = blocks[i];
    const auto use = [&](std::span<const std::byte> value) -> Status {
      values[i] = AsText(value);
      const auto copy = std::as_bytes(std::span(values[i]));
      ASSIGN_OR_RETURN(const BlockHeader header, HeaderOf(copy, block.digest, block.tokens));
      return VerifyPayload(header, copy.subspan(header.EncodedBytes()));
    };
    RETURN_IF_ERROR(
        database_->Read(kBlocks, KeyOf(block.location.extent, block.location.ordinal), use)
            .WithContext(NameOf(block.location, block.digest)));
  }
  const uint64_t extent = next_extent_.fetch_add(1);
  std::vector<RocksDatabase::Row> rows;
  for (size_t i = 0; i < blocks.size(); ++i) {
    rows.push_back({KeyOf(extent, static_cast<uint32_t>(i)), {values[i]}});
  }
  RETURN_IF_ERROR(database_->IngestRows(kBlocks, rows));
  return extent;
}

Status PayloadStore::DropExtents(std::span<const uint64_t> extents) {
  std::vector<RocksDatabase::KeyRange> ranges;
  for (const uint64_t extent : extents) ranges.push_back({KeyOf(extent), KeyOf(extent + 1)});
  return ranges.empty() ? OkStatus() : database_->DropFiles(kBlocks, ranges);
}

std::map<uint64_t, uint64_t> PayloadStore::Extents() const {
  std::map<uint64_t, uint64_t> extents;
  for (const auto& file : database_->TableFiles()) {
    uint64_t extent = 0;
    if (ReadBigEndian(file.first_key, 0, &extent)) extents[extent] += file.bytes;
  }
  return extents;
}

}  // namespace corpusd
