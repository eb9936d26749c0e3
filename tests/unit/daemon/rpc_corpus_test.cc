// Ingest and the verbs on corpora and jobs, through the client library and a real socket.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include "tests/support/daemon_fixture.h"

namespace corpusd {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

class RpcCorpusTest : public DaemonTest {
 protected:
  RpcCorpusTest() {
    StartDaemon();
    client_ = Connect();
  }
  std::unique_ptr<CorpusClient> client_;
};

TEST_F(RpcCorpusTest, IngestPrefillShow) {
  MakeReady(*client_, "a", std::string(100, 't'));
  const auto corpus = client_->Show("a");
  ASSERT_TRUE(corpus.ok()) << corpus.error().message;
  EXPECT_EQ(corpus->state(), "ready");
  EXPECT_EQ(corpus->tokens(), 100u);
  EXPECT_EQ(corpus->durable_tokens(), 100u);
  EXPECT_EQ(corpus->model_digest(), "00ff");
  ASSERT_EQ(corpus->sources_size(), 1);
  EXPECT_EQ(corpus->sources(0).path(), "a.txt");
  const auto list = client_->List();
  ASSERT_TRUE(list.ok());
  EXPECT_EQ(list->corpora_size(), 1);
  EXPECT_EQ(client_->Show("b").error().code_text, "not_found");
}

TEST_F(RpcCorpusTest, LargeSourcesComeInPieces) {
  // Beyond what may wait for the tokenizer, so that reading stops and goes on.
  const std::string piece(100000, 'x');
  v1::IngestBegin begin;
  begin.set_name("long");
  begin.set_mode("exact");
  const auto reply = client_->Ingest(begin, [&](IngestWriter& writer) {
    if (!writer.BeginSource("caf\xE9")) return false;
    for (int i = 0; i < 300; ++i) {
      if (!writer.Write(piece)) return false;
    }
    return writer.EndSource();
  });
  ASSERT_FALSE(reply.ok());
  EXPECT_EQ(reply.error().code_text, "invalid_argument");
  EXPECT_THAT(reply.error().message, HasSubstr("1000"));
  EXPECT_TRUE(client_->Ping().ok());
  EXPECT_EQ(client_->Show("long").error().code_text, "not_found");
}

TEST_F(RpcCorpusTest, TooLongIsRefusedWithCountAndLimit) {
  const auto reply = Ingest(*client_, "long", std::string(1234, 'x'));
  ASSERT_FALSE(reply.ok());
  EXPECT_EQ(reply.error().code_text, "invalid_argument");
  EXPECT_THAT(reply.error().message, HasSubstr("1234"));
  EXPECT_THAT(reply.error().message, HasSubstr("1000"));
}

TEST_F(RpcCorpusTest, BadIngestsAreRefused) {
  for (const char* name : {"", "-a", ".a", "a b", "a/b", "a~previous", "a~", "~"}) {
    EXPECT_EQ(Ingest(*client_, name, "t").error().code_text, "invalid_argument") << name;
  }
  EXPECT_EQ(Ingest(*client_, std::string(129, 'a'), "t").error().code_text, "invalid_argument");
  v1::IngestBegin begin;
  begin.set_name("a");
  const auto nothing = [](IngestWriter&) { return true; };
  EXPECT_EQ(client_->Ingest(begin, nothing).error().code_text, "invalid_argument");
  begin.set_mode("sliced");
  EXPECT_EQ(client_->Ingest(begin, nothing).error().code_text, "invalid_argument");
  begin.set_mode("segmented");
  begin.set_update(true);
  EXPECT_EQ(client_->Ingest(begin, nothing).error().code_text, "not_found");
  begin.set_update(false);
  for (int i = 0; i < 1025; ++i) begin.add_roots("/r");
  EXPECT_EQ(client_->Ingest(begin, nothing).error().code_text, "invalid_argument");
  begin.clear_roots();
  begin.set_mode("exact");
  const auto open_source = [](IngestWriter& writer) {
    return writer.BeginSource("x") && writer.Write(std::string(300000, 'x'));
  };
  EXPECT_EQ(client_->Ingest(begin, open_source).error().code_text, "invalid_argument");
  const auto giving_up = [](IngestWriter& writer) { return writer.BeginSource("x") && false; };
  EXPECT_EQ(client_->Ingest(begin, giving_up).error().code_text, "cancelled");
  MakeReady(*client_, "a", "text");
  EXPECT_EQ(Ingest(*client_, "a", "text").error().code_text, "already_exists");
}

// The fake counts bytes as tokens.
TEST_F(RpcCorpusTest, AnIngestThatRunsOutOfMemoryFailsAlone) {
  const auto failed = Ingest(*client_, "a", "no memory");
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().code_text, "internal");
  MakeReady(*client_, "a", "text");
}

