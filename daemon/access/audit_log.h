// daemon/access/audit_log.h -- AuditLog: the "audit" lines of the log, which tell who was denied
// and what admins did. A client that is denied a thousand times a second must neither fill the disk
// nor hide what others do: of each sender so many lines are written in a while, and of all so many;
// the others are counted, and one line says how many there were. Thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "daemon/access/principal.h"

namespace corpusd {

// How long a while is, and how many lines of it are written.
inline constexpr std::chrono::seconds kAuditWindow{10};
inline constexpr uint64_t kAuditSenderLines = 10;
inline constexpr uint64_t kAuditLines = 200;

struct AuditLine {
  std::string outcome;  // "allowed", "denied"; "suppressed": the counts of others
  std::string who, what, why;
  uint64_t allowed = 0, denied = 0;  // suppressed ones
};

class AuditLog {
 public:
  using Clock = std::chrono::steady_clock;
  using Write = std::function<void(const AuditLine&)>;
  using Now = std::function<Clock::time_point()>;
  // Writes to the daemon's log.
  AuditLog();
  AuditLog(Write write, Now now) : write_(std::move(write)), now_(std::move(now)) {}
  // Says what it had only counted.
  ~AuditLog();
  AuditLog(const AuditLog&) = delete;
  AuditLog& operator=(const AuditLog&) = delete;

  // what: "import", "scrub".
  void Admin(const Principal& principal, std::string_view what);
  void Denied(std::string_view who, std::string_view what, std::string_view why);
  // If a while is over: says what of it was only counted. To be called now and then, so that it is
  // said also when nothing follows.
  void Flush();

  struct Counts {
    uint64_t written = 0, suppressed = 0;  // since the start, but for the lines with counts
  };
  Counts counts() const;

 private:
  void Add(AuditLine line);
  // Begins a new while if the last is over. REQUIRES: mutex_ is held.
  void Turn(Clock::time_point now);
  void TellSuppressed();

  const Write write_;
  const Now now_;
  mutable std::mutex mutex_;  // held while writing, so that lines are in order
  Clock::time_point began_{};
  uint64_t lines_ = 0;                                    // of this while, written
  std::map<std::string, uint64_t, std::less<>> senders_;  // of this while; at most kAuditLines
  uint64_t allowed_ = 0, denied_ = 0;                     // of this while, not written
  Counts counts_;
};

}  // namespace corpusd
