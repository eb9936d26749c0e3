#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "client/sources/gitignore.h"

namespace corpusd::sources {
namespace {

namespace fs = std::filesystem;

struct Case {
  const char* rules;
  const char* path;
  bool is_directory;
  bool ignored;
};

// Every expectation was checked with `git check-ignore`; AgreesWithGit below does so for random
// rules.
constexpr Case kCases[] = {
    {"*.o", "a.o", false, true},
    {"*.o", "deep/er/a.o", false, true},
    {"*.o", "a.oo", false, false},
    {"# *.o\n\n", "a.o", false, false},
    {"\\#x", "#x", false, true},
    {"\\!x", "!x", false, true},
    {"*.o\n!keep.o", "keep.o", false, false},
    {"*.o\n!keep.o", "sub/keep.o", false, false},
    {"!keep.o\n*.o", "keep.o", false, true},
    {"build/", "build", true, true},
    {"build/", "build", false, false},
    {"build/", "sub/build", true, true},
    {"/build", "build", false, true},
    {"/build", "sub/build", false, false},
    {"doc/x.txt", "doc/x.txt", false, true},
    {"doc/x.txt", "a/doc/x.txt", false, false},
    {"doc/*.txt", "doc/x.txt", false, true},
    {"doc/*.txt", "doc/sub/x.txt", false, false},
    {"**/x", "x", false, true},
    {"**/x", "a/b/x", false, true},
    {"**/a/x", "b/a/x", false, true},
    {"a/**", "a", true, false},
    {"a/**", "a/b", false, true},
    {"a/**", "a/b/c", false, true},
    {"a/**/z", "a/z", false, true},
    {"a/**/z", "a/b/c/z", false, true},
    {"a/**/z", "b/a/z", false, false},
    {"a**z", "abcz", false, true},
    {"**", "x", false, true},
    {"/*\n!/src", "src", true, false},
    {"/*\n!/src", "other", true, true},
    {"?.c", "a.c", false, true},
    {"?.c", "ab.c", false, false},
    {"a?c/x", "a/c/x", false, false},
    {"[a-c]x", "bx", false, true},
    {"[a-c]x", "dx", false, false},
    {"[!a-c]x", "dx", false, true},
    {"[^a-c]x", "bx", false, false},
    {"[]]x", "]x", false, true},
    {"[a-]x", "-x", false, true},
    {"[[:digit:]]x", "7x", false, true},
    {"[[:digit:]]x", "ax", false, false},
    {"[[:nope:]]x", "nx", false, false},
    {"[abc", "[abc", false, false},
    {"a\\*", "a*", false, true},
    {"a\\*", "ab", false, false},
    {"x  ", "x", false, true},
    {"x\\ ", "x ", false, true},
    {"x\r\n", "x", false, true},
    {"\xEF\xBB\xBFx", "x", false, true},
    {"/", "x", false, false},
    {"*", "anything", true, true},
    {".*", ".hidden", false, true},
};

TEST(Gitignore, Rules) {
  for (const Case& test : kCases) {
    const GitignoreFile file(test.rules);
    const bool ignored =
        file.Match(test.path, test.is_directory) == GitignoreFile::Verdict::kIgnored;
    EXPECT_EQ(ignored, test.ignored) << "rules: " << test.rules << "\npath: " << test.path;
  }
}

TEST(Gitignore, InnerFilesOverrideOuterOnes) {
  GitignoreStack stack;
  stack.Push("/r", "*.log\n/only-here\n");
  stack.Push("/r/a", "!keep.log\n");
  EXPECT_TRUE(stack.IsIgnored("/r/a/x.log", false));
  EXPECT_FALSE(stack.IsIgnored("/r/a/keep.log", false));
  EXPECT_FALSE(stack.IsIgnored("/r/a/only-here", false));
  stack.Pop();
  EXPECT_TRUE(stack.IsIgnored("/r/a/keep.log", false));
  EXPECT_TRUE(stack.IsIgnored("/r/only-here", false));
}

TEST(Gitignore, TheRootOfTheFileSystem) {
  GitignoreStack stack;
  stack.Push("", "/x\n");
  EXPECT_TRUE(stack.IsIgnored("/x", false));
  EXPECT_FALSE(stack.IsIgnored("/y/x", false));
}

TEST(Gitignore, HostilePatternsEnd) {
  std::string stars;
  std::string segments;
  for (int i = 0; i < 200; ++i) {
    stars += "*a";
    segments += "**/a/";
  }
  const std::string name(4000, 'a');
  std::string path = "a";
  for (int i = 0; i < 2000; ++i) path += "/a";
  EXPECT_FALSE(MatchesName(stars + "b", name));
  EXPECT_EQ(GitignoreFile(segments + "b").Match(path, false), GitignoreFile::Verdict::kNone);
}

// A scratch repository, removed again.
class ScratchRepository {
 public:
  ScratchRepository() {
    std::string pattern = (fs::temp_directory_path() / "ctl-gitignore-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~ScratchRepository() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }
  int Run(const std::string& command) const {
    return std::system(("cd '" + path_.string() + "' && " + command).c_str());
  }

 private:
  fs::path path_;
};

std::string RandomPattern(std::mt19937& random, const std::vector<std::string>& pieces) {
  std::string text = random() % 4 == 0 ? "/" : "";
  for (uint32_t segments = 1 + random() % 3; segments > 0; --segments) {
    if (random() % 4 == 0) {
      text += "**";
    } else {
      for (uint32_t count = 1 + random() % 3; count > 0; --count) {
        const std::string& piece = pieces[random() % pieces.size()];
        if (piece != "*" || !text.ends_with('*')) text += piece;
      }
    }
    if (segments > 1 || random() % 5 == 0) text += "/";
  }
  return text;
}

std::vector<std::string> ReadLines(const fs::path& path) {
  std::vector<std::string> lines;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// git says of each path, which need not exist, which rule matches it; the same line for line as
// ours.
TEST(Gitignore, AgreesWithGit) {
  if (std::system("git --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "git is not installed";
  const char* given = std::getenv("CORPUSD_TEST_SEED");
  const unsigned seed = given != nullptr ? std::strtoul(given, nullptr, 10) : 20261123;
  std::mt19937 random(seed);
  const ScratchRepository repository;
  ASSERT_EQ(repository.Run("git init -q ."), 0);
  // "**" stands alone between slashes: beside other characters git itself departs from its manual.
  const std::vector<std::string> pattern_pieces = {"a",    "b",    "a",   "b",     "*", "?",
                                                   "[ab]", "[!a]", "\\a", "[a-b]", ".c"};
  const std::vector<std::string> names = {"a", "b", "ab", "ba", "a.c", "bb", "aab"};
  size_t compared = 0;
  for (int round = 0; round < 60; ++round) {
    std::string rules;
    for (int i = 0; i < 4; ++i) {
      if (random() % 4 == 0) rules += "!";
      rules += RandomPattern(random, pattern_pieces) + "\n";
    }
    std::ofstream(repository.path() / ".gitignore") << rules;
    std::vector<std::string> paths;
    std::ofstream list(repository.path() / ".git" / "paths");
    for (int i = 0; i < 40; ++i) {
      std::string path = names[random() % names.size()];
      for (uint32_t depth = random() % 3; depth > 0; --depth) {
        path += "/" + names[random() % names.size()];
      }
      paths.push_back(path);
      list << path << "\n";
    }
    list.close();
    // -v -n prints every path with its rule, "::<tab>" for none.
    (void)repository.Run("git check-ignore -v -n --no-index --stdin <.git/paths >.git/said");
    const std::vector<std::string> said = ReadLines(repository.path() / ".git" / "said");
    ASSERT_EQ(said.size(), paths.size());
    const GitignoreFile file(rules);
    for (size_t i = 0; i < paths.size(); ++i) {
      // git names the rule of the first directory on the way that is ignored: walk down as it does.
      GitignoreFile::Verdict verdict = GitignoreFile::Verdict::kNone;
      for (size_t end = 0; end != std::string::npos;) {
        end = paths[i].find('/', end + 1);
        verdict = file.Match(paths[i].substr(0, end), end != std::string::npos);
        if (verdict == GitignoreFile::Verdict::kIgnored) break;
      }
      const std::string rule = said[i].substr(0, said[i].find('\t'));
      const size_t pattern = rule.find(':', rule.find(':') + 1) + 1;
      const bool ignored = rule != "::" && rule[pattern] != '!';
      EXPECT_EQ(verdict == GitignoreFile::Verdict::kIgnored, ignored)
          << "seed " << seed << "\nrules:\n"
          << rules << "path: " << paths[i] << "\ngit: " << said[i];
      ++compared;
    }
  }
  EXPECT_EQ(compared, 2400u);
}

}  // namespace
}  // namespace corpusd::sources
