#include "client/ctl/grammar.h"

namespace corpusd::ctl {
namespace {

const std::vector<std::string> kPriorities = {"low", "normal", "high"};
constexpr const char* kPriorityHelp = "what is not pinned leaves in this order when room is needed";

}  // namespace

Grammar::Grammar() {
  app_.set_help_flag("-h,--help", "say what there is");
  app_.set_version_flag("--version", "corpusctl " CORPUSD_VERSION);
  app_.require_subcommand(0, 1);
  AddGlobalFlags();
  AddIngestVerbs();
  AddPlanVerb();
  AddAskVerb();
  AddCorpusVerbs();
  AddTierVerbs();
  AddJobVerbs();
  AddAdminVerbs();
  AddIntegrityVerbs();
  AddStatsVerbs();
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
                  "for ingest, append, update, ask, wait, warm, verify, scrub, export, import, "
                  "doctor, plan --measure, evict --all and --to-free")
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
  ingest
      ->add_option("--kv-format", arguments_.kv_format,
                   "how keys and values are stored, as cq4, cq4k2v, cq4+0-1:cq8")
      ->type_name("FORMAT");
  ingest->add_option("--preamble", arguments_.preamble_path, "system text, read from a file")
      ->type_name("FILE");
  ingest->add_flag("--pin", arguments_.pin, "never evict it");
  ingest->add_option("--ttl", ttl_, "forget it this long from now, as in 30d")->type_name("TIME");
  AddChoice(ingest, "--priority", arguments_.priority, kPriorityHelp, kPriorities);
  CLI::App* append = AddVerb("append", "add files to the end of an exact corpus",
                             WordKind::kCorpusThenFiles, "corpusctl append filings 2026-q4.txt");
  AddName(append, "the corpus to grow");
  CLI::App* update =
      AddVerb("update", "read the sources of a segmented corpus again and prefill what changed",
              WordKind::kCorpusThenFiles, "corpusctl update filings --detach");
  AddName(update, "the corpus to bring up to date");
  const std::string paths =
      "files and directories; of a directory its text files, archives, mail, JSON lines and logs, "
      ".gitignore honoured";
  for (CLI::App* verb : {ingest, append, update}) {
    AddSourceFlags(verb, verb == update ? "all that it is made of from now on; default: what it "
                                          "was made of"
                                        : paths);
    verb->add_flag("--detach", arguments_.detach, "print the job's id and do not wait");
  }
}

void Grammar::AddSourceFlags(CLI::App* verb, const std::string& paths) {
  verb->add_option("PATH", arguments_.paths, paths)->type_name("");
  verb->add_flag("--stdin", arguments_.read_stdin, "read text from stdin, after the files");
  verb->add_option("--stdin-name", arguments_.stdin_name,
                   "what stdin is called, as in app.log, which also says how it is read")
      ->type_name("NAME");
  verb->add_option("--json-text", arguments_.json_text_field,
                   "of JSON lines, the field that is the text; default: the whole object")
      ->type_name("FIELD");
  verb->add_option("--max-bytes", max_bytes_,
                   "what archives and compressed files may unpack to in all, default 4GiB")
      ->type_name("SIZE");
  verb->add_flag("-v,--verbose", arguments_.verbose, "list each thing that is skipped, and why");
}

void Grammar::AddPlanVerb() {
  CLI::App* plan = AddVerb("plan", "say what a corpus would take, before it is paid for",
                           WordKind::kFiles, "corpusctl plan reports/ --measure");
  AddSourceFlags(plan, "what the corpus would be made of, as of ingest");
  AddChoice(plan, "--mode", arguments_.mode, "how the corpus would be attended to",
            {"auto", "exact", "segmented"});
  plan->add_option("--model", arguments_.model, "fail unless the daemon serves it: name or digest")
      ->type_name("M");
  plan->add_flag("--measure", arguments_.measure,
                 "prefill a sample of some thousand tokens to tell how fast it goes");
  plan->add_option("--ranks", arguments_.ranks,
                   "on paper, an exact prefill by so many GPUs, such as 8,64")
      ->type_name("N,..")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096));
  plan->add_option("--tokens", arguments_.plan_tokens, "with --ranks, of a text of so many tokens")
      ->type_name("N")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 32));
  plan->add_option("--link", link_, "with --ranks, what a GPU sends a second, such as 50GB/s")
      ->type_name("SIZE/s");
}

