#include "store/folder_lock.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

namespace corpusd {
namespace {

class FolderLockTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "corpusd-lock-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string folder_;
};

// Another process holds the folder, is named in the refusal, and is killed: nothing is left to
// clean.
TEST_F(FolderLockTest, IsHeldByOneProcessAndFreedByItsDeath) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const auto lock = FolderLock::Acquire(folder_);
    const char held = lock.ok() ? 'y' : 'n';
    if (write(ready[1], &held, 1) != 1) _exit(1);
    while (true) pause();
  }
  char held = 0;
  ASSERT_EQ(read(ready[0], &held, 1), 1);
  ASSERT_EQ(held, 'y');
  const auto refused = FolderLock::Acquire(folder_);
  EXPECT_EQ(refused.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(refused.status().message().find("process " + std::to_string(child) + ":"),
            std::string::npos)
      << refused.status().message();
  kill(child, SIGKILL);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_TRUE(FolderLock::Acquire(folder_).ok());
  close(ready[0]);
  close(ready[1]);
}

TEST_F(FolderLockTest, AFolderThatIsNotThereIsAnError) {
  EXPECT_EQ(FolderLock::Acquire(folder_ + "/none").status().code(), StatusCode::kIoError);
}

}  // namespace
}  // namespace corpusd
