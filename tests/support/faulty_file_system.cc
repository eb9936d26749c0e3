#include "tests/support/faulty_file_system.h"

#include <fcntl.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>
#include <unistd.h>

#include <filesystem>

#include <map>
#include <mutex>
#include <random>
#include <set>
#include <vector>

#include "store/base/check.h"
#include "store/direct_file.h"
#include "store/rocks_database.h"

namespace corpusd {

using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;

// What a power cut would leave of the files written since the start.
struct FaultyFileSystem::Disk {
  std::mutex mutex;
  DiskState state = DiskState::kFine;
  std::map<std::string, uint64_t> written_bytes;
  std::map<std::string, uint64_t> synced_bytes;
  std::set<std::string> unsynced_names;  // created since their folder was last synced
  // Of segment files: where they were written since they were last synced.
  struct Write {
    uint64_t offset, bytes;
  };
  std::map<std::string, std::vector<Write>> unsynced_writes;
  uint64_t changes = 0;
  uint64_t breaks_after = UINT64_MAX;

  IOStatus Check() {
    const std::lock_guard lock(mutex);
    if (changes >= breaks_after) state = DiskState::kBroken;
    ++changes;
    if (state == DiskState::kFull) return IOStatus::NoSpace("injected", "no space left on device");
    if (state == DiskState::kBroken) return IOStatus::IOError("injected", "input/output error");
    return IOStatus::OK();
  }
  void Create(const std::string& path, uint64_t written, uint64_t synced) {
    const std::lock_guard lock(mutex);
    written_bytes[path] = written;
    synced_bytes[path] = synced;
    unsynced_names.insert(path);
  }
};

// The same disk as the segment files see it.
class FaultyFileSystem::Watcher : public FileWatcher {
 public:
  explicit Watcher(std::shared_ptr<Disk> disk) : disk_(std::move(disk)) {}
  Status BeforeCreate(const std::string& path) override {
    RETURN_IF_ERROR(Check());
    const std::lock_guard lock(disk_->mutex);
    disk_->unsynced_names.insert(path);
    return OkStatus();
  }
  Status BeforeWrite(const std::string& path, uint64_t offset, uint64_t bytes) override {
    // A write that is under way when the power goes may have happened in part.
    const Status status = Check();
    const std::lock_guard lock(disk_->mutex);
    if (status.ok() && bytes > 0) disk_->unsynced_writes[path].push_back({offset, bytes});
    return status;
  }
  Status BeforeSync(const std::string& path) override {
    RETURN_IF_ERROR(Check());
    const std::lock_guard lock(disk_->mutex);
    disk_->unsynced_writes.erase(path);
    return OkStatus();
  }
  Status BeforeSyncFolder(const std::string& folder) override {
    RETURN_IF_ERROR(Check());
    const std::lock_guard lock(disk_->mutex);
    std::erase_if(disk_->unsynced_names, [&](const std::string& name) {
      return std::filesystem::path(name).parent_path() == std::filesystem::path(folder);
    });
    return OkStatus();
  }
  Status BeforeRemove(const std::string& path) override {
    RETURN_IF_ERROR(Check());
    const std::lock_guard lock(disk_->mutex);
    disk_->unsynced_names.erase(path);
    disk_->unsynced_writes.erase(path);
    return OkStatus();
  }
  Status BeforeRename(const std::string& from, const std::string& to) override {
    RETURN_IF_ERROR(Check());
    // As of RenameFile below: a journal orders names; contents are the risk.
    const std::lock_guard lock(disk_->mutex);
    disk_->unsynced_names.erase(from);
    disk_->unsynced_writes[to] = std::move(disk_->unsynced_writes[from]);
    disk_->unsynced_writes.erase(from);
    return OkStatus();
  }

 private:
  Status Check() {
    const IOStatus status = disk_->Check();
    if (status.ok()) return OkStatus();
    return status.IsNoSpace() ? ResourceExhaustedError(status.ToString())
                              : IoError(status.ToString());
  }
  const std::shared_ptr<Disk> disk_;
};

class FaultyFileSystem::File : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  File(std::unique_ptr<rocksdb::FSWritableFile> file, std::string path, std::shared_ptr<Disk> disk)
      : FSWritableFileOwnerWrapper(std::move(file)),
        path_(std::move(path)),
        disk_(std::move(disk)) {}

