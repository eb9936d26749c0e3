#include <array>
#include <iterator>

#include "client/ctl/cli.h"
#include "client/ctl/commands.h"
#include "client/ctl/exit_code.h"

namespace corpusd::ctl {
namespace {

struct Verb {
  std::string_view name;
  int (*run)(const CommandContext& context);
};

constexpr std::array kVerbs = {
    Verb{"ingest", RunIngest},
    Verb{"append", RunIngest},
    Verb{"update", RunIngest},
    Verb{"ask", RunAsk},
    Verb{"ls", RunList},
    Verb{"show", RunShow},
    Verb{"rm", RunRemove},
    Verb{"rename", RunRename},
    Verb{"pin", RunPin},
    Verb{"unpin", RunUnpin},
    Verb{"evict", RunEvict},
    Verb{"warm", RunWarm},
    Verb{"touch", RunTouch},
    Verb{"jobs", RunJobs},
    Verb{"job", RunJob},
    Verb{"wait", RunWait},
    Verb{"cancel", RunCancel},
    Verb{"df", RunDiskUsage},
    Verb{"verify", RunVerify},
    Verb{"scrub", RunScrub},
    Verb{"export", RunExport},
    Verb{"import", RunImport},
    Verb{"explain-miss", RunExplainMiss},
    Verb{"plan", RunPlan},
    Verb{"top", RunTop},
    Verb{"stats", RunStats},
    Verb{"doctor", RunDoctor},
    Verb{"token", RunToken},
    Verb{"version", RunVersion},
    Verb{"completion", RunCompletion},
};

}  // namespace

int RunCorpusctl(const std::vector<std::string>& words, Console& console) {
  const ParseOutcome outcome = ParseCommandLine(words);
  if (const auto* help = std::get_if<HelpText>(&outcome)) {
    console.out << help->text;
    return kExitOk;
  }
  if (const auto* failure = std::get_if<ParseFailure>(&outcome)) {
    return PrintError(console.err, failure->output, failure->error);
  }
  const auto& arguments = std::get<Arguments>(outcome);
  const CommandContext context{arguments, console};
  for (const Verb& verb : kVerbs) {
    if (verb.name == arguments.verb) return verb.run(context);
  }
  return Fail(context, UsageError("unknown verb " + Quoted(arguments.verb)));
}

}  // namespace corpusd::ctl
