#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "client/ctl/cli.h"
#include "client/ctl/completion.h"

namespace corpusd::ctl {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

class CtlCompletion : public ::testing::Test {
 protected:
  CtlCompletion() {
    std::string pattern = (fs::temp_directory_path() / "ctl-completion-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    // Stands in for the program that the scripts ask for names.
    Write("corpusctl",
          "#!/bin/sh\ncase \"$*\" in *'ls -o name') printf 'filings\\nletters\\n';; "
          "*'jobs -o name') echo 17;; esac\n");
    chmod((folder_ / "corpusctl").c_str(), 0755);
  }
  ~CtlCompletion() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name) << text;
  }
  static bool Has(const std::string& shell) {
    return std::system((shell + " -c true >/dev/null 2>&1").c_str()) == 0;
  }
  int Run(const std::string& command) const {
    return std::system(("cd '" + folder_.string() + "' && " + command).c_str());
  }
  std::string Output(const std::string& command) const {
    EXPECT_EQ(Run("PATH=\"$PWD:$PATH\" " + command + " >said"), 0);
    std::ifstream in(folder_ / "said");
    return {std::istreambuf_iterator<char>(in), {}};
  }
  // What bash offers for a line of words, the last of which is being typed.
  std::string Bash(const std::string& words) const {
    Write("ask.sh", "source ./c.bash\nCOMP_WORDS=(" + words +
                        ")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_corpusctl\n"
                        "printf '%s ' \"${COMPREPLY[@]}\"\n");
    return Output("bash ask.sh");
  }

  fs::path folder_;
};

TEST_F(CtlCompletion, BashOffersVerbsFlagsNamesAndFiles) {
  if (!Has("bash")) GTEST_SKIP() << "bash is not installed";
  Write("c.bash", BashCompletion(DescribeCommands()));
  ASSERT_EQ(Run("bash -n c.bash"), 0);
  EXPECT_EQ(Bash("corpusctl sh"), "show ");
  EXPECT_THAT(Bash("corpusctl ''"), HasSubstr("ingest append update plan ask ls show rm"));
  EXPECT_THAT(Bash("corpusctl ''"), HasSubstr("top stats"));
  EXPECT_EQ(Bash("corpusctl show ''"), "filings letters ");
  EXPECT_EQ(Bash("corpusctl -o json show l"), "letters ");
  EXPECT_EQ(Bash("corpusctl job ''"), "17 ");
  EXPECT_EQ(Bash("corpusctl wait ''"), "filings letters 17 ");
  EXPECT_EQ(Bash("corpusctl ingest filings c.b"), "c.bash ");
  EXPECT_EQ(Bash("corpusctl ingest filings --mode ''"), "auto exact segmented ");
  EXPECT_EQ(Bash("corpusctl ls -o j"), "json jsonl ");
  EXPECT_EQ(Bash("corpusctl update fil"), "filings ");
  EXPECT_EQ(Bash("corpusctl plan c.b"), "c.bash ");
  EXPECT_EQ(Bash("corpusctl ask filings --retrieval ''"), "fused heads lexical ");
  EXPECT_EQ(Bash("corpusctl evict x --dr"), "--dry-run ");
  EXPECT_EQ(Bash("corpusctl show filings ''"), " ");
  EXPECT_EQ(Bash("corpusctl completion f"), "fish ");
}

TEST_F(CtlCompletion, ZshTakesTheScript) {
  Write("_corpusctl", ZshCompletion(DescribeCommands()));
  if (!Has("zsh")) GTEST_SKIP() << "zsh is not installed";
  EXPECT_EQ(Run("zsh -n _corpusctl"), 0);
}

TEST_F(CtlCompletion, FishOffersVerbsAndNames) {
  if (!Has("fish")) GTEST_SKIP() << "fish is not installed";
  Write("c.fish", FishCompletion(DescribeCommands()));
  ASSERT_EQ(Run("fish -n c.fish"), 0);
  EXPECT_THAT(Output("fish -c 'source c.fish; complete -C \"corpusctl sho\"'"), HasSubstr("show"));
  const std::string names = Output("fish -c 'source c.fish; complete -C \"corpusctl show \"'");
  EXPECT_THAT(names, HasSubstr("filings"));
  EXPECT_THAT(names, HasSubstr("letters"));
  EXPECT_THAT(Output("fish -c 'source c.fish; complete -C \"corpusctl ls -o y\"'"),
              HasSubstr("yaml"));
}

TEST(CtlCompletionText, DescriptionsAreQuoted) {
  CommandWords words;
  words.verbs.push_back(
      {.name = "do", .description = "it's 50: \\", .words = WordKind::kNone, .flags = {}});
  EXPECT_THAT(ZshCompletion(words), HasSubstr(R"('do:it'\''s 50\: \')"));
  EXPECT_THAT(FishCompletion(words), HasSubstr(R"('it\'s 50: \\')"));
}

}  // namespace
}  // namespace corpusd::ctl
