#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/ctl/cli.h"
#include "client/ctl/exit_code.h"

namespace corpusd::ctl {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Words = std::vector<std::string>;

Arguments Parsed(const Words& words) {
  const ParseOutcome outcome = ParseCommandLine(words);
  if (const auto* failure = std::get_if<ParseFailure>(&outcome)) {
    ADD_FAILURE() << failure->error.message;
  }
  const auto* arguments = std::get_if<Arguments>(&outcome);
  return arguments != nullptr ? *arguments : Arguments{};
}

ParseFailure Refused(const Words& words) {
  const ParseOutcome outcome = ParseCommandLine(words);
  const auto* failure = std::get_if<ParseFailure>(&outcome);
  if (failure == nullptr) {
    ADD_FAILURE() << ::testing::PrintToString(words) << " was taken";
    return {};
  }
  EXPECT_EQ(ExitCodeOf(failure->error.code_text), kExitUsage) << failure->error.code_text;
  return *failure;
}

TEST(CtlCli, GlobalFlagsStandBeforeOrAfterTheVerb) {
  for (const Words& words : {Words{"-o", "json", "--socket", "/s", "-q", "--timeout", "5s", "--yes",
                                   "--no-color", "show", "filings"},
                             Words{"show", "-q", "filings", "-o", "json", "--yes", "--timeout=5s",
                                   "--no-color", "--socket=/s"}}) {
    const Arguments arguments = Parsed(words);
    EXPECT_EQ(arguments.verb, "show");
    EXPECT_EQ(arguments.name, "filings");
    EXPECT_EQ(arguments.output, OutputMode::kJson);
    EXPECT_EQ(arguments.socket_path, "/s");
    EXPECT_TRUE(arguments.quiet && arguments.assume_yes && arguments.no_color);
    EXPECT_EQ(arguments.timeout, std::chrono::seconds(5));
  }
}

TEST(CtlCli, Ingest) {
  const Arguments arguments =
      Parsed({"ingest", "filings", "a", "b", "--mode", "exact", "--kv-format", "int8", "--preamble",
              "p.txt", "--pin", "--ttl", "30d", "--detach", "--stdin"});
  EXPECT_EQ(arguments.verb, "ingest");
  EXPECT_EQ(arguments.name, "filings");
  EXPECT_THAT(arguments.paths, ElementsAre("a", "b"));
  EXPECT_EQ(arguments.mode, "exact");
  EXPECT_EQ(arguments.kv_format, "int8");
  EXPECT_EQ(arguments.preamble_path, "p.txt");
  EXPECT_TRUE(arguments.pin && arguments.detach && arguments.read_stdin);
  EXPECT_EQ(arguments.ttl, std::chrono::hours(720));
  EXPECT_TRUE(Parsed({"ingest", "x", "-"}).read_stdin);
  EXPECT_THAT(Parsed({"ingest", "x", "a", "-"}).paths, ElementsAre("a"));
}

TEST(CtlCli, SourcesAndPlan) {
  const Arguments arguments = Parsed({"ingest", "x", "a", "-", "-v", "--stdin-name", "app.log",
                                      "--json-text", "body", "--max-bytes", "20GiB"});
  EXPECT_TRUE(arguments.verbose && arguments.read_stdin);
  EXPECT_EQ(arguments.stdin_name, "app.log");
  EXPECT_EQ(arguments.json_text_field, "body");
  EXPECT_EQ(arguments.unpacked_bytes_max, uint64_t{20} << 30);
  const Arguments plan =
      Parsed({"plan", "a", "b", "--mode", "segmented", "--model", "m", "--measure"});
  EXPECT_THAT(plan.paths, ElementsAre("a", "b"));
  EXPECT_EQ(plan.mode, "segmented");
  EXPECT_EQ(plan.model, "m");
  EXPECT_TRUE(plan.measure);
  Refused({"plan"});
  Refused({"ingest", "x", "a", "--max-bytes", "much"});
  Refused({"ingest", "x", "-", "--stdin-name", ""});
}

TEST(CtlCli, UpdateNeedsNoPaths) {
  EXPECT_TRUE(Parsed({"update", "x"}).paths.empty());
  EXPECT_THAT(Parsed({"update", "x", "a", "--detach"}).paths, ElementsAre("a"));
  EXPECT_TRUE(Parsed({"update", "x", "-"}).read_stdin);
}

TEST(CtlCli, AVerbsNameMayBeACorpusOrAPath) {
  EXPECT_EQ(Parsed({"show", "ls"}).name, "ls");
  EXPECT_THAT(Parsed({"append", "ls", "jobs", "df"}).paths, ElementsAre("jobs", "df"));
}

TEST(CtlCli, Ask) {
  const Arguments arguments =
      Parsed({"ask", "filings", "Who?", "--max-tokens", "9", "--temperature", "0.7", "--seed",
              "18446744073709551615", "--top-p", "0.9", "--no-stream", "--cite", "--no-cache"});
  EXPECT_EQ(arguments.question, "Who?");
  EXPECT_EQ(arguments.max_tokens, 9u);
  EXPECT_DOUBLE_EQ(arguments.temperature, 0.7);
  EXPECT_EQ(arguments.seed, 18446744073709551615ull);
  EXPECT_DOUBLE_EQ(arguments.top_p, 0.9);
  EXPECT_TRUE(arguments.no_stream && arguments.cite && arguments.no_cache);
  const Arguments chosen = Parsed({"ask", "x", "y", "--budget", "4096", "--retrieval", "lexical"});
  EXPECT_EQ(chosen.budget_tokens, 4096u);
  EXPECT_EQ(chosen.retrieval, "lexical");
  EXPECT_EQ(Parsed({"ask", "x", "-"}).question, "-");
  EXPECT_EQ(Parsed({"ask", "x", "y"}).max_tokens, 0u);
  EXPECT_EQ(Parsed({"ask", "x", "--", "-what is this?"}).question, "-what is this?");
}

TEST(CtlCli, Sampling) {
  const Arguments arguments = Parsed({"ask",    "x",
                                      "--stop", "END",
                                      "--stop", "[1,2]",
                                      "y",      "--top-k",
                                      "40",     "--min-p",
                                      "0.05",   "--repetition-penalty",
                                      "1.1",    "--repetition-window",
                                      "128",    "--presence-penalty",
                                      "-1.5",   "--frequency-penalty",
                                      "0.25",   "-n",
                                      "3",      "--logprobs",
                                      "5"});
  EXPECT_EQ(arguments.question, "y");
  EXPECT_THAT(arguments.stops, ElementsAre("END", "[1,2]"));
  EXPECT_EQ(arguments.top_k, 40u);
  EXPECT_DOUBLE_EQ(arguments.min_p, 0.05);
  EXPECT_DOUBLE_EQ(arguments.repetition_penalty, 1.1);
  EXPECT_EQ(arguments.repetition_window, 128u);
  EXPECT_DOUBLE_EQ(arguments.presence_penalty, -1.5);
  EXPECT_DOUBLE_EQ(arguments.frequency_penalty, 0.25);
  EXPECT_EQ(arguments.answers, 3u);
  EXPECT_EQ(arguments.top_logprobs, 5u);
  EXPECT_FALSE(Parsed({"ask", "x", "y"}).top_logprobs.has_value());
  EXPECT_EQ(Parsed({"ask", "x", "y", "--logprobs", "0"}).top_logprobs, 0u);
  Refused({"ask", "x", "y", "--min-p", "2"});
  Refused({"ask", "x", "y", "--repetition-penalty", "0"});
  Refused({"ask", "x", "y", "--presence-penalty", "-3"});
  Refused({"ask", "x", "y", "--stop", ""});
  Refused({"ask", "x", "y", "-n", "0"});
  Refused({"ask", "x", "y", "-n", "17"});
  Refused({"ask", "x", "y", "--logprobs", "21"});
}

TEST(CtlCli, TiersAndTimes) {
  EXPECT_EQ(Parsed({"pin", "x", "--tier", "host"}).tier, "host");
  EXPECT_EQ(Parsed({"evict", "x", "--from", "disk", "--dry-run"}).tier, "disk");
  EXPECT_EQ(Parsed({"warm", "x", "--to", "device"}).tier, "device");
  const Arguments touch = Parsed({"touch", "x", "--ttl", "never"});
  EXPECT_TRUE(touch.ttl_never);
  EXPECT_FALSE(touch.ttl);
  EXPECT_EQ(Parsed({"ls", "--timeout", "0"}).timeout, std::chrono::milliseconds(0));
}

TEST(CtlCli, RefusesWhatMakesNoSense) {
  Refused({});
  Refused({"frobnicate"});
  Refused({"show"});
  Refused({"show", ""});
  Refused({"show", "a", "b"});
  Refused({"ls", "--frobnicate"});
  Refused({"ls", "-o", "xml"});
  Refused({"ls", "--timeout", "soon"});
  Refused({"ingest", "x"});
  Refused({"ingest", "x", "a", "--mode", "magic"});
  Refused({"ingest", "x", "a", "--ttl", "0"});
  Refused({"ask", "x"});
  Refused({"ask", "x", ""});
  Refused({"ask", "x", "\xFF"});
  Refused({"ask", "x", "y", "--max-tokens", "0"});
  Refused({"ask", "x", "y", "--top-p", "0"});
  Refused({"ask", "x", "y", "--temperature", "-1"});
  Refused({"ask", "x", "y", "--seed", "-1"});
  Refused({"ask", "x", "y", "--budget", "0"});
  Refused({"ask", "x", "y", "--retrieval", "magic"});
  Refused({"append", "x"});
  Refused({"pin", "x", "--tier", "cloud"});
  Refused({"warm", "x", "--to", "disk"});
  Refused({"touch", "x"});
  Refused({"touch", "x", "--ttl", "later"});
  Refused({"wait", "x", "--for", "godot"});
  Refused({"completion", "tcsh"});
}

TEST(CtlCli, AnErrorKnowsTheOutputModeThatWasAskedFor) {
  EXPECT_EQ(Refused({"show", "-o", "json"}).output, OutputMode::kJson);
  EXPECT_EQ(Refused({"--output=yaml", "nonsense"}).output, OutputMode::kYaml);
  EXPECT_EQ(Refused({"-ojsonl", "nonsense"}).output, OutputMode::kJsonLines);
  EXPECT_EQ(Refused({"nonsense", "--", "-o", "json"}).output, OutputMode::kTable);
}

TEST(CtlCli, EveryVerbHasHelpWithAnExample) {
  const CommandWords words = DescribeCommands();
  EXPECT_EQ(words.verbs.size(), 30u);
  for (const VerbWord& verb : words.verbs) {
    EXPECT_FALSE(verb.description.empty()) << verb.name;
    const ParseOutcome outcome = ParseCommandLine({verb.name, "--help"});
    const auto* help = std::get_if<HelpText>(&outcome);
    ASSERT_NE(help, nullptr) << verb.name;
    EXPECT_THAT(help->text, HasSubstr("corpusctl " + verb.name));
    EXPECT_THAT(help->text, HasSubstr("Example: "));
  }
  const ParseOutcome outcome = ParseCommandLine({"--help"});
  for (const VerbWord& verb : words.verbs) {
    EXPECT_THAT(std::get<HelpText>(outcome).text, HasSubstr("\n  " + verb.name));
  }
  EXPECT_THAT(std::get<HelpText>(ParseCommandLine({"--version"})).text,
              ::testing::StartsWith("corpusctl "));
}

}  // namespace
}  // namespace corpusd::ctl
