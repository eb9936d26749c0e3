#include "client/ctl/cli.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string_view>
#include <utility>

#include "client/ctl/text.h"
#include "client/ctl/units.h"

namespace corpusd::ctl {
namespace {

// Verbs that later versions have. They must not look as if they worked, nor like a slip of the
// keyboard.
constexpr std::array<std::string_view, 4> kLaterVerbs = {"update", "plan", "top", "stats"};

const std::vector<std::string> kPriorities = {"low", "normal", "high"};
constexpr const char* kPriorityHelp = "what is not pinned leaves in this order when room is needed";

ClientError Usage(std::string message) {
  return {kClientInvalidArgument, "usage", std::move(message)};
}

// Global flags with a value, for finding the verb in a line that does not parse.
bool TakesValue(std::string_view word) {
  return word == "-o" || word == "--output" || word == "--socket" || word == "--timeout";
}

// The first word that is neither a flag nor a flag's value; empty if there is none.
std::string FirstWord(const std::vector<std::string>& words) {
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--") return "";
    if (TakesValue(words[i])) {
      ++i;
    } else if (!words[i].starts_with('-')) {
      return words[i];
    }
  }
  return "";
}

// What -o says in a line that may not parse.
OutputMode GuessOutputMode(const std::vector<std::string>& words) {
  OutputMode mode = OutputMode::kTable;
  for (size_t i = 0; i < words.size() && words[i] != "--"; ++i) {
    std::string_view value;
    if (words[i] == "-o" || words[i] == "--output") {
      if (i + 1 < words.size()) value = words[i + 1];
    } else if (words[i].starts_with("--output=")) {
      value = std::string_view(words[i]).substr(9);
    } else if (words[i].starts_with("-o")) {
      value = std::string_view(words[i]).substr(2);
      if (value.starts_with('=')) value.remove_prefix(1);
    }
    mode = ParseOutputMode(value).value_or(mode);
  }
  return mode;
}

// The parser and what it fills. CLI11 keeps pointers into it, so it stays where it is.
class Grammar {
 public:
  Grammar();
  Grammar(const Grammar&) = delete;
  Grammar& operator=(const Grammar&) = delete;

  ParseOutcome Parse(const std::vector<std::string>& words);
  CommandWords Describe() const;

 private:
  CLI::App* AddVerb(const std::string& name, const std::string& description, WordKind words,
                    const std::string& example);
  void AddGlobalFlags();
  void AddIngestVerbs();
  void AddAskVerb();
  void AddCorpusVerbs();
  void AddTierVerbs();
  void AddJobVerbs();
  void AddAdminVerbs();
  void AddIntegrityVerbs();
  void AddName(CLI::App* verb, const std::string& what);
  void AddChoice(CLI::App* verb, const std::string& flag, std::string& target,
                 const std::string& description, const std::vector<std::string>& choices);
  // Turns the words that CLI11 left as text into values. RETURNS what is wrong with them.
  ClientResult<Done> Finish();
  ClientResult<Done> ReadTtl();
  ClientResult<Done> ReadSizes();
  ClientResult<Done> CheckNameAndFile() const;
  FlagWord DescribeFlag(const CLI::Option& option) const;

