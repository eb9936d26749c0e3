#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "client/ctl/commands.h"
#include "client/ctl/exit_code.h"
#include "client/ctl/json_objects.h"
#include "client/ctl/source_walker.h"
#include "client/ctl/text.h"
#include "client/ctl/units.h"

namespace corpusd::ctl {
namespace {

constexpr uint64_t kPreambleBytesMax = uint64_t{1} << 20;
constexpr std::string_view kStdinName = "stdin";

// What an ingest is about to send.
struct Sources {
  SourceList list;
  bool has_stdin = false;
  std::string stdin_start;  // its first piece, read early to see whether there is text at all
  std::string preamble;
  std::vector<std::string> roots;  // what they were read from, for a later update
};

// Stands for stdin among the roots: it cannot be read again.
constexpr std::string_view kStdinRoot = "-";

bool Interrupted(const CommandContext& context) {
  return context.console.interrupted != nullptr && context.console.interrupted->load();
}

ClientResult<Done> ReadStdinStart(const CommandContext& context, Sources& sources) {
  auto read = ReadDescriptor(context.console.in_file, std::string(kStdinName),
                             context.console.interrupted, [&](std::string_view piece) {
                               sources.stdin_start = piece;
                               return false;
                             });
  if (!read.ok()) return read.error();
  sources.has_stdin = !sources.stdin_start.empty();
  if (LooksBinary(std::string_view(sources.stdin_start).substr(0, 8192))) {
    return UsageError("stdin is not text");
  }
  return Done{};
}

// The same place whatever the working directory; no slash at the end.
std::string AbsolutePath(const std::string& path) {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  std::string text = (error ? std::filesystem::path(path) : absolute).lexically_normal().native();
  while (text.size() > 1 && text.ends_with('/')) text.pop_back();
  return text;
}

// What an update without paths reads: the roots that the corpus remembers.
ClientResult<std::vector<std::string>> RootsOf(CorpusClient& client, const std::string& name) {
  auto corpus = client.Show(name);
  if (!corpus.ok()) return corpus.error();
  if (corpus->roots().empty()) {
    return UsageError("corpus " + Quoted(name) +
                      " does not remember what it was made of; name the paths");
  }
  std::vector<std::string> roots(corpus->roots().begin(), corpus->roots().end());
  if (std::find(roots.begin(), roots.end(), kStdinRoot) != roots.end()) {
    return UsageError("a part of corpus " + Quoted(name) +
                      " came from stdin; pipe it in again with --stdin and name the other paths");
  }
  return roots;
}

// Everything that can be refused is refused here, before anything is sent. Documents are named by
// their absolute paths, so that an update from another folder finds them unchanged.
ClientResult<Sources> GatherSources(const CommandContext& context,
                                    const std::vector<std::string>& paths) {
  const Arguments& arguments = context.arguments;
  Sources sources;
  for (const std::string& path : paths) sources.roots.push_back(AbsolutePath(path));
  auto list = ListSources(sources.roots);
  if (!list.ok()) return list.error();
  sources.list = *std::move(list);
  if (!arguments.preamble_path.empty()) {
    auto preamble = ReadSmallFile(arguments.preamble_path, kPreambleBytesMax);
    if (!preamble.ok()) return preamble.error();
    if (!IsValidUtf8(*preamble)) {
      return UsageError("preamble " + Quoted(arguments.preamble_path) + " is not UTF-8");
    }
    sources.preamble = *std::move(preamble);
  }
  if (arguments.read_stdin) {
    auto start = ReadStdinStart(context, sources);
    if (!start.ok()) return start.error();
  }
  for (const std::string& warning : sources.list.warnings) Note(context, warning);
  const std::string skipped = DescribeSkipped(sources.list);
  if (sources.list.files.empty() && !sources.has_stdin) {
    return NothingToDo("there is no text to ingest" +
                       (skipped.empty() ? std::string() : ": " + skipped));
  }
  if (!skipped.empty()) Note(context, skipped);
  if (sources.has_stdin) sources.roots.emplace_back(kStdinRoot);
  return sources;
}

v1::IngestBegin MakeBegin(const Arguments& arguments, const Sources& sources) {
  v1::IngestBegin begin;
  begin.set_name(arguments.name);
  begin.set_update(arguments.verb == "update");
  if (!begin.update()) begin.set_mode(arguments.mode);
  for (const std::string& root : sources.roots) {
    // Protobuf takes no other text; such a root must be named again by whoever updates.
    if (IsValidUtf8(root)) begin.add_roots(root);
  }
  begin.set_kv_format(arguments.kv_format);
  begin.set_preamble(sources.preamble);
  begin.set_pin(arguments.pin);
  begin.set_priority(arguments.priority);
  if (arguments.ttl) begin.set_ttl_ms(static_cast<uint64_t>(arguments.ttl->count()));
  begin.set_skipped_files(sources.list.skipped_files());
  return begin;
}

// Feeds the sources through a writer and shows how far it is.
class Feeder {
 public:
  Feeder(const CommandContext& context, const Sources& sources)
      : context_(context),
        sources_(sources),
        line_(context.console.err, ProgressModeOf(context), context.console.width),
        started_ms_(context.console.now_ms()) {}

