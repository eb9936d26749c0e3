// Bundles through the socket, and why blocks miss: the store is real, the engine is not.
#include <gmock/gmock.h>

#include "client/unix_channel.h"
#include "store/bundle_writer.h"
#include "tests/unit/daemon/integrity_fixture.h"

namespace corpusd {
namespace {

using ::testing::HasSubstr;

class RpcBundleTest : public IntegrityFixture {
 protected:
  std::string Export(CorpusClient& client, const std::string& name, v1::ExportReply* reply) {
    std::string bytes;
    auto exported = client.Export(name, [&](const v1::ExportData& piece) {
      bytes += piece.content();
      return true;
    });
    EXPECT_TRUE(exported.ok()) << exported.error().message;
    if (exported.ok()) *reply = *exported;
    return bytes;
  }
  static ClientResult<v1::ImportReply> Import(CorpusClient& client, const std::string& name,
                                              std::string_view bytes) {
    return client.Import(
        name,
        [&](const PieceSender& send) -> ClientResult<Done> {
          send(bytes);
          return Done{};
        },
        nullptr);
  }
  // The client dies in the middle.
  static void BreakOff(CorpusClient& client, std::string_view bytes) {
    const auto broken = client.Import(
        "",
        [&](const PieceSender& send) -> ClientResult<Done> {
          send(bytes.substr(0, bytes.size() / 2));
          return ClientError{kClientInterrupted, "interrupted", "pulled the plug"};
        },
        nullptr);
    EXPECT_EQ(broken.error().code_text, "interrupted");
  }
  void WaitForWholeBlocks(const std::string& name) {
    WaitFor("whole blocks", [&] {
      const auto record = store_->GetCorpus(name);
      return record.ok() && record->chain.size() >= 4 &&
             record->error.find("import the bundle again") != std::string::npos;
    });
  }
};

TEST_F(RpcBundleTest, ACorpusGoesOutAndComesBack) {
  const TestCorpus corpus = Put("filings", 1, 40);
  StartDaemonOverStore();
  auto client = Connect();
  v1::ExportReply reply;
  const std::string bytes = Export(*client, "filings", &reply);
  EXPECT_EQ(reply.blocks(), 40u);
  EXPECT_EQ(reply.bytes(), bytes.size());
  EXPECT_EQ(reply.sha256().size(), 64u);
  ASSERT_TRUE(client->Remove("filings").ok());
  const auto imported = Import(*client, "copy", bytes);
  ASSERT_TRUE(imported.ok()) << imported.error().message;
  EXPECT_EQ(imported->corpus().name(), "copy");
  EXPECT_EQ(imported->corpus().state(), "ready");
  EXPECT_EQ(imported->corpus().blocks(), 40u);
  EXPECT_EQ(store_->GetCorpus("copy")->chain, corpus.chain);
  EXPECT_TRUE(client->Ping().ok()) << "asks for pieces beyond the end are no harm";
}

TEST_F(RpcBundleTest, AnImportThatBreaksOffKeepsItsBlocksAndGoesOn) {
  Put("filings", 1, 10);
  StartDaemonOverStore();
  auto client = Connect();
  v1::ExportReply reply;
  const std::string bytes = Export(*client, "filings", &reply);
  ASSERT_TRUE(client->Remove("filings").ok());
  BreakOff(*client, bytes);
  client = Connect();
  WaitForWholeBlocks("filings");
  EXPECT_EQ(client->Show("filings")->state(), "cancelled");
  const auto whole = Import(*client, "", bytes);
  ASSERT_TRUE(whole.ok()) << whole.error().message;
  EXPECT_GE(whole->reused_blocks(), 4u);
  EXPECT_EQ(whole->corpus().state(), "ready");
  EXPECT_EQ(whole->corpus().blocks(), 10u);
}

TEST_F(RpcBundleTest, AnImportThatBreaksOffBeforeAWorkerTookItKeepsItsBlocks) {
  Put("filings", 1, 10);
  StartDaemonOverStore();
  auto client = Connect();
  v1::ExportReply reply;
  const std::string bytes = Export(*client, "filings", &reply);
  ASSERT_TRUE(client->Remove("filings").ok());
  controls_.HoldTokenizers();
  auto busy =
      UnixChannel::Connect(options_.socket_path, kNoDeadline, kFrameBytesMaxDefault, nullptr);
  ASSERT_TRUE(busy.ok());
  for (const int worker : {1, 2}) {
    v1::Request ingest;
    ingest.set_id(worker);
    ingest.mutable_ingest_begin()->set_name("busy" + std::to_string(worker));
    ASSERT_TRUE((*busy)->Send(ingest, kNoDeadline).ok());
  }
  WaitFor("no worker is free", [&] { return controls_.tokenizers_waiting == 2; });
  BreakOff(*client, bytes);
  EXPECT_TRUE(client->Ping().ok());  // answered after the end of the import was read
  controls_.ReleaseTokenizers();
  WaitForWholeBlocks("filings");
}

TEST_F(RpcBundleTest, WhatCannotBeServedIsRefusedBeforeItIsSent) {
  Put("theirs", 1, 3, 0, /*weights=*/"beef");
  Put("ours", 2, 3);
  StartDaemonOverStore();
  auto client = Connect();
  v1::ExportReply reply;
  std::string bytes = Export(*client, "theirs", &reply);
  const auto refused = Import(*client, "x", bytes);
  EXPECT_EQ(refused.error().code_text, "invalid_argument");
  EXPECT_THAT(refused.error().message, HasSubstr("weights: bundle 'beef', here '00ff'"));
  bytes = Export(*client, "ours", &reply);
  EXPECT_EQ(Import(*client, "ours", bytes).error().code_text, "already_exists");
  EXPECT_EQ(Import(*client, "../x", bytes).error().code_text, "invalid_argument");
  EXPECT_EQ(Import(*client, "x", "").error().code_text, "corruption");
  EXPECT_EQ(Import(*client, "x", "no bundle, but long enough").error().code_text, "corruption");
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  const auto damaged = Import(*client, "x", bytes);
  EXPECT_EQ(damaged.error().code_text, "corruption");
  EXPECT_THAT(damaged.error().message, HasSubstr("the bundle is damaged before byte"));
  EXPECT_NE(client->Show("x")->state(), "ready");
}

TEST_F(RpcBundleTest, AnExportThatCannotBeginSaysWhy) {
  Put("a", 1, 2);
  StartDaemonOverStore();
  auto client = Connect();
  const auto none = client->Export("b", [](const v1::ExportData&) { return true; });
  EXPECT_EQ(none.error().code_text, "not_found");
  controls_.HoldPrefill();
  ASSERT_TRUE(Ingest(*client, "c", "some text").ok());
  const auto unready = client->Export("c", [](const v1::ExportData&) { return true; });
  EXPECT_EQ(unready.error().code_text, "not_ready");
  const auto given_up = client->Export("a", [](const v1::ExportData&) { return false; });
  EXPECT_EQ(given_up.error().code_text, "cancelled");
  EXPECT_TRUE(client->Ping().ok());
}

TEST_F(RpcBundleTest, AMissIsExplainedForACorpusAndForAText) {
  Put("a", 1, 3);
  StartDaemonOverStore();
  auto client = Connect();
  v1::ExplainMissRequest request;
  request.set_name("a");
  auto reply = client->ExplainMiss(request);
  ASSERT_TRUE(reply.ok()) << reply.error().message;
  EXPECT_EQ(reply->reason(), "none");
  EXPECT_EQ(reply->present(), 3u);
  EXPECT_TRUE(reply->not_served().empty()) << reply->not_served();
  ASSERT_TRUE(client->Evict("a", "disk", false).ok());
  reply = client->ExplainMiss(request);
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->reason(), "evicted");
  EXPECT_GT(reply->runs(0).when_ms(), 0);
  request.Clear();
  request.set_text("a text that nobody has ingested");
  reply = client->ExplainMiss(request);
  ASSERT_TRUE(reply.ok()) << reply.error().message;
  EXPECT_EQ(reply->reason(), "never_seen");
  request.set_text("");
  EXPECT_EQ(client->ExplainMiss(request).error().code_text, "invalid_argument");
  request.set_name("nobody");
  EXPECT_EQ(client->ExplainMiss(request).error().code_text, "not_found");
}

}  // namespace
}  // namespace corpusd