TEST_F(RpcCorpusTest, AnUpdateIsAJobOfItsOwnAndThenTakesThePlace) {
  MakeReady(*client_, "a", std::string(100, 't'));
  v1::IngestBegin begin;
  begin.set_name("a");
  begin.set_update(true);
  begin.add_roots("/docs");
  controls_.HoldPrefill();
  const auto text = [](IngestWriter& writer) {
    return writer.BeginSource("x") && writer.Write("new text") && writer.EndSource();
  };
  const auto update = client_->Ingest(begin, text);
  ASSERT_TRUE(update.ok()) << update.error().message;
  EXPECT_EQ(update->job().corpus(), "a~update");
  EXPECT_EQ(update->corpus().replaces(), "a");
  EXPECT_EQ(client_->Show("a")->tokens(), 100u) << "asked as it was until then";
  EXPECT_EQ(client_->Ingest(begin, text).error().code_text, "not_ready") << "one at a time";
  controls_.ReleasePrefill();
  WaitFor("the update", [&] { return client_->Show("a")->tokens() == 8; });
  EXPECT_EQ(client_->Show("a")->roots(0), "/docs");
  EXPECT_EQ(client_->Show("a~previous")->tokens(), 100u);
  ASSERT_TRUE(client_->Remove("a").ok());
  EXPECT_EQ(client_->Show("a~previous").error().code_text, "not_found") << "goes with it";
}

// What an update makes has a name that no user can give, but every verb understands.
TEST_F(RpcCorpusTest, CompanionsAreListedShownAndRemoved) {
  MakeReady(*client_, "a", std::string(100, 't'));
  EXPECT_EQ(client_->Rename("a", "b~previous").error().code_text, "invalid_argument");
  {
    const std::lock_guard lock(disk_->mutex);
    CorpusRecord record = disk_->corpora["a"];
    record.name = "a~previous";
    record.id = disk_->next_id++;
    disk_->corpora[record.name] = record;
  }
  ASSERT_EQ(client_->List()->corpora_size(), 2);
  EXPECT_EQ(client_->List()->corpora(1).name(), "a~previous");
  EXPECT_EQ(client_->Show("a~previous")->tokens(), 100u);
  v1::AskRequest question;
  question.set_name("a~previous");
  question.set_question("q");
  const auto answer = client_->Ask(question, nullptr);
  EXPECT_TRUE(answer.ok()) << answer.error().message;
  EXPECT_TRUE(client_->Remove("a~previous").ok());
  EXPECT_EQ(client_->List()->corpora_size(), 1);
}

TEST_F(RpcCorpusTest, AppendGrowsAndResumes) {
  MakeReady(*client_, "a", std::string(50, 't'));
  v1::IngestBegin begin;
  begin.set_name("a");
  const auto more = client_->Append(begin, [](IngestWriter& writer) {
    return writer.BeginSource("b.txt") && writer.Write("more") && writer.EndSource();
  });
  ASSERT_TRUE(more.ok()) << more.error().message;
  ASSERT_EQ(client_->WatchJob(more->job().id(), nullptr)->state(), "done");
  EXPECT_EQ(client_->Show("a")->tokens(), 54u);
  EXPECT_EQ(client_->Show("a")->sources(1).first_token(), 50u);
  const auto nothing = [](IngestWriter&) { return true; };
  EXPECT_EQ(client_->Append(begin, nothing).error().code_text, "invalid_argument");

  controls_.HoldPrefill();
  const auto cancelled = Ingest(*client_, "b", std::string(64, 't'));
  ASSERT_TRUE(cancelled.ok());
  begin.set_name("b");
  EXPECT_EQ(client_->Append(begin, nothing).error().code_text, "not_ready");
  ASSERT_TRUE(client_->CancelJob(cancelled->job().id()).ok());
  EXPECT_EQ(client_->WatchJob(cancelled->job().id(), nullptr)->state(), "cancelled");
  EXPECT_EQ(client_->Show("b")->state(), "cancelled");
  controls_.ReleasePrefill();
  const auto resumed = client_->Append(begin, nothing);
  ASSERT_TRUE(resumed.ok()) << resumed.error().message;
  EXPECT_EQ(client_->WatchJob(resumed->job().id(), nullptr)->state(), "done");
}

TEST_F(RpcCorpusTest, RemoveCancelsTheJobFirst) {
  controls_.HoldPrefill();
  const auto ingested = Ingest(*client_, "a", std::string(64, 't'));
  ASSERT_TRUE(ingested.ok());
  EXPECT_EQ(client_->Rename("a", "b").error().code_text, "failed_precondition");
  ASSERT_TRUE(client_->Remove("a").ok());
  EXPECT_EQ(client_->Job(ingested->job().id())->state(), "cancelled");
  EXPECT_EQ(client_->Show("a").error().code_text, "not_found");
  EXPECT_EQ(client_->Remove("a").error().code_text, "not_found");
}

TEST_F(RpcCorpusTest, WatchTellsProgressAndMayBeLeft) {
  controls_.HoldPrefill();
  const auto ingested = Ingest(*client_, "a", std::string(64, 't'));
  ASSERT_TRUE(ingested.ok());
  controls_.PermitRuns(1);
  const auto seen = client_->WatchJob(ingested->job().id(),
                                      [](const v1::Job& job) { return job.done_tokens() == 0; });
  ASSERT_TRUE(seen.ok());
  EXPECT_EQ(seen->done_tokens(), 16u);
  EXPECT_EQ(client_->Jobs()->jobs(0).state(), "running");
  client_->set_timeout(milliseconds(50));
  EXPECT_EQ(client_->WatchJob(ingested->job().id(), nullptr).error().code_text,
            "deadline_exceeded");
  client_->set_timeout(milliseconds(20000));
  EXPECT_EQ(client_->WatchJob(99, nullptr).error().code_text, "not_found");
}

