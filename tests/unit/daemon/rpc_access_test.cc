// Roles, tenants and quotas over a socket, with peers that the test makes up.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>

#include "client/token_stream.h"
#include "tests/support/daemon_fixture.h"

namespace corpusd {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

constexpr uint32_t kOwn = 54001, kOwnReader = 54002, kAcme = 54011, kAcmeReader = 54012,
                   kAcmeAdmin = 54013, kGlobex = 54021, kNobody = 54099;

constexpr const char* kTable = R"(
[users]
"uid:54001" = "writer"
"uid:54002" = "reader"
"uid:54011" = "writer:acme"
"uid:54012" = "reader:acme"
"uid:54013" = "admin:acme"
"uid:54021" = "writer:globex"
[tenants]
acme = "0"
globex = "300KiB"
)";

class RpcAccessTest : public DaemonTest {
 protected:
  RpcAccessTest() {
    options_.access_path = folder_ + "/access.toml";
    WriteTable(kTable);
    options_.disk_bytes = uint64_t{1} << 30;
    options_.disk_high_percent = 95;
    peer_of_ = [this](int) {
      Peer peer;
      peer.known = true;
      peer.uid = uid_;
      peer.gid = 100000 + uid_;
      peer.admin = uid_ == 0;
      return peer;
    };
    StartDaemon();
  }

  void WriteTable(const std::string& text) { std::ofstream(options_.access_path) << text; }

  std::unique_ptr<CorpusClient> As(uint32_t uid) {
    uid_ = uid;
    auto client = Connect();
    (void)client->Ping();  // it has been accepted, and asked who it is
    return client;
  }

  static std::vector<std::string> NamesOf(CorpusClient& client) {
    std::vector<std::string> names;
    const auto list = client.List();
    EXPECT_TRUE(list.ok());
    for (const v1::Corpus& corpus : list->corpora()) names.push_back(corpus.name());
    return names;
  }

  static v1::AskRequest Question(const std::string& corpus) {
    v1::AskRequest request;
    request.set_name(corpus);
    request.set_question("q");
    request.set_max_tokens(2);
    return request;
  }

  // Every call that names a corpus, and what came of it.
  static std::map<std::string, std::string> CallsOn(CorpusClient& client, const std::string& name) {
    std::map<std::string, std::string> outcomes;
    const auto note = [&](const std::string& verb, const auto& result) {
      outcomes[verb] = result.ok() ? "ok" : result.error().code_text;
    };
    note("ask", client.Ask(Question(name), nullptr));
    note("show", client.Show(name));
    note("explain", [&] {
      v1::ExplainMissRequest request;
      request.set_name(name);
      return client.ExplainMiss(request);
    }());
    note("verify", client.Verify(name, false, nullptr));
    note("export", client.Export(name, [](const v1::ExportData&) { return true; }));
    note("touch", client.Touch(name, std::chrono::hours(1)));
    note("warm", client.Warm(name, "host"));
    note("pin", client.Pin(name, "disk", std::chrono::milliseconds(0)));
    note("unpin", client.Unpin(name));
    note("evict", client.Evict(name, "host", false));
    note("append", [&] {
      v1::IngestBegin begin;
      begin.set_name(name);
      return client.Append(begin, [](IngestWriter& writer) {
        return writer.BeginSource("b") && writer.Write("more") && writer.EndSource();
      });
    }());
    note("rename", client.Rename(name, "stolen"));
    note("remove", client.Remove(name));
    return outcomes;
  }

  std::atomic<uint32_t> uid_{0};
};

