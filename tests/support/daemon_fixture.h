// tests/support/daemon_fixture.h -- a whole daemon in this process over a fake engine and a fake
// store, with a real socket in a folder of its own, and clients for it. One thread drives it.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>

#include "client/corpus_client.h"
#include "daemon/daemon.h"
#include "tests/support/fake_block_store.h"
#include "tests/support/fake_engine.h"

namespace corpusd {

class DaemonTest : public ::testing::Test {
 protected:
  DaemonTest();
  ~DaemonTest() override;

  // Over disk_; again after StopDaemon is a restart.
  void StartDaemon();
  void StopDaemon(std::chrono::milliseconds grace = std::chrono::milliseconds(0));
  Result<std::unique_ptr<Daemon>> NewDaemon();
  std::unique_ptr<CorpusClient> Connect(
      std::chrono::milliseconds timeout = std::chrono::milliseconds(20000));
  // A connection without the client library: whoever misbehaves.
  int ConnectRaw();

  // A corpus of one source, its prefill job queued.
  static ClientResult<v1::IngestReply> Ingest(CorpusClient& client, const std::string& name,
                                              const std::string& text);
  // ... and ready.
  static void MakeReady(CorpusClient& client, const std::string& name, const std::string& text);
  // Polls until the condition holds; fails the test after a minute.
  static void WaitFor(const char* what, const std::function<bool()>& condition);

  std::string folder_;
  Options options_;
  FakeEngineControls controls_;
  std::shared_ptr<FakeDisk> disk_ = std::make_shared<FakeDisk>();
  Daemon::PeerProvider peer_of_ = PeerOf;  // changed before StartDaemon
  std::unique_ptr<Daemon> daemon_;
};

}  // namespace corpusd
