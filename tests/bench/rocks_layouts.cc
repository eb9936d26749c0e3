// RocksDB with blocks as ordinary values: inline in its tables, or in BlobDB's files.
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/table.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "store/key_codec.h"
#include "tests/bench/disk_layout.h"

namespace corpusd {
namespace {

Status Translate(const rocksdb::Status& status) {
  return status.ok() ? OkStatus() : IoError(status.ToString());
}

class RocksLayout : public DiskLayout {
 public:
  explicit RocksLayout(bool blobs) : blobs_(blobs) {}

  Status Open(const std::string& folder) override {
    database_.reset();
    rocksdb::Options options;
    options.create_if_missing = true;
    options.compression = rocksdb::kNoCompression;
    options.max_background_jobs = 2;
    options.enable_blob_files = blobs_;
    options.blob_compression_type = rocksdb::kNoCompression;
    options.enable_blob_garbage_collection = blobs_;
    rocksdb::BlockBasedTableOptions table;
    table.no_block_cache = true;
    options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
    rocksdb::DB* opened = nullptr;
    const rocksdb::Status status = rocksdb::DB::Open(options, folder, &opened);
    database_.reset(opened);
    return Translate(status);
  }

  Status Write(std::span<const LayoutBlock> blocks) override {
    rocksdb::WriteBatch batch;
    for (const LayoutBlock& block : blocks) {
      const auto* const bytes = reinterpret_cast<const char*>(block.payload.data());
      RETURN_IF_ERROR(Translate(batch.Put(KeyOf(uint64_t{block.corpus}, block.index),
                                          rocksdb::Slice(bytes, block.payload.size()))));
    }
    rocksdb::WriteOptions options;
    options.sync = true;
    return Translate(database_->Write(options, &batch));
  }

  Status Settle() override {
    RETURN_IF_ERROR(Translate(database_->Flush({})));
    while (true) {
      uint64_t pending = 0;
      uint64_t running = 0;
      database_->GetIntProperty("rocksdb.compaction-pending", &pending);
      database_->GetIntProperty("rocksdb.num-running-compactions", &running);
      if (pending + running == 0) return OkStatus();
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

  Status Read(uint32_t corpus, uint32_t index, std::span<std::byte> target) override {
    rocksdb::ReadOptions options;
    options.verify_checksums = false;  // ours is checked instead, once
    rocksdb::PinnableSlice value;
    RETURN_IF_ERROR(Translate(database_->Get(options, database_->DefaultColumnFamily(),
                                             KeyOf(uint64_t{corpus}, index), &value)));
    if (value.size() != target.size()) return CorruptionError("another size");
    std::memcpy(target.data(), value.data(), value.size());
    return OkStatus();
  }

  Status Remove(uint32_t corpus) override {
    const std::string first = KeyOf(uint64_t{corpus});
    const std::string last = KeyOf(uint64_t{corpus} + 1);
    const rocksdb::Slice begin(first);
    const rocksdb::Slice end(last);
    rocksdb::WriteOptions options;
    options.sync = true;
    auto* const family = database_->DefaultColumnFamily();
    RETURN_IF_ERROR(Translate(rocksdb::DeleteFilesInRange(database_.get(), family, &begin, &end)));
    RETURN_IF_ERROR(Translate(database_->DeleteRange(options, family, begin, end)));
    rocksdb::CompactRangeOptions compact;
    compact.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForce;
    return Translate(database_->CompactRange(compact, nullptr, nullptr));
  }

 private:
  const bool blobs_;
  std::unique_ptr<rocksdb::DB> database_;
};

}  // namespace

std::unique_ptr<DiskLayout> MakeInlineTables() { return std::make_unique<RocksLayout>(false); }
std::unique_ptr<DiskLayout> MakeBlobs() { return std::make_unique<RocksLayout>(true); }

}  // namespace corpusd
