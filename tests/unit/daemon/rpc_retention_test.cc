// Pins, their owners and quotas, expiry and priority, through the client library and a real socket;
// and who may change whose pin.
#include <gmock/gmock.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/rpc/peer.h"
#include "store/pin_ledger.h"
#include "tests/support/daemon_fixture.h"

namespace corpusd {
namespace {

using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint32_t kNobody = 65534;
constexpr uint32_t kNameless = 4294900000;

TEST(Peer, TheKernelSaysWhoItIsAndTheDaemonsOwnUserIsAnAdmin) {
  int pair[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  const Peer peer = PeerOf(pair[0]);
  close(pair[0]);
  close(pair[1]);
  EXPECT_TRUE(peer.known && peer.admin);
  EXPECT_EQ(peer.uid, geteuid());
  EXPECT_THAT(PeerText(peer), HasSubstr("pid:" + std::to_string(getpid())));
  EXPECT_FALSE(PeerOf(-1).known);
  EXPECT_EQ(OwnerName({true, kNameless, 0, 0, false}), "uid:" + std::to_string(kNameless));
}

TEST(Peer, OnlyTheOwnerAndRootMayChangeAPin) {
  const Peer owner{true, kNameless, 0, 1, false};
  const Peer stranger{true, kNameless + 1, 0, 1, false};
  const Peer root{true, 0, 0, 1, true};
  CorpusRecord record;
  record.name = "filings";
  EXPECT_TRUE(CheckMayChangePin(record, stranger, 5).ok());
  record.pin = CorpusPin{2, 10, OwnerName(owner), "the audit", 0};
  EXPECT_TRUE(CheckMayChangePin(record, owner, 5).ok());
  EXPECT_TRUE(CheckMayChangePin(record, root, 5).ok());
  const Status refused = CheckMayChangePin(record, stranger, 5);
  EXPECT_EQ(refused.code(), StatusCode::kPermissionDenied);
  EXPECT_THAT(refused.message(), AllOf(HasSubstr(OwnerName(owner)), HasSubstr("the audit")));
  EXPECT_FALSE(CheckMayChangePin(record, Peer{}, 5).ok());
  EXPECT_TRUE(CheckMayChangePin(record, stranger, 10).ok());  // it has lapsed
}

class RpcRetentionTest : public DaemonTest {
 protected:
  RpcRetentionTest() {
    StartDaemon();
    client_ = Connect();
  }
  std::string Me() const { return OwnerName({true, geteuid(), 0, 0, true}); }
  std::unique_ptr<CorpusClient> client_;
};

TEST_F(RpcRetentionTest, APinHasTheCallersNameAndChangesPieceByPiece) {
  MakeReady(*client_, "a", std::string(100, 't'));
  v1::PinRequest request;
  request.set_name("a");
  request.set_tier("host");
  request.set_ttl_ms(60000);
  request.set_reason("the audit");
  request.set_keep(true);
  auto pinned = client_->Pin(request);
  ASSERT_TRUE(pinned.ok()) << pinned.error().message;
  EXPECT_EQ(pinned->pin_owner(), Me());
  EXPECT_EQ(pinned->pin_reason(), "the audit");
  EXPECT_EQ(pinned->pin_bytes(), 100u + kPinnedBlockOverheadBytes);
  EXPECT_GT(pinned->pinned_at_ms(), 0);

  v1::PinRequest longer;
  longer.set_name("a");
  longer.set_ttl_ms(120000);
  longer.set_keep(true);
  const int64_t before = pinned->pin_expires_at_ms();
  pinned = client_->Pin(longer);
  EXPECT_EQ(pinned->pin_tier(), "host");
  EXPECT_EQ(pinned->pin_reason(), "the audit");
  EXPECT_GT(pinned->pin_expires_at_ms(), before);
  longer.clear_ttl_ms();
  longer.set_tier("disk");
  longer.set_never_expires(true);
  pinned = client_->Pin(longer);
  EXPECT_EQ(pinned->pin_tier(), "disk");
  EXPECT_EQ(pinned->pin_expires_at_ms(), 0);
  // Without `keep` a pin is as the request says, no more.
  pinned = client_->Pin("a", "", milliseconds(0));
  EXPECT_EQ(pinned->pin_reason(), "");
}

TEST_F(RpcRetentionTest, ReasonsAreOneShortLine) {
  MakeReady(*client_, "a", "text");
  v1::PinRequest request;
  request.set_name("a");
  request.set_reason(std::string(257, 'r'));
  EXPECT_EQ(client_->Pin(request).error().code_text, "invalid_argument");
  request.set_reason("two\nlines");
  EXPECT_EQ(client_->Pin(request).error().code_text, "invalid_argument");
  EXPECT_FALSE(client_->Show("a")->pinned());
}

TEST_F(RpcRetentionTest, DiskUsageSaysWhoHoldsHowMuch) {
  MakeReady(*client_, "a", std::string(100, 't'));
  MakeReady(*client_, "b", std::string(200, 't'));
  ASSERT_TRUE(client_->Pin("a", "disk", milliseconds(0)).ok());
  ASSERT_TRUE(client_->Pin("b", "disk", milliseconds(0)).ok());
  const auto usage = client_->DiskUsage();
  ASSERT_EQ(usage->pin_holders_size(), 1);
  EXPECT_EQ(usage->pin_holders(0).owner(), Me());
  EXPECT_EQ(usage->pin_holders(0).pins(), 2u);
  EXPECT_EQ(usage->pin_holders(0).bytes(), 300u + 2 * kPinnedBlockOverheadBytes);
  EXPECT_EQ(usage->pins_total_bytes(), (uint64_t{1} << 20) / 10 * 9);
}

TEST_F(RpcRetentionTest, APinAtIngestIsOwnedAndAPriorityIsKept) {
  v1::IngestBegin begin;
  begin.set_name("a");
  begin.set_pin(true);
  begin.set_priority("high");
  const auto feed = [](IngestWriter& writer) {
    return writer.BeginSource("a.txt") && writer.Write("text") && writer.EndSource();
  };
  ASSERT_TRUE(client_->Ingest(begin, feed).ok());
  EXPECT_EQ(client_->Show("a")->pin_owner(), Me());
  EXPECT_EQ(client_->Show("a")->priority(), "high");
  begin.set_name("b");
  begin.set_priority("urgent");
  const auto refused = client_->Ingest(begin, feed);
  EXPECT_EQ(refused.error().code_text, "invalid_argument");
  EXPECT_THAT(refused.error().message, HasSubstr("low, normal, high"));
}

TEST_F(RpcRetentionTest, TouchChangesWhatItNames) {
  MakeReady(*client_, "a", "text");
  EXPECT_EQ(client_->Show("a")->priority(), "normal");
  ASSERT_GT(client_->Touch("a", milliseconds(60000))->expires_at_ms(), 0);
  v1::TouchRequest request;
  request.set_name("a");
  request.set_priority("low");
  request.set_keep_expiry(true);
  const auto touched = client_->Touch(request);
  ASSERT_TRUE(touched.ok()) << touched.error().message;
  EXPECT_EQ(touched->priority(), "low");
  EXPECT_GT(touched->expires_at_ms(), 0);
  request.set_priority("huge");
  EXPECT_EQ(client_->Touch(request).error().code_text, "invalid_argument");
}

TEST_F(RpcRetentionTest, AnothersPinIsNotRemovedWithItsCorpus) {
  // As it is after nobody pinned it: this client is the daemon's own user, so it may.
  MakeReady(*client_, "a", "text");
  CorpusRecord record = disk_->corpora.at("a");
  record.pin = CorpusPin{2, 0, OwnerName({true, kNobody, 0, 0, false}), "", 0};
  disk_->corpora["a"] = record;
  const auto repinned = client_->Pin("a", "disk", milliseconds(1000));
  EXPECT_EQ(repinned->pin_owner(), record.pin->owner);  // whose quota it is
  EXPECT_TRUE(client_->Remove("a").ok());
}

std::string CheckOf(const v1::DoctorReply& doctor, const std::string& name) {
  for (const v1::Check& check : doctor.checks()) {
    if (check.name() == name) return check.level() + ": " + check.text();
  }
  return "";
}

TEST_F(RpcRetentionTest, AReadOnlyStoreRefusesIngestAnswersTheRestAndComesBackByItself) {
  MakeReady(*client_, "a", "text");
  EXPECT_THAT(CheckOf(*client_->Doctor(), "writes"), HasSubstr("ok"));
  const auto set_full = [&](bool full) {
    const std::lock_guard lock(disk_->mutex);
    disk_->full = full;
  };
  set_full(true);
  EXPECT_FALSE(Ingest(*client_, "b", "text").ok());
  const auto refused = Ingest(*client_, "b", "text");
  EXPECT_EQ(refused.error().code_text, "resource_exhausted");
  EXPECT_THAT(refused.error().message,
              AllOf(HasSubstr("ingest of 'b'"), HasSubstr("read-only"), HasSubstr("free space")));
  const auto usage = client_->DiskUsage();
  EXPECT_TRUE(usage->write_state().read_only());
  EXPECT_THAT(usage->write_state().reason(), HasSubstr("no space left"));
  EXPECT_GT(usage->write_state().since_ms(), 0);
  EXPECT_THAT(CheckOf(*client_->Doctor(), "writes"),
              AllOf(HasSubstr("error"), HasSubstr("read-only"), HasSubstr("no space left")));
  v1::AskRequest question;
  question.set_name("a");
  question.set_question("still there?");
  EXPECT_TRUE(client_->Ask(question, nullptr).ok());
  set_full(false);
  // Nobody ingests: the daemon looks by itself.
  WaitFor("the store to take blocks again",
          [&] { return !client_->DiskUsage()->write_state().read_only(); });
  MakeReady(*client_, "b", "text");
}

TEST_F(RpcRetentionTest, ACorpusWhoseTimeIsOverGoesAndItsNameIsFree) {
  MakeReady(*client_, "a", "text");
  ASSERT_TRUE(client_->Touch("a", milliseconds(1)).ok());
  WaitFor("its end", [&] { return client_->Show("a").error().code_text == "not_found"; });
  MakeReady(*client_, "a", "text");
}

}  // namespace
}  // namespace corpusd