  bool Feed(IngestWriter& writer) {
    for (const SourceFile& source : sources_.list.files) {
      if (!FeedFile(writer, source)) return false;
    }
    if (sources_.has_stdin && !FeedStdin(writer)) return false;
    line_.Clear();
    return true;
  }

  // Why Feed gave up, if the reason lies on this side.
  const std::optional<ClientError>& error() const { return error_; }

 private:
  bool FeedFile(IngestWriter& writer, const SourceFile& source) {
    if (!writer.BeginSource(source.name)) return false;
    bool accepted = true;
    auto read = ReadSource(source, [&](std::string_view piece) {
      accepted = Send(writer, piece);
      return accepted;
    });
    if (!read.ok()) error_ = read.error();
    return read.ok() && accepted && writer.EndSource();
  }

  bool FeedStdin(IngestWriter& writer) {
    if (!writer.BeginSource(kStdinName) || !Send(writer, sources_.stdin_start)) return false;
    bool accepted = true;
    auto read = ReadDescriptor(context_.console.in_file, std::string(kStdinName),
                               context_.console.interrupted, [&](std::string_view piece) {
                                 accepted = Send(writer, piece);
                                 return accepted;
                               });
    if (!read.ok()) error_ = read.error();
    return read.ok() && accepted && writer.EndSource();
  }

  bool Send(IngestWriter& writer, std::string_view piece) {
    if (Interrupted(context_)) {
      error_ = ClientError{kClientInterrupted, "interrupted", "interrupted while sending"};
      return false;
    }
    sent_bytes_ += piece.size();
    ProgressSample sample;
    sample.label = context_.arguments.name;
    sample.state = "sending";
    sample.unit = "B";
    sample.done = sent_bytes_;
    // The length of a pipe is not known.
    sample.total = sources_.has_stdin ? 0 : sources_.list.bytes;
    const int64_t now_ms = context_.console.now_ms();
    if (now_ms > started_ms_) {
      sample.per_second =
          static_cast<double>(sent_bytes_) * 1000 / static_cast<double>(now_ms - started_ms_);
    }
    // A small corpus is sent before a line about it could be read.
    if (now_ms - started_ms_ >= kQuietMs) line_.Update(sample, now_ms);
    return writer.Write(piece);
  }

  static constexpr int64_t kQuietMs = 500;

