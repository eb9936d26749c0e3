// store/folder_lock.h -- one process per data folder. The lock is flock(2) on FOLDER/LOCK, so the
// kernel releases it however the owner ends; the file holds the owner's pid for the refusal's text.
#pragma once

#include <memory>
#include <string>

#include "store/base/result.h"

namespace corpusd {

class FolderLock {
 public:
  // kFailedPrecondition, naming the owner's pid, if another process holds the folder.
  static Result<std::unique_ptr<FolderLock>> Acquire(const std::string& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  explicit FolderLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace corpusd