TEST_F(RpcAccessTest, RolesAllowWhatTheySay) {
  auto writer = As(kOwn), reader = As(kOwnReader), nobody = As(kNobody);
  MakeReady(*writer, "docs", std::string(100, 't'));
  EXPECT_EQ(nobody->List().error().code_text, "permission_denied");
  EXPECT_EQ(nobody->Ask(Question("docs"), nullptr).error().code_text, "permission_denied");
  EXPECT_THAT(nobody->List().error().message, HasSubstr("uid:54099"));
  EXPECT_EQ(Ingest(*nobody, "x", "text").error().code_text, "permission_denied");

  std::map<std::string, std::string> outcomes = CallsOn(*reader, "docs");
  for (const auto& [verb, outcome] : outcomes) {
    const bool reads = verb == "ask" || verb == "show" || verb == "explain";
    EXPECT_EQ(outcome == "permission_denied", !reads) << verb << ": " << outcome;
  }
  EXPECT_EQ(Ingest(*reader, "x", "text").error().code_text, "permission_denied");
  EXPECT_TRUE(reader->DiskUsage().ok());
  EXPECT_TRUE(reader->Jobs().ok());
  EXPECT_EQ(reader->CancelJob(1).error().code_text, "permission_denied");
  for (CorpusClient* const client : {reader.get(), writer.get()}) {
    EXPECT_EQ(client->Scrub(0).error().code_text, "permission_denied");
    EXPECT_EQ(client->Doctor().error().code_text, "permission_denied");
    v1::EvictRequest all;
    all.set_all(true);
    EXPECT_EQ(client->Evict(all).error().code_text, "permission_denied");
    EXPECT_EQ(client
                  ->Import(
                      "y", [](const PieceSender&) { return ClientResult<Done>(Done{}); }, nullptr)
                  .error()
                  .code_text,
              "permission_denied");
  }
  EXPECT_THAT(NamesOf(*reader), UnorderedElementsAre("docs"));
  auto root = As(0);
  EXPECT_TRUE(root->Doctor().ok());
  EXPECT_TRUE(root->Scrub(0).ok());
}

TEST_F(RpcAccessTest, TenantsHaveNamesOfTheirOwn) {
  auto own = As(kOwn), acme = As(kAcme), reader = As(kAcmeReader), globex = As(kGlobex);
  MakeReady(*own, "docs", std::string(10, 'o'));
  MakeReady(*acme, "docs", std::string(20, 'a'));
  MakeReady(*globex, "docs", std::string(30, 'g'));
  MakeReady(*acme, "more", std::string(40, 'm'));
  EXPECT_THAT(NamesOf(*own), UnorderedElementsAre("docs"));
  EXPECT_THAT(NamesOf(*acme), UnorderedElementsAre("docs", "more"));
  EXPECT_THAT(NamesOf(*reader), UnorderedElementsAre("docs", "more"));
  EXPECT_THAT(NamesOf(*globex), UnorderedElementsAre("docs"));
  EXPECT_EQ(own->Show("docs")->tokens(), 10u);
  EXPECT_EQ(acme->Show("docs")->tokens(), 20u);
  EXPECT_EQ(globex->Ask(Question("docs"), nullptr)->usage().cached_tokens(), 30u);
  auto root = As(0);
  EXPECT_THAT(NamesOf(*root),
              UnorderedElementsAre("docs", "acme/docs", "acme/more", "globex/docs"));
  EXPECT_EQ(root->Show("acme/docs")->tokens(), 20u);
  EXPECT_EQ(root->Rename("acme/docs", "docs2").error().code_text, "invalid_argument");
  EXPECT_EQ(Ingest(*root, "initech/x", "text").error().code_text, "not_found");
  ASSERT_TRUE(acme->Rename("more", "less").ok());
  ASSERT_TRUE(acme->Remove("docs").ok());
  EXPECT_THAT(NamesOf(*root), UnorderedElementsAre("docs", "acme/less", "globex/docs"));
  EXPECT_TRUE(globex->Ask(Question("docs"), nullptr).ok());
}

// Whatever a tenant tries on another's corpus is what it is on one that there is not.
TEST_F(RpcAccessTest, NothingTellsOfAnotherTenantsCorpus) {
  auto acme = As(kAcme), globex = As(kGlobex), own = As(kOwn), root = As(0);
  MakeReady(*acme, "secret", std::string(100, 's'));
  ASSERT_TRUE(acme->Pin("secret", "disk", std::chrono::milliseconds(0)).ok());
  for (CorpusClient* const client : {globex.get(), own.get()}) {
    const auto absent = CallsOn(*client, "absent");
    for (const char* const name : {"secret", "acme/secret", "acme/absent", "globex/secret"}) {
      EXPECT_EQ(CallsOn(*client, name), absent) << name;
    }
    // The same words as well.
    EXPECT_EQ(client->Show("secret").error().message, "corpus 'secret' does not exist");
    EXPECT_EQ(client->Show("acme/secret").error().message, "corpus 'acme/secret' does not exist");
    EXPECT_EQ(Ingest(*client, "acme/secret", "text").error().code_text, "not_found");
  }
  ASSERT_TRUE(acme->Show("secret").ok()) << "it is untouched";
  EXPECT_TRUE(acme->Show("secret")->pinned());
  // A name that another tenant has is free.
  EXPECT_TRUE(Ingest(*globex, "secret", "text").ok());
}