  const CommandContext& context_;
  const Sources& sources_;
  ProgressLine line_;
  int64_t started_ms_;
  uint64_t sent_bytes_ = 0;
  std::optional<ClientError> error_;
};

ClientResult<v1::IngestReply> SendSources(const CommandContext& context, CorpusClient& client,
                                          const Sources& sources) {
  const v1::IngestBegin begin = MakeBegin(context.arguments, sources);
  Feeder feeder(context, sources);
  const IngestFeeder feed = [&](IngestWriter& writer) { return feeder.Feed(writer); };
  auto reply =
      context.arguments.verb == "append" ? client.Append(begin, feed) : client.Ingest(begin, feed);
  if (reply.ok()) return reply;
  ClientError error = feeder.error().value_or(reply.error());
  if (error.code_text == "interrupted" || feeder.error()) {
    error.message += "; nothing was ingested";
  }
  return error;
}

int PrintDetached(const CommandContext& context, const v1::Job& job) {
  const OutputMode mode = context.arguments.output;
  if (IsStructured(mode)) {
    PrintStructured(context.console.out, mode, JobToJson(job));
  } else {
    context.console.out << job.id() << '\n';
  }
  return kExitOk;
}

std::string Summary(const v1::Job& job, const v1::Corpus& corpus, bool updated) {
  std::string text = Quoted(corpus.name()) + (updated ? " is up to date: " : " is ready: ") +
                     FormatCount(corpus.tokens()) + " tokens";
  if (updated) {
    const uint64_t computed =
        job.total_tokens() - std::min(job.reused_tokens(), job.total_tokens());
    text += computed == 0 ? ", none of them new" : ", " + FormatCount(computed) + " of them new";
  }
  if (job.started_at_ms() > 0 && job.finished_at_ms() >= job.started_at_ms()) {
    const double seconds = static_cast<double>(job.finished_at_ms() - job.started_at_ms()) / 1000;
    text += " in " + FormatDuration(seconds);
  }
  if (corpus.prefill_tokens_per_s() > 0) {
    text += " at " + FormatRate(corpus.prefill_tokens_per_s()) + " tok/s";
  }
  if (job.reused_tokens() > 0) text += ", " + FormatCount(job.reused_tokens()) + " reused";
  return text + ", " + FormatBytes(corpus.stored_bytes()) + " stored";
}

// On stderr, so that it reaches a person whatever stdout is for.
void WarnOfQuality(const CommandContext& context, const v1::Corpus& corpus) {
  if (!corpus.has_quality() || corpus.quality().mean_kld() <= corpus.quality().limit()) return;
  context.console.err << "warning: " << corpus.kv_format() << " costs " << Quoted(corpus.name())
                      << " " << QualityText(corpus.quality())
                      << ", more than the daemon's quality_kld_max; ingest it with a wider "
                         "--kv-format, such as cq8\n";
}

}  // namespace

int RunIngest(const CommandContext& context) {
  const bool updates = context.arguments.verb == "update";
  const bool remembered =
      updates && context.arguments.paths.empty() && !context.arguments.read_stdin;
  ClientOrError client = ClientError{};
  ClientResult<std::vector<std::string>> paths = context.arguments.paths;
  if (remembered) {
    client = ConnectToDaemon(context, CallLength::kLong);
    if (!client.ok()) return Fail(context, client.error());
    paths = RootsOf(**client, context.arguments.name);
    if (!paths.ok()) return Fail(context, paths.error());
  }
  auto sources = GatherSources(context, *paths);
  if (!sources.ok()) return Fail(context, sources.error());
  if (!remembered) client = ConnectToDaemon(context, CallLength::kLong);
  if (!client.ok()) return Fail(context, client.error());
  auto reply = SendSources(context, **client, *sources);
  if (!reply.ok()) return Fail(context, reply.error());
  if (context.arguments.detach) return PrintDetached(context, reply->job());

  auto job = FollowJob(context, **client, reply->job().id());
  if (!job.ok()) return Fail(context, job.error());
  auto ended = CheckJobEnd(*job);
  if (!ended.ok()) return Fail(context, ended.error());
  auto corpus = (*client)->Show(context.arguments.name);
  if (!corpus.ok()) return Fail(context, corpus.error());
  PrintChanged(context, *corpus, Summary(*job, *corpus, updates));
  WarnOfQuality(context, *corpus);
  return kExitOk;
}

}  // namespace corpusd::ctl