  CLI::App app_{"corpusctl: prefill corpora once and ask them, through a running corpusd.",
                "corpusctl"};
  Arguments arguments_;
  std::string output_ = "table";
  std::string timeout_;
  std::string ttl_;
  std::string rate_;
  std::string to_free_;
  std::map<std::string, WordKind> words_of_verb_;
  std::map<const CLI::Option*, std::vector<std::string>> choices_;
};

Grammar::Grammar() {
  app_.set_help_flag("-h,--help", "say what there is");
  app_.set_version_flag("--version", "corpusctl " CORPUSD_VERSION);
  app_.require_subcommand(0, 1);
  AddGlobalFlags();
  AddIngestVerbs();
  AddAskVerb();
  AddCorpusVerbs();
  AddTierVerbs();
  AddJobVerbs();
  AddAdminVerbs();
  AddIntegrityVerbs();
  app_.footer(
      "Exit codes: 0 ok, 1 other, 2 usage, 3 not found, 4 not ready, 5 retryable, 6 denied,\n"
      "7 daemon unreachable, 8 quota or space, 9 nothing to do, 10 integrity, 124 timeout,\n"
      "130 interrupted. Global flags may stand before or after the verb.\n"
      "Example: corpusctl ingest licences /usr/share/common-licenses/GPL-3");
}

void Grammar::AddGlobalFlags() {
  app_.add_option("--socket", arguments_.socket_path,
                  "the daemon's socket; default $CORPUSD_SOCKET, else "
                  "$XDG_RUNTIME_DIR/corpusd/corpusd.sock, else /run/corpusd/corpusd.sock")
      ->type_name("PATH");
  CLI::Option* output = app_.add_option("-o,--output", output_, "how to print")
                            ->type_name("MODE")
                            ->check(CLI::IsMember(OutputModeNames()));
  choices_[output] = OutputModeNames();
  app_.add_flag("-q,--quiet", arguments_.quiet, "no progress, no remarks; ls and jobs: names only");
  app_.add_option("--timeout", timeout_,
                  "give up after this long, as in 30s or 5m, 0 for never; default 30s, and never "
                  "for ingest, append, ask, wait, warm, verify and doctor")
      ->type_name("TIME");
  app_.add_flag("--yes", arguments_.assume_yes, "do not ask before removing");
  app_.add_flag("--no-color", arguments_.no_color, "no colours; $NO_COLOR does the same");
}

CLI::App* Grammar::AddVerb(const std::string& name, const std::string& description, WordKind words,
                           const std::string& example) {
  CLI::App* verb = app_.add_subcommand(name, description);
  verb->fallthrough();  // so that global flags may follow the verb
  verb->footer(
      "Global flags such as -o json may stand here too: corpusctl --help lists them.\n"
      "Example: " +
      example);
  words_of_verb_[name] = words;
  return verb;
}

void Grammar::AddName(CLI::App* verb, const std::string& what) {
  verb->add_option("NAME", arguments_.name, what)->required()->type_name("");
}

void Grammar::AddChoice(CLI::App* verb, const std::string& flag, std::string& target,
                        const std::string& description, const std::vector<std::string>& choices) {
  CLI::Option* option =
      verb->add_option(flag, target, description)->type_name("WORD")->check(CLI::IsMember(choices));
  choices_[option] = choices;
}

void Grammar::AddIngestVerbs() {
  CLI::App* ingest =
      AddVerb("ingest", "prefill files into a new corpus", WordKind::kCorpusThenFiles,
              "corpusctl ingest filings reports/ --pin --ttl 30d");
  AddName(ingest, "the corpus to make");
  AddChoice(ingest, "--mode", arguments_.mode, "how the corpus is attended to",
            {"auto", "exact", "segmented"});
  ingest->add_option("--kv-format", arguments_.kv_format, "how keys and values are stored")
      ->type_name("FORMAT");
  ingest->add_option("--preamble", arguments_.preamble_path, "system text, read from a file")
      ->type_name("FILE");
  ingest->add_flag("--pin", arguments_.pin, "never evict it");
  ingest->add_option("--ttl", ttl_, "forget it this long from now, as in 30d")->type_name("TIME");
  AddChoice(ingest, "--priority", arguments_.priority, kPriorityHelp, kPriorities);
  CLI::App* append = AddVerb("append", "add files to the end of an exact corpus",
                             WordKind::kCorpusThenFiles, "corpusctl append filings 2026-q4.txt");
  AddName(append, "the corpus to grow");
  for (CLI::App* verb : {ingest, append}) {
    verb->add_option("PATH", arguments_.paths,
                     "files and directories; of a directory its text files, .gitignore honoured")
        ->type_name("");
    verb->add_flag("--stdin", arguments_.read_stdin, "read text from stdin, after the files");
    verb->add_flag("--detach", arguments_.detach, "print the job's id and do not wait");
  }
}

void Grammar::AddAskVerb() {
  CLI::App* ask = AddVerb("ask", "ask a corpus and print the answer as it comes", WordKind::kCorpus,
                          "corpusctl ask filings \"Who audits the company?\"");
  AddName(ask, "the corpus to ask");
  ask->add_option("QUESTION", arguments_.question, "one word of the shell, so quote it; - is stdin")
      ->required()
      ->type_name("");
  ask->add_option("--max-tokens", arguments_.max_tokens, "the longest answer, default 128")
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 24));
  ask->add_option("--temperature", arguments_.temperature,
                  "0, the default, is the likeliest answer")
      ->type_name("T")
      ->check(CLI::Range(0.0, 100.0));
  ask->add_option("--seed", arguments_.seed, "for temperatures above 0")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber);
  ask->add_option("--top-p", arguments_.top_p, "sample from the likeliest words that sum to P")
      ->type_name("P")
      ->check(CLI::Range(0.0, 1.0));
  ask->add_flag("--no-stream", arguments_.no_stream, "print the answer when it is complete");
  ask->add_flag("--cite", arguments_.cite, "say which sources were attended to");
  ask->add_flag("--no-cache", arguments_.no_cache,
                "recompute the corpus: shows what a cold prefill costs");
}

