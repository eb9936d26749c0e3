#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "client/sources/file_reader.h"
#include "client/sources/source_walker.h"

namespace corpusd::sources {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class SourceWalker : public ::testing::Test {
 protected:
  SourceWalker() {
    std::string pattern = (fs::temp_directory_path() / "source-walker-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
  }
  ~SourceWalker() override {
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

TEST_F(SourceWalker, WalksInByteOrderAndCountsWhatItLeavesOut) {
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
  EXPECT_EQ(list.skipped.count(SkipReason::kBinary), 1u);
  EXPECT_EQ(list.skipped.count(SkipReason::kSpecial), 1u);
  EXPECT_EQ(list.skipped.count(SkipReason::kEmpty), 1u);
  EXPECT_EQ(list.skipped.files(), 2u);
  EXPECT_EQ(list.skipped.Describe(), "skipped 1 binary file, 1 special file, 1 empty");
}

TEST_F(SourceWalker, HonoursNestedGitignoreFiles) {
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
  EXPECT_EQ(list.skipped.count(SkipReason::kIgnored), 4u);
}

TEST_F(SourceWalker, RulesOfTheRepositoryAboveHoldButNotBeyondIt) {
  Write(".gitignore", "*.txt\n");  // outside the repository
  Write("repo/.git/HEAD", "ref");
  Write("repo/.gitignore", "/src/skip.txt\n");
  Write("repo/src/skip.txt", "s");
  Write("repo/src/take.txt", "t");
  EXPECT_THAT(Names(List({At("repo/src")})), ElementsAre("repo/src/take.txt"));
}

TEST_F(SourceWalker, NamedFilesAreTakenEvenIfIgnored) {
  Write(".gitignore", "*.log\n");
  Write("a.log", "x");
  EXPECT_THAT(Names(List({At("a.log")})), ElementsAre("a.log"));
}

TEST_F(SourceWalker, LinksAreNotFollowedUnlessNamed) {
  Write("outside/secret.txt", "s");
  Write("tree/a.txt", "a");
  fs::create_symlink(At("outside"), At("tree/directory"));
  fs::create_symlink(At("outside/secret.txt"), At("tree/file"));
  fs::create_symlink(At("tree"), At("tree/loop"));
  const SourceList list = List({At("tree")});
  EXPECT_THAT(Names(list), ElementsAre("tree/a.txt"));
  EXPECT_EQ(list.skipped.count(SkipReason::kLink), 3u);
  EXPECT_THAT(Names(List({At("tree/file")})), ElementsAre("tree/file"));
  EXPECT_THAT(Names(List({At("tree/directory")})), ElementsAre("tree/directory/secret.txt"));
}

TEST_F(SourceWalker, OverlappingArgumentsGiveEachFileOnce) {
  Write("a/x.txt", "x");
  const SourceList list = List({At("a/x.txt"), At("a"), At("./a/../a/x.txt")});
  EXPECT_THAT(Names(list), ElementsAre("a/x.txt"));
}

TEST_F(SourceWalker, RefusesWhatIsMissingOrNoFile) {
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

TEST_F(SourceWalker, ANamedBinaryIsSkippedWithAWarning) {
  Write("x.bin", std::string_view("\0\1\2", 3));
  const SourceList list = List({At("x.bin")});
  EXPECT_TRUE(list.files.empty());
  ASSERT_EQ(list.warnings.size(), 1u);
  EXPECT_THAT(list.warnings[0], HasSubstr("not text"));
}

TEST_F(SourceWalker, UnreadableFilesAreCounted) {
  if (geteuid() == 0) GTEST_SKIP() << "root reads everything";
  Write("a.txt", "a");
  Write("b.txt", "b");
  ASSERT_EQ(chmod(At("b.txt").c_str(), 0), 0);
  const SourceList list = List({root_.string()});
  EXPECT_THAT(Names(list), ElementsAre("a.txt"));
  EXPECT_EQ(list.skipped.count(SkipReason::kUnreadable), 1u);
  EXPECT_EQ(list.warnings.size(), 1u);
}

TEST_F(SourceWalker, NamesAreTidyAndValidUtf8) {
  Write("d/bad\xFFname.txt", "x");
  const SourceList list = List({root_.string() + "//./d/"});
  EXPECT_THAT(Names(list), ElementsAre("d/bad\uFFFDname.txt"));
  EXPECT_EQ(*ReadSample(list.files[0].path, false, 9), "x");
}

TEST_F(SourceWalker, ReadsInPiecesOfAMebibyteAtMost) {
  const std::string content((size_t{5} << 19) + 7, 'x');
  Write("big.txt", content);
  const SourceList list = List({At("big.txt")});
  std::string text;
  size_t longest = 0;
  auto file = OpenRegularFile(list.files[0].path, false);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(ReadDescriptor(file->get(), "big.txt", nullptr, [&](std::string_view piece) {
                text += piece;
                longest = std::max(longest, piece.size());
                return true;
              }).ok());
  EXPECT_EQ(text, content);
  EXPECT_LE(longest, size_t{1} << 20);
}

TEST_F(SourceWalker, AFileSwappedForAFifoOrALinkIsNotRead) {
  Write("a.txt", "a");
  Write("b.txt", "b");
  const SourceList list = List({root_.string()});
  ASSERT_EQ(list.files.size(), 2u);
  fs::remove(At("a.txt"));
  ASSERT_EQ(mkfifo(At("a.txt").c_str(), 0600), 0);
  fs::remove(At("b.txt"));
  fs::create_symlink("/etc/passwd", At("b.txt"));
  for (const SourceFile& file : list.files) {
    auto opened = OpenRegularFile(file.path, file.follow_link);
    ASSERT_FALSE(opened.ok()) << file.name;
    EXPECT_EQ(opened.error().code_text, "io_error");
  }
}

TEST_F(SourceWalker, SmallFilesHaveALimit) {
  Write("p.txt", "12345");
  EXPECT_EQ(*ReadSmallFile(At("p.txt"), 5), "12345");
  EXPECT_EQ(ReadSmallFile(At("p.txt"), 4).error().code_text, "invalid_argument");
  EXPECT_EQ(ReadSmallFile(At("none"), 4).error().code_text, "not_found");
}

}  // namespace
}  // namespace corpusd::sources
