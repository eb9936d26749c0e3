#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "ctl_scripted_daemon.h"

namespace corpusd::ctl {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::ordered_json;
using Words = std::vector<std::string>;

v1::Corpus Filings() {
  v1::Corpus corpus;
  corpus.set_name("filings");
  corpus.set_id(3);
  corpus.set_state("ready");
  corpus.set_mode("exact");
  corpus.set_tokens(4321);
  corpus.set_blocks(34);
  corpus.set_kv_format("bf16");
  corpus.set_stored_bytes(1288490189);
  corpus.set_created_at_ms(1789999000000);
  v1::Source* source = corpus.add_sources();
  source->set_path("a.txt");
  source->set_tokens(4321);
  source->set_digest("ab12");
  return corpus;
}

// Answers every verb with something ordinary.
std::vector<v1::Response> Ordinary(const v1::Request& request) {
  v1::Response response = LastResponse();
  switch (request.body_case()) {
    case v1::Request::kList:
      *response.mutable_list()->add_corpora() = Filings();
      break;
    case v1::Request::kShow:
    case v1::Request::kPin:
    case v1::Request::kUnpin:
    case v1::Request::kTouch:
      *response.mutable_corpus() = Filings();
      break;
    case v1::Request::kRemove:
    case v1::Request::kRename:
      response.mutable_empty();
      break;
    case v1::Request::kEvict:
      response.mutable_evict()->set_blocks(34);
      break;
    case v1::Request::kWarm:
      response.mutable_warm()->set_blocks(34);
      break;
    case v1::Request::kJob:
    case v1::Request::kWatchJob:
    case v1::Request::kCancelJob:
      response.mutable_job()->set_id(7);
      response.mutable_job()->set_corpus("filings");
      response.mutable_job()->set_state(request.has_watch_job() ? "done" : "running");
      response.mutable_job()->set_eta_s(-1);
      break;
    case v1::Request::kJobs:
      response.mutable_jobs()->add_jobs()->set_id(7);
      break;
    case v1::Request::kDiskUsage:
      response.mutable_disk_usage()->add_tiers()->set_name("host");
      *response.mutable_disk_usage()->add_corpora() = Filings();
      break;
    case v1::Request::kVerify:
      response.mutable_verify()->set_blocks(34);
      break;
    case v1::Request::kDoctor:
      response.mutable_doctor()->add_checks()->set_level("ok");
      break;
    case v1::Request::kVersion:
      response.mutable_version()->set_version("0.1.0");
      break;
    default:
      return {};
  }
  return {response};
}

Words With(const ScriptedDaemon& daemon, Words words) {
  words.insert(words.end(), {"--socket", daemon.socket_path()});
  return words;
}

const std::vector<Words>& VerbsOfTheDaemon() {
  static const std::vector<Words> kVerbs = {{"ls"},
                                            {"show", "filings"},
                                            {"rm", "filings", "--yes"},
                                            {"rename", "filings", "letters"},
                                            {"pin", "filings"},
                                            {"unpin", "filings"},
                                            {"evict", "filings"},
                                            {"warm", "filings"},
                                            {"touch", "filings", "--ttl", "1d"},
                                            {"jobs"},
                                            {"job", "7"},
                                            {"wait", "filings"},
                                            {"cancel", "7"},
                                            {"df"},
                                            {"verify", "filings"},
                                            {"doctor"},
                                            {"version"},
                                            {"ask", "filings", "Who?"}};
  return kVerbs;
}

TEST(CtlCommand, EveryErrorOfTheDaemonHasItsExitCodeInEveryVerb) {
  const std::vector<std::tuple<uint32_t, std::string, int>> errors = {
      {1, "not_found", 3},    {16, "not_ready", 4},         {6, "aborted", 5},
      {10, "unavailable", 5}, {15, "permission_denied", 6}, {5, "resource_exhausted", 8},
      {7, "corruption", 10},  {13, "unimplemented", 2},     {12, "deadline_exceeded", 124},
      {14, "internal", 1}};
  for (const auto& [code, text, exit_code] : errors) {
    const v1::Response error = ErrorResponse(code, text, "it went wrong");
    ScriptedDaemon daemon([&](const v1::Request&) { return std::vector{error}; });
    for (Words words : VerbsOfTheDaemon()) {
      words.insert(words.end(), {"-o", "json"});
      const CtlRun run = RunCtl(With(daemon, words));
      EXPECT_EQ(run.exit_code, exit_code) << words[0] << ": " << text;
      const Json said = Json::parse(run.err, nullptr, false);
      ASSERT_FALSE(said.is_discarded()) << words[0] << ": " << run.err;
      EXPECT_EQ(said["error"]["code"], text);
      EXPECT_EQ(said["error"]["exit_code"], exit_code);
      EXPECT_EQ(said["error"]["message"], "it went wrong") << words[0];
    }
  }
}

TEST(CtlCommand, NoDaemonIsSeven) {
  for (Words words : VerbsOfTheDaemon()) {
    words.insert(words.end(), {"--socket", "/nonexistent/corpusd.sock"});
    const CtlRun run = RunCtl(words);
    EXPECT_EQ(run.exit_code, 7) << words[0];
    EXPECT_THAT(run.err, HasSubstr("/nonexistent/corpusd.sock"));
  }
}

TEST(CtlCommand, EveryVerbInEveryModeIsWellFormed) {
  ScriptedDaemon daemon(Ordinary);
  for (const Words& verb : VerbsOfTheDaemon()) {
    if (verb[0] == "ask" || verb[0] == "unpin") continue;  // told apart below
    for (const std::string mode : {"table", "wide", "json", "jsonl", "yaml", "name"}) {
      Words words = verb;
      words.insert(words.end(), {"-o", mode});
      const CtlRun run = RunCtl(With(daemon, words));
      EXPECT_EQ(run.exit_code, 0) << verb[0] << " -o " << mode << ": " << run.err;
      EXPECT_FALSE(run.out.empty()) << verb[0] << " -o " << mode;
      EXPECT_EQ(run.out.find('\x1b'), std::string::npos) << verb[0];
      if (mode == "json") {
        EXPECT_FALSE(Json::parse(run.out, nullptr, false).is_discarded()) << run.out;
        EXPECT_EQ(run.err, "") << verb[0];
      }
    }
  }
}

TEST(CtlCommand, ShowObjectIsAsPromised) {
  ScriptedDaemon daemon(Ordinary);
  const Json show = Json::parse(RunCtl(With(daemon, {"show", "filings", "-o", "json"})).out);
  std::vector<std::string> keys;
  for (const auto& item : show.items()) keys.push_back(item.key());
  EXPECT_THAT(keys, ::testing::ElementsAre("name", "id", "state", "mode", "tokens", "segments",
                                           "blocks", "kv_format", "model", "root", "bytes", "parts",
                                           "pinned", "expires_at", "priority", "created_at",
                                           "last_used_at", "prefill", "quality", "cost", "sources",
                                           "roots", "replaces", "skipped_files", "error"));
  EXPECT_TRUE(show["pinned"].is_null());
  EXPECT_TRUE(show["quality"].is_null());
  EXPECT_TRUE(show["expires_at"].is_null());
  EXPECT_EQ(show["created_at"], "2026-09-21T13:56:40Z");
  EXPECT_EQ(show["bytes"]["stored"], 1288490189);
  EXPECT_EQ(show["sources"][0]["path"], "a.txt");
  const Json list = Json::parse(RunCtl(With(daemon, {"ls", "-o", "json"})).out);
  ASSERT_TRUE(list.is_array());
  EXPECT_EQ(list[0], show);
  EXPECT_EQ(RunCtl(With(daemon, {"ls", "-o", "name"})).out, "filings\n");
  EXPECT_EQ(RunCtl(With(daemon, {"ls", "-q"})).out, "filings\n");
  const CtlRun table = RunCtl(With(daemon, {"ls"}));
  EXPECT_THAT(table.out, HasSubstr("filings  ready   4,321  1.2 GiB"));
}

TEST(CtlCommand, RemoveAsksOnATerminalAndNeedsYesElsewhere) {
  ScriptedDaemon daemon(Ordinary);
  const auto removed = [&daemon] {
    for (const v1::Request& request : daemon.requests()) {
      if (request.has_remove()) return true;
    }
    return false;
  };
  const CtlRun off_terminal = RunCtl(With(daemon, {"rm", "filings"}));
  EXPECT_EQ(off_terminal.exit_code, 2);
  EXPECT_THAT(off_terminal.err, HasSubstr("--yes"));
  EXPECT_EQ(
      RunCtl(With(daemon, {"rm", "filings"}), {.input = "n\n", .on_terminal = true}).exit_code, 1);
  EXPECT_EQ(RunCtl(With(daemon, {"rm", "filings"}), {.input = "", .on_terminal = true}).exit_code,
            1);
  EXPECT_FALSE(removed());
  const CtlRun agreed =
      RunCtl(With(daemon, {"rm", "filings"}), {.input = "y\n", .on_terminal = true});
  EXPECT_EQ(agreed.exit_code, 0);
  EXPECT_THAT(agreed.err, HasSubstr("4,321 tokens"));
  EXPECT_TRUE(removed());
}

std::vector<v1::Response> Answer(const v1::Request& request) {
  if (!request.has_ask()) return {};
  std::vector<v1::Response> responses;
  if (request.ask().stream()) {
    for (const char* text : {"Deloitte", " & \x1b[31mCo"}) {
      responses.emplace_back().mutable_ask_delta()->set_text(text);
    }
  }
  v1::Response last = LastResponse();
  last.mutable_ask()->set_answer("Deloitte & \x1b[31mCo");
  last.mutable_ask()->set_finish_reason("stop");
  last.mutable_ask()->mutable_usage()->set_prompt_tokens(4330);
  last.mutable_ask()->mutable_usage()->set_cached_tokens(4321);
  last.mutable_ask()->mutable_timing()->set_first_token_ms(12.5);
  responses.push_back(last);
  return responses;
}

TEST(CtlCommand, AskStreamsOrWaits) {
  ScriptedDaemon daemon(Answer);
  for (const Words& more : {Words{}, Words{"--no-stream"}}) {
    Words words = {"ask", "filings", "Who?"};
    words.insert(words.end(), more.begin(), more.end());
    const CtlRun piped = RunCtl(With(daemon, words));
    EXPECT_EQ(piped.exit_code, 0) << piped.err;
    EXPECT_EQ(piped.out, "Deloitte & \x1b[31mCo\n");
    EXPECT_EQ(piped.err, "");
    const CtlRun shown = RunCtl(With(daemon, words), {.on_terminal = true});
    EXPECT_EQ(shown.out, "Deloitte & \\x1b[31mCo\n");
    EXPECT_THAT(shown.err, HasSubstr("4,321 cached, 0 recomputed), first token 12.5 ms"));
    words.push_back("-q");
    EXPECT_EQ(RunCtl(With(daemon, words), {.on_terminal = true}).err, "");
  }
  const Json object = Json::parse(
      RunCtl(With(daemon, {"ask", "filings", "Who?", "-o", "json", "--seed", "9"})).out);
  std::vector<std::string> keys;
  for (const auto& item : object.items()) keys.push_back(item.key());
  EXPECT_THAT(keys, ::testing::ElementsAre("answer", "finish_reason", "usage", "timing", "read",
                                           "attended_tokens", "citations", "selection", "answers"));
  EXPECT_TRUE(object["selection"].is_null());
  EXPECT_EQ(object["usage"]["cached_tokens"], 4321);
  EXPECT_FALSE(daemon.requests().back().ask().stream());
  EXPECT_EQ(daemon.requests().back().ask().seed(), 9u);
  EXPECT_EQ(daemon.requests().back().timeout_ms(), 0u);  // an answer takes what it takes
}

std::vector<v1::Response> CitedAnswer(const v1::Request& request) {
  if (!request.has_ask()) return {};
  v1::Response last = LastResponse();
  v1::AskReply& reply = *last.mutable_ask();
  reply.set_answer("Deloitte");
  reply.set_attended_tokens(3900);
  v1::Citation& first = *reply.add_citations();
  first.set_source("/f/audit.log#L101-L200");
  first.set_first_line(12);
  first.set_last_line(40);
  first.set_weight(0.616);
  v1::Citation& second = *reply.add_citations();
  second.set_source("/f/b.txt");
  second.set_first_token(1000);
  second.set_tokens(128);
  second.set_weight(0.2);
  v1::Selection& selection = *reply.mutable_selection();
  selection.set_candidate_blocks(8000);
  selection.set_chosen_blocks(30);
  selection.set_select_ms(8.5);
  return {last};
}

TEST(CtlCommand, AskCitesLinesAndSaysWhatWasChosen) {
  ScriptedDaemon daemon(CitedAnswer);
  const Words words = {"ask",  "filings",     "Who?",  "--cite",     "--budget",
                       "4096", "--retrieval", "heads", "--no-stream"};
  const CtlRun shown = RunCtl(With(daemon, words), {.on_terminal = true});
  EXPECT_EQ(shown.out,
            "Deloitte\n\n[1] /f/audit.log:112-140, 62 %\n"
            "[2] /f/b.txt tokens 1,000 to 1,128, 20 %\n");
  EXPECT_THAT(shown.err, HasSubstr("attended 3,900 tokens in 30 of 8,000 blocks"));
  EXPECT_TRUE(daemon.requests().back().ask().cite());
  EXPECT_EQ(daemon.requests().back().ask().budget_tokens(), 4096u);
  EXPECT_EQ(daemon.requests().back().ask().retrieval(), "heads");
  const Json object =
      Json::parse(RunCtl(With(daemon, {"ask", "filings", "Who?", "-o", "json"})).out);
  EXPECT_EQ(object["citations"][0]["source"], "/f/audit.log#L101-L200");
  EXPECT_EQ(object["citations"][0]["path"], "/f/audit.log");
  EXPECT_EQ(object["citations"][0]["first_line"], 112);
  EXPECT_EQ(object["citations"][0]["last_line"], 140);
  EXPECT_TRUE(object["citations"][1]["first_line"].is_null());
  EXPECT_EQ(object["selection"]["chosen_blocks"], 30);
}

// Silence would look as if nothing had been asked for.
TEST(CtlCommand, ThatAnExactCorpusHasNoCitationsIsSaid) {
  ScriptedDaemon daemon([](const v1::Request& request) -> std::vector<v1::Response> {
    if (!request.has_ask()) return {};
    v1::Response last = LastResponse();
    last.mutable_ask()->set_answer("Deloitte");
    return {last};
  });
  const CtlRun run = RunCtl(With(daemon, {"ask", "filings", "Who?", "--cite", "--no-stream"}));
  EXPECT_EQ(run.out, "Deloitte\n");
  EXPECT_THAT(run.err, HasSubstr("nothing is cited: an exact corpus is attended to as a whole"));
  EXPECT_EQ(RunCtl(With(daemon, {"ask", "filings", "Who?", "--no-stream"})).err, "");
}

std::vector<v1::Response> TwoAnswers(const v1::Request& request) {
  if (!request.has_ask()) return {};
  v1::Response last = LastResponse();
  v1::AskReply& reply = *last.mutable_ask();
  reply.set_answer("Deloitte");
  for (const char* const text : {"Deloitte", "KPMG\n"}) {
    v1::Answer& answer = *reply.add_answers();
    answer.set_index(reply.answers_size() - 1);
    answer.set_text(text);
    answer.set_finish_reason("stop");
    answer.set_tokens(2);
  }
  reply.mutable_answers(1)->set_stop("Q:");
  v1::TokenLogprob& token = *reply.mutable_answers(1)->add_logprobs();
  token.set_token("\xc3");  // half a character
  token.set_id(77);
  token.set_logprob(-0.25);
  token.add_top()->set_id(78);
  return {last};
}

TEST(CtlCommand, SeveralAnswersAreToldApart) {
  ScriptedDaemon daemon(TwoAnswers);
  EXPECT_EQ(RunCtl(With(daemon, {"ask", "filings", "Who?", "-n", "2"})).out,
            "--- answer 1 of 2\nDeloitte\n\n--- answer 2 of 2\nKPMG\n");
  const v1::AskRequest asked = daemon.requests().back().ask();
  EXPECT_EQ(asked.n(), 2u);
  EXPECT_FALSE(asked.stream());
  EXPECT_FALSE(asked.logprobs());
  const Json object = Json::parse(
      RunCtl(With(daemon, {"ask", "filings", "Who?", "-n", "2", "-o", "json", "--logprobs", "1"}))
          .out);
  EXPECT_TRUE(daemon.requests().back().ask().logprobs());
  EXPECT_EQ(daemon.requests().back().ask().top_logprobs(), 1u);
  ASSERT_EQ(object["answers"].size(), 2u);
  EXPECT_TRUE(object["answers"][0]["logprobs"].is_null());
  EXPECT_TRUE(object["answers"][0]["stop"].is_null());
  const Json& second = object["answers"][1];
  EXPECT_EQ(second["answer"], "KPMG\n");
  EXPECT_EQ(second["stop"], "Q:");
  EXPECT_EQ(second["logprobs"][0]["token"], "?");
  EXPECT_EQ(second["logprobs"][0]["bytes"], Json::array({0xc3}));
  EXPECT_EQ(second["logprobs"][0]["logprob"], -0.25);
  EXPECT_EQ(second["logprobs"][0]["top"][0]["id"], 78);
}

TEST(CtlCommand, AnInterruptedQuestionIsCancelledAtTheDaemon) {
  std::atomic<bool> interrupted{false};
  ScriptedDaemon daemon([&](const v1::Request& request) {
    std::vector<v1::Response> responses;
    if (request.has_ask()) {
      responses.emplace_back().mutable_ask_delta()->set_text("Del");
      interrupted = true;
    }
    return responses;
  });
  const CtlRun run =
      RunCtl(With(daemon, {"ask", "filings", "Who?"}), {.interrupted = &interrupted});
  EXPECT_EQ(run.exit_code, 130);
  for (int i = 0; i < 200 && daemon.requests().size() < 2; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  ASSERT_EQ(daemon.requests().size(), 2u);
  EXPECT_EQ(daemon.requests()[1].cancel().request_id(), daemon.requests()[0].id());
}

TEST(CtlCommand, ATimeoutIs124) {
  ScriptedDaemon daemon([](const v1::Request&) { return std::vector<v1::Response>(); });
  EXPECT_EQ(RunCtl(With(daemon, {"ls", "--timeout", "50ms"})).exit_code, 124);
}

TEST(CtlCommand, NothingToDoIsNine) {
  ScriptedDaemon daemon([](const v1::Request& request) {
    std::vector<v1::Response> responses = Ordinary(request);
    if (request.has_evict()) responses[0].mutable_evict()->set_blocks(0);
    if (request.has_job()) responses[0].mutable_job()->set_state("done");
    return responses;
  });
  EXPECT_EQ(RunCtl(With(daemon, {"evict", "filings"})).exit_code, 9);
  EXPECT_EQ(RunCtl(With(daemon, {"unpin", "filings"})).exit_code, 9);
  EXPECT_EQ(RunCtl(With(daemon, {"cancel", "7"})).exit_code, 9);
  EXPECT_EQ(RunCtl(With(daemon, {"cancel", "seven"})).exit_code, 2);
}

TEST(CtlCommand, DamageIsTen) {
  uint64_t repaired = 0;
  ScriptedDaemon daemon([&](const v1::Request& request) {
    std::vector<v1::Response> responses(1);
    responses[0].mutable_progress()->set_done(1);
    responses.push_back(Ordinary(request)[0]);
    responses[1].mutable_verify()->set_damaged(2);
    responses[1].mutable_verify()->set_repaired(repaired);
    return responses;
  });
  const CtlRun run = RunCtl(With(daemon, {"verify", "filings"}));
  EXPECT_EQ(run.exit_code, 10);
  EXPECT_THAT(run.err, HasSubstr("--repair"));
  repaired = 2;
  EXPECT_EQ(RunCtl(With(daemon, {"verify", "filings", "--repair"})).exit_code, 0);
  EXPECT_TRUE(daemon.requests().back().verify().repair());
}

TEST(CtlCommand, DoctorFailsOnAnErrorOnly) {
  std::string level = "warn";
  ScriptedDaemon daemon([&](const v1::Request& request) {
    std::vector<v1::Response> responses = Ordinary(request);
    if (request.has_doctor()) {
      responses[0].mutable_doctor()->mutable_checks(0)->set_level(level);
      responses[0].mutable_doctor()->mutable_checks(0)->set_text("disk is slow");
    }
    return responses;
  });
  EXPECT_EQ(RunCtl(With(daemon, {"doctor"})).exit_code, 0);
  level = "error";
  const CtlRun run = RunCtl(With(daemon, {"doctor"}));
  EXPECT_EQ(run.exit_code, 1);
  EXPECT_THAT(run.out, HasSubstr("disk is slow"));
}

TEST(CtlCommand, WaitFollowsTheJobOfACorpus) {
  bool ready = false;
  std::string end = "done";
  ScriptedDaemon daemon([&](const v1::Request& request) {
    std::vector<v1::Response> responses = Ordinary(request);
    if (request.has_show() && !ready) {
      responses[0].mutable_corpus()->set_state("prefilling");
      responses[0].mutable_corpus()->set_job_id(7);
    }
    if (request.has_watch_job()) {
      responses[0].mutable_job()->set_state(end);
      if (end == "failed") responses[0].mutable_job()->set_error("resource_exhausted: disk full");
      ready = true;
    }
    return responses;
  });
  EXPECT_EQ(RunCtl(With(daemon, {"wait", "filings"})).out, "'filings' is ready: 4,321 tokens\n");
  EXPECT_EQ(RunCtl(With(daemon, {"wait", "7"})).out, "job 7 is done\n");
  end = "failed";
  const CtlRun failed = RunCtl(With(daemon, {"wait", "7"}));
  EXPECT_EQ(failed.exit_code, 8);
  EXPECT_THAT(failed.err, HasSubstr("disk full"));
  end = "cancelled";
  EXPECT_EQ(RunCtl(With(daemon, {"wait", "7"})).exit_code, 1);
}

TEST(CtlCommand, VersionWithoutADaemonStillSaysItsOwn) {
  const CtlRun run = RunCtl({"version", "-o", "json", "--socket", "/nonexistent/s"});
  EXPECT_EQ(run.exit_code, 7);
  EXPECT_TRUE(Json::parse(run.out)["server"].is_null());
  EXPECT_FALSE(Json::parse(run.out)["client"]["version"].get<std::string>().empty());
}

TEST(CtlCommand, CompletionNeedsNoDaemon) {
  for (const std::string shell : {"bash", "zsh", "fish"}) {
    const CtlRun run = RunCtl({"completion", shell});
    EXPECT_EQ(run.exit_code, 0);
    EXPECT_THAT(run.out, HasSubstr("corpusctl"));
  }
}

}  // namespace
}  // namespace corpusd::ctl
