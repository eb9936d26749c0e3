// The client against a peer that the test plays itself: errors of the connection, deadlines,
// interrupts.
#include "client/unix_channel.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

#include "client/corpus_client.h"

namespace corpusd {
namespace {

using std::chrono::milliseconds;

class UnixChannelTest : public ::testing::Test {
 protected:
  UnixChannelTest() {
    std::string pattern = ::testing::TempDir() + "corpusd-XXXXXX";
    folder_ = mkdtemp(pattern.data());
    path_ = folder_ + "/s";
    listener_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(listen(listener_, 8), 0);
  }
  ~UnixChannelTest() override {
    close(listener_);
    unlink(path_.c_str());
    rmdir(folder_.c_str());
  }

  std::unique_ptr<CorpusClient> Connect(milliseconds timeout,
                                        const std::atomic<bool>* interrupted = nullptr) {
    ClientOptions options;
    options.socket_path = path_;
    options.timeout = timeout;
    options.interrupted = interrupted;
    auto client = CorpusClient::Connect(options);
    EXPECT_TRUE(client.ok());
    return client.ok() ? *std::move(client) : nullptr;
  }
  int Accept() const { return accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC); }

  std::string folder_, path_;
  int listener_;
};

TEST_F(UnixChannelTest, NobodyListensNamesThePath) {
  const auto client = CorpusClient::Connect({.socket_path = folder_ + "/nobody"});
  ASSERT_FALSE(client.ok());
  EXPECT_EQ(client.error().code_text, "unreachable");
  EXPECT_NE(client.error().message.find(folder_ + "/nobody"), std::string::npos);
}

TEST_F(UnixChannelTest, TooLongPathIsRefused) {
  const auto client = CorpusClient::Connect({.socket_path = std::string(200, 'x')});
  ASSERT_FALSE(client.ok());
  EXPECT_EQ(client.error().code_text, "invalid_argument");
}

TEST_F(UnixChannelTest, ClosedConnectionIsUnreachable) {
  auto client = Connect(milliseconds(5000));
  close(Accept());
  const auto reply = client->Ping();
  ASSERT_FALSE(reply.ok());
  EXPECT_EQ(reply.error().code_text, "unreachable");
}

TEST_F(UnixChannelTest, LastWordsOfTheDaemonAreHeard) {
  auto client = Connect(milliseconds(5000));
  const int peer = Accept();
  v1::Response response;
  response.set_end_of_stream(true);
  response.mutable_error()->set_code(10);
  response.mutable_error()->set_code_text("unavailable");
  response.mutable_error()->set_message("too many clients");
  std::string frame;
  ASSERT_TRUE(AppendFrame(response, kFrameBytesMaxDefault, &frame));
  ASSERT_EQ(write(peer, frame.data(), frame.size()), static_cast<ssize_t>(frame.size()));
  close(peer);
  const auto reply = client->Ping();
  ASSERT_FALSE(reply.ok());
  EXPECT_EQ(reply.error().code_text, "unavailable");
  EXPECT_EQ(reply.error().message, "too many clients");
}

TEST_F(UnixChannelTest, SilentDaemonRunsIntoTheDeadline) {
  auto client = Connect(milliseconds(50));
  const int peer = Accept();
  const auto begin = std::chrono::steady_clock::now();
  const auto reply = client->Ping();
  ASSERT_FALSE(reply.ok());
  EXPECT_EQ(reply.error().code_text, "deadline_exceeded");
  EXPECT_GE(std::chrono::steady_clock::now() - begin, milliseconds(50));
  close(peer);
}

TEST_F(UnixChannelTest, InterruptEndsTheWait) {
  std::atomic<bool> interrupted{false};
  auto client = Connect(milliseconds(0), &interrupted);
  const int peer = Accept();
  std::jthread signal([&] {
    std::this_thread::sleep_for(milliseconds(50));
    interrupted = true;
  });
  const auto reply = client->Ping();
  ASSERT_FALSE(reply.ok());
  EXPECT_EQ(reply.error().code_text, "interrupted");
  close(peer);
}

TEST_F(UnixChannelTest, GarbageIsAProtocolError) {
  auto client = Connect(milliseconds(5000));
  const int peer = Accept();
  const std::string garbage("\x00\x00\x00\x04\xff\xff\xff\xff", 8);
  ASSERT_EQ(write(peer, garbage.data(), garbage.size()), 8);
  const auto reply = client->Ping();
  ASSERT_FALSE(reply.ok());
  EXPECT_EQ(reply.error().code_text, "protocol");
  close(peer);
}

TEST_F(UnixChannelTest, QuestionThatIsNotUtf8IsRefusedHere) {
  auto client = Connect(milliseconds(5000));
  const int peer = Accept();
  v1::AskRequest request;
  request.set_name("c");
  request.set_question("caf\xE9");
  const auto reply = client->Ask(request, nullptr);
  ASSERT_FALSE(reply.ok());
  EXPECT_EQ(reply.error().code_text, "invalid_argument");
  close(peer);
}

}  // namespace
}  // namespace corpusd
