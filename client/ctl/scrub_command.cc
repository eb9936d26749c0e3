// scrub: every stored block is read and checked, as a job.
#include <nlohmann/json.hpp>
#include <string>

#include "client/ctl/commands.h"
#include "client/ctl/exit_code.h"
#include "client/ctl/json_objects.h"
#include "client/ctl/units.h"

namespace corpusd::ctl {
namespace {

std::string Counts(const v1::Scrub& scrub) {
  return FormatCount(scrub.blocks()) + " blocks, " + FormatBytes(scrub.bytes()) +
         " read: " + FormatCount(scrub.damaged()) + " damaged, " + FormatCount(scrub.missing()) +
         " missing, " + FormatCount(scrub.repaired()) + " repaired, " +
         FormatCount(scrub.contradictions()) + " contradictions";
}

int PrintScrub(const CommandContext& context, const v1::Job& job) {
  const OutputMode mode = context.arguments.output;
  const v1::Scrub& scrub = job.scrub();
  const bool clean = scrub.damaged() + scrub.missing() + scrub.contradictions() == 0;
  if (IsStructured(mode)) {
    PrintStructured(context.console.out, mode, JobToJson(job));
  } else if (mode == OutputMode::kName) {
    context.console.out << job.id() << '\n';
  } else {
    Say(context, clean ? "everything is whole: " + FormatCount(scrub.blocks()) + " blocks, " +
                             FormatBytes(scrub.bytes()) + " read"
                       : Counts(scrub));
    for (const std::string& finding : scrub.findings()) Say(context, finding);
  }
  if (scrub.contradictions() == 0 && scrub.damaged() + scrub.missing() <= scrub.repaired()) {
    return kExitOk;
  }
  return Fail(context, {7, "corruption", "the scrub found damage: " + Counts(scrub)});
}

}  // namespace

int RunScrub(const CommandContext& context) {
  auto client = ConnectToDaemon(context, CallLength::kLong);
  if (!client.ok()) return Fail(context, client.error());
  auto job = (*client)->Scrub(context.arguments.bytes_per_s);
  if (!job.ok()) return Fail(context, job.error());
  if (context.arguments.detach) {
    if (IsStructured(context.arguments.output)) {
      PrintStructured(context.console.out, context.arguments.output, JobToJson(*job));
    } else {
      context.console.out << job->id() << '\n';
    }
    return kExitOk;
  }
  auto ended = FollowJob(context, **client, job->id());
  if (!ended.ok()) return Fail(context, ended.error());
  auto good = CheckJobEnd(*ended);
  if (!good.ok()) return Fail(context, good.error());
  return PrintScrub(context, *ended);
}

}  // namespace corpusd::ctl
