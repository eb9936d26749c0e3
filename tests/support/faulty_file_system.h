// tests/support/faulty_file_system.h -- a disk under RocksDB that fills up, breaks, or loses power:
// then every byte and every name that was not synced is gone. Install before opening a store,
// remove after closing it. Any thread.
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
  // REQUIRES: what was opened on it is closed. Undoes what was not synced.
  void LosePower();

 private:
  struct Disk;
  class FileSystem;
  class File;
  class Folder;
  std::shared_ptr<Disk> disk_;
  struct Environment;
  std::unique_ptr<Environment> environment_;
};

}  // namespace corpusd
