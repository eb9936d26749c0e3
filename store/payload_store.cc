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

}  // namespace

Result<std::unique_ptr<PayloadStore>> PayloadStore::Open(const std::string& folder) {
  ASSIGN_OR_RETURN(auto database,
                   RocksDatabase::Open(folder, RocksDatabase::Use::kPayload, {"blocks"}));
  std::unique_ptr<PayloadStore> store(new PayloadStore(std::move(database)));
  for (const auto& file : store->database_->TableFiles()) {
    uint64_t extent = 0;
    if (ReadBigEndian(file.last_key, 0, &extent)) {
      store->next_extent_ = std::max(store->next_extent_.load(), extent + 1);
    }
  }
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
  ASSIGN_OR_RETURN(const uint64_t bytes, database_->IngestRows(kBlocks, rows));
  (void)bytes;
  RETURN_IF_ERROR(FaultPoint("payload.written"));
  return extent;
}

Status PayloadStore::Read(const BlockLocation& location, const Digest& digest, uint32_t tokens,
                          std::span<std::byte> payload) const {
  RETURN_IF_ERROR(FaultPoint("payload.read"));
  const std::string what = "block " + digest.Hex().substr(0, 12) + " at extent " +
                           std::to_string(location.extent) + "." + std::to_string(location.ordinal);
  RocksValue value;
  RETURN_IF_ERROR(database_->GetPinned(kBlocks, KeyOf(location.extent, location.ordinal), &value)
                      .WithContext(what));
  const auto header = DecodeBlockHeader(value.bytes());
  if (!header.ok()) return header.status().WithContext(what);
  if (header->digest != digest || header->tokens != tokens) {
    return CorruptionError(what + ": holds another block");
  }
  const auto stored = value.bytes().subspan(header->EncodedBytes());
  if (stored.size() != payload.size()) {
    return CorruptionError(what + ": " + std::to_string(stored.size()) + " payload bytes, " +
                           std::to_string(payload.size()) + " expected");
  }
  // Copied first and checked where it will be used, so that what was checked is what is served.
  std::memcpy(payload.data(), stored.data(), stored.size());
  return VerifyPayload(*header, payload).WithContext(what);
}

Status PayloadStore::DropExtent(uint64_t extent) {
  return database_->DropFiles(kBlocks, KeyOf(extent), KeyOf(extent + 1));
}

Status PayloadStore::DropAllBut(const std::set<uint64_t>& live) {
  for (const auto& file : database_->TableFiles()) {
    uint64_t extent = 0;
    if (!ReadBigEndian(file.first_key, 0, &extent) || live.contains(extent)) continue;
    RETURN_IF_ERROR(DropExtent(extent));
  }
  return OkStatus();
}

}  // namespace corpusd
