#include "tests/support/daemon_fixture.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

namespace corpusd {

using std::chrono::milliseconds;

DaemonTest::DaemonTest() {
  std::string pattern = (std::filesystem::temp_directory_path() / "corpusd-XXXXXX").string();
  folder_ = mkdtemp(pattern.data());
  options_.data_dir = folder_;
  options_.socket_path = folder_ + "/s";
  options_.frame_bytes_max = size_t{16} << 20;
  options_.connections_max = 64;
  options_.queries_max = 4;
  options_.host_bytes = 1 << 20;
  options_.disk_bytes = 1 << 20;
}

DaemonTest::~DaemonTest() {
  controls_.ReleasePrefill();
  controls_.ReleaseTokenizers();
  daemon_.reset();
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

Result<std::unique_ptr<Daemon>> DaemonTest::NewDaemon() {
  auto store = std::make_unique<FakeBlockStore>(disk_);
  auto engine = std::make_unique<FakeEngine>(*store, controls_);
  return Daemon::Start(options_, std::move(store), std::move(engine), Daemon::SystemNowMs,
                       /*metrics=*/nullptr, peer_of_);
}

void DaemonTest::StartDaemon() {
  auto daemon = NewDaemon();
  ASSERT_TRUE(daemon.ok()) << daemon.status().ToString();
  daemon_ = *std::move(daemon);
}

void DaemonTest::StopDaemon(milliseconds grace) {
  daemon_->Shutdown(grace);
  daemon_.reset();
}

std::unique_ptr<CorpusClient> DaemonTest::Connect(milliseconds timeout) {
  ClientOptions options;
  options.socket_path = options_.socket_path;
  options.timeout = timeout;
  auto client = CorpusClient::Connect(options);
  if (!client.ok()) {
    ADD_FAILURE() << client.error().message;
    return nullptr;
  }
  return *std::move(client);
}

int DaemonTest::ConnectRaw() {
  const int file = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  options_.socket_path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  EXPECT_EQ(connect(file, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  return file;
}

ClientResult<v1::IngestReply> DaemonTest::Ingest(CorpusClient& client, const std::string& name,
                                                 const std::string& text) {
  v1::IngestBegin begin;
  begin.set_name(name);
  return client.Ingest(begin, [&](IngestWriter& writer) {
    return writer.BeginSource("a.txt") && writer.Write(text) && writer.EndSource();
  });
}

void DaemonTest::MakeReady(CorpusClient& client, const std::string& name, const std::string& text) {
  const auto ingested = Ingest(client, name, text);
  ASSERT_TRUE(ingested.ok()) << ingested.error().message;
  const auto job = client.WatchJob(ingested->job().id(), nullptr);
  ASSERT_TRUE(job.ok()) << job.error().message;
  ASSERT_EQ(job->state(), "done") << job->error();
}

void DaemonTest::WaitFor(const char* what, const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "waited in vain for: " << what;
    std::this_thread::sleep_for(milliseconds(2));
  }
}

}  // namespace corpusd