  IOStatus Append(const rocksdb::Slice& data, const IOOptions& options,
                  IODebugContext* debug) override {
    IOStatus status = disk_->Check();
    if (status.ok()) status = target()->Append(data, options, debug);
    if (status.ok()) {
      const std::lock_guard lock(disk_->mutex);
      disk_->written_bytes[path_] += data.size();
    }
    return status;
  }
  IOStatus Append(const rocksdb::Slice& data, const IOOptions& options,
                  const rocksdb::DataVerificationInfo& /*info*/, IODebugContext* debug) override {
    return Append(data, options, debug);
  }
  IOStatus Sync(const IOOptions& options, IODebugContext* debug) override {
    return Synced(target()->Sync(options, debug));
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    return Synced(target()->Fsync(options, debug));
  }

 private:
  IOStatus Synced(IOStatus status) {
    if (status.ok()) status = disk_->Check();
    if (!status.ok()) return status;
    const std::lock_guard lock(disk_->mutex);
    disk_->synced_bytes[path_] = disk_->written_bytes[path_];
    return status;
  }

  const std::string path_;
  const std::shared_ptr<Disk> disk_;
};

class FaultyFileSystem::Folder : public rocksdb::FSDirectoryWrapper {
 public:
  Folder(std::unique_ptr<rocksdb::FSDirectory> folder, std::string path, std::shared_ptr<Disk> disk)
      : FSDirectoryWrapper(std::move(folder)), path_(std::move(path)), disk_(std::move(disk)) {}

  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    return Synced(FSDirectoryWrapper::Fsync(options, debug));
  }
  IOStatus FsyncWithDirOptions(const IOOptions& options, IODebugContext* debug,
                               const rocksdb::DirFsyncOptions& folder_options) override {
    return Synced(FSDirectoryWrapper::FsyncWithDirOptions(options, debug, folder_options));
  }

 private:
  IOStatus Synced(IOStatus status) {
    if (status.ok()) status = disk_->Check();
    if (!status.ok()) return status;
    const std::lock_guard lock(disk_->mutex);
    std::erase_if(disk_->unsynced_names, [&](const std::string& name) {
      return std::filesystem::path(name).parent_path() == std::filesystem::path(path_);
    });
    return status;
  }

  const std::string path_;
  const std::shared_ptr<Disk> disk_;
};

class FaultyFileSystem::FileSystem : public rocksdb::FileSystemWrapper {
 public:
  explicit FileSystem(std::shared_ptr<Disk> disk)
      : FileSystemWrapper(rocksdb::FileSystem::Default()), disk_(std::move(disk)) {}
  const char* Name() const override { return "FaultyFileSystem"; }

  IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                           std::unique_ptr<rocksdb::FSWritableFile>* file,
                           IODebugContext* debug) override {
    IOStatus status = disk_->Check();
    std::unique_ptr<rocksdb::FSWritableFile> real;
    if (status.ok()) status = target()->NewWritableFile(path, options, &real, debug);
    if (!status.ok()) return status;
    disk_->Create(path, 0, 0);
    *file = std::make_unique<File>(std::move(real), path, disk_);
    return status;
  }
  IOStatus ReopenWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                              std::unique_ptr<rocksdb::FSWritableFile>* file,
                              IODebugContext* debug) override {
    IOStatus status = disk_->Check();
    std::unique_ptr<rocksdb::FSWritableFile> real;
    if (status.ok()) status = target()->ReopenWritableFile(path, options, &real, debug);
    if (status.ok()) *file = std::make_unique<File>(std::move(real), path, disk_);
    return status;
  }
  IOStatus NewDirectory(const std::string& path, const IOOptions& options,
                        std::unique_ptr<rocksdb::FSDirectory>* folder,
                        IODebugContext* debug) override {
    std::unique_ptr<rocksdb::FSDirectory> real;
    IOStatus status = target()->NewDirectory(path, options, &real, debug);
    if (status.ok()) *folder = std::make_unique<Folder>(std::move(real), path, disk_);
    return status;
  }
  IOStatus RenameFile(const std::string& from, const std::string& to, const IOOptions& options,
                      IODebugContext* debug) override {
    IOStatus status = disk_->Check();
    if (status.ok()) status = target()->RenameFile(from, to, options, debug);
    if (!status.ok()) return status;
    // A journal orders renames by themselves on the file systems in use; contents are the risk.
    const std::lock_guard lock(disk_->mutex);
    disk_->written_bytes[to] = disk_->written_bytes[from];
    disk_->synced_bytes[to] = disk_->synced_bytes[from];
    disk_->unsynced_names.erase(from);
    disk_->written_bytes.erase(from);
    disk_->synced_bytes.erase(from);
    return status;
  }
  IOStatus LinkFile(const std::string& from, const std::string& to, const IOOptions& options,
                    IODebugContext* debug) override {
    IOStatus status = disk_->Check();
    if (status.ok()) status = target()->LinkFile(from, to, options, debug);
    if (!status.ok()) return status;
    uint64_t written = 0;
    uint64_t synced = 0;
    {
      const std::lock_guard lock(disk_->mutex);
      written = disk_->written_bytes[from];
      synced = disk_->synced_bytes[from];
    }
    disk_->Create(to, written, synced);
    return status;
  }
  IOStatus DeleteFile(const std::string& path, const IOOptions& options,
                      IODebugContext* debug) override {
    IOStatus status = disk_->Check();
    if (status.ok()) status = target()->DeleteFile(path, options, debug);
    if (!status.ok()) return status;
    const std::lock_guard lock(disk_->mutex);
    disk_->unsynced_names.erase(path);
    disk_->written_bytes.erase(path);
    disk_->synced_bytes.erase(path);
    return status;
  }

 private:
  const std::shared_ptr<Disk> disk_;
};