TEST_F(RpcAccessTest, JobsOfOthersAreNotThere) {
  auto acme = As(kAcme), globex = As(kGlobex), own = As(kOwn), root = As(0);
  controls_.HoldPrefill();
  const auto ingested = Ingest(*acme, "secret", std::string(64, 's'));
  ASSERT_TRUE(ingested.ok());
  EXPECT_EQ(ingested->corpus().name(), "secret");
  EXPECT_EQ(ingested->job().corpus(), "secret");
  const uint64_t id = ingested->job().id();
  const std::string none = globex->Job(999).error().message;
  for (CorpusClient* const client : {globex.get(), own.get()}) {
    EXPECT_EQ(client->Jobs()->jobs_size(), 0);
    for (const auto& result :
         {client->Job(id), client->CancelJob(id), client->WatchJob(id, nullptr)}) {
      ASSERT_FALSE(result.ok());
      EXPECT_EQ(result.error().code_text, "not_found");
      EXPECT_EQ(result.error().message,
                none.substr(0, 4) + std::to_string(id) + none.substr(none.find(" does")));
    }
  }
  EXPECT_EQ(acme->Job(id)->corpus(), "secret");
  ASSERT_EQ(root->Jobs()->jobs_size(), 1);
  EXPECT_EQ(root->Jobs()->jobs(0).corpus(), "acme/secret");
  controls_.ReleasePrefill();
  EXPECT_EQ(acme->WatchJob(id, nullptr)->state(), "done");
}

// Nothing that a tenant is sent holds a word of another.
TEST_F(RpcAccessTest, FiguresOfTheDaemonAreTheTenantsOwn) {
  auto acme = As(kAcme), globex = As(kGlobex);
  MakeReady(*acme, "secret", std::string(100, 's'));
  ASSERT_TRUE(acme->Pin("secret", "disk", std::chrono::milliseconds(0)).ok());
  MakeReady(*globex, "docs", std::string(30, 'g'));
  ASSERT_TRUE(globex->Pin("docs", "disk", std::chrono::milliseconds(0)).ok());
  const auto usage = globex->DiskUsage();
  ASSERT_TRUE(usage.ok()) << usage.error().message;
  ASSERT_EQ(usage->corpora_size(), 1);
  EXPECT_EQ(usage->corpora(0).name(), "docs");
  ASSERT_EQ(usage->pin_holders_size(), 1);
  EXPECT_EQ(usage->pin_holders(0).owner(), "uid:54021");
  EXPECT_EQ(usage->leases_size(), 0);
  ASSERT_EQ(usage->tiers_size(), 1);
  EXPECT_EQ(usage->tiers(0).name(), "disk");
  EXPECT_EQ(usage->tiers(0).capacity_bytes(), 300u << 10) << "the quota";
  EXPECT_EQ(usage->tiers(0).used_bytes(), 30u + 8192u) << "its own block";
  std::string all = usage->DebugString() + globex->List()->DebugString() +
                    globex->Jobs()->DebugString() + globex->Show("docs")->DebugString();
  EXPECT_THAT(all, Not(HasSubstr("acme")));
  EXPECT_THAT(all, Not(HasSubstr("secret")));
  EXPECT_THAT(all, Not(HasSubstr("54011")));
  EXPECT_THAT(all, Not(HasSubstr("globex"))) << "a tenant is not told what it is called";
  auto root = As(0);
  EXPECT_EQ(root->DiskUsage()->corpora_size(), 2);
}

