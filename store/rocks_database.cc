#include "store/rocks_database.h"

#include <rocksdb/cache.h>
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/sst_file_writer.h>
#include <rocksdb/table.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cstdarg>
#include <filesystem>
#include <mutex>
#include <shared_mutex>

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

// RocksDB's own log would lie in the data folder; on a full disk its second line that fails trips
// an assertion of builds that have them, such as Debian's, and ends the process. Errors come as
// statuses.
class NoLog final : public rocksdb::Logger {
 public:
  NoLog() : Logger(rocksdb::InfoLogLevel::HEADER_LEVEL) {}
  void Logv(const char* /*format*/, va_list /*arguments*/) override {}
};

rocksdb::Env*& TestEnvironment() {
  static rocksdb::Env* environment = nullptr;
  return environment;
}

// A share of what the process may open; the rest is left to sockets, the other database and files.
int OpenFilesMax(RocksDatabase::Use use) {
  rlimit limit{};
  const uint64_t allowed = getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 1024;
  const uint64_t share = use == RocksDatabase::Use::kPayload ? allowed / 2 : allowed / 8;
  return static_cast<int>(std::clamp<uint64_t>(share, 64, 4096));
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
    // Far below one value, so that each value is its own data block and a read reads no other.
    table.block_size = 4096;
    table.no_block_cache = true;
    options.disable_auto_compactions = true;  // extents never overlap
    options.write_buffer_size = size_t{1} << 20;
  }
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

rocksdb::DBOptions DatabaseOptions(RocksDatabase::Use use) {
  rocksdb::DBOptions options;
  if (TestEnvironment() != nullptr) options.env = TestEnvironment();
  options.create_if_missing = true;
  options.create_missing_column_families = true;
  options.max_open_files = OpenFilesMax(use);
  options.info_log = std::make_shared<NoLog>();
  options.max_background_jobs = 2;
  options.max_total_wal_size = uint64_t{32} << 20;
  // Unsynced writes (NoteUse) may be torn anywhere by a power cut; all before them were synced.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  options.skip_stats_update_on_db_open = true;
  options.allow_fallocate = false;  // so that used bytes are bytes used
  // A damaged extent costs its own blocks, which are recomputed; it must not keep the folder
  // closed.
  options.paranoid_checks = use == RocksDatabase::Use::kCatalog;
  return options;
}

}  // namespace

void RocksBatch::Put(size_t family, std::string_view key, std::string_view value) {
  operations_.push_back({family, true, std::string(key), std::string(value)});
}

void RocksBatch::Delete(size_t family, std::string_view key) {
  operations_.push_back({family, false, std::string(key), {}});
}

struct RocksDatabase::Implementation {
  std::string folder;
  Use use = Use::kCatalog;
  std::vector<std::string> families;
  // Exclusive only while the database is opened again after an error that RocksDB calls fatal.
  mutable std::shared_mutex mutex;
  std::unique_ptr<rocksdb::DB> database;
  std::vector<rocksdb::ColumnFamilyHandle*> handles;  // [0] is "default"
  std::atomic<uint64_t> next_table{0};
  mutable std::atomic<uint64_t> next_probe{0};

  ~Implementation() { Close(); }

  rocksdb::ColumnFamilyHandle* Family(size_t family) const { return handles[family + 1]; }

  Status OpenNative() {
    std::vector<rocksdb::ColumnFamilyDescriptor> descriptors;
    descriptors.emplace_back(rocksdb::kDefaultColumnFamilyName, FamilyOptions(use));
    for (const std::string& family : families) {
      descriptors.emplace_back(family, FamilyOptions(use));
    }
    rocksdb::DB* opened = nullptr;
    const rocksdb::Status status =
        rocksdb::DB::Open(DatabaseOptions(use), folder, descriptors, &handles, &opened);
    database.reset(opened);
    return Translate(status, "opening " + folder);
  }

  void Close() {
    if (database == nullptr) return;
    for (auto* handle : handles) database->DestroyColumnFamilyHandle(handle);
    handles.clear();
    database->Close();
    database.reset();
  }

  // Whether the folder takes writes at all; asked before the working database is given up.
  Status ProbeWrites() const {
    rocksdb::Env* const env = DatabaseOptions(use).env;
    const std::string path = folder + "/" + std::to_string(next_probe++) + ".probe.ingest";
    const std::string text(65536, 'p');
    const auto written = rocksdb::WriteStringToFile(env, text, path, /*should_sync=*/true);
    const auto removed = env->DeleteFile(path);
    return Translate(written.ok() ? removed : written, "trying " + folder);
  }