void Grammar::AddCorpusVerbs() {
  AddVerb("ls", "list the corpora", WordKind::kNone, "corpusctl ls -o wide");
  AddName(
      AddVerb("show", "one corpus in full", WordKind::kCorpus, "corpusctl show filings -o yaml"),
      "the corpus to show");
  AddName(AddVerb("rm", "remove a corpus", WordKind::kCorpus, "corpusctl rm filings --yes"),
          "the corpus to remove");
  CLI::App* rename = AddVerb("rename", "give a corpus another name", WordKind::kCorpus,
                             "corpusctl rename filings filings-2025");
  AddName(rename, "its name now");
  rename->add_option("NEW", arguments_.new_name, "its name from now on")->required()->type_name("");
}

void Grammar::AddTierVerbs() {
  const std::vector<std::string> tiers = {"device", "host", "disk"};
  CLI::App* pin = AddVerb("pin", "keep a corpus from being evicted", WordKind::kCorpus,
                          "corpusctl pin filings --tier host --ttl 8h");
  AddName(pin, "the corpus to pin");
  AddChoice(pin, "--tier", arguments_.tier, "keep it in this tier", tiers);
  pin->add_option("--ttl", ttl_, "for this long; default, and never: for ever")->type_name("TIME");
  pin->add_option("--reason", arguments_.reason, "why, for those who ask for the room")
      ->type_name("TEXT");
  AddName(AddVerb("unpin", "let a corpus be evicted again", WordKind::kCorpus,
                  "corpusctl unpin filings"),
          "the corpus to unpin");
  CLI::App* evict = AddVerb("evict", "drop blocks from a tier; tokens stay", WordKind::kCorpus,
                            "corpusctl evict --to-free 20GiB --from disk --dry-run");
  evict->add_option("NAME", arguments_.name, "the corpus to evict")->type_name("");
  evict->add_flag("--all", arguments_.all, "or every corpus that is not pinned");
  evict->add_option("--to-free", to_free_, "or, little used first, what gives so much back")
      ->type_name("SIZE");
  AddChoice(evict, "--from", arguments_.tier, "the tier to free", tiers);
  evict->add_flag("--dry-run", arguments_.dry_run, "say what would be dropped, and drop nothing");
  CLI::App* warm = AddVerb("warm", "bring a corpus's blocks into a faster tier", WordKind::kCorpus,
                           "corpusctl warm filings --to host");
  AddName(warm, "the corpus to warm");
  AddChoice(warm, "--to", arguments_.tier, "the tier to fill", {"host", "device"});
  CLI::App* touch = AddVerb("touch", "set when a corpus expires and how dear it is",
                            WordKind::kCorpus, "corpusctl touch filings --ttl 30d");
  AddName(touch, "the corpus to keep");
  touch->add_option("--ttl", ttl_, "this long from now, or never")->type_name("TIME");
  AddChoice(touch, "--priority", arguments_.priority, kPriorityHelp, kPriorities);
}

void Grammar::AddJobVerbs() {
  AddVerb("jobs", "list the jobs", WordKind::kNone, "corpusctl jobs");
  CLI::App* job = AddVerb("job", "one job in full", WordKind::kJob, "corpusctl job 7 -o json");
  CLI::App* cancel = AddVerb("cancel", "stop a job; what it has stored stays", WordKind::kJob,
                             "corpusctl cancel 7");
  for (CLI::App* verb : {job, cancel}) {
    verb->add_option("ID", arguments_.name, "the job's number")->required()->type_name("");
  }
  CLI::App* wait = AddVerb("wait", "wait for a job or a corpus", WordKind::kCorpusOrJob,
                           "corpusctl wait filings --for ready --timeout 10m");
  AddName(wait, "a job's number or a corpus");
  AddChoice(wait, "--for", arguments_.wait_for, "what to wait for", {"ready"});
}

void Grammar::AddAdminVerbs() {
  AddVerb("df", "the room in every tier and who takes it", WordKind::kNone, "corpusctl df");
  CLI::App* verify = AddVerb("verify", "check every stored block of a corpus", WordKind::kCorpus,
                             "corpusctl verify filings --repair");
  AddName(verify, "the corpus to check");
  verify->add_flag("--repair", arguments_.repair, "recompute what is damaged or missing");
  AddVerb("doctor", "check the daemon and what it stands on", WordKind::kNone, "corpusctl doctor");
  AddVerb("version", "the versions of corpusctl and of the daemon", WordKind::kNone,
          "corpusctl version -o json");
  const std::vector<std::string> shells = {"bash", "zsh", "fish"};
  AddVerb("completion", "print a completion script for a shell", WordKind::kShell,
          "source <(corpusctl completion bash)")
      ->add_option("SHELL", arguments_.name, "bash, zsh or fish")
      ->required()
      ->type_name("")
      ->check(CLI::IsMember(shells));
}