void Grammar::AddAskVerb() {
  CLI::App* ask = AddVerb("ask", "ask a corpus and print the answer as it comes", WordKind::kCorpus,
                          "corpusctl ask filings \"Who audits the company?\"");
  AddName(ask, "the corpus to ask");
  ask->add_option("QUESTION", arguments_.question, "one word of the shell, so quote it; - is stdin")
      ->required()
      ->type_name("");
  ask->add_option("--max-tokens", arguments_.max_tokens,
                  "the longest answer; default 128, less if the model's context has less room")
      ->type_name("N")
      ->check(CLI::Range(1, 1 << 24));
  AddSamplingFlags(ask);
  ask->add_flag("--no-stream", arguments_.no_stream, "print the answer when it is complete");
  ask->add_flag("--cite", arguments_.cite,
                "of a segmented corpus, say which lines of which sources were attended to");
  ask->add_option("--budget", arguments_.budget_tokens,
                  "of a segmented corpus, attend to at most so many tokens")
      ->type_name("TOKENS")
      ->check(CLI::Range(1, 1 << 24));
  AddChoice(ask, "--retrieval", arguments_.retrieval,
            "of a segmented corpus, what finds the text to attend to",
            {"fused", "heads", "lexical"});
  ask->add_flag("--no-cache", arguments_.no_cache,
                "recompute the corpus: shows what a cold prefill costs");
}

// In the order in which they act.
void Grammar::AddSamplingFlags(CLI::App* ask) {
  ask->add_option("--repetition-penalty", arguments_.repetition_penalty,
                  "above 1, make words of the question and the answer less likely; default 1")
      ->type_name("R")
      ->check(CLI::Range(0.01, 10.0));
  ask->add_option("--repetition-window", arguments_.repetition_window,
                  "how many tokens that looks back over, default 64")
      ->type_name("TOKENS")
      ->check(CLI::Range(1, 65536));
  ask->add_option("--presence-penalty", arguments_.presence_penalty,
                  "make each word that the answer has less likely, once; default 0")
      ->type_name("P")
      ->check(CLI::Range(-2.0, 2.0));
  ask->add_option("--frequency-penalty", arguments_.frequency_penalty,
                  "the same for each time that it has the word; default 0")
      ->type_name("P")
      ->check(CLI::Range(-2.0, 2.0));
  ask->add_option("--temperature", arguments_.temperature,
                  "0, the default, is the likeliest answer, and what follows here does nothing")
      ->type_name("T")
      ->check(CLI::Range(0.0, 100.0));
  ask->add_option("--top-k", arguments_.top_k, "sample from the K likeliest words; default 0, all")
      ->type_name("K")
      ->check(CLI::Range(0, 1 << 24));
  ask->add_option("--top-p", arguments_.top_p, "sample from the likeliest words that sum to P")
      ->type_name("P")
      ->check(CLI::Range(0.0, 1.0));
  ask->add_option("--min-p", arguments_.min_p,
                  "sample from words at least P times as likely as the likeliest; default 0")
      ->type_name("P")
      ->check(CLI::Range(0.0, 1.0));
  ask->add_option("--seed", arguments_.seed, "for temperatures above 0")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber);
  ask->add_option("--stop", arguments_.stops,
                  "end the answer before this text; may be said several times")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  ask->add_option("-n,--answers", arguments_.answers,
                  "so many answers, each with a seed of its own; default 1")
      ->type_name("N")
      ->check(CLI::Range(1, 16));
  ask->add_option("--logprobs", arguments_.top_logprobs,
                  "with -o json, how likely each token was, and the K likeliest in its place")
      ->type_name("K")
      ->check(CLI::Range(0, 20));
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
  CLI::App* token = AddVerb("token", "make a bearer token, and the line that lets a daemon know it",
                            WordKind::kNone, "corpusctl token dashboard --role reader");
  AddName(token, "what logs call its user");
  AddChoice(token, "--role", arguments_.role, "what it may do, default reader",
            {"reader", "writer", "admin"});
  token
      ->add_option("--tenant", arguments_.tenant,
                   "whose corpora it sees; default: the daemon's own")
      ->type_name("NAME");
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

void Grammar::AddStatsVerbs() {
  CLI::App* top = AddVerb("top", "corpora, tiers, jobs and rates, live; q ends it", WordKind::kNone,
                          "corpusctl top --interval 5s");
  top->add_flag("--once", arguments_.once, "print one reading and end");
  top->add_option("--interval", interval_,
                  "between readings, over which rates are taken; default 2s, of --once 1s")
      ->type_name("TIME");
  AddVerb("stats", "what the daemon has counted since its start", WordKind::kNone,
          "corpusctl stats first_token -o json")
      ->add_option("PART", arguments_.name, "only metrics that have this in their names")
      ->type_name("");
}

}  // namespace corpusd::ctl
