#include "store/rocks_database.h"

#include <rocksdb/cache.h>
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/sst_file_writer.h>
#include <rocksdb/table.h>

#include <atomic>
#include <filesystem>

namespace corpusd {
namespace {

rocksdb::Slice AsSlice(std::string_view text) { return {text.data(), text.size()}; }
std::string_view AsView(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

Status Translate(const rocksdb::Status& status, const std::string& what) {
  if (status.ok()) return OkStatus();
  const std::string text = what + ": " + status.ToString();
  if (status.IsNotFound()) return NotFoundError(text);
  if (status.IsCorruption()) return CorruptionError(text);
  if (status.IsNoSpace() || status.subcode() == rocksdb::Status::SubCode::kSpaceLimit) {
    return ResourceExhaustedError(text);
  }
  if (status.IsIOError() && text.find("o space left") != std::string::npos) {
    return ResourceExhaustedError(text);
  }
  return IoError(text);
}

rocksdb::ColumnFamilyOptions FamilyOptions(RocksDatabase::Use use) {
  rocksdb::ColumnFamilyOptions options;
  options.compression = rocksdb::kNoCompression;
  rocksdb::BlockBasedTableOptions table;
  if (use == RocksDatabase::Use::kCatalog) {
    table.block_cache = rocksdb::NewLRUCache(size_t{32} << 20);
    table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
    options.write_buffer_size = size_t{8} << 20;
  } else {
    // One value is one data block; there is nothing to cache beside the index.
    table.no_block_cache = true;
    table.block_size = size_t{1} << 20;
    options.disable_auto_compactions = true;  // extents never overlap
    options.write_buffer_size = size_t{1} << 20;
  }
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

rocksdb::DBOptions DatabaseOptions(RocksDatabase::Use use) {
  rocksdb::DBOptions options;
  options.create_if_missing = true;
  options.create_missing_column_families = true;
  options.max_open_files = use == RocksDatabase::Use::kPayload ? 4096 : 256;
  options.keep_log_file_num = 2;
  options.max_log_file_size = size_t{1} << 20;
  options.max_background_jobs = 2;
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  options.skip_stats_update_on_db_open = true;
  // A damaged extent costs its own blocks, which are recomputed; it must not keep the folder
  // closed.
  options.paranoid_checks = use == RocksDatabase::Use::kCatalog;
  return options;
}

}  // namespace

RocksBatch::RocksBatch() = default;
RocksBatch::~RocksBatch() = default;

void RocksBatch::Put(size_t family, std::string_view key, std::string_view value) {
  operations_.push_back({family, true, std::string(key), std::string(value)});
}

void RocksBatch::Delete(size_t family, std::string_view key) {
  operations_.push_back({family, false, std::string(key), {}});
}

struct RocksValue::Slice {
  rocksdb::PinnableSlice pinned;
};

RocksValue::RocksValue() : slice_(std::make_unique<Slice>()) {}
RocksValue::~RocksValue() = default;

std::span<const std::byte> RocksValue::bytes() const {
  return {reinterpret_cast<const std::byte*>(slice_->pinned.data()), slice_->pinned.size()};
}

struct RocksDatabase::Implementation {
  std::string folder;
  Use use = Use::kCatalog;
  std::unique_ptr<rocksdb::DB> database;
  std::vector<rocksdb::ColumnFamilyHandle*> handles;  // [0] is "default"
  std::atomic<bool> write_failed{false};
  std::atomic<uint64_t> next_table{0};

  rocksdb::ColumnFamilyHandle* Family(size_t family) const { return handles[family + 1]; }
  // After a failed write RocksDB refuses all others until it is told that the cause may be gone.
  Status ResumeIfFailed() {
    if (!write_failed.load()) return OkStatus();
    const rocksdb::Status status = database->Resume();
    if (!status.ok()) return Translate(status, "resuming writes to " + folder);
    write_failed.store(false);
    return OkStatus();
  }
};

RocksDatabase::RocksDatabase(std::unique_ptr<Implementation> implementation)
    : implementation_(std::move(implementation)) {}

RocksDatabase::~RocksDatabase() {
  for (auto* handle : implementation_->handles) {
    implementation_->database->DestroyColumnFamilyHandle(handle);
  }
  implementation_->database->Close();
}

Result<std::unique_ptr<RocksDatabase>> RocksDatabase::Open(
    const std::string& folder, Use use, const std::vector<std::string>& families) {
  auto implementation = std::make_unique<Implementation>();
  implementation->folder = folder;
  implementation->use = use;
  std::vector<rocksdb::ColumnFamilyDescriptor> descriptors;
  descriptors.emplace_back(rocksdb::kDefaultColumnFamilyName, FamilyOptions(use));
  for (const std::string& family : families) {
    descriptors.emplace_back(family, FamilyOptions(use));
  }
  rocksdb::DB* database = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(DatabaseOptions(use), folder, descriptors,
                                                   &implementation->handles, &database);
  if (!status.ok()) return Translate(status, "opening " + folder);
  implementation->database.reset(database);
  // Table files that a crash left before they were added.
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    if (entry.path().extension() == ".ingest") std::filesystem::remove(entry.path(), ignored);
  }
  return std::unique_ptr<RocksDatabase>(new RocksDatabase(std::move(implementation)));
}

Result<std::string> RocksDatabase::Get(size_t family, std::string_view key) const {
  std::string value;
  RETURN_IF_ERROR(Translate(
      implementation_->database->Get({}, implementation_->Family(family), AsSlice(key), &value),
      "reading " + implementation_->folder));
  return value;
}

Status RocksDatabase::GetPinned(size_t family, std::string_view key, RocksValue* value) const {
  rocksdb::ReadOptions options;
  options.verify_checksums = false;  // ours are checked at this crossing
  options.fill_cache = false;
  value->slice_->pinned.Reset();
  return Translate(implementation_->database->Get(options, implementation_->Family(family),
                                                  AsSlice(key), &value->slice_->pinned),
                   "reading " + implementation_->folder);
}

Result<std::vector<std::pair<bool, std::string>>> RocksDatabase::MultiGet(
    size_t family, const std::vector<std::string>& keys) const {
  std::vector<rocksdb::Slice> slices(keys.begin(), keys.end());
  std::vector<rocksdb::PinnableSlice> values(keys.size());
  std::vector<rocksdb::Status> statuses(keys.size());
  implementation_->database->MultiGet({}, implementation_->Family(family), keys.size(),
                                      slices.data(), values.data(), statuses.data());
  std::vector<std::pair<bool, std::string>> results(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    if (statuses[i].ok()) {
      results[i] = {true, values[i].ToString()};
    } else if (!statuses[i].IsNotFound()) {
      return Translate(statuses[i], "reading " + implementation_->folder);
    }
  }
  return results;
}

Status RocksDatabase::Write(const RocksBatch& batch, bool sync) {
  RETURN_IF_ERROR(implementation_->ResumeIfFailed());
  rocksdb::WriteBatch native;
  for (const auto& operation : batch.operations_) {
    auto* const family = implementation_->Family(operation.family);
    const rocksdb::Status status = operation.put
                                       ? native.Put(family, operation.key, operation.value)
                                       : native.Delete(family, operation.key);
    CHECK(status.ok()) << status.ToString();
  }
  rocksdb::WriteOptions options;
  options.sync = sync;
  const rocksdb::Status status = implementation_->database->Write(options, &native);
  if (!status.ok()) implementation_->write_failed.store(true);
  return Translate(status, "writing to " + implementation_->folder);
}

Status RocksDatabase::Scan(
    size_t family, std::string_view prefix,
    const std::function<bool(std::string_view key, std::string_view value)>& visit) const {
  const std::unique_ptr<rocksdb::Iterator> it(
      implementation_->database->NewIterator({}, implementation_->Family(family)));
  for (it->Seek(AsSlice(prefix)); it->Valid() && it->key().starts_with(AsSlice(prefix));
       it->Next()) {
    if (!visit(AsView(it->key()), AsView(it->value()))) break;
  }
  return Translate(it->status(), "scanning " + implementation_->folder);
}

Result<uint64_t> RocksDatabase::IngestRows(size_t family, const std::vector<Row>& rows) {
  RETURN_IF_ERROR(implementation_->ResumeIfFailed());
  rocksdb::Options options(DatabaseOptions(implementation_->use),
                           FamilyOptions(implementation_->use));
  rocksdb::SstFileWriter writer(rocksdb::EnvOptions(), options, implementation_->Family(family));
  const std::string path = implementation_->folder + "/" +
                           std::to_string(implementation_->next_table.fetch_add(1)) + ".ingest";
  const std::string what = "writing blocks to " + implementation_->folder;
  const auto fail = [&](const rocksdb::Status& status) {
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
    return Translate(status, what);
  };
  rocksdb::Status status = writer.Open(path);
  if (!status.ok()) return fail(status);
  std::string value;
  for (const Row& row : rows) {
    value.clear();
    for (const std::string_view piece : row.pieces) value.append(piece);
    status = writer.Put(row.key, value);
    if (!status.ok()) return fail(status);
  }
  rocksdb::ExternalSstFileInfo info;
  status = writer.Finish(&info);  // syncs the file
  if (!status.ok()) return fail(status);
  rocksdb::IngestExternalFileOptions ingest;
  ingest.move_files = true;
  ingest.write_global_seqno = false;
  ingest.snapshot_consistency = false;
  status = implementation_->database->IngestExternalFile(implementation_->Family(family), {path},
                                                         ingest);
  if (!status.ok()) {
    implementation_->write_failed.store(true);
    return fail(status);
  }
  return info.file_size;
}

Status RocksDatabase::DropFiles(size_t family, const std::string& first, const std::string& last) {
  const rocksdb::Slice begin(first);
  const rocksdb::Slice end(last);
  return Translate(
      rocksdb::DeleteFilesInRange(implementation_->database.get(), implementation_->Family(family),
                                  &begin, &end, /*include_end=*/false),
      "dropping blocks of " + implementation_->folder);
}

std::vector<RocksDatabase::TableFile> RocksDatabase::TableFiles() const {
  std::vector<rocksdb::LiveFileMetaData> native;
  implementation_->database->GetLiveFilesMetaData(&native);
  std::vector<TableFile> files;
  files.reserve(native.size());
  for (const auto& file : native) files.push_back({file.smallestkey, file.largestkey, file.size});
  return files;
}

uint64_t RocksDatabase::PhysicalBytes() const {
  uint64_t bytes = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(implementation_->folder, error)) {
    const uint64_t size = entry.file_size(error);
    if (!error) bytes += size;
  }
  return bytes;
}

}  // namespace corpusd
