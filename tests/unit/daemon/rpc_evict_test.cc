// Eviction by name, by size and of everything through a real socket; what happens to who asks an
// evicted corpus; tiers that are not there; who may import.
#include <gmock/gmock.h>

#include "daemon/rpc/peer.h"
#include "tests/support/daemon_fixture.h"

namespace corpusd {
namespace {

using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::HasSubstr;

class RpcEvictTest : public DaemonTest {
 protected:
  RpcEvictTest() {
    StartDaemon();
    client_ = Connect();
    MakeReady(*client_, "a", std::string(100, 't'));
    MakeReady(*client_, "b", std::string(200, 't'));
    MakeReady(*client_, "c", std::string(300, 't'));
  }

  static v1::EvictRequest FromDisk() {
    v1::EvictRequest request;
    request.set_from("disk");
    return request;
  }

  std::unique_ptr<CorpusClient> client_;
};

TEST_F(RpcEvictTest, ADryRunListsWhatWouldGoInOrderAndChangesNothing) {
  ASSERT_TRUE(client_->Pin("c", "disk", milliseconds(0)).ok());
  v1::EvictRequest request = FromDisk();
  request.set_to_free_bytes(150);
  request.set_dry_run(true);
  const auto reply = client_->Evict(request);
  ASSERT_TRUE(reply.ok()) << reply.error().message;
  ASSERT_EQ(reply->steps_size(), 2);
  EXPECT_EQ(reply->steps(0).corpus(), "a");
  EXPECT_EQ(reply->steps(1).bytes(), 200u);
  EXPECT_EQ(reply->steps(1).why(), "priority normal");
  EXPECT_EQ(reply->blocks(), 2u);
  EXPECT_EQ(reply->bytes(), 300u);
  EXPECT_EQ(client_->Show("a")->state(), "ready");
}

TEST_F(RpcEvictTest, AllTakesEverythingThatIsNotPinned) {
  ASSERT_TRUE(client_->Pin("b", "disk", milliseconds(0)).ok());
  v1::EvictRequest request = FromDisk();
  request.set_all(true);
  const auto reply = client_->Evict(request);
  ASSERT_TRUE(reply.ok()) << reply.error().message;
  EXPECT_EQ(reply->steps_size(), 2);
  EXPECT_EQ(reply->pinned_bytes(), 200u);
  EXPECT_EQ(client_->Show("a")->state(), "evicted");
  EXPECT_EQ(client_->Show("b")->state(), "ready");
}

// What leaves memory here leaves it on other ranks; of all, what they alone have goes as well.
TEST_F(RpcEvictTest, MemoryOfOtherRanksIsMeantToo) {
  ASSERT_TRUE(client_->Pin("b", "host", milliseconds(0)).ok());
  v1::EvictRequest request;
  request.set_from("host");
  request.set_to_free_bytes(1);
  request.set_dry_run(true);
  const auto alone = client_->Evict(request);
  ASSERT_TRUE(alone.ok()) << alone.error().message;
  controls_.rank_blocks = 3;
  const auto ranked = client_->Evict(request);
  ASSERT_TRUE(ranked.ok()) << ranked.error().message;
  EXPECT_EQ(ranked->steps_size(), alone->steps_size());
  EXPECT_EQ(ranked->blocks(), alone->blocks() + 3 * alone->steps_size());
  EXPECT_EQ(ranked->bytes(), alone->bytes() + 30 * alone->steps_size());
  request.clear_to_free_bytes();
  request.set_all(true);
  const auto all = client_->Evict(request);
  ASSERT_TRUE(all.ok()) << all.error().message;
  ASSERT_EQ(all->steps_size(), 2);  // not the pinned one
  for (const v1::EvictStep& step : all->steps()) EXPECT_NE(step.corpus(), "b");
}

TEST_F(RpcEvictTest, OneOfNameAllAndSizeIsSaid) {
  EXPECT_EQ(client_->Evict(FromDisk()).error().code_text, "invalid_argument");
  v1::EvictRequest both = FromDisk();
  both.set_name("a");
  both.set_all(true);
  EXPECT_EQ(client_->Evict(both).error().code_text, "invalid_argument");
}

TEST_F(RpcEvictTest, WhoAsksAnEvictedCorpusLearnsWhichJobBringsItBack) {
  v1::EvictRequest request = FromDisk();
  request.set_all(true);
  ASSERT_TRUE(client_->Evict(request).ok());
  controls_.HoldPrefill();
  v1::AskRequest question;
  question.set_name("a");
  question.set_question("why?");
  question.set_max_tokens(2);
  const auto refused = client_->Ask(question, nullptr);
  EXPECT_EQ(refused.error().code_text, "not_ready");
  EXPECT_THAT(refused.error().message,
              AllOf(HasSubstr("was evicted"), HasSubstr("corpusctl wait a"), HasSubstr("Job ")));
  const uint64_t job = client_->Show("a")->job_id();
  EXPECT_NE(job, 0u);
  // Warming asks for the same, and finds it under way.
  EXPECT_FALSE(client_->Ask(question, nullptr).ok());
  EXPECT_EQ(client_->Show("a")->job_id(), job);
  EXPECT_EQ(client_->Warm("b", "host").error().code_text, "not_ready");
  controls_.ReleasePrefill();
  WaitFor("the corpus", [&] { return client_->Show("a")->state() == "ready"; });
  EXPECT_TRUE(client_->Ask(question, nullptr).ok());
}

TEST_F(RpcEvictTest, ADeviceTierThatIsNotThereIsRefusedWithTheReason) {
  for (const auto& error :
       {client_->Pin("a", "device", milliseconds(0)).error(), client_->Warm("a", "device").error(),
        client_->Evict("a", "device", false).error()}) {
    EXPECT_EQ(error.code_text, "failed_precondition");
    EXPECT_THAT(error.message, HasSubstr("no device tier"));
  }
  EXPECT_FALSE(client_->Show("a")->pinned());
}

TEST(Peer, OnlyAdminsMayImport) {
  EXPECT_TRUE(CheckMayImport({true, 0, 0, 1, true}).ok());
  const Status refused = CheckMayImport({true, 1000, 1000, 812, false});
  EXPECT_EQ(refused.code(), StatusCode::kPermissionDenied);
  EXPECT_THAT(refused.message(), HasSubstr("uid:1000"));
  EXPECT_FALSE(CheckMayImport({}).ok());
}

}  // namespace
}  // namespace corpusd