  // After a failed write RocksDB refuses all others until it is told that the cause may be gone,
  // and after errors that it calls fatal until it is opened again. Reading goes on meanwhile.
  Status Recover() {
    const std::unique_lock lock(mutex);
    if (database != nullptr) {
      const rocksdb::Status status = database->Resume();
      if (status.ok()) return OkStatus();
      if (!ProbeWrites().ok()) return Translate(status, "resuming writes to " + folder);
      Close();
    }
    return OpenNative();
  }

  // Runs a write; if it fails, recovers and runs it once more.
  Status WriteWithRecovery(const std::string& what, const std::function<rocksdb::Status()>& write) {
    rocksdb::Status status = TryWrite(write);
    if (!status.ok() && Recover().ok()) status = TryWrite(write);
    return Translate(status, what);
  }

  rocksdb::Status TryWrite(const std::function<rocksdb::Status()>& write) {
    const std::shared_lock lock(mutex);
    if (database == nullptr) return rocksdb::Status::IOError("closed after an error");
    return write();
  }

  Status Readable() const {
    if (database != nullptr) return OkStatus();
    return IoError(folder + " could not be opened again after an error: see the log");
  }
};

RocksDatabase::RocksDatabase(std::unique_ptr<Implementation> implementation)
    : implementation_(std::move(implementation)) {}

RocksDatabase::~RocksDatabase() = default;

Result<std::unique_ptr<RocksDatabase>> RocksDatabase::Open(
    const std::string& folder, Use use, const std::vector<std::string>& families) {
  auto implementation = std::make_unique<Implementation>();
  implementation->folder = folder;
  implementation->use = use;
  implementation->families = families;
  RETURN_IF_ERROR(implementation->OpenNative());
  // Table files that a crash left before they were added, and logs of before there were none.
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (entry.path().extension() == ".ingest" || name.starts_with("LOG")) {
      std::filesystem::remove(entry.path(), ignored);
    }
  }
  return std::unique_ptr<RocksDatabase>(new RocksDatabase(std::move(implementation)));
}

Result<std::string> RocksDatabase::Get(size_t family, std::string_view key) const {
  const std::shared_lock lock(implementation_->mutex);
  RETURN_IF_ERROR(implementation_->Readable());
  std::string value;
  RETURN_IF_ERROR(Translate(
      implementation_->database->Get({}, implementation_->Family(family), AsSlice(key), &value),
      "reading " + implementation_->folder));
  return value;
}

Status RocksDatabase::Read(size_t family, std::string_view key,
                           const std::function<Status(std::span<const std::byte>)>& use) const {
  const std::shared_lock lock(implementation_->mutex);
  RETURN_IF_ERROR(implementation_->Readable());
  rocksdb::ReadOptions options;
  options.verify_checksums = false;
  options.fill_cache = false;
  rocksdb::PinnableSlice value;
  RETURN_IF_ERROR(Translate(implementation_->database->Get(options, implementation_->Family(family),
                                                           AsSlice(key), &value),
                            "reading " + implementation_->folder));
  return use({reinterpret_cast<const std::byte*>(value.data()), value.size()});
}

Result<std::vector<std::optional<std::string>>> RocksDatabase::MultiGet(
    size_t family, const std::vector<std::string>& keys) const {
  const std::shared_lock lock(implementation_->mutex);
  RETURN_IF_ERROR(implementation_->Readable());
  std::vector<rocksdb::Slice> slices(keys.begin(), keys.end());
  std::vector<rocksdb::PinnableSlice> values(keys.size());
  std::vector<rocksdb::Status> statuses(keys.size());
  implementation_->database->MultiGet({}, implementation_->Family(family), keys.size(),
                                      slices.data(), values.data(), statuses.data());
  std::vector<std::optional<std::string>> results(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    if (statuses[i].ok()) {
      results[i] = values[i].ToString();
    } else if (!statuses[i].IsNotFound()) {
      return Translate(statuses[i], "reading " + implementation_->folder);
    }
  }
  return results;
}

Status RocksDatabase::Write(const RocksBatch& batch, bool sync, const RocksBatch* more) {
  return implementation_->WriteWithRecovery("writing to " + implementation_->folder, [&] {
    rocksdb::WriteBatch native;
    for (const RocksBatch* const part : {&batch, more}) {
      if (part == nullptr) continue;
      for (const auto& operation : part->operations_) {
        auto* const family = implementation_->Family(operation.family);
        const rocksdb::Status status = operation.put
                                           ? native.Put(family, operation.key, operation.value)
                                           : native.Delete(family, operation.key);
        CHECK(status.ok()) << status.ToString();
      }
    }
    rocksdb::WriteOptions options;
    options.sync = sync;
    return implementation_->database->Write(options, &native);
  });
}

