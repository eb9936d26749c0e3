// tests/bench/disk_layout.h -- ways to lay blocks out on a disk, for corpus-bench disk-tier. Two
// corpora, 0 and 1, each a sequence of blocks. One thread writes; any number read.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "store/base/result.h"

namespace corpusd {

struct LayoutBlock {
  uint32_t corpus = 0;
  uint32_t index = 0;
  std::span<const std::byte> payload;
};

class DiskLayout {
 public:
  virtual ~DiskLayout() = default;
  // Opens the folder, again too; what was open is closed first.
  virtual Status Open(const std::string& folder) = 0;
  // Durable when it returns.
  virtual Status Write(std::span<const LayoutBlock> blocks) = 0;
  // Waits until the layout has no work of its own left.
  virtual Status Settle() { return OkStatus(); }
  // REQUIRES: target has the payload's size.
  virtual Status Read(uint32_t corpus, uint32_t index, std::span<std::byte> target) = 0;
  // Removes the corpus and does what the layout offers to get the space back.
  virtual Status Remove(uint32_t corpus) = 0;
};

std::unique_ptr<DiskLayout> MakeInlineTables();    // RocksDB: values in the tables, through its log
std::unique_ptr<DiskLayout> MakeBlobs();           // RocksDB: BlobDB, through its log
std::unique_ptr<DiskLayout> MakeIngestedTables();  // RocksDB: one ingested table a publish
std::unique_ptr<DiskLayout> MakeSegments();        // PayloadStore, what the product uses

}  // namespace corpusd
