#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>

#include "client/ctl/commands.h"
#include "client/ctl/exit_code.h"
#include "client/ctl/json_objects.h"
#include "client/ctl/units.h"

namespace corpusd::ctl {
namespace {

// How often a corpus without a job to watch is looked at again.
constexpr std::chrono::milliseconds kPollInterval{250};

std::optional<uint64_t> ParseJobId(const std::string& text) {
  uint64_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return id;
}

ClientError NoJobId(const std::string& text) {
  return UsageError(Quoted(text) + " is no job id; 'corpusctl jobs' lists them");
}

bool HasEnded(const std::string& state) {
  return state == "done" || state == "failed" || state == "cancelled";
}

std::string ProgressCell(const v1::Job& job) {
  if (job.has_scrub()) {
    return FormatCount(job.scrub().blocks()) + "/" + FormatCount(job.scrub().total_blocks()) +
           " blocks";
  }
  if (job.total_tokens() == 0) return FormatCount(job.done_tokens());
  return FormatCount(job.done_tokens()) + "/" + FormatCount(job.total_tokens());
}

// "failed (again in 20s)" of one that is tried again.
std::string StateCell(const v1::Job& job, int64_t now_ms) {
  if (job.retry_at_ms() == 0) return job.state();
  const std::string when = job.retry_at_ms() > now_ms ? FormatAge(job.retry_at_ms(), now_ms)
                                                      : "when the store takes blocks";
  return job.state() + " (again " + when + ")";
}

Fields FieldsOf(const v1::Job& job, int64_t now_ms) {
  Fields fields = {{"id", std::to_string(job.id())},
                   {"kind", job.kind()},
                   {"corpus", job.corpus()},
                   {"state", StateCell(job, now_ms)},
                   {"tokens", ProgressCell(job)},
                   {"reused", FormatCount(job.reused_tokens())},
                   {"speed", FormatRate(job.tokens_per_s()) + " tok/s"},
                   {"eta", FormatDuration(job.eta_s())},
                   {"written", FormatBytes(job.written_bytes())},
                   {"resumed", std::to_string(job.resumed_times()) + " times"},
                   {"failed", std::to_string(job.failed_times()) + " times"},
                   {"created", FormatAge(job.created_at_ms(), now_ms)},
                   {"started", FormatAge(job.started_at_ms(), now_ms)},
                   {"finished", FormatAge(job.finished_at_ms(), now_ms)}};
  if (!job.error().empty()) fields.emplace_back("error", job.error());
  return fields;
}

void PrintJob(const CommandContext& context, const v1::Job& job) {
  const OutputMode mode = context.arguments.output;
  if (IsStructured(mode)) {
    PrintStructured(context.console.out, mode, JobToJson(job));
  } else if (mode == OutputMode::kName) {
    context.console.out << job.id() << '\n';
  } else {
    PrintFields(context.console.out, FieldsOf(job, context.console.now_ms()), StyleOf(context));
  }
}

int WaitForJob(const CommandContext& context, CorpusClient& client, uint64_t id) {
  auto job = FollowJob(context, client, id);
  if (!job.ok()) return Fail(context, job.error());
  auto ended = CheckJobEnd(*job);
  if (!ended.ok()) return Fail(context, ended.error());
  const OutputMode mode = context.arguments.output;
  if (IsStructured(mode) || mode == OutputMode::kName) {
    PrintJob(context, *job);
  } else {
    Say(context, "job " + std::to_string(id) + " is done");
  }
  return kExitOk;
}

// One look at the corpus. RETURNS true once it is ready, false if there is more to wait for.
ClientResult<bool> WaitOnce(const CommandContext& context, CorpusClient& client,
                            const v1::Corpus& corpus) {
  if (corpus.state() == "ready") return true;
  if (corpus.state() == "failed") {
    return ClientError{0, std::string(CodeTextOfJobError(corpus.error())),
                       "corpus " + Quoted(corpus.name()) + " failed: " + corpus.error()};
  }
  if (corpus.state() == "cancelled") {
    return ClientError{10, "cancelled", "corpus " + Quoted(corpus.name()) + " was cancelled"};
  }
  if (corpus.state() == "evicted" && corpus.job_id() == 0) {
    const std::string how = "; corpusctl warm " + corpus.name() + " computes it again";
    return ClientError{0, "not_ready",
                       "corpus " + Quoted(corpus.name()) + " was " + corpus.error() + how};
  }
  if (corpus.job_id() == 0) {
    std::this_thread::sleep_for(kPollInterval);
    return false;
  }
  auto job = FollowJob(context, client, corpus.job_id());
  // A job that ended and was forgotten between two looks: the corpus says how.
  if (!job.ok() && job.error().code_text == "not_found") return false;
  if (!job.ok()) return job.error();
  auto ended = CheckJobEnd(*job);
  if (!ended.ok()) return ended.error();
  return false;
}

int WaitForCorpus(const CommandContext& context, CorpusClient& client) {
  const std::string& name = context.arguments.name;
  const int64_t started_ms = context.console.now_ms();
  while (true) {
    auto corpus = client.Show(name);
    if (!corpus.ok()) return Fail(context, corpus.error());
    auto ready = WaitOnce(context, client, *corpus);
    if (!ready.ok()) return Fail(context, ready.error());
    if (*ready) {
      PrintChanged(context, *corpus,
                   Quoted(name) + " is ready: " + FormatCount(corpus->tokens()) + " tokens");
      return kExitOk;
    }
    if (context.console.interrupted != nullptr && context.console.interrupted->load()) {
      return Fail(context, {kClientInterrupted, "interrupted", "interrupted while waiting"});
    }
    const auto& timeout = context.arguments.timeout;
    if (timeout && timeout->count() > 0 &&
        context.console.now_ms() - started_ms >= timeout->count()) {
      return Fail(context, {kClientDeadlineExceeded, "deadline_exceeded",
                            "corpus " + Quoted(name) + " is not ready after " +
                                FormatDuration(static_cast<double>(timeout->count()) / 1000)});
    }
  }
}

}  // namespace

int RunJobs(const CommandContext& context) {
  auto client = ConnectToDaemon(context, CallLength::kQuick);
  if (!client.ok()) return Fail(context, client.error());
  auto reply = (*client)->Jobs();
  if (!reply.ok()) return Fail(context, reply.error());
  const OutputMode mode = context.arguments.output;
  if (IsStructured(mode)) {
    Json jobs = Json::array();
    for (const v1::Job& job : reply->jobs()) jobs.push_back(JobToJson(job));
    PrintStructured(context.console.out, mode, jobs);
    return kExitOk;
  }
  if (mode == OutputMode::kName || context.arguments.quiet) {
    for (const v1::Job& job : reply->jobs()) context.console.out << job.id() << '\n';
    return kExitOk;
  }
  const int64_t now_ms = context.console.now_ms();
  const bool wide = mode == OutputMode::kWide;
  std::vector<Column> columns = {{"ID", Align::kRight},
                                 {"KIND"},
                                 {"CORPUS"},
                                 {"STATE", Align::kLeft, true},
                                 {"TOKENS", Align::kRight},
                                 {"TOK/S", Align::kRight},
                                 {"ETA", Align::kRight},
                                 {"CREATED"}};
  if (wide) {
    for (const char* title : {"REUSED", "WRITTEN", "RESUMED", "FINISHED", "ERROR"}) {
      columns.push_back({title});
    }
  }
  TablePrinter table(columns);
  for (const v1::Job& job : reply->jobs()) {
    std::vector<std::string> cells = {std::to_string(job.id()),
                                      job.kind(),
                                      job.corpus(),
                                      StateCell(job, now_ms),
                                      ProgressCell(job),
                                      FormatRate(job.tokens_per_s()),
                                      FormatDuration(job.eta_s()),
                                      FormatAge(job.created_at_ms(), now_ms)};
    if (wide) {
      for (const std::string& cell :
           {FormatCount(job.reused_tokens()), FormatBytes(job.written_bytes()),
            std::to_string(job.resumed_times()), FormatAge(job.finished_at_ms(), now_ms),
            job.error()}) {
        cells.push_back(cell);
      }
    }
    table.AddRow(std::move(cells));
  }
  table.Print(context.console.out, StyleOf(context));
  return kExitOk;
}

int RunJob(const CommandContext& context) {
  const auto id = ParseJobId(context.arguments.name);
  if (!id) return Fail(context, NoJobId(context.arguments.name));
  auto client = ConnectToDaemon(context, CallLength::kQuick);
  if (!client.ok()) return Fail(context, client.error());
  auto job = (*client)->Job(*id);
  if (!job.ok()) return Fail(context, job.error());
  PrintJob(context, *job);
  return kExitOk;
}

int RunWait(const CommandContext& context) {
  auto client = ConnectToDaemon(context, CallLength::kLong);
  if (!client.ok()) return Fail(context, client.error());
  // All digits is a job, unless there is none of that number: then perhaps a corpus has that name.
  if (const auto id = ParseJobId(context.arguments.name)) {
    auto job = (*client)->Job(*id);
    if (job.ok()) return WaitForJob(context, **client, *id);
    if (job.error().code_text != "not_found") return Fail(context, job.error());
    auto corpus = (*client)->Show(context.arguments.name);
    if (!corpus.ok() && corpus.error().code_text == "not_found") {
      return Fail(context, job.error());
    }
  }
  return WaitForCorpus(context, **client);
}

int RunCancel(const CommandContext& context) {
  const auto id = ParseJobId(context.arguments.name);
  if (!id) return Fail(context, NoJobId(context.arguments.name));
  auto client = ConnectToDaemon(context, CallLength::kQuick);
  if (!client.ok()) return Fail(context, client.error());
  auto before = (*client)->Job(*id);
  if (!before.ok()) return Fail(context, before.error());
  if (HasEnded(before->state())) {
    return Fail(context, NothingToDo("job " + std::to_string(*id) + " has ended already (" +
                                     before->state() + ")"));
  }
  auto job = (*client)->CancelJob(*id);
  if (!job.ok()) return Fail(context, job.error());
  const OutputMode mode = context.arguments.output;
  if (IsStructured(mode) || mode == OutputMode::kName) {
    PrintJob(context, *job);
  } else {
    Say(context, "cancelled job " + std::to_string(*id) + " of " + Quoted(job->corpus()));
  }
  return kExitOk;
}

}  // namespace corpusd::ctl