Status RocksDatabase::Scan(
    size_t family, std::string_view prefix,
    const std::function<bool(std::string_view key, std::string_view value)>& visit) const {
  const std::shared_lock lock(implementation_->mutex);
  RETURN_IF_ERROR(implementation_->Readable());
  rocksdb::ReadOptions options;
  if (prefix.empty()) {  // the whole family: read ahead, and leave the cache to others
    options.readahead_size = size_t{2} << 20;
    options.fill_cache = false;
  }
  const std::unique_ptr<rocksdb::Iterator> it(
      implementation_->database->NewIterator(options, implementation_->Family(family)));
  for (it->Seek(AsSlice(prefix)); it->Valid() && it->key().starts_with(AsSlice(prefix));
       it->Next()) {
    if (!visit(AsView(it->key()), AsView(it->value()))) break;
  }
  return Translate(it->status(), "scanning " + implementation_->folder);
}

Status RocksDatabase::IngestRows(size_t family, const std::vector<Row>& rows) {
  const std::string path = implementation_->folder + "/" +
                           std::to_string(implementation_->next_table.fetch_add(1)) + ".ingest";
  const auto write = [&]() -> rocksdb::Status {
    rocksdb::Options options(DatabaseOptions(implementation_->use),
                             FamilyOptions(implementation_->use));
    rocksdb::SstFileWriter writer(rocksdb::EnvOptions(), options, implementation_->Family(family));
    rocksdb::Status status = writer.Open(path);
    std::string value;
    for (size_t i = 0; i < rows.size() && status.ok(); ++i) {
      value.clear();
      for (const std::string_view piece : rows[i].pieces) value.append(piece);
      status = writer.Put(rows[i].key, value);
    }
    if (status.ok()) status = writer.Finish();  // syncs the file
    if (!status.ok()) return status;
    rocksdb::IngestExternalFileOptions ingest;
    ingest.move_files = true;
    ingest.write_global_seqno = false;
    ingest.snapshot_consistency = false;
    return implementation_->database->IngestExternalFile(implementation_->Family(family), {path},
                                                         ingest);
  };
  const auto write_or_clean_up = [&] {
    const rocksdb::Status status = write();
    std::error_code ignored;
    if (!status.ok()) std::filesystem::remove(path, ignored);
    return status;
  };
  return implementation_->WriteWithRecovery("writing blocks to " + implementation_->folder,
                                            write_or_clean_up);
}

Status RocksDatabase::DropFiles(size_t family, const std::vector<KeyRange>& ranges) {
  std::vector<rocksdb::Slice> borders;
  for (const KeyRange& range : ranges) {
    borders.emplace_back(range.first);
    borders.emplace_back(range.last);
  }
  std::vector<rocksdb::RangePtr> native;
  for (size_t i = 0; i < borders.size(); i += 2) native.emplace_back(&borders[i], &borders[i + 1]);
  return implementation_->WriteWithRecovery("dropping blocks of " + implementation_->folder, [&] {
    return rocksdb::DeleteFilesInRanges(implementation_->database.get(),
                                        implementation_->Family(family), native.data(),
                                        native.size(), /*include_end=*/false);
  });
}

std::vector<RocksDatabase::TableFile> RocksDatabase::TableFiles() const {
  const std::shared_lock lock(implementation_->mutex);
  if (implementation_->database == nullptr) return {};
  std::vector<rocksdb::LiveFileMetaData> native;
  implementation_->database->GetLiveFilesMetaData(&native);
  std::vector<TableFile> files;
  files.reserve(native.size());
  for (const auto& file : native) files.push_back({file.smallestkey, file.largestkey, file.size});
  return files;
}

Status RocksDatabase::ProbeWrites() const { return implementation_->ProbeWrites(); }

uint64_t RocksDatabase::PhysicalBytes() const {
  uint64_t bytes = 0;
  std::error_code error;
  std::filesystem::directory_iterator it(implementation_->folder, error);
  for (; !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
    struct stat info {};
    if (stat(it->path().c_str(), &info) != 0) continue;
    // A file just written may have no blocks yet; a preallocated one has more than its length.
    bytes += static_cast<uint64_t>(std::max<int64_t>(info.st_size, int64_t{512} * info.st_blocks));
  }
  return bytes;
}

void SetRocksEnvironmentForTests(rocksdb::Env* env) { TestEnvironment() = env; }

}  // namespace corpusd
