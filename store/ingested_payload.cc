#include "store/ingested_payload.h"

#include <filesystem>
#include <vector>

#include "store/key_codec.h"

namespace corpusd {
namespace {

constexpr size_t kBlocks = 0;  // the only column family

}  // namespace

Result<std::unique_ptr<IngestedPayload>> IngestedPayload::Open(const std::string& folder,
                                                               const std::set<uint64_t>& named) {
  std::error_code ignored;
  if (!std::filesystem::exists(folder + "/CURRENT", ignored)) {
    return std::unique_ptr<IngestedPayload>();
  }
  if (named.empty()) {
    std::filesystem::remove_all(folder, ignored);
    return std::unique_ptr<IngestedPayload>();
  }
  ASSIGN_OR_RETURN(auto database,
                   RocksDatabase::Open(folder, RocksDatabase::Use::kPayload, {"blocks"}));
  std::unique_ptr<IngestedPayload> payload(new IngestedPayload(std::move(database)));
  std::vector<uint64_t> unnamed;
  for (const auto& [extent, bytes] : payload->Extents()) {
    if (!named.contains(extent)) unnamed.push_back(extent);
  }
  RETURN_IF_ERROR(payload->Drop(unnamed));
  return payload;
}

Status IngestedPayload::Read(const BlockLocation& location,
                             const std::function<Status(std::span<const std::byte>)>& use) const {
  return database_->Read(kBlocks, KeyOf(location.extent, location.ordinal), use);
}

Status IngestedPayload::Drop(std::span<const uint64_t> extents) {
  std::vector<RocksDatabase::KeyRange> ranges;
  for (const uint64_t extent : extents) ranges.push_back({KeyOf(extent), KeyOf(extent + 1)});
  return ranges.empty() ? OkStatus() : database_->DropFiles(kBlocks, ranges);
}

std::map<uint64_t, uint64_t> IngestedPayload::Extents() const {
  std::map<uint64_t, uint64_t> extents;
  for (const auto& file : database_->TableFiles()) {
    uint64_t extent = 0;
    if (ReadBigEndian(file.first_key, 0, &extent)) extents[extent] += file.bytes;
  }
  return extents;
}

}  // namespace corpusd
