// scrub, export, import and explain-miss: command lines, files, output and exit codes.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "ctl_scripted_daemon.h"

namespace corpusd::ctl {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using Json = nlohmann::json;

class CtlIntegrity : public ::testing::Test {
 protected:
  CtlIntegrity() {
    std::string pattern = (fs::temp_directory_path() / "ctl-integrity-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~CtlIntegrity() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  std::string Path(const std::string& name) const { return (folder_ / name).string(); }
  std::string Read(const std::string& name) const {
    std::ifstream file(folder_ / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  CtlRun Run(const ScriptedDaemon& daemon, std::vector<std::string> words) const {
    words.insert(words.begin(), {"--socket", daemon.socket_path()});
    return RunCtl(words);
  }

  fs::path folder_;
};

v1::Response Data(const std::string& content) {
  v1::Response response;
  response.mutable_export_data()->set_content(content);
  return response;
}

// Two pieces and an end, one for each ExportNext; then, if `fails`, an error instead of the end.
ScriptedDaemon::Handler Exporting(bool fails) {
  return [fails, asked = 0](const v1::Request& request) mutable -> std::vector<v1::Response> {
    if (!request.has_export_next()) return {};
    ++asked;
    if (asked <= 2) return {Data(asked == 1 ? "first " : "second")};
    if (asked > 3) return {};
    if (fails) return {ErrorResponse(8, "io_error", "the disk is gone")};
    v1::Response response = LastResponse();
    response.mutable_export_reply()->set_blocks(2);
    response.mutable_export_reply()->set_sha256("ab12");
    return {response};
  };
}

TEST_F(CtlIntegrity, ExportWritesTheWholeFileOrNone) {
  {
    ScriptedDaemon daemon(Exporting(false));
    const CtlRun run = Run(daemon, {"export", "filings", Path("a.corpus"), "-o", "json"});
    EXPECT_EQ(run.exit_code, 0) << run.err;
    EXPECT_EQ(Read("a.corpus"), "first second");
    EXPECT_EQ(Json::parse(run.out)["sha256"], "ab12");
    EXPECT_FALSE(fs::exists(Path("a.corpus.partial")));
  }
  {
    ScriptedDaemon daemon(Exporting(true));
    const CtlRun run = Run(daemon, {"export", "filings", Path("b.corpus")});
    EXPECT_EQ(run.exit_code, 1);
    EXPECT_THAT(run.err, HasSubstr("the disk is gone"));
    EXPECT_FALSE(fs::exists(Path("b.corpus")));
    EXPECT_FALSE(fs::exists(Path("b.corpus.partial")));
  }
}

TEST_F(CtlIntegrity, ExportReplacesNothingUnasked) {
  Write("a.corpus", "older");
  ScriptedDaemon daemon(Exporting(false));
  const CtlRun refused = Run(daemon, {"export", "filings", Path("a.corpus")});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("--force"));
  EXPECT_EQ(Read("a.corpus"), "older");
  EXPECT_EQ(Run(daemon, {"export", "filings", Path("a.corpus"), "--force"}).exit_code, 0);
  EXPECT_EQ(Read("a.corpus"), "first second");
  EXPECT_EQ(Run(daemon, {"export", "filings", Path("none/x")}).exit_code, 1);
}

TEST_F(CtlIntegrity, ExportToStdoutIsTheBundleAndNothingElse) {
  ScriptedDaemon daemon(Exporting(false));
  EXPECT_EQ(Run(daemon, {"export", "filings", "-"}).out, "first second");
  CtlSetting terminal;
  terminal.on_terminal = true;
  EXPECT_EQ(RunCtl({"--socket", daemon.socket_path(), "export", "a", "-"}, terminal).exit_code, 2);
}

TEST_F(CtlIntegrity, ImportSendsTheFileAndSaysWhatCame) {
  Write("a.corpus", std::string(700000, 'x'));
  std::string received, name;
  ScriptedDaemon daemon([&](const v1::Request& request) -> std::vector<v1::Response> {
    if (request.has_import_begin()) name = request.import_begin().name();
    if (request.has_import_data()) received += request.import_data().content();
    if (!request.has_import_end()) return {};
    v1::Response progress;
    progress.mutable_progress()->set_total(3);
    v1::Response response = LastResponse();
    response.mutable_import_reply()->mutable_corpus()->set_name("copy");
    response.mutable_import_reply()->mutable_corpus()->set_blocks(3);
    response.mutable_import_reply()->set_reused_blocks(2);
    return {progress, response};
  });
  const CtlRun run = Run(daemon, {"import", Path("a.corpus"), "--name", "copy"});
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(name, "copy");
  EXPECT_EQ(received.size(), 700000u);
  EXPECT_THAT(run.out, HasSubstr("imported 'copy'"));
  EXPECT_THAT(run.out, HasSubstr("2 of them were here already"));
  EXPECT_EQ(Run(daemon, {"import", Path("none")}).exit_code, 3);
}

TEST_F(CtlIntegrity, ARefusedImportHasTheExitCodeOfItsReason) {
  Write("a.corpus", std::string(3000000, 'x'));
  const std::vector<std::pair<v1::Response, int>> cases = {
      {ErrorResponse(7, "corruption", "cut off"), 10},
      {ErrorResponse(3, "invalid_argument", "weights: bundle 'a', here 'b'"), 2},
      {ErrorResponse(5, "resource_exhausted", "full"), 8},
      {ErrorResponse(2, "already_exists", "exists"), 1}};
  for (const auto& [error, code] : cases) {
    ScriptedDaemon daemon([&](const v1::Request& request) -> std::vector<v1::Response> {
      if (request.has_import_begin()) return {error};
      return {};
    });
    EXPECT_EQ(Run(daemon, {"import", Path("a.corpus")}).exit_code, code);
  }
}

v1::Response ScrubJob(const std::string& state, uint64_t damaged, uint64_t repaired) {
  v1::Response response = LastResponse();
  v1::Job* job = response.mutable_job();
  job->set_id(7);
  job->set_kind("scrub");
  job->set_state(state);
  job->mutable_scrub()->set_blocks(9);
  job->mutable_scrub()->set_damaged(damaged);
  job->mutable_scrub()->set_repaired(repaired);
  if (damaged > 0) job->mutable_scrub()->add_findings("corpus 'a' block 3: damaged");
  return response;
}

TEST_F(CtlIntegrity, ScrubWaitsAndItsExitCodeSaysWhetherAllIsWell) {
  uint64_t damaged = 0, repaired = 0, rate = 0;
  ScriptedDaemon daemon([&](const v1::Request& request) -> std::vector<v1::Response> {
    if (request.has_scrub()) {
      rate = request.scrub().bytes_per_s();
      return {ScrubJob("queued", 0, 0)};
    }
    return {ScrubJob("done", damaged, repaired)};
  });
  CtlRun run = Run(daemon, {"scrub", "--rate", "50MiB/s"});
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(rate, uint64_t{50} << 20);
  EXPECT_THAT(run.out, HasSubstr("everything is whole: 9 blocks"));
  EXPECT_EQ(Run(daemon, {"scrub", "--detach"}).out, "7\n");
  damaged = repaired = 1;
  EXPECT_EQ(Run(daemon, {"scrub"}).exit_code, 0);
  repaired = 0;
  run = Run(daemon, {"scrub"});
  EXPECT_EQ(run.exit_code, 10);
  EXPECT_THAT(run.out, HasSubstr("corpus 'a' block 3"));
  EXPECT_EQ(Json::parse(Run(daemon, {"scrub", "-o", "json"}).out)["scrub"]["damaged"], 1);
  EXPECT_EQ(Run(daemon, {"scrub", "--rate", "fast"}).exit_code, 2);
  EXPECT_EQ(Run(daemon, {"scrub", "--rate", "0"}).exit_code, 2);
}

TEST_F(CtlIntegrity, ExplainMissPrintsRunsAndFields) {
  Write("t.txt", "some text");
  ScriptedDaemon daemon([](const v1::Request& request) -> std::vector<v1::Response> {
    v1::Response response = LastResponse();
    v1::ExplainMissReply* reply = response.mutable_explain_miss();
    reply->set_name(request.explain_miss().name());
    reply->set_blocks(5);
    reply->set_reason("identity");
    reply->set_other_corpus("filings");
    v1::MissRun* run = reply->add_runs();
    run->set_blocks(5);
    run->set_reason("identity");
    v1::FieldDifference* difference = reply->add_differences();
    difference->set_field("kv_format");
    difference->set_stored("kv1;bf16");
    difference->set_asked("kv1;" + request.explain_miss().text());
    return {response};
  });
  const CtlRun table = Run(daemon, {"explain-miss", "--text", Path("t.txt")});
  EXPECT_EQ(table.exit_code, 0) << table.err;
  EXPECT_THAT(table.out, HasSubstr("0 of 5 blocks are here"));
  EXPECT_THAT(table.out, HasSubstr("in corpus 'filings' under another identity"));
  EXPECT_THAT(table.out, HasSubstr("kv1;some text"));
  const Json object = Json::parse(Run(daemon, {"explain-miss", "a", "-o", "json"}).out);
  EXPECT_EQ(object["reason"], "identity");
  EXPECT_EQ(object["differences"][0]["field"], "kv_format");
  EXPECT_EQ(object["runs"][0]["blocks"], 5);
  EXPECT_EQ(Run(daemon, {"explain-miss"}).exit_code, 2);
  EXPECT_EQ(Run(daemon, {"explain-miss", "a", "--text", Path("t.txt")}).exit_code, 2);
  EXPECT_EQ(Run(daemon, {"explain-miss", "--text", Path("none")}).exit_code, 3);
}

}  // namespace
}  // namespace corpusd::ctl