TEST_F(RpcCorpusTest, PinsAndTiers) {
  MakeReady(*client_, "a", std::string(600, 't'));
  MakeReady(*client_, "b", std::string(600, 't'));
  EXPECT_EQ(client_->Pin("a", "device", milliseconds(0)).error().code_text, "failed_precondition");
  EXPECT_EQ(client_->Pin("a", "attic", milliseconds(0)).error().code_text, "invalid_argument");
  const auto pinned = client_->Pin("a", "host", milliseconds(60000));
  ASSERT_TRUE(pinned.ok()) << pinned.error().message;
  EXPECT_EQ(pinned->pin_tier(), "host");
  EXPECT_GT(pinned->pin_expires_at_ms(), Daemon::SystemNowMs());
  EXPECT_EQ(client_->Pin("b", "host", milliseconds(0)).error().code_text, "resource_exhausted");
  EXPECT_EQ(client_->Evict("a", "", false).error().code_text, "failed_precondition");
  EXPECT_FALSE(client_->Unpin("a")->pinned());
  EXPECT_TRUE(client_->Evict("a", "disk", true).ok());
  EXPECT_EQ(client_->Warm("a", "host")->bytes(), 600u);
  EXPECT_GT(client_->Touch("a", milliseconds(1000))->expires_at_ms(), 0);
  EXPECT_EQ(client_->Touch("a", milliseconds(0))->expires_at_ms(), 0);
  ASSERT_TRUE(client_->Rename("a", "c").ok());
  EXPECT_EQ(client_->Show("c")->tokens(), 600u);
  EXPECT_EQ(client_->Rename("c", "b").error().code_text, "already_exists");
}

TEST_F(RpcCorpusTest, AdminVerbs) {
  MakeReady(*client_, "a", "text");
  EXPECT_EQ(client_->Version()->backend(), "cpu-fake");
  EXPECT_EQ(client_->DiskUsage()->tiers_size(), 2);
  uint64_t last_total = 0;
  const auto verified = client_->Verify("a", true, [&](uint64_t, uint64_t total) {
    last_total = total;
    return true;
  });
  ASSERT_TRUE(verified.ok());
  EXPECT_EQ(verified->damaged(), 1u);
  EXPECT_EQ(verified->repaired(), 1u);
  EXPECT_EQ(last_total, 3u);
  const auto doctor = client_->Doctor();
  ASSERT_TRUE(doctor.ok());
  std::string names;
  for (const v1::Check& check : doctor->checks()) names += check.name() + " ";
  for (const char* name : {"model", "backend", "socket", "store", "disk", "fsync", "memory",
                           "huge_pages", "clock", "daemon"}) {
    EXPECT_THAT(names, HasSubstr(name));
  }
}

TEST(FakeReplaceCorpus, DoesTheSame) {
  FakeBlockStore store(std::make_shared<FakeDisk>());
  CorpusRecord old;
  old.name = "a";
  old.priority = RetentionPriority::kHigh;
  old.state = CorpusState::kReady;
  old = *store.CreateCorpus(old, {});
  CorpusRecord made = old;
  made.name = "a~update";
  made.priority = RetentionPriority::kNormal;
  made = *store.CreateCorpus(made, {});
  EXPECT_EQ(store.ReplaceCorpus("a~update", "a", "a~previous", 9).status().code(),
            StatusCode::kFailedPrecondition);
  made.replaces = "a";
  ASSERT_TRUE(store.UpdateCorpus(made).ok());
  ASSERT_TRUE(store.ReplaceCorpus("a~update", "a", "a~previous", 9).ok());
  EXPECT_EQ(store.GetCorpus("a")->id, made.id);
  EXPECT_EQ(store.GetCorpus("a")->priority, RetentionPriority::kHigh);
  EXPECT_EQ(store.GetCorpus("a")->replaces, "");
  EXPECT_EQ(store.GetCorpus("a~previous")->id, old.id);
  EXPECT_EQ(store.GetCorpus("a~previous")->expires_at_ms, 9);
  EXPECT_EQ(store.ListCorpora().size(), 2u);
}

TEST_F(RpcCorpusTest, SocketHasItsModeAndRefusesASecondDaemon) {
  struct stat entry {};
  ASSERT_EQ(stat(options_.socket_path.c_str(), &entry), 0);
  EXPECT_EQ(entry.st_mode & 0777, 0660u);
  const auto second = NewDaemon();
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), StatusCode::kAlreadyExists);
  EXPECT_THAT(second.status().message(), HasSubstr(options_.socket_path));
  EXPECT_TRUE(client_->Ping().ok());
  EXPECT_TRUE(Connect()->Ping().ok());
}

}  // namespace
}  // namespace corpusd
