// tests/support/faulty_file_system.h -- a disk under RocksDB and the segment files that fills up,
// breaks, or loses power: then what was not synced is gone, or there in part, in any order. Install
// before opening a store, remove after closing it. Any thread.
#pragma once

#include <memory>
#include <string>

namespace corpusd {

enum class DiskState { kFine, kFull, kBroken };

class FaultyFileSystem {
 public:
  FaultyFileSystem();  // from now on databases are opened on it
  ~FaultyFileSystem();
  FaultyFileSystem(const FaultyFileSystem&) = delete;
  FaultyFileSystem& operator=(const FaultyFileSystem&) = delete;

  // kFull: writes fail with "no space"; kBroken: with "input/output error". Reads go on.
  void SetState(DiskState state);
  // The disk breaks after so many more changes of files (appends, writes, syncs, names).
  void BreakAfter(uint64_t changes);
  // Changes of files so far.
  uint64_t changes() const;
  // REQUIRES: what was opened on it is closed. Undoes what was not synced.
  void LosePower();
  // The same, but each unsynced write and name stays, goes or is torn, as the seed says.
  void LosePowerUnevenly(uint32_t seed);

 private:
  struct Disk;
  class FileSystem;
  class File;
  class Folder;
  class Watcher;
  std::shared_ptr<Disk> disk_;
  struct Environment;
  std::unique_ptr<Environment> environment_;
  std::unique_ptr<Watcher> watcher_;
};

}  // namespace corpusd
