// The layouts that the product has or had: segment files, and ingested table files.
#include <cstring>
#include <map>

#include "store/key_codec.h"
#include "store/payload_store.h"
#include "tests/bench/disk_layout.h"

namespace corpusd {
namespace {

class SegmentLayout : public DiskLayout {
 public:
  Status Open(const std::string& folder) override {
    payload_.reset();
    std::map<uint64_t, uint64_t> named;
    for (const auto& extents : extents_) named.insert(extents.begin(), extents.end());
    ASSIGN_OR_RETURN(payload_, PayloadStore::Open(folder, named));
    return OkStatus();
  }

  Status Write(std::span<const LayoutBlock> blocks) override {
    std::vector<BlockWrite> writes;
    for (const LayoutBlock& block : blocks) writes.push_back({{}, {1}, block.payload, kSections});
    std::vector<const BlockWrite*> pointers;
    for (const BlockWrite& write : writes) pointers.push_back(&write);
    ASSIGN_OR_RETURN(const auto extent, payload_->WriteExtent(pointers));
    extents_[blocks.front().corpus][extent.number] = extent.bytes;
    for (size_t i = 0; i < blocks.size(); ++i) {
      places_[{blocks[i].corpus, blocks[i].index}] = extent.locations[i];
    }
    return OkStatus();
  }

  Status Read(uint32_t corpus, uint32_t index, std::span<std::byte> target) override {
    return payload_->Read(places_.at({corpus, index}), {}, 1, kSections, target);
  }

  Status Remove(uint32_t corpus) override {
    std::vector<uint64_t> extents;
    for (const auto& [extent, bytes] : extents_[corpus]) extents.push_back(extent);
    extents_[corpus].clear();
    return payload_->DropExtents(extents);
  }

 private:
  static constexpr uint32_t kSections = 32;
  std::unique_ptr<PayloadStore> payload_;
  std::map<uint64_t, uint64_t> extents_[2];
  std::map<std::pair<uint32_t, uint32_t>, BlockLocation> places_;
};

class IngestedLayout : public DiskLayout {
 public:
  Status Open(const std::string& folder) override {
    database_.reset();
    ASSIGN_OR_RETURN(database_,
                     RocksDatabase::Open(folder, RocksDatabase::Use::kPayload, {"blocks"}));
    return OkStatus();
  }

  Status Write(std::span<const LayoutBlock> blocks) override {
    std::vector<RocksDatabase::Row> rows;
    for (const LayoutBlock& block : blocks) {
      const auto* const bytes = reinterpret_cast<const char*>(block.payload.data());
      rows.push_back({KeyOf(uint64_t{block.corpus}, block.index), {{bytes, block.payload.size()}}});
    }
    return database_->IngestRows(0, rows);
  }

  Status Read(uint32_t corpus, uint32_t index, std::span<std::byte> target) override {
    const auto use = [&](std::span<const std::byte> value) -> Status {
      if (value.size() != target.size()) return CorruptionError("another size");
      std::memcpy(target.data(), value.data(), value.size());
      return OkStatus();
    };
    return database_->Read(0, KeyOf(uint64_t{corpus}, index), use);
  }

  Status Remove(uint32_t corpus) override {
    return database_->DropFiles(0, {{KeyOf(uint64_t{corpus}), KeyOf(uint64_t{corpus} + 1)}});
  }

 private:
  std::unique_ptr<RocksDatabase> database_;
};

}  // namespace

std::unique_ptr<DiskLayout> MakeIngestedTables() { return std::make_unique<IngestedLayout>(); }
std::unique_ptr<DiskLayout> MakeSegments() { return std::make_unique<SegmentLayout>(); }

}  // namespace corpusd