struct FaultyFileSystem::Environment {
  std::unique_ptr<rocksdb::Env> env;
};

FaultyFileSystem::FaultyFileSystem()
    : disk_(std::make_shared<Disk>()),
      environment_(std::make_unique<Environment>()),
      watcher_(std::make_unique<Watcher>(disk_)) {
  environment_->env = rocksdb::NewCompositeEnv(std::make_shared<FileSystem>(disk_));
  SetRocksEnvironmentForTests(environment_->env.get());
  SetFileWatcherForTests(watcher_.get());
}

FaultyFileSystem::~FaultyFileSystem() {
  SetRocksEnvironmentForTests(nullptr);
  SetFileWatcherForTests(nullptr);
}

void FaultyFileSystem::BreakAfter(uint64_t changes) {
  const std::lock_guard lock(disk_->mutex);
  disk_->breaks_after = disk_->changes + changes;
}

uint64_t FaultyFileSystem::changes() const {
  const std::lock_guard lock(disk_->mutex);
  return disk_->changes;
}

void FaultyFileSystem::SetState(DiskState state) {
  const std::lock_guard lock(disk_->mutex);
  disk_->state = state;
  disk_->breaks_after = UINT64_MAX;
}

namespace {

constexpr uint64_t kSectorBytes = 512;

// A range of a file as if it had never been written.
void Blank(const std::string& path, uint64_t offset, uint64_t bytes) {
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  const std::vector<char> zeros(bytes);
  const bool done =
      pwrite(fd, zeros.data(), bytes, static_cast<off_t>(offset)) == static_cast<ssize_t>(bytes);
  close(fd);
  CHECK(done) << path;
}

}  // namespace

void FaultyFileSystem::LosePower() {
  const std::lock_guard lock(disk_->mutex);
  std::error_code ignored;
  for (const std::string& name : disk_->unsynced_names) std::filesystem::remove(name, ignored);
  for (const auto& [path, writes] : disk_->unsynced_writes) {
    for (const auto& write : writes) Blank(path, write.offset, write.bytes);
  }
  for (const auto& [path, bytes] : disk_->synced_bytes) {
    if (std::filesystem::exists(path, ignored)) std::filesystem::resize_file(path, bytes, ignored);
  }
  disk_->unsynced_names.clear();
  disk_->unsynced_writes.clear();
  disk_->written_bytes = disk_->synced_bytes;
}

void FaultyFileSystem::LosePowerUnevenly(uint32_t seed) {
  const std::lock_guard lock(disk_->mutex);
  std::mt19937 random(seed);
  std::error_code ignored;
  for (const std::string& name : disk_->unsynced_names) {
    if (random() % 2 == 0) std::filesystem::remove(name, ignored);
  }
  for (const auto& [path, writes] : disk_->unsynced_writes) {
    for (const auto& write : writes) {
      const auto fate = random() % 3;  // stays, goes, is torn
      if (fate == 1) Blank(path, write.offset, write.bytes);
      for (uint64_t at = 0; fate == 2 && at < write.bytes; at += kSectorBytes) {
        if (random() % 2 == 0) Blank(path, write.offset + at, kSectorBytes);
      }
    }
  }
  for (auto& [path, bytes] : disk_->synced_bytes) {
    const uint64_t written = disk_->written_bytes[path];
    if (!std::filesystem::exists(path, ignored)) continue;
    if (written > bytes) {  // a part of the tail, with sectors missing in it
      const uint64_t kept = bytes + random() % (written - bytes + 1);
      std::filesystem::resize_file(path, kept, ignored);
      for (uint64_t at = bytes; at + kSectorBytes <= kept; at += kSectorBytes) {
        if (random() % 4 == 0) Blank(path, at, kSectorBytes);
      }
      bytes = kept;
    }
  }
  disk_->unsynced_names.clear();
  disk_->unsynced_writes.clear();
  disk_->written_bytes = disk_->synced_bytes;
}

}  // namespace corpusd
