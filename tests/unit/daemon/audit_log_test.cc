// The audit under a flood: what is written, what is counted, and that nobody hides another.
#include "daemon/access/audit_log.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

namespace corpusd {
namespace {

class AuditLogTest : public ::testing::Test {
 protected:
  AuditLogTest() {
    audit_ = std::make_unique<AuditLog>([this](const AuditLine& line) { lines_.push_back(line); },
                                        [this] { return now_; });
  }
  std::vector<AuditLine> lines_;
  AuditLog::Clock::time_point now_{std::chrono::hours(1)};
  std::unique_ptr<AuditLog> audit_;
};

TEST_F(AuditLogTest, AFloodIsCountedAndToldInOneLine) {
  for (int i = 0; i < 1000; ++i) audit_->Denied("mallory", "remove", "no");
  audit_->Denied("alice", "pin", "no");
  audit_->Admin({"root", "", Role::kAdmin}, "scrub");
  ASSERT_EQ(lines_.size(), kAuditSenderLines + 2);
  EXPECT_EQ(lines_.back().outcome, "allowed");
  EXPECT_EQ(lines_.back().who, "root (admin)");
  EXPECT_EQ(audit_->counts().suppressed, 1000 - kAuditSenderLines);
  audit_->Flush();  // the while is not over
  EXPECT_EQ(lines_.size(), kAuditSenderLines + 2);
  now_ += kAuditWindow;
  audit_->Flush();
  ASSERT_EQ(lines_.size(), kAuditSenderLines + 3);
  EXPECT_EQ(lines_.back().outcome, "suppressed");
  EXPECT_EQ(lines_.back().denied, 1000 - kAuditSenderLines);
  EXPECT_EQ(lines_.back().allowed, 0u);
  audit_->Denied("mallory", "remove", "no");
  EXPECT_EQ(lines_.back().who, "mallory");
  now_ += kAuditWindow;
  audit_->Flush();  // nothing was left out
  EXPECT_EQ(lines_.size(), kAuditSenderLines + 4);
}

TEST_F(AuditLogTest, ManySendersTogetherHaveALimitToo) {
  for (int i = 0; i < 5000; ++i) audit_->Denied("pid " + std::to_string(i), "connect", "no");
  EXPECT_EQ(lines_.size(), kAuditLines);
  EXPECT_EQ(audit_->counts().written, kAuditLines);
  audit_ = nullptr;  // what was only counted is told at the end at the latest
  EXPECT_EQ(lines_.back().outcome, "suppressed");
  EXPECT_EQ(lines_.back().denied, 5000 - kAuditLines);
}

}  // namespace
}  // namespace corpusd