TEST_F(RpcAccessTest, PinsAreTheOwnersAndAdminsOfTheTenant) {
  auto acme = As(kAcme), admin = As(kAcmeAdmin), root = As(0);
  MakeReady(*acme, "docs", std::string(100, 's'));
  ASSERT_TRUE(acme->Pin("docs", "disk", std::chrono::milliseconds(0)).ok());
  EXPECT_EQ(acme->Show("docs")->pin_owner(), "uid:54011");
  EXPECT_EQ(root->Show("acme/docs")->pin_owner(), "acme/uid:54011");
  EXPECT_TRUE(admin->Unpin("docs").ok());
  ASSERT_TRUE(admin->Pin("docs", "disk", std::chrono::milliseconds(0)).ok());
  const auto denied = acme->Unpin("docs");
  ASSERT_FALSE(denied.ok());
  EXPECT_EQ(denied.error().code_text, "permission_denied");
  EXPECT_THAT(denied.error().message, Not(HasSubstr("acme")));
}

TEST_F(RpcAccessTest, AQuotaIsChargedAtIngest) {
  // The fake engine's corpora are one block of their text's size.
  auto globex = As(kGlobex), acme = As(kAcme);
  MakeReady(*globex, "a", std::string(900, 'a'));
  uint64_t made = 1;
  for (;; ++made) {
    const auto more = Ingest(*globex, "b" + std::to_string(made), std::string(900, 'b'));
    if (more.ok()) continue;
    EXPECT_EQ(more.error().code_text, "resource_exhausted");
    EXPECT_THAT(more.error().message, HasSubstr("your quota is 300.0 KiB"));
    break;
  }
  EXPECT_EQ(made, (300u << 10) / (900 + 8192));
  EXPECT_EQ(NamesOf(*globex).size(), made) << "the one refused is not there";
  EXPECT_TRUE(Ingest(*acme, "b", std::string(900, 'b')).ok()) << "others have theirs";
  ASSERT_TRUE(globex->Remove("a").ok());
  EXPECT_TRUE(Ingest(*globex, "c", std::string(900, 'c')).ok());
}

TEST_F(RpcAccessTest, ANewTableCountsForTheNextRequest) {
  auto reader = As(kOwnReader);
  EXPECT_TRUE(reader->List().ok());
  EXPECT_EQ(Ingest(*reader, "x", "text").error().code_text, "permission_denied");
  WriteTable("[users]\n\"uid:54002\" = \"writer\"\n");
  ASSERT_TRUE(daemon_->ReloadAccess().ok());
  EXPECT_TRUE(Ingest(*reader, "x", "text").ok());
  WriteTable("[users]\n\"uid:54002\" = \"king\"\n");
  EXPECT_FALSE(daemon_->ReloadAccess().ok());
  EXPECT_TRUE(reader->List().ok()) << "a broken table changes nothing";
  WriteTable("");
  ASSERT_TRUE(daemon_->ReloadAccess().ok());
  EXPECT_EQ(reader->List().error().code_text, "permission_denied");
}

TEST_F(RpcAccessTest, DenialsAndAdminsAreWrittenDown) {
  auto nobody = As(kNobody), writer = As(kOwn), root = As(0);
  ::testing::internal::CaptureStderr();
  (void)nobody->List();
  (void)writer->Scrub(0);
  (void)root->Scrub(0);
  (void)writer->List();
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("audit"));
  EXPECT_THAT(log, HasSubstr("uid:54099"));
  EXPECT_THAT(log, HasSubstr("uid:54001 (writer)"));
  EXPECT_THAT(log, HasSubstr("scrub"));
  size_t lines = 0;
  for (size_t at = log.find("audit"); at != std::string::npos; at = log.find("audit", at + 1)) {
    ++lines;
  }
  EXPECT_EQ(lines, 3u) << log;
}

TEST_F(RpcAccessTest, AWrongTableIsAnErrorOfTheStart) {
  StopDaemon();
  WriteTable("[users]\n\"uid:1\" = \"king\"\n");
  const auto daemon = NewDaemon();
  ASSERT_FALSE(daemon.ok());
  EXPECT_THAT(std::string(daemon.status().message()), HasSubstr("uid:1"));
}

}  // namespace
}  // namespace corpusd
