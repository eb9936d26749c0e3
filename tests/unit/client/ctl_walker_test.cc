#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "client/ctl/source_walker.h"

namespace corpusd::ctl {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CtlWalker : public ::testing::Test {
 protected:
  CtlWalker() {
    std::string pattern = (fs::temp_directory_path() / "ctl-walker-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
  }
  ~CtlWalker() override {
    std::error_code ignored;
    fs::remove_all(root_, ignored);
  }

  void Write(const std::string& name, std::string_view text) const {
    fs::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name, std::ios::binary) << text;
  }
  std::string At(const std::string& name) const { return (root_ / name).string(); }
  SourceList List(const std::vector<std::string>& paths) const {
    auto list = ListSources(paths);
    EXPECT_TRUE(list.ok()) << list.error().message;
    return *std::move(list);
  }
  // The names below the root, as listed.
  std::vector<std::string> Names(const SourceList& list) const {
    std::vector<std::string> names;
    for (const SourceFile& file : list.files) {
      names.push_back(file.name.substr(root_.string().size() + 1));
    }
    return names;
  }

  fs::path root_;
};

TEST_F(CtlWalker, WalksInByteOrderAndCountsWhatItLeavesOut) {
  Write("b.txt", "b");
  Write("a/z.txt", "zz");
  Write("a/c/x.txt", "xxx");
  Write("B.txt", "upper");
  Write(".hidden", "h");
  Write("image.png", std::string_view("\x89PNG\0\0", 6));
  Write("empty.txt", "");
  Write(".git/config", "[core]");
  Write("a/.git", "gitdir: elsewhere");
  ASSERT_EQ(mkfifo(At("pipe").c_str(), 0600), 0);
  const SourceList list = List({root_.string()});
  EXPECT_THAT(Names(list), ElementsAre(".hidden", "B.txt", "a/c/x.txt", "a/z.txt", "b.txt"));
  EXPECT_EQ(list.bytes, 12u);
  EXPECT_EQ(list.binary_files, 1u);
  EXPECT_EQ(list.special_files, 1u);
  EXPECT_EQ(list.empty_files, 1u);
  EXPECT_EQ(list.skipped_files(), 2u);
  EXPECT_EQ(DescribeSkipped(list), "skipped 1 binary file, 1 special file, 1 empty");
}

TEST_F(CtlWalker, HonoursNestedGitignoreFiles) {
  Write(".gitignore", "*.log\n/out/\n");
  Write("a.log", "x");
  Write("a.txt", "x");
  Write("out/deep/y.txt", "y");
  Write("sub/.gitignore", "!keep.log\nout\n");
  Write("sub/keep.log", "k");
  Write("sub/other.log", "o");
  Write("sub/out", "a file");
  const SourceList list = List({root_.string()});
  EXPECT_THAT(Names(list), ElementsAre(".gitignore", "a.txt", "sub/.gitignore", "sub/keep.log"));
  EXPECT_EQ(list.ignored, 4u);
}

TEST_F(CtlWalker, RulesOfTheRepositoryAboveHoldButNotBeyondIt) {
  Write(".gitignore", "*.txt\n");  // outside the repository
  Write("repo/.git/HEAD", "ref");
  Write("repo/.gitignore", "/src/skip.txt\n");
  Write("repo/src/skip.txt", "s");
  Write("repo/src/take.txt", "t");
  EXPECT_THAT(Names(List({At("repo/src")})), ElementsAre("repo/src/take.txt"));
}

TEST_F(CtlWalker, NamedFilesAreTakenEvenIfIgnored) {
  Write(".gitignore", "*.log\n");
  Write("a.log", "x");
  EXPECT_THAT(Names(List({At("a.log")})), ElementsAre("a.log"));
}

TEST_F(CtlWalker, LinksAreNotFollowedUnlessNamed) {
  Write("outside/secret.txt", "s");
  Write("tree/a.txt", "a");
  fs::create_symlink(At("outside"), At("tree/directory"));
  fs::create_symlink(At("outside/secret.txt"), At("tree/file"));
  fs::create_symlink(At("tree"), At("tree/loop"));
  const SourceList list = List({At("tree")});
  EXPECT_THAT(Names(list), ElementsAre("tree/a.txt"));
  EXPECT_EQ(list.links, 3u);
  EXPECT_THAT(Names(List({At("tree/file")})), ElementsAre("tree/file"));
  EXPECT_THAT(Names(List({At("tree/directory")})), ElementsAre("tree/directory/secret.txt"));
}

TEST_F(CtlWalker, OverlappingArgumentsGiveEachFileOnce) {
  Write("a/x.txt", "x");
  const SourceList list = List({At("a/x.txt"), At("a"), At("./a/../a/x.txt")});
  EXPECT_THAT(Names(list), ElementsAre("a/x.txt"));
}

TEST_F(CtlWalker, RefusesWhatIsMissingOrNoFile) {
  Write("a.txt", "a");
  auto missing = ListSources({At("a.txt"), At("gone")});
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code_text, "not_found");
  EXPECT_THAT(missing.error().message, HasSubstr("gone"));
  ASSERT_EQ(mkfifo(At("pipe").c_str(), 0600), 0);
  auto fifo = ListSources({At("pipe")});
  ASSERT_FALSE(fifo.ok());
  EXPECT_EQ(fifo.error().code_text, "invalid_argument");
  EXPECT_THAT(fifo.error().message, HasSubstr("--stdin"));
}

