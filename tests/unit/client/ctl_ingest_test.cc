#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "ctl_scripted_daemon.h"

namespace corpusd::ctl {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Json = nlohmann::ordered_json;
using Words = std::vector<std::string>;

class CtlIngest : public ::testing::Test {
 protected:
  CtlIngest() : daemon_([this](const v1::Request& request) { return Respond(request); }) {
    std::string pattern = (fs::temp_directory_path() / "ctl-ingest-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    Write("docs/a.txt", "alpha\n");
    Write("docs/b.txt", "beta\n");
    Write("docs/c.png", std::string_view("\x89PNG\0", 5));
  }
  ~CtlIngest() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

  void Write(const std::string& name, std::string_view text) const {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  std::string At(const std::string& name) const { return (folder_ / name).string(); }

  std::vector<v1::Response> Respond(const v1::Request& request) {
    v1::Response response = LastResponse();
    if (request.has_ingest_end()) {
      response.mutable_ingest()->mutable_job()->set_id(7);
      response.mutable_ingest()->mutable_job()->set_state("queued");
    } else if (request.has_watch_job()) {
      *response.mutable_job() = job_;
      if (silent_watch_) return {};
    } else if (request.has_show()) {
      response.mutable_corpus()->set_name("docs");
      response.mutable_corpus()->set_state("ready");
      response.mutable_corpus()->set_tokens(4);
      for (const std::string& root : roots_) response.mutable_corpus()->add_roots(root);
    } else {
      return {};
    }
    return {response};
  }

  Words With(Words words) const {
    words.insert(words.end(), {"--socket", daemon_.socket_path()});
    return words;
  }
  // What arrived, as "path=content;" in order.
  std::string Received() {
    std::string text;
    for (const v1::Request& request : daemon_.requests()) {
      if (!request.has_ingest_data()) continue;
      const v1::IngestData& data = request.ingest_data();
      if (!data.path().empty()) text += fs::path(data.path()).filename().string() + "=";
      text += data.content();
      if (data.last()) text += ";";
    }
    return text;
  }
  v1::IngestBegin Begun() {
    for (const v1::Request& request : daemon_.requests()) {
      if (request.has_ingest_begin()) return request.ingest_begin();
    }
    return {};
  }

  fs::path folder_;
  std::vector<std::string> roots_;  // that the corpus remembers
  v1::Job job_ = [] {
    v1::Job job;
    job.set_id(7);
    job.set_kind("prefill");
    job.set_corpus("docs");
    job.set_state("done");
    job.set_done_tokens(4);
    job.set_total_tokens(4);
    job.set_eta_s(-1);
    return job;
  }();
  std::atomic<bool> silent_watch_{false};
  ScriptedDaemon daemon_;
};

TEST_F(CtlIngest, SendsTheTextFilesOfADirectory) {
  Write("p.txt", "Be brief.");
  const CtlRun run = RunCtl(With({"ingest", "docs", At("docs"), "--mode", "exact", "--preamble",
                                  At("p.txt"), "--pin", "--ttl", "1h", "--kv-format", "int8"}));
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(Received(), "a.txt=alpha\n;b.txt=beta\n;");
  const v1::IngestBegin begin = Begun();
  EXPECT_EQ(begin.name(), "docs");
  EXPECT_EQ(begin.mode(), "exact");
  EXPECT_EQ(begin.preamble(), "Be brief.");
  EXPECT_EQ(begin.kv_format(), "int8");
  EXPECT_EQ(begin.ttl_ms(), 3600000u);
  EXPECT_EQ(begin.skipped_files(), 1u);
  EXPECT_TRUE(begin.pin());
  EXPECT_FALSE(begin.append());
  EXPECT_THAT(run.out, HasSubstr("'docs' is ready: 4 tokens"));
  EXPECT_THAT(run.err, HasSubstr("skipped 1 binary file"));
  EXPECT_THAT(run.err, HasSubstr("docs: 100% 4/4 tok"));
}

TEST_F(CtlIngest, ASegmentedCorpusRemembersWhatItWasMadeOf) {
  const fs::path before = fs::current_path();
  fs::current_path(folder_);
  const CtlRun run = RunCtl(With({"ingest", "docs", "./docs//", "--mode", "segmented", "-q"}));
  fs::current_path(before);
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(Begun().mode(), "segmented");
  EXPECT_FALSE(Begun().update());
  EXPECT_THAT(Begun().roots(), ElementsAre(At("docs")));
  for (const v1::Request& request : daemon_.requests()) {
    if (!request.ingest_data().path().empty()) {
      EXPECT_THAT(request.ingest_data().path(), StartsWith(At("docs")));
    }
  }
}

TEST_F(CtlIngest, UpdateReadsTheRootsAgain) {
  roots_ = {At("docs")};
  job_.set_total_tokens(100);
  job_.set_reused_tokens(96);
  const CtlRun run = RunCtl(With({"update", "docs"}));
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(Received(), "a.txt=alpha\n;b.txt=beta\n;");
  EXPECT_TRUE(Begun().update());
  EXPECT_EQ(Begun().mode(), "");
  EXPECT_THAT(Begun().roots(), ElementsAre(At("docs")));
  EXPECT_THAT(run.out, HasSubstr("'docs' is up to date: 4 tokens, 4 of them new, 96 reused"));
  EXPECT_EQ(RunCtl(With({"update", "docs", "--detach", "-q"})).out, "7\n");
  job_.set_reused_tokens(100);
  EXPECT_THAT(RunCtl(With({"update", "docs"})).out, HasSubstr("none of them new"));
}

TEST_F(CtlIngest, UpdateOfNamedPathsAsksForNoRoots) {
  EXPECT_EQ(RunCtl(With({"update", "docs", At("docs/a.txt"), "--detach"})).exit_code, 0);
  EXPECT_EQ(Received(), "a.txt=alpha\n;");
  EXPECT_THAT(Begun().roots(), ElementsAre(At("docs/a.txt")));
}

TEST_F(CtlIngest, UpdateRefusesWhatItCannotReadAgain) {
  EXPECT_EQ(RunCtl(With({"update", "docs"})).exit_code, 2);  // no roots
  roots_ = {At("docs"), "-"};
  const CtlRun piped = RunCtl(With({"update", "docs"}));
  EXPECT_EQ(piped.exit_code, 2);
  EXPECT_THAT(piped.err, HasSubstr("--stdin"));
  roots_ = {At("gone")};
  EXPECT_EQ(RunCtl(With({"update", "docs"})).exit_code, 3);
  for (const v1::Request& request : daemon_.requests()) EXPECT_FALSE(request.has_ingest_begin());
}

TEST_F(CtlIngest, AppendSaysSo) {
  EXPECT_EQ(RunCtl(With({"append", "docs", At("docs/a.txt"), "-q"})).exit_code, 0);
  EXPECT_TRUE(Begun().append());
}

TEST_F(CtlIngest, QuietAndObjects) {
  const CtlRun quiet = RunCtl(With({"ingest", "docs", At("docs"), "-q"}));
  EXPECT_EQ(quiet.out + quiet.err, "");
  const CtlRun json = RunCtl(With({"ingest", "docs", At("docs"), "-o", "json"}));
  EXPECT_EQ(Json::parse(json.out)["state"], "ready");
  EXPECT_EQ(json.err, "");
}

TEST_F(CtlIngest, SaysWhatWasSkipped) {
  Write("docs/d.jsonl", "{\"t\": 1}\nbroken\n{\"t\": 2}\n");
  const CtlRun brief = RunCtl(With({"ingest", "docs", At("docs")}));
  EXPECT_THAT(brief.err, HasSubstr("skipped 1 binary file, 1 line that is no JSON; -v lists them"));
  EXPECT_THAT(brief.err, Not(HasSubstr("c.png")));
  const CtlRun listed = RunCtl(With({"ingest", "docs", At("docs"), "-v"}));
  EXPECT_THAT(listed.err, HasSubstr("skipped " + At("docs/c.png") + ": binary\n"));
  EXPECT_THAT(listed.err, HasSubstr("skipped " + At("docs/d.jsonl") + "#L2: bad_line\n"));
  const Json object = Json::parse(RunCtl(With({"ingest", "docs", At("docs"), "-o", "json"})).out);
  EXPECT_EQ(object["skipped"]["counts"]["bad_line"], 1);
  EXPECT_EQ(object["skipped"]["items"][0]["reason"], "binary");
  EXPECT_EQ(object["skipped"]["unlisted"], 0);
  EXPECT_EQ(daemon_.requests().front().ingest_begin().skipped_files(), 1u);
  for (const v1::Request& request : daemon_.requests()) {
    EXPECT_EQ(request.ingest_end().skipped_files(), 0u);  // a bad line is no file
  }
}

TEST_F(CtlIngest, SourcesWithoutADocumentIngestNothing) {
  Write("none/a.jsonl", "{\n");
  const CtlRun run = RunCtl(With({"ingest", "docs", At("none")}));
  EXPECT_EQ(run.exit_code, 9);
  EXPECT_THAT(run.err, HasSubstr("1 line that is no JSON"));
  for (const v1::Request& request : daemon_.requests()) EXPECT_FALSE(request.has_ingest_end());
}

TEST_F(CtlIngest, StdinIsReadByTheNameItIsGiven) {
  Write("in", "one\ntwo\n");
  const int file = open(At("in").c_str(), O_RDONLY | O_CLOEXEC);
  const CtlRun run =
      RunCtl(With({"ingest", "docs", "-", "--stdin-name", "app.log"}), {.in_file = file});
  close(file);
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(Received(), "app.log#L1-L2=one\ntwo\n;");
}

TEST_F(CtlIngest, DetachPrintsTheJob) {
  EXPECT_EQ(RunCtl(With({"ingest", "docs", At("docs"), "--detach", "-q"})).out, "7\n");
  const CtlRun json = RunCtl(With({"ingest", "docs", At("docs"), "--detach", "-o", "json"}));
  EXPECT_EQ(Json::parse(json.out)["id"], 7);
}

TEST_F(CtlIngest, ReadsStdinAfterTheFiles) {
  Write("in", "from a pipe");
  const int file = open(At("in").c_str(), O_RDONLY | O_CLOEXEC);
  const CtlRun run =
      RunCtl(With({"ingest", "docs", At("docs/a.txt"), "--stdin"}), {.in_file = file});
  close(file);
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(Received(), "a.txt=alpha\n;stdin=from a pipe;");
  EXPECT_THAT(Begun().roots(), ElementsAre(At("docs/a.txt"), "-"));
}

TEST_F(CtlIngest, RefusesBeforeAnythingIsSent) {
  EXPECT_EQ(RunCtl(With({"ingest", "docs", At("docs"), At("gone")})).exit_code, 3);
  EXPECT_EQ(RunCtl(With({"ingest", "docs", At("docs/c.png")})).exit_code, 9);
  EXPECT_EQ(RunCtl(With({"ingest", "docs", At("docs"), "--preamble", At("gone")})).exit_code, 3);
  Write("latin.txt", "\xE9");
  EXPECT_EQ(RunCtl(With({"ingest", "docs", At("docs"), "--preamble", At("latin.txt")})).exit_code,
            2);
  const int empty = open("/dev/null", O_RDONLY | O_CLOEXEC);
  EXPECT_EQ(RunCtl(With({"ingest", "docs", "--stdin"}), {.in_file = empty}).exit_code, 9);
  close(empty);
  EXPECT_TRUE(daemon_.requests().empty());
}

TEST_F(CtlIngest, AFailedJobIsItsError) {
  job_.set_state("failed");
  job_.set_error("resource_exhausted: 12 GiB do not fit");
  const CtlRun run = RunCtl(With({"ingest", "docs", At("docs"), "-o", "json"}));
  EXPECT_EQ(run.exit_code, 8);
  EXPECT_THAT(Json::parse(run.err)["error"]["message"].get<std::string>(),
              HasSubstr("12 GiB do not fit"));
}

TEST_F(CtlIngest, CtrlCLeavesTheJobRunningAndSaysHowToGoOn) {
  std::atomic<bool> interrupted{false};
  silent_watch_ = true;
  std::thread presser([&] {
    for (int i = 0; i < 500; ++i) {
      const auto requests = daemon_.requests();
      if (!requests.empty() && requests.back().has_watch_job()) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    interrupted = true;
  });
  const CtlRun run = RunCtl(With({"ingest", "docs", At("docs")}), {.interrupted = &interrupted});
  presser.join();
  EXPECT_EQ(run.exit_code, 130);
  EXPECT_THAT(run.err, HasSubstr("corpusctl wait 7"));
  EXPECT_THAT(run.err, HasSubstr("corpusctl cancel 7"));
  for (const v1::Request& request : daemon_.requests()) EXPECT_FALSE(request.has_cancel_job());
}

TEST_F(CtlIngest, CtrlCWhileSendingIngestsNothing) {
  const std::atomic<bool> interrupted{true};
  const CtlRun run = RunCtl(With({"ingest", "docs", At("docs")}), {.interrupted = &interrupted});
  EXPECT_EQ(run.exit_code, 130);
  for (const v1::Request& request : daemon_.requests()) EXPECT_FALSE(request.has_ingest_end());
}

}  // namespace
}  // namespace corpusd::ctl
