// client/ctl/commands.h -- what every verb does, once its command line is parsed: talk to the
// daemon, print, and say the exit code. One thread; a verb opens and owns its own connection.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "client/client_error.h"
#include "client/corpus_client.h"
#include "client/ctl/arguments.h"
#include "client/ctl/console.h"
#include "client/ctl/progress_line.h"
#include "client/ctl/table_printer.h"

namespace corpusd::ctl {

struct CommandContext {
  const Arguments& arguments;
  Console& console;
};

// The whole program after argv: parses, runs the verb. RETURNS the exit code.
int RunCorpusctl(const std::vector<std::string>& words, Console& console);

// ingest_command.cc
int RunIngest(const CommandContext& context);  // append and update too
// query_command.cc
int RunAsk(const CommandContext& context);
// corpus_command.cc
int RunList(const CommandContext& context);
int RunShow(const CommandContext& context);
int RunRemove(const CommandContext& context);
int RunRename(const CommandContext& context);
// tier_command.cc
int RunPin(const CommandContext& context);
int RunUnpin(const CommandContext& context);
int RunWarm(const CommandContext& context);
int RunTouch(const CommandContext& context);
// evict_command.cc
int RunEvict(const CommandContext& context);
// job_command.cc
int RunJobs(const CommandContext& context);
int RunJob(const CommandContext& context);
int RunWait(const CommandContext& context);
int RunCancel(const CommandContext& context);
// admin_command.cc
int RunDiskUsage(const CommandContext& context);
int RunVerify(const CommandContext& context);
int RunDoctor(const CommandContext& context);
// scrub_command.cc
int RunScrub(const CommandContext& context);
// bundle_command.cc
int RunExport(const CommandContext& context);
int RunImport(const CommandContext& context);
// explain_command.cc
int RunExplainMiss(const CommandContext& context);
// plan_command.cc
int RunPlan(const CommandContext& context);
// token_command.cc
int RunToken(const CommandContext& context);
// top_command.cc
int RunTop(const CommandContext& context);
// stats_command.cc
int RunStats(const CommandContext& context);
// admin_command.cc, too
int RunVersion(const CommandContext& context);
int RunCompletion(const CommandContext& context);

// Shared by the verbs, in command_support.cc.

using ClientOrError = ClientResult<std::unique_ptr<CorpusClient>>;
// Quick verbs get 30 s unless --timeout says otherwise; work of unknown length gets no limit.
enum class CallLength { kQuick, kLong };
ClientOrError ConnectToDaemon(const CommandContext& context, CallLength length);
std::string SocketPath(const CommandContext& context);

// Prints the error. RETURNS its exit code.
int Fail(const CommandContext& context, const ClientError& error);
ClientError UsageError(std::string message);
ClientError NothingToDo(std::string message);

TableStyle StyleOf(const CommandContext& context);
// A sentence for people on stdout ("removed 'filings'"), left out by -q and by every mode but table
// and wide.
void Say(const CommandContext& context, const std::string& sentence);
// The same on stderr: warnings and hints, which must not get into what a script reads.
void Note(const CommandContext& context, const std::string& sentence);

// The corpus as -o wants it after a verb that changed it: object, name, or the sentence.
void PrintChanged(const CommandContext& context, const v1::Corpus& corpus,
                  const std::string& sentence);

ProgressMode ProgressModeOf(const CommandContext& context);
// Follows a job to its end. RETURNS the job; an error if watching failed. An interrupt or timeout
// leaves the job running and says on stderr how to follow or cancel it.
ClientResult<v1::Job> FollowJob(const CommandContext& context, CorpusClient& client,
                                uint64_t job_id);
// RETURNS what a job that ended badly means for the one who waited: Done if it is done.
ClientResult<Done> CheckJobEnd(const v1::Job& job);

std::string Quoted(std::string_view name);

// What a KV format costs on a corpus, in a line.
std::string QualityText(const v1::Quality& quality);

}  // namespace corpusd::ctl
