// Both transports: what arrives, and what is said when it does not.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <future>
#include <mutex>
#include <numeric>

#include "engine/ranks/tcp_transport.h"
#include "tests/unit/engine/ranks/rank_threads.h"

namespace corpusd {
namespace {

class TransportTest : public ::testing::TestWithParam<RankJob> {};

std::vector<std::byte> Pattern(size_t bytes, uint32_t seed) {
  std::vector<std::byte> out(bytes);
  for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<std::byte>((i * 131 + seed * 29) >> 3);
  return out;
}

TEST_P(TransportTest, MessagesOfEveryPairArriveInOrderWhileOthersAreUnderWay) {
  RunRanks(GetParam(), [](Transport& transport) {
    const size_t sizes[] = {1, 0, 3'000'001, 16};
    const uint32_t ranks = transport.size(), me = transport.rank();
    std::vector<std::vector<std::byte>> sent, got;
    for (uint32_t r = 0; r < ranks; ++r) {
      for (const size_t size : sizes) {
        sent.push_back(Pattern(size, me * 100 + r));
        got.emplace_back(size);
      }
    }
    std::vector<TransferPtr> transfers;
    for (uint32_t r = 0; r < ranks; ++r) {
      for (size_t i = 0; r != me && i < 4; ++i) {
        transfers.push_back(transport.Send(r, sent[r * 4 + i]));
        transfers.push_back(transport.Receive(r, got[r * 4 + i]));
      }
    }
    const Status status = WaitAll(transfers);
    EXPECT_TRUE(status.ok()) << status.ToString();
    for (uint32_t r = 0; r < ranks; ++r) {
      for (size_t i = 0; r != me && i < 4; ++i) {
        EXPECT_EQ(got[r * 4 + i], Pattern(sizes[i], r * 100 + me)) << "from " << r;
      }
    }
  });
}

TEST_P(TransportTest, CollectivesGiveEveryRankTheSame) {
  std::mutex mutex;
  std::vector<std::vector<float>> all_sums;
  RunRanks(GetParam(), [&](Transport& transport) {
    const uint32_t ranks = transport.size(), me = transport.rank();
    for (uint32_t root = 0; root < ranks; ++root) {
      auto bytes = me == root ? Pattern(777, root) : std::vector<std::byte>(777);
      EXPECT_TRUE(transport.Broadcast(root, bytes).ok());
      EXPECT_EQ(bytes, Pattern(777, root)) << "from " << root;
    }
    std::vector<std::byte> all(ranks * 100);
    EXPECT_TRUE(transport.AllGather(Pattern(100, me), all).ok());
    for (uint32_t r = 0; r < ranks; ++r) {
      const auto own = Pattern(100, r);
      EXPECT_TRUE(std::equal(own.begin(), own.end(), all.begin() + r * 100)) << r;
    }
    // Sums that depend on their order: the ranks' own is the one that counts.
    std::vector<float> values(1001), expected(1001, 0);
    const auto number = [](uint32_t r, size_t i) {
      return (r % 2 == 0 ? 1e7F : 1.0F) / static_cast<float>(i % 13 + r + 1);
    };
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = number(me, i);
      for (uint32_t r = 0; r < ranks; ++r) expected[i] += number(r, i);
    }
    EXPECT_TRUE(transport.AllReduceSum(values).ok());
    EXPECT_EQ(values, expected);
    EXPECT_TRUE(transport.Barrier().ok());
    const std::lock_guard lock(mutex);
    all_sums.push_back(values);
  });
  ASSERT_EQ(all_sums.size(), GetParam().ranks);
  for (const auto& sums : all_sums) EXPECT_EQ(sums, all_sums.front());
}

TEST_P(TransportTest, ARankThatEndsIsNamedToThoseThatWaitForIt) {
  RunRanks(GetParam(), [](Transport& transport) {
    if (transport.rank() == 1) return;
    std::byte byte{};
    const Status status = transport.Receive(1, {&byte, 1})->Wait();
    EXPECT_EQ(status.code(), StatusCode::kUnavailable) << status.ToString();
    EXPECT_NE(status.message().find(transport.NameOf(1) + " was lost"), std::string::npos)
        << status.ToString();
    // And to those that come later.
    EXPECT_FALSE(transport.Send(1, {&byte, 1})->Wait().ok());
  });
}

TEST_P(TransportTest, WhoGivesUpTellsAllOthersWhy) {
  RunRanks(GetParam(), [](Transport& transport) {
    (void)transport.Barrier();  // rank 0 may give up before the others have left it
    if (transport.rank() == 0) {
      transport.Abort(IoError("the disk is full"));
      return;
    }
    std::byte byte{};
    // From a rank that would never send.
    const uint32_t from = transport.rank() == 1 ? 0 : 1;
    const Status status = transport.Receive(from, {&byte, 1})->Wait();
    EXPECT_FALSE(status.ok());
    EXPECT_NE(status.message().find("rank 0"), std::string::npos) << status.ToString();
    if (status.code() == StatusCode::kAborted) {
      EXPECT_NE(status.message().find("the disk is full"), std::string::npos) << status.ToString();
    }
  });
}

// What a rank does beside its transfers ends with the job, too.
TEST_P(TransportTest, WhoWaitsForNothingIsToldOfTheEnd) {
  RunRanks(GetParam(), [](Transport& transport) {
    std::promise<std::string> told;
    transport.OnEnd([&](const Status& why) { told.set_value(why.message()); });
    (void)transport.Barrier();
    if (transport.rank() == 0) transport.Abort(IoError("the disk is full"));
    auto end = told.get_future();
    if (end.wait_for(GetParam().timeout) == std::future_status::ready) {
      EXPECT_NE(end.get().find("rank 0"), std::string::npos);
    } else {
      ADD_FAILURE() << "rank " << transport.rank() << " was not told";
    }
    transport.OnEnd({});
    // Who comes late is told at once.
    bool late = false;
    transport.OnEnd([&](const Status&) { late = true; });
    EXPECT_TRUE(late);
    transport.OnEnd({});
  });
}

TEST_P(TransportTest, AMessageOfAnotherSizeEndsTheJob) {
  RunRanks(GetParam(), [](Transport& transport) {
    if (transport.rank() > 1) return;
    const std::vector<std::byte> sent(64);
    std::vector<std::byte> expected(65);
    if (transport.rank() == 0) {
      (void)transport.Send(1, sent)->Wait();
      // Whatever became of the send: the receiver has ended the job before it goes.
      std::byte byte{};
      EXPECT_FALSE(transport.Receive(1, {&byte, 1})->Wait().ok());
      return;
    }
    const Status status = transport.Receive(0, expected)->Wait();
    EXPECT_EQ(status.code(), StatusCode::kInternal) << status.ToString();
    EXPECT_NE(status.message().find("64 bytes"), std::string::npos) << status.ToString();
    EXPECT_FALSE(transport.Send(0, sent)->Wait().ok());
  });
}

TEST_P(TransportTest, ARankThatIsSilentIsNotWaitedForForever) {
  RankJob job = GetParam();
  job.timeout = std::chrono::milliseconds(150);
  RunRanks(job, [](Transport& transport) {
    std::byte byte{};
    const uint32_t other = (transport.rank() + 1) % transport.size();
    const Status status = transport.Receive(other, {&byte, 1})->Wait();
    EXPECT_TRUE(status.code() == StatusCode::kDeadlineExceeded ||
                status.code() == StatusCode::kAborted || status.code() == StatusCode::kUnavailable)
        << status.ToString();
    EXPECT_NE(status.message().find("rank"), std::string::npos);
  });
}

INSTANTIATE_TEST_SUITE_P(
    Jobs, TransportTest,
    ::testing::Values(RankJob{TransportKind::kInProcess, 2}, RankJob{TransportKind::kInProcess, 3},
                      RankJob{TransportKind::kInProcess, 4}, RankJob{TransportKind::kInProcess, 8},
                      RankJob{TransportKind::kTcp, 2}, RankJob{TransportKind::kTcp, 3},
                      RankJob{TransportKind::kTcp, 4}, RankJob{TransportKind::kTcp, 8}),
    [](const auto& job) { return NameOf(job.param); });

// A process that dies says nothing: its sockets are closed by the kernel.
TEST(TcpTransportTest, AProcessThatDiesIsNamed) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "ThreadSanitizer ends a forked process that starts threads";
#endif
  TcpJob job;
  job.addresses.resize(2);
  auto first = ListenTcp("127.0.0.1:0", &job.addresses[0]);
  auto second = ListenTcp("127.0.0.1:0", &job.addresses[1]);
  ASSERT_TRUE(first.ok() && second.ok());
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    job.rank = 1;
    auto transport = JoinTcpJob(std::move(*second), job);
    _exit(transport.ok() ? 0 : 1);
  }
  auto transport = JoinTcpJob(std::move(*first), job);
  ASSERT_TRUE(transport.ok()) << transport.status().ToString();
  std::byte byte{};
  const Status status = (*transport)->Receive(1, {&byte, 1})->Wait();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable) << status.ToString();
  EXPECT_NE(status.message().find("rank 1 of 2 (" + job.addresses[1] + ") was lost"),
            std::string::npos)
      << status.ToString();
  int ended = 0;
  ASSERT_EQ(waitpid(child, &ended, 0), child);
  EXPECT_EQ(ended, 0);
}

TEST(TcpTransportTest, ARankThatIsNotThereAndWhatIsNoAddressAreNamed) {
  TcpJob job;
  job.rank = 1;
  job.connect_timeout = std::chrono::milliseconds(120);
  std::string unused;
  auto listener = ListenTcp("127.0.0.1:0", &unused);
  ASSERT_TRUE(listener.ok());
  {
    auto gone = ListenTcp("127.0.0.1:0", &job.addresses.emplace_back());
    ASSERT_TRUE(gone.ok());
  }
  job.addresses.push_back(unused);
  const auto joined = JoinTcpJob(std::move(*listener), job);
  EXPECT_NE(joined.status().message().find("rank 0 of 2 (" + job.addresses[0]), std::string::npos)
      << joined.status().ToString();
  EXPECT_EQ(ListenTcp("nowhere", &unused).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace corpusd
