// store/write_gate.h -- WriteGate: whether the store takes new blocks. A write that the disk
// refused (full, or an input/output error) shuts it: then what would write is refused at once with
// a sentence that says what to do, while reading, removing and unpinning go on. It opens by itself
// as soon as a probe of the disk succeeds. Not for the configured cap, which refuses one publish
// and not all. Thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>

#include "store/base/status.h"

namespace corpusd {

struct WriteState {
  bool read_only = false;
  std::string reason;    // what was tried and what the disk said
  int64_t since_ms = 0;  // Unix time
  uint64_t refused = 0;  // calls turned away since then
  bool operator==(const WriteState&) const = default;
};

class WriteGate {
 public:
  // Tries the disk, and whether so many bytes have room. One call at a time, without the lock.
  using Probe = std::function<Status(uint64_t needed_bytes)>;
  // Told of every change of read_only, in order, without the lock.
  using Listener = std::function<void(const WriteState&)>;

  WriteGate(Probe probe, Listener listener)
      : probe_(std::move(probe)), listener_(std::move(listener)) {}

  // Ok while open, or if a probe opens it now; else kResourceExhausted with the reason and what to
  // do. what: "storing blocks of corpus 'a'".
  Status Admit(const std::string& what);
  // Shuts the gate if the write failed because of the disk: kResourceExhausted or kIoError.
  // needed_bytes: what must have room before it opens again. RETURNS the status as it is.
  Status Observe(const Status& written, uint64_t needed_bytes);
  // Probes if shut. RETURNS whether the gate is open.
  bool TryOpen();
  WriteState state() const;

 private:
  void Tell();

  const Probe probe_;
  const Listener listener_;
  std::mutex probe_mutex_;  // one probe at a time
  std::mutex tell_mutex_;   // one change told at a time
  bool told_read_only_ = false;
  mutable std::mutex mutex_;
  WriteState state_;
  uint64_t needed_bytes_ = 0;
  bool full_ = false;  // shut by a full disk, not by a broken one
};

}  // namespace corpusd
