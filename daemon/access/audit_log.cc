#include "daemon/access/audit_log.h"

#include <utility>

#include "daemon/log.h"

namespace corpusd {
namespace {

void WriteLine(const AuditLine& line) {
  if (line.outcome == "allowed") {
    Log(LogLevel::kInfo, "audit",
        {{"outcome", line.outcome}, {"who", line.who}, {"what", line.what}});
  } else if (line.outcome == "denied") {
    Log(LogLevel::kWarn, "audit",
        {{"outcome", line.outcome}, {"who", line.who}, {"what", line.what}, {"why", line.why}});
  } else {
    Log(LogLevel::kWarn, "audit",
        {{"outcome", line.outcome},
         {"denied", line.denied},
         {"allowed", line.allowed},
         {"seconds", kAuditWindow.count()}});
  }
}

}  // namespace

AuditLog::AuditLog() : AuditLog(WriteLine, Clock::now) {}

AuditLog::~AuditLog() {
  const std::lock_guard lock(mutex_);
  TellSuppressed();
}

void AuditLog::Admin(const Principal& principal, std::string_view what) {
  Add({"allowed", PrincipalText(principal), std::string(what), ""});
}

void AuditLog::Denied(std::string_view who, std::string_view what, std::string_view why) {
  Add({"denied", std::string(who), std::string(what), std::string(why)});
}

void AuditLog::Flush() {
  const std::lock_guard lock(mutex_);
  Turn(now_());
}

AuditLog::Counts AuditLog::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

void AuditLog::Add(AuditLine line) {
  const std::lock_guard lock(mutex_);
  Turn(now_());
  // Nobody's name is kept beyond the lines that are written, so there are few.
  const auto sender =
      lines_ < kAuditLines ? senders_.try_emplace(line.who, 0).first : senders_.end();
  if (sender == senders_.end() || sender->second == kAuditSenderLines) {
    ++(line.outcome == "denied" ? denied_ : allowed_);
    ++counts_.suppressed;
    return;
  }
  ++sender->second;
  ++lines_;
  ++counts_.written;
  write_(line);
}

void AuditLog::Turn(Clock::time_point now) {
  if (now - began_ < kAuditWindow) return;
  TellSuppressed();
  began_ = now;
  lines_ = 0;
  senders_.clear();
}

void AuditLog::TellSuppressed() {
  if (allowed_ + denied_ == 0) return;
  AuditLine line;
  line.outcome = "suppressed";
  line.allowed = std::exchange(allowed_, 0);
  line.denied = std::exchange(denied_, 0);
  write_(line);
}

}  // namespace corpusd
