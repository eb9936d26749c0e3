// How corpusctl asks for evictions, and how it says what goes, in which order, and why.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "ctl_scripted_daemon.h"

namespace corpusd::ctl {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Json = nlohmann::json;

class CtlEvict : public ::testing::Test {
 protected:
  CtlRun Run(std::vector<std::string> words) {
    words.insert(words.end(), {"--socket", daemon_.socket_path()});
    return RunCtl(words);
  }

  v1::EvictRequest asked_;
  v1::EvictReply reply_;
  ScriptedDaemon daemon_{[this](const v1::Request& request) {
    v1::Response response = LastResponse();
    asked_ = request.evict();
    *response.mutable_evict() = reply_;
    return std::vector<v1::Response>{response};
  }};
};

TEST_F(CtlEvict, ADryRunIsATableOfWhatWouldGo) {
  v1::EvictStep* step = reply_.add_steps();
  step->set_corpus("filings");
  step->set_blocks(8);
  step->set_keep_blocks(4);
  step->set_bytes(20 << 20);
  step->set_why("priority low, never asked");
  reply_.set_blocks(8);
  reply_.set_bytes(20 << 20);
  reply_.set_pinned_bytes(1 << 20);
  const CtlRun run = Run({"evict", "--to-free", "16MiB", "--from", "disk", "--dry-run"});
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_THAT(run.out, AllOf(HasSubstr("filings"), HasSubstr("priority low, never asked"),
                             HasSubstr("would evict 16.0 MiB from disk: 8 blocks, 20.0 MiB"),
                             HasSubstr("stays: 1.0 MiB pinned")));
  EXPECT_EQ(asked_.to_free_bytes(), uint64_t{16} << 20);
  EXPECT_TRUE(asked_.dry_run());
  const Json object = Json::parse(Run({"evict", "--all", "-o", "json"}).out);
  EXPECT_EQ(object["steps"][0]["keep_blocks"], 4);
  EXPECT_EQ(object["stays"]["pinned_bytes"], 1 << 20);
  EXPECT_TRUE(asked_.all());
}

TEST_F(CtlEvict, TooLittleIsASpaceError) {
  reply_.add_steps()->set_corpus("filings");
  reply_.set_blocks(1);
  reply_.set_bytes(1 << 20);
  const CtlRun run = Run({"evict", "--to-free", "1GiB"});
  EXPECT_EQ(run.exit_code, 8);
  EXPECT_THAT(run.err, HasSubstr("no more than 1.0 MiB of 1.0 GiB can be freed"));
}

TEST_F(CtlEvict, SharedBlocksAreSaidToStay) {
  reply_.set_blocks(2);
  reply_.set_shared_blocks(3);
  EXPECT_THAT(Run({"evict", "filings", "--from", "disk"}).out,
              HasSubstr("3 shared with other corpora stay"));
}

TEST_F(CtlEvict, OneTargetIsNamed) {
  for (const std::vector<std::string>& words : {std::vector<std::string>{"evict"},
                                                {"evict", "a", "--all"},
                                                {"evict", "--all", "--to-free", "1GiB"},
                                                {"evict", "--to-free", "much"}}) {
    EXPECT_EQ(Run(words).exit_code, 2);
  }
}

}  // namespace
}  // namespace corpusd::ctl