void Grammar::AddIntegrityVerbs() {
  CLI::App* scrub = AddVerb("scrub", "check everything stored, and recompute what is damaged",
                            WordKind::kNone, "corpusctl scrub --rate 200MiB/s --detach");
  scrub->add_option("--rate", rate_, "read no faster than this; default: the daemon's setting")
      ->type_name("SIZE/s");
  scrub->add_flag("--detach", arguments_.detach, "print the job's id and do not wait");
  CLI::App* out = AddVerb("export", "write a corpus to one file, checked and compressed",
                          WordKind::kCorpusThenFiles, "corpusctl export filings filings.corpus");
  AddName(out, "the corpus to export");
  out->add_option("FILE", arguments_.file, "the file to write; - is stdout")
      ->required()
      ->type_name("");
  out->add_flag("--force", arguments_.force, "replace the file if it exists");
  CLI::App* in = AddVerb("import", "make a corpus of an exported file, or go on with one",
                         WordKind::kFiles, "corpusctl import filings.corpus --name filings-2025");
  in->add_option("FILE", arguments_.file, "the file to read; - is stdin")
      ->required()
      ->type_name("");
  in->add_option("--name", arguments_.name, "the corpus to make; default: as it was exported")
      ->type_name("NAME");
  CLI::App* explain = AddVerb("explain-miss", "say why blocks of a corpus or text are not stored",
                              WordKind::kCorpus, "corpusctl explain-miss --text report.txt");
  explain->add_option("NAME", arguments_.name, "the corpus to explain")->type_name("");
  explain->add_option("--text", arguments_.file, "or a text, as a corpus would begin with it")
      ->type_name("FILE");
  explain->add_option("--kv-format", arguments_.kv_format, "of the text; default: the daemon's")
      ->type_name("FORMAT");
  explain->add_option("--preamble", arguments_.preamble_path, "of the text, read from a file")
      ->type_name("FILE");
}

ClientResult<Done> Grammar::ReadSizes() {
  if (!to_free_.empty()) {
    arguments_.to_free_bytes = ParseByteRate(to_free_).value_or(0);
    if (arguments_.to_free_bytes == 0) {
      return Usage("--to-free: '" + to_free_ + "' is no size; say it as in 20GiB");
    }
  }
  if (rate_.empty()) return Done{};
  const auto rate = ParseByteRate(rate_);
  if (!rate || *rate == 0) {
    return Usage("--rate: '" + rate_ + "' is no rate; say it as in 50MiB/s");
  }
  arguments_.bytes_per_s = *rate;
  return Done{};
}

ClientResult<Done> Grammar::CheckNameAndFile() const {
  const std::string& verb = arguments_.verb;
  if (verb == "explain-miss" && arguments_.name.empty() == arguments_.file.empty()) {
    return Usage("explain-miss: name a corpus, or a file with --text");
  }
  const int evicted = (arguments_.name.empty() ? 0 : 1) + (arguments_.all ? 1 : 0) +
                      (arguments_.to_free_bytes == 0 ? 0 : 1);
  if (verb == "evict" && evicted != 1) {
    return Usage("evict: say one of a corpus, --all and --to-free SIZE");
  }
  const WordKind words = words_of_verb_.at(verb);
  const bool optional = words == WordKind::kNone || words == WordKind::kFiles ||
                        verb == "explain-miss" || verb == "evict";
  if (!optional && arguments_.name.empty()) return Usage(verb + ": the name is empty");
  return Done{};
}

ClientResult<Done> Grammar::ReadTtl() {
  if (ttl_.empty()) return Done{};
  if (ttl_ == "never") {
    arguments_.ttl_never = true;
    return Done{};
  }
  arguments_.ttl = ParseDuration(ttl_);
  if (!arguments_.ttl) {
    return Usage("--ttl: '" + ttl_ + "' is no time; say it as in 90m, 12h or 30d, or never");
  }
  if (arguments_.ttl->count() == 0) {
    return Usage("--ttl: 0 would expire at once; say never to keep it for ever");
  }
  return Done{};
}

