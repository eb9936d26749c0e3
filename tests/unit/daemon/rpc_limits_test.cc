// Clients that break the protocol or do not read: each is told or closed, and the others notice
// nothing.
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>

#include "client/unix_channel.h"
#include "daemon/net/rpc_connection.h"
#include "tests/support/daemon_fixture.h"

namespace corpusd {
namespace {

class RpcLimitsTest : public DaemonTest {
 protected:
  // Sends the bytes and RETURNS the error that the daemon closes the connection with.
  v1::Error LastWords(const std::string& bytes) {
    const int file = ConnectRaw();
    EXPECT_EQ(send(file, bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
    FrameDecoder decoder(kFrameBytesMaxDefault);
    v1::Response response;
    char buffer[4096];
    ssize_t got = 0;
    while ((got = read(file, buffer, sizeof(buffer))) > 0) {
      std::string_view input(buffer, static_cast<size_t>(got));
      while (decoder.Take(&input) == FrameDecoder::Outcome::kFrame) {
        EXPECT_TRUE(response.ParseFromString(decoder.frame()));
      }
    }
    EXPECT_EQ(got, 0);  // closed in order
    close(file);
    EXPECT_EQ(response.id(), 0u);
    EXPECT_TRUE(response.end_of_stream());
    return response.error();
  }
};

TEST_F(RpcLimitsTest, TwoGigabyteHeaderGetsAnErrorThenTheEnd) {
  StartDaemon();
  auto client = Connect();
  const v1::Error error = LastWords(std::string("\x80\x00\x00\x00", 4));
  EXPECT_EQ(error.code_text(), "invalid_argument");
  EXPECT_NE(error.message().find("2147483648"), std::string::npos);
  EXPECT_NE(error.message().find("16777216"), std::string::npos);
  EXPECT_TRUE(client->Ping().ok());
}

TEST_F(RpcLimitsTest, GarbageFrameGetsAnErrorThenTheEnd) {
  StartDaemon();
  EXPECT_EQ(LastWords(std::string("\x00\x00\x00\x02\xff\xff", 6)).code_text(), "invalid_argument");
}

TEST_F(RpcLimitsTest, OneClientTooManyIsToldToComeAgain) {
  options_.connections_max = 2;
  StartDaemon();
  auto first = Connect();
  auto second = Connect();
  ASSERT_TRUE(first->Ping().ok());
  ASSERT_TRUE(second->Ping().ok());
  EXPECT_EQ(Connect()->Ping().error().code_text, "unavailable");
  second.reset();
  WaitFor("a place", [&] { return Connect()->Ping().ok(); });
  EXPECT_TRUE(first->Ping().ok());
}

TEST_F(RpcLimitsTest, IdsAndUnknownRequestsAreChecked) {
  StartDaemon();
  auto channel =
      UnixChannel::Connect(options_.socket_path, kNoDeadline, kFrameBytesMaxDefault, nullptr);
  ASSERT_TRUE(channel.ok());
  const auto answer = [&](const v1::Request& request) {
    EXPECT_TRUE((*channel)->Send(request, kNoDeadline).ok());
    return (*channel)->Receive(kNoDeadline);
  };
  v1::Request request;
  request.mutable_ping();
  EXPECT_EQ(answer(request)->error().code_text(), "invalid_argument");  // id 0
  request.set_id(3);
  request.mutable_ingest_end();
  EXPECT_EQ(answer(request)->error().code_text(), "invalid_argument");  // no such ingest
  request.clear_body();
  EXPECT_EQ(answer(request)->error().code_text(), "unimplemented");
  request.mutable_cancel()->set_request_id(99);
  EXPECT_EQ(answer(request)->error().code_text(), "not_found");
  request.mutable_ingest_begin()->set_name("a");
  EXPECT_TRUE((*channel)->Send(request, kNoDeadline).ok());
  request.mutable_ping();
  EXPECT_EQ(answer(request)->error().code_text(), "invalid_argument");  // id 3 is open
}

TEST_F(RpcLimitsTest, ClientThatStopsReadingStallsNobodyAndIsClosed) {
  StartDaemon();
  auto client = Connect();
  MakeReady(*client, "a", "text");
  // 300 pieces of 256 KiB, never read: beyond the hard limit of 64 MiB.
  const int file = ConnectRaw();
  v1::Request request;
  request.set_id(1);
  request.mutable_ask()->set_name("a");
  request.mutable_ask()->set_question("big");
  request.mutable_ask()->set_max_tokens(100000);
  request.mutable_ask()->set_stream(true);
  std::string frame;
  ASSERT_TRUE(AppendFrame(request, kFrameBytesMaxDefault, &frame));
  ASSERT_EQ(write(file, frame.data(), frame.size()), static_cast<ssize_t>(frame.size()));
  WaitFor("the question to run",
          [&] { return controls_.asks_running + controls_.asks_stopped > 0; });
  EXPECT_TRUE(client->Ping().ok());
  EXPECT_TRUE(client->List().ok());
  WaitFor("the question to be given up", [&] { return controls_.asks_stopped == 1; });
  pollfd entry{file, 0, 0};
  EXPECT_EQ(poll(&entry, 1, 10000), 1);  // hung up
  EXPECT_TRUE(client->Ping().ok());
  close(file);
}

TEST_F(RpcLimitsTest, SocketOfADeadDaemonIsReplacedAndAFileIsNot) {
  StartDaemon();
  const std::string kept = folder_ + "/kept";
  std::filesystem::create_hard_link(options_.socket_path, kept);
  StopDaemon();
  EXPECT_FALSE(std::filesystem::exists(options_.socket_path));
  std::filesystem::rename(kept, options_.socket_path);  // as if it had been killed
  StartDaemon();
  EXPECT_TRUE(Connect()->Ping().ok());
  StopDaemon();
  FILE* file = fopen(options_.socket_path.c_str(), "w");
  ASSERT_NE(file, nullptr);
  fclose(file);
  EXPECT_EQ(NewDaemon().status().code(), StatusCode::kFailedPrecondition);
  EXPECT_TRUE(std::filesystem::is_regular_file(options_.socket_path));
  options_.socket_path = folder_ + "/" + std::string(120, 'x');
  EXPECT_EQ(NewDaemon().status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace corpusd
