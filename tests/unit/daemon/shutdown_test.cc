// The way a daemon stops: what runs may end, what does not end in time is cancelled, a prefill goes
// on later.
#include "daemon/shutdown.h"

#include <unistd.h>

#include <csignal>
#include <thread>

#include "client/token_stream.h"
#include "tests/support/daemon_fixture.h"

namespace corpusd {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

class ShutdownTest : public DaemonTest {
 protected:
  static v1::AskRequest Forever() {
    v1::AskRequest request;
    request.set_name("a");
    request.set_question("forever");
    request.set_stream(true);
    return request;
  }
};

TEST_F(ShutdownTest, IndexesAreLoadedFromTheStartOnAndGivenUpAtTheEnd) {
  controls_.hold_indexes = true;
  StartDaemon();
  WaitFor("their loading", [&] { return controls_.indexes_loading == 1; });
  auto client = Connect();
  MakeReady(*client, "a", "text");  // serves meanwhile
  const auto begin = steady_clock::now();
  StopDaemon();
  EXPECT_EQ(controls_.indexes_stopped, 1);
  EXPECT_LT(steady_clock::now() - begin, std::chrono::seconds(15));
}

TEST_F(ShutdownTest, QuestionsEndWithinTheGrace) {
  StartDaemon();
  auto client = Connect();
  MakeReady(*client, "a", "text");
  auto stream = client->StartAsk(Forever());
  ASSERT_TRUE(stream.ok());
  WaitFor("the question to run", [&] { return controls_.asks_running == 1; });
  std::jthread stopping([&] { StopDaemon(std::chrono::seconds(20)); });
  WaitFor("the socket to go", [&] { return access(options_.socket_path.c_str(), F_OK) != 0; });
  const auto begin = steady_clock::now();
  (*stream)->Cancel();  // still heard: the connection lives on
  for (;;) {
    const auto piece = (*stream)->Next();
    ASSERT_TRUE(piece.ok()) << piece.error().message;
    if (!piece->has_value()) break;
  }
  EXPECT_EQ((*stream)->reply().finish_reason(), "cancelled");
  stopping.join();
  EXPECT_LT(steady_clock::now() - begin, std::chrono::seconds(15));
}

TEST_F(ShutdownTest, QuestionsAreCancelledAfterTheGrace) {
  StartDaemon();
  auto client = Connect();
  MakeReady(*client, "a", "text");
  auto stream = client->StartAsk(Forever());
  ASSERT_TRUE(stream.ok());
  WaitFor("the question to run", [&] { return controls_.asks_running == 1; });
  StopDaemon(milliseconds(50));
  EXPECT_EQ(controls_.asks_stopped, 1);
  for (;;) {
    const auto piece = (*stream)->Next();
    ASSERT_TRUE(piece.ok()) << piece.error().message;
    if (!piece->has_value()) break;
  }
  EXPECT_EQ((*stream)->reply().finish_reason(), "cancelled");
  EXPECT_EQ(client->Ping().error().code_text, "unreachable");
}

TEST_F(ShutdownTest, PrefillGoesOnAfterTheRestart) {
  StartDaemon();
  auto client = Connect();
  controls_.HoldPrefill();
  const auto ingested = Ingest(*client, "a", std::string(160, 't'));
  ASSERT_TRUE(ingested.ok());
  controls_.PermitRuns(3);
  WaitFor("three runs", [&] { return controls_.runs == 3; });
  StopDaemon();
  controls_.ReleasePrefill();
  StartDaemon();
  client = Connect();
  const auto job = client->WatchJob(ingested->job().id(), nullptr);
  ASSERT_TRUE(job.ok()) << job.error().message;
  EXPECT_EQ(job->state(), "done");
  EXPECT_EQ(job->resumed_times(), 1u);
  EXPECT_EQ(controls_.runs, 10);
  EXPECT_EQ(client->Show("a")->state(), "ready");
}

TEST_F(ShutdownTest, ClientsThatWaitOrUploadAreTold) {
  StartDaemon();
  auto watcher = Connect(), uploader = Connect();
  controls_.HoldPrefill();
  const auto ingested = Ingest(*watcher, "a", std::string(160, 't'));
  ASSERT_TRUE(ingested.ok());
  std::jthread stopping;
  const auto watched = watcher->WatchJob(ingested->job().id(), [&](const v1::Job&) {
    if (!stopping.joinable()) stopping = std::jthread([&] { StopDaemon(); });
    return true;
  });
  ASSERT_FALSE(watched.ok());
  EXPECT_TRUE(watched.error().code_text == "unavailable" ||
              watched.error().code_text == "cancelled")
      << watched.error().message;
  stopping.join();
  EXPECT_EQ(Ingest(*uploader, "b", "text").error().code_text, "unreachable");
}

TEST(ShutdownSignals, FirstSignalIsReturned) {
  // In a child: blocked signals and handlers of this process stay as they are.
  EXPECT_EXIT(
      {
        ShutdownSignals signals;
        kill(getpid(), SIGTERM);
        _exit(signals.Wait() == SIGTERM ? 0 : 9);
      },
      ::testing::ExitedWithCode(0), "");
  EXPECT_EXIT(
      {
        ShutdownSignals signals;
        kill(getpid(), SIGINT);
        signals.Wait();
        kill(getpid(), SIGTERM);
        std::this_thread::sleep_for(std::chrono::seconds(10));
        _exit(9);
      },
      ::testing::ExitedWithCode(128 + SIGTERM), "");
}

}  // namespace
}  // namespace corpusd