ClientResult<Done> Grammar::Finish() {
  arguments_.output = ParseOutputMode(output_).value_or(OutputMode::kTable);
  if (!timeout_.empty()) {
    arguments_.timeout = ParseDuration(timeout_);
    if (!arguments_.timeout) {
      return Usage("--timeout: '" + timeout_ + "' is no time; say it as in 500ms, 30s or 5m");
    }
  }
  auto ttl = ReadTtl();
  if (!ttl.ok()) return ttl.error();
  const std::string& verb = arguments_.verb;
  auto sizes = ReadSizes();
  if (!sizes.ok()) return sizes.error();
  auto named = CheckNameAndFile();
  if (!named.ok()) return named.error();
  if (verb == "rename" && arguments_.new_name.empty())
    return Usage("rename: the new name is empty");
  for (const std::string* text : {&arguments_.name, &arguments_.new_name, &arguments_.question,
                                  &arguments_.kv_format, &arguments_.reason}) {
    if (!IsValidUtf8(*text)) return Usage(verb + ": a word of the command line is not UTF-8");
  }
  if (verb == "touch" && ttl_.empty() && arguments_.priority.empty()) {
    return Usage("touch: say --ttl, --priority or both");
  }
  if (verb == "ask" && arguments_.question.empty()) return Usage("ask: the question is empty");
  if (arguments_.top_p <= 0) return Usage("--top-p: must be above 0");
  if (verb == "ingest" || verb == "append") {
    const size_t removed = std::erase(arguments_.paths, "-");
    if (removed > 0) arguments_.read_stdin = true;
    if (arguments_.paths.empty() && !arguments_.read_stdin) {
      return Usage(verb + ": name at least one PATH, or say --stdin");
    }
  }
  return Done{};
}

ParseOutcome Grammar::Parse(const std::vector<std::string>& words) {
  const OutputMode guessed = GuessOutputMode(words);
  const std::string first = FirstWord(words);
  if (std::find(kLaterVerbs.begin(), kLaterVerbs.end(), first) != kLaterVerbs.end()) {
    return ParseFailure{
        {0, "not_in_this_version", "'" + first + "' is not in this version of corpusctl"}, guessed};
  }
  if (!first.empty() && !words_of_verb_.contains(first)) {
    return ParseFailure{Usage("there is no verb '" + first + "'; 'corpusctl --help' lists them"),
                        guessed};
  }
  try {
    app_.parse(std::vector<std::string>(words.rbegin(), words.rend()));
  } catch (const CLI::CallForHelp&) {
    return HelpText{app_.help()};
  } catch (const CLI::CallForVersion& version) {
    return HelpText{std::string(version.what()) + "\n"};
  } catch (const CLI::ParseError& error) {
    const std::string of_verb = first.empty() ? "" : first + " ";
    return ParseFailure{
        Usage(std::string(error.what()) + " (see 'corpusctl " + of_verb + "--help')"), guessed};
  }
  const std::vector<CLI::App*> chosen = app_.get_subcommands();
  if (chosen.empty()) {
    return ParseFailure{Usage("say what to do; 'corpusctl --help' lists the verbs"), guessed};
  }
  arguments_.verb = chosen.front()->get_name();
  auto finished = Finish();
  if (!finished.ok()) return ParseFailure{finished.error(), guessed};
  return arguments_;
}

FlagWord Grammar::DescribeFlag(const CLI::Option& option) const {
  FlagWord flag;
  flag.description = option.get_description();
  flag.takes_value = option.get_items_expected_max() > 0;
  const auto choices = choices_.find(&option);
  if (choices != choices_.end()) flag.choices = choices->second;
  return flag;
}

CommandWords Grammar::Describe() const {
  CommandWords words;
  const auto add_flags = [this](const CLI::App& app, std::vector<FlagWord>& flags) {
    for (const CLI::Option* option : app.get_options()) {
      if (option->get_positional()) continue;
      FlagWord flag = DescribeFlag(*option);
      for (const std::string& name : option->get_snames()) {
        flag.name = "-" + name;
        flags.push_back(flag);
      }
      for (const std::string& name : option->get_lnames()) {
        flag.name = "--" + name;
        flags.push_back(flag);
      }
    }
  };
  add_flags(app_, words.flags);
  for (const CLI::App* app : app_.get_subcommands([](const CLI::App*) { return true; })) {
    VerbWord verb;
    verb.name = app->get_name();
    verb.description = app->get_description();
    verb.words = words_of_verb_.at(verb.name);
    add_flags(*app, verb.flags);
    words.verbs.push_back(std::move(verb));
  }
  return words;
}

}  // namespace

ParseOutcome ParseCommandLine(const std::vector<std::string>& words) {
  Grammar grammar;
  return grammar.Parse(words);
}

CommandWords DescribeCommands() {
  const Grammar grammar;
  return grammar.Describe();
}

}  // namespace corpusd::ctl
