// Streams between ranks: how long is waited for one that does not answer, and whose end is seen.
#include "engine/ranks/tcp_socket.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <vector>

namespace corpusd {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// As a host that is down, one whose backlog is full leaves a caller without an answer.
TEST(TcpSocket, ConnectingEndsAtTheDeadlineIfNobodyAnswers) {
  std::string address;
  const auto listener = *ListenTcp("127.0.0.1:0", &address);
  ASSERT_EQ(listen(listener.fd(), 0), 0);
  std::vector<Socket> waiting;
  Status last;
  steady_clock::duration took{};
  while (last.ok() && waiting.size() < 8) {
    const auto start = steady_clock::now();
    auto socket = ConnectTcp(address, start + milliseconds(200));
    took = steady_clock::now() - start;
    last = socket.status();
    if (socket.ok()) waiting.push_back(*std::move(socket));
  }
  EXPECT_EQ(last.code(), StatusCode::kUnavailable) << last.ToString();
  EXPECT_EQ(last.message(), "connecting to " + address + ": no answer in time");
  EXPECT_LT(took, milliseconds(10'000));  // the kernel would try for two minutes
}

TEST(TcpSocket, WhoIsNotThereRefusesAndIsTriedUntilTheDeadline) {
  std::string address;
  ASSERT_TRUE(ListenTcp("127.0.0.1:0", &address).ok());  // and is gone again
  const auto start = steady_clock::now();
  const Status refused = ConnectTcp(address, start + milliseconds(150)).status();
  EXPECT_EQ(refused.message(), "connecting to " + address + ": Connection refused");
  EXPECT_GE(steady_clock::now() - start, milliseconds(150));
}

// Else who knocks while others are at work is never let in.
TEST(TcpSocket, WhoWaitsAlreadyIsAcceptedWithoutWaiting) {
  std::string address;
  const auto listener = *ListenTcp("127.0.0.1:0", &address);
  EXPECT_EQ(AcceptTcp(listener, steady_clock::now()).status().code(),
            StatusCode::kDeadlineExceeded);
  const auto here = ConnectTcp(address, steady_clock::now() + std::chrono::seconds(10));
  ASSERT_TRUE(here.ok()) << here.status().ToString();
  EXPECT_TRUE(AcceptTcp(listener, steady_clock::now()).ok());
}

TEST(TcpSocket, AnEndIsSeenWhetherItWasClosedOrBrokenOff) {
  std::string address;
  const auto listener = *ListenTcp("127.0.0.1:0", &address);
  for (const bool broken : {false, true}) {
    const auto soon = steady_clock::now() + std::chrono::seconds(10);
    auto here = *ConnectTcp(address, soon);
    auto there = *AcceptTcp(listener, soon);
    EXPECT_FALSE(HasClosed(here));
    const std::vector<std::byte> bytes(4);
    ASSERT_TRUE(SendBytes(there, bytes, soon).ok());
    EXPECT_FALSE(HasClosed(here)) << "there is something to be read";
    std::vector<std::byte> got(4);
    ASSERT_TRUE(ReceiveBytes(here, got, soon).ok());
    if (broken) {  // closing on bytes that nobody has read is a reset
      ASSERT_TRUE(SendBytes(here, bytes, soon).ok());
      ASSERT_TRUE(AwaitBytes(there, soon));
    }
    there.Close();
    ASSERT_TRUE(AwaitBytes(here, soon));
    EXPECT_TRUE(HasClosed(here)) << (broken ? "broken off" : "closed");
  }
}

}  // namespace
}  // namespace corpusd