TEST_F(CtlWalker, ANamedBinaryIsSkippedWithAWarning) {
  Write("x.bin", std::string_view("\0\1\2", 3));
  const SourceList list = List({At("x.bin")});
  EXPECT_TRUE(list.files.empty());
  ASSERT_EQ(list.warnings.size(), 1u);
  EXPECT_THAT(list.warnings[0], HasSubstr("not text"));
}

TEST_F(CtlWalker, UnreadableFilesAreCounted) {
  if (geteuid() == 0) GTEST_SKIP() << "root reads everything";
  Write("a.txt", "a");
  Write("b.txt", "b");
  ASSERT_EQ(chmod(At("b.txt").c_str(), 0), 0);
  const SourceList list = List({root_.string()});
  EXPECT_THAT(Names(list), ElementsAre("a.txt"));
  EXPECT_EQ(list.unreadable_files, 1u);
  EXPECT_EQ(list.warnings.size(), 1u);
}

TEST_F(CtlWalker, NamesAreTidyAndValidUtf8) {
  Write("d/bad\xFFname.txt", "x");
  const SourceList list = List({root_.string() + "//./d/"});
  EXPECT_THAT(Names(list), ElementsAre("d/bad\uFFFDname.txt"));
  std::string text;
  ASSERT_TRUE(ReadSource(list.files[0], [&](std::string_view piece) {
                text += piece;
                return true;
              }).ok());
  EXPECT_EQ(text, "x");
}

TEST_F(CtlWalker, ReadsInPiecesOfAMebibyteAtMost) {
  const std::string content((size_t{5} << 19) + 7, 'x');
  Write("big.txt", content);
  const SourceList list = List({At("big.txt")});
  std::string text;
  size_t longest = 0;
  ASSERT_TRUE(ReadSource(list.files[0], [&](std::string_view piece) {
                text += piece;
                longest = std::max(longest, piece.size());
                return true;
              }).ok());
  EXPECT_EQ(text, content);
  EXPECT_LE(longest, size_t{1} << 20);
}

TEST_F(CtlWalker, AFileSwappedForAFifoOrALinkIsNotRead) {
  Write("a.txt", "a");
  Write("b.txt", "b");
  const SourceList list = List({root_.string()});
  ASSERT_EQ(list.files.size(), 2u);
  fs::remove(At("a.txt"));
  ASSERT_EQ(mkfifo(At("a.txt").c_str(), 0600), 0);
  fs::remove(At("b.txt"));
  fs::create_symlink("/etc/passwd", At("b.txt"));
  for (const SourceFile& file : list.files) {
    auto read = ReadSource(file, [](std::string_view) { return true; });
    ASSERT_FALSE(read.ok()) << file.name;
    EXPECT_EQ(read.error().code_text, "io_error");
  }
}

TEST_F(CtlWalker, SmallFilesHaveALimit) {
  Write("p.txt", "12345");
  EXPECT_EQ(*ReadSmallFile(At("p.txt"), 5), "12345");
  EXPECT_EQ(ReadSmallFile(At("p.txt"), 4).error().code_text, "invalid_argument");
  EXPECT_EQ(ReadSmallFile(At("none"), 4).error().code_text, "not_found");
}

}  // namespace
}  // namespace corpusd::ctl
