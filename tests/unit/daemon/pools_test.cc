#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <latch>

#include "daemon/service_notify.h"
#include "daemon/timer_queue.h"
#include "daemon/worker_pool.h"

namespace corpusd {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

TEST(WorkerPool, RefusesWhatTheQueueCannotHold) {
  std::latch release(1);
  std::atomic<int> ran{0};
  WorkerPool pool("test", 2, 3);
  const auto task = [&] {
    release.wait();
    ++ran;
  };
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(pool.Submit(task));
  EXPECT_FALSE(pool.Submit(task));
  EXPECT_FALSE(pool.WaitIdle(steady_clock::now() + milliseconds(20)));
  release.count_down();
  EXPECT_TRUE(pool.WaitIdle(steady_clock::now() + std::chrono::seconds(10)));
  EXPECT_EQ(ran, 5);
  pool.Stop();
  EXPECT_FALSE(pool.Submit(task));
}

TEST(TimerQueue, CallsInOrderOfTimeAndForgetsTheCancelled) {
  TimerQueue timers;
  std::string order;
  std::latch done(2);
  const auto now = steady_clock::now();
  timers.Schedule(now + milliseconds(60), [&] { order += 'b', done.count_down(); });
  const uint64_t cancelled = timers.Schedule(now + milliseconds(40), [&] { order += 'x'; });
  timers.Schedule(now + milliseconds(20), [&] { order += 'a', done.count_down(); });
  timers.Cancel(cancelled);
  timers.Cancel(12345);
  done.wait();
  EXPECT_EQ(order, "ab");
}

TEST(ServiceNotify, SendsOneDatagram) {
  std::string pattern = ::testing::TempDir() + "corpusd-XXXXXX";
  const std::string folder = mkdtemp(pattern.data());
  const std::string path = folder + "/n";
  const int file = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(bind(file, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(setenv("NOTIFY_SOCKET", path.c_str(), 1), 0);
  EXPECT_TRUE(NotifyServiceManager("READY=1").ok());
  char text[32];
  EXPECT_EQ(recv(file, text, sizeof(text), 0), 7);
  EXPECT_EQ(std::string(text, 7), "READY=1");
  close(file);
  EXPECT_EQ(NotifyServiceManager("READY=1").code(), StatusCode::kIoError);
  unsetenv("NOTIFY_SOCKET");
  EXPECT_TRUE(NotifyServiceManager("READY=1").ok());
  unlink(path.c_str());
  rmdir(folder.c_str());
}

}  // namespace
}  // namespace corpusd
