#include <cstdio>
#include <utility>

#include <nlohmann/json.hpp>
#include "client/ctl/commands.h"
#include "client/ctl/exit_code.h"
#include "client/ctl/json_objects.h"
#include "client/ctl/text.h"
#include "client/ctl/units.h"

namespace corpusd::ctl {
namespace {

constexpr std::chrono::milliseconds kQuickTimeout{30'000};

}  // namespace

std::string SocketPath(const CommandContext& context) {
  return context.arguments.socket_path.empty() ? CorpusClient::DefaultSocketPath()
                                               : context.arguments.socket_path;
}

ClientOrError ConnectToDaemon(const CommandContext& context, CallLength length) {
  ClientOptions options;
  options.socket_path = SocketPath(context);
  options.interrupted = context.console.interrupted;
  const std::chrono::milliseconds usual =
      length == CallLength::kQuick ? kQuickTimeout : std::chrono::milliseconds(0);
  options.timeout = context.arguments.timeout.value_or(usual);
  if (context.arguments.timeout && context.arguments.timeout->count() > 0) {
    options.connect_timeout = std::min(options.connect_timeout, *context.arguments.timeout);
  }
  return CorpusClient::Connect(options);
}

int Fail(const CommandContext& context, const ClientError& error) {
  context.console.out.flush();
  return PrintError(context.console.err, context.arguments.output, error);
}

ClientError UsageError(std::string message) {
  return {kClientInvalidArgument, "usage", std::move(message)};
}

ClientError NothingToDo(std::string message) { return {0, "nothing_to_do", std::move(message)}; }

TableStyle StyleOf(const CommandContext& context) {
  const Console& console = context.console;
  return {.rule = console.out_is_terminal,
          .color = console.out_is_terminal && console.allows_color && !context.arguments.no_color};
}

void Say(const CommandContext& context, const std::string& sentence) {
  const OutputMode mode = context.arguments.output;
  if (context.arguments.quiet || IsStructured(mode) || mode == OutputMode::kName) return;
  context.console.out << EscapeForCell(sentence) << '\n';
}

void Note(const CommandContext& context, const std::string& sentence) {
  if (context.arguments.quiet || IsStructured(context.arguments.output)) return;
  context.console.err << "corpusctl: " << EscapeForCell(sentence) << '\n';
}

void PrintChanged(const CommandContext& context, const v1::Corpus& corpus,
                  const std::string& sentence) {
  const OutputMode mode = context.arguments.output;
  if (IsStructured(mode)) {
    PrintStructured(context.console.out, mode, CorpusToJson(corpus));
  } else if (mode == OutputMode::kName) {
    context.console.out << corpus.name() << '\n';
  } else {
    Say(context, sentence);
  }
}

ProgressMode ProgressModeOf(const CommandContext& context) {
  const OutputMode mode = context.arguments.output;
  if (context.arguments.quiet) return ProgressMode::kNone;
  if (context.console.err_is_terminal) return ProgressMode::kBar;
  // A script that asked for objects reads stderr for the error object only.
  const bool for_people = mode == OutputMode::kTable || mode == OutputMode::kWide;
  return for_people ? ProgressMode::kPlain : ProgressMode::kNone;
}

ClientResult<v1::Job> FollowJob(const CommandContext& context, CorpusClient& client,
                                uint64_t job_id) {
  ProgressLine line(context.console.err, ProgressModeOf(context), context.console.width);
  auto job = client.WatchJob(job_id, [&](const v1::Job& seen) {
    ProgressSample sample;
    sample.label = seen.corpus();
    sample.state = seen.state();
    sample.done = seen.done_tokens();
    sample.total = seen.total_tokens();
    sample.per_second = seen.tokens_per_s();
    sample.eta_s = seen.eta_s();
    sample.written_bytes = seen.written_bytes();
    if (seen.has_scrub()) {
      sample.label = "scrub";
      sample.unit = "blocks";
      sample.done = seen.scrub().blocks();
      sample.total = seen.scrub().total_blocks();
    }
    line.Update(sample, context.console.now_ms());
    return true;
  });
  line.Clear();
  if (job.ok() || job.error().code_text == "not_found") return job;
  const std::string id = std::to_string(job_id);
  ClientError error = job.error();
  error.message += "; job " + id + " was not stopped: 'corpusctl wait " + id +
                   "' follows it, 'corpusctl cancel " + id + "' stops it";
  return error;
}

ClientResult<Done> CheckJobEnd(const v1::Job& job) {
  if (job.state() == "done") return Done{};
  const std::string what =
      job.kind() + " job " + std::to_string(job.id()) + " of corpus " + Quoted(job.corpus());
  if (job.state() == "failed") {
    return ClientError{0, std::string(CodeTextOfJobError(job.error())),
                       what + " failed: " + job.error() +
                           (job.retry_at_ms() == 0 ? "" : "; it is tried again by itself")};
  }
  if (job.state() == "cancelled") return ClientError{10, "cancelled", what + " was cancelled"};
  return ClientError{kClientProtocol, "protocol", what + " ended in state " + Quoted(job.state())};
}

std::string Quoted(std::string_view name) { return "'" + std::string(name) + "'"; }

std::string QualityText(const v1::Quality& quality) {
  char text[120];
  std::snprintf(text, sizeof(text), "mean KLD %.4f, same top token %.1f %% (of %u sampled)",
                quality.mean_kld(), 100 * quality.same_top(), quality.sample_tokens());
  return text;
}

}  // namespace corpusd::ctl
