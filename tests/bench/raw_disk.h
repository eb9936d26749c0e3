// tests/bench/raw_disk.h -- what the disk under a folder gives to direct I/O with no layout at all:
// fio if it is installed, else a loop of our own. Uses threads itself.
#pragma once

#include <cstdint>
#include <string>

#include "store/base/result.h"

namespace corpusd {

class RawDisk {
 public:
  // Its file is FOLDER/raw, of so many bytes.
  RawDisk(std::string folder, uint64_t bytes);
  ~RawDisk();
  RawDisk(const RawDisk&) = delete;
  RawDisk& operator=(const RawDisk&) = delete;

  // Bytes a second, 1 MiB at a time, 8 in flight; writing ends with a sync. Write comes first.
  Result<double> Write();
  Result<double> ReadInOrder();
  Result<double> ReadAtRandom();
  const std::string& how() const { return how_; }

 private:
  enum class Work { kWrite, kRead, kRandomRead };
  Result<double> Run(Work work) const;
  Result<double> RunFio(Work work) const;
  Result<double> RunLoop(Work work) const;

  const std::string path_;
  const uint64_t bytes_;
  bool fio_ = false;
  std::string how_;
};

// Fills memory with bytes that do not repeat and do not compress.
void FillRandom(uint64_t seed, void* memory, uint64_t bytes);

}  // namespace corpusd
