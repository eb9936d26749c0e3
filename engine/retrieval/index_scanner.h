// engine/retrieval/index_scanner.h -- the threads and the instruction set that indexes are scanned
// with: apart from the backend's, so that a scan neither waits for a turn at the compute gate nor
// touches the device. Thread-safe: scans of several questions take turns.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>

#include "kernels/cpu/thread_pool.h"
#include "kernels/index_tile.h"

namespace corpusd {

class IndexScanner {
 public:
  // threads: 0: one per processor this process may use. isa: as EngineOptions.isa; what the
  // processor does not have is scanned by the reference, slowly.
  explicit IndexScanner(unsigned threads = 0, std::string_view isa = "auto");

  // As ReferenceScanIndex, bit for bit.
  void Scan(const IndexScanTask& task) const { scan_(task); }
  std::string_view isa() const { return isa_; }
  unsigned threads() const { return pool_.threads(); }

  // body(item, thread) for every item in [0, items), one range of neighbours a thread. Must not be
  // called from a body.
  template <typename Body>
  void ForRanges(uint32_t items, const Body& body) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    pool_.ParallelForRanges(items, body);
  }

 private:
  void (*scan_)(const IndexScanTask& task) noexcept;
  std::string_view isa_;
  mutable std::mutex mutex_;
  mutable ThreadPool pool_;
};

}  // namespace corpusd
