#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "client/ctl/commands.h"
#include "client/ctl/exit_code.h"
#include "client/ctl/json_objects.h"
#include "client/ctl/source_gathering.h"
#include "client/ctl/units.h"
#include "client/sources/file_reader.h"
#include "client/wire/utf8.h"

namespace corpusd::ctl {
namespace {

constexpr uint64_t kPreambleBytesMax = uint64_t{1} << 20;

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

ClientResult<std::string> ReadPreamble(const std::string& path) {
  if (path.empty()) return std::string();
  auto preamble = sources::ReadSmallFile(path, kPreambleBytesMax);
  if (!preamble.ok()) return preamble.error();
  if (!IsUtf8(*preamble)) return UsageError("preamble " + Quoted(path) + " is not UTF-8");
  return preamble;
}

v1::IngestBegin MakeBegin(const Arguments& arguments, const GatheredSources& gathered,
                          std::string preamble) {
  v1::IngestBegin begin;
  begin.set_name(arguments.name);
  begin.set_update(arguments.verb == "update");
  if (!begin.update()) begin.set_mode(arguments.mode);
  for (const std::string& root : gathered.roots) {
    // Protobuf takes no other text; such a root must be named again by whoever updates.
    if (IsUtf8(root)) begin.add_roots(root);
  }
  begin.set_kv_format(arguments.kv_format);
  begin.set_preamble(std::move(preamble));
  begin.set_pin(arguments.pin);
  begin.set_priority(arguments.priority);
  if (arguments.ttl) begin.set_ttl_ms(static_cast<uint64_t>(arguments.ttl->count()));
  begin.set_skipped_files(gathered.list.skipped.files());
  return begin;
}

// Feeds the documents of the sources through a writer and shows how far it is.
class Feeder : public sources::DocumentSink {
 public:
  Feeder(const CommandContext& context, const GatheredSources& gathered)
      : context_(context),
        gathered_(gathered),
        skipped_(gathered.list.skipped),
        reader_(ReadOptionsOf(context), *this, skipped_),
        line_(context.console.err, ProgressModeOf(context), context.console.width),
        started_ms_(context.console.now_ms()) {}

  bool Feed(IngestWriter& writer) {
    writer_ = &writer;
    auto read = ReadAll(context_, gathered_, reader_);
    line_.Clear();
    if (!read.ok()) {
      error_ = read.error();
    } else if (*read && reader_.documents() == 0) {
      error_ = NothingToDo("there is no text to ingest: " + skipped_.Describe());
    }
    writer.set_skipped_files(skipped_.files() - gathered_.list.skipped.files());
    return !error_ && *read;
  }

  bool Begin(std::string_view label) override { return writer_->BeginSource(label); }
  bool Write(std::string_view text) override {
    ShowProgress();
    return writer_->Write(text);
  }
  bool End() override { return writer_->EndSource(); }

  // Why Feed gave up, if the reason lies on this side.
  const std::optional<ClientError>& error() const { return error_; }
  const sources::SkipLog& skipped() const { return skipped_; }
  uint64_t converted() const { return reader_.converted(); }

 private:
  void ShowProgress() {
    const int64_t now_ms = context_.console.now_ms();
    // A small corpus is sent before a line about it could be read.
    if (now_ms - started_ms_ < kQuietMs) return;
    ProgressSample sample;
    sample.label = context_.arguments.name;
    sample.state = "sending";
    sample.unit = "B";
    sample.done = reader_.read_bytes();
    // The length of a pipe is not known.
    sample.total = gathered_.has_stdin ? 0 : gathered_.list.bytes;
    sample.documents = reader_.documents();
    const double seconds = static_cast<double>(now_ms - started_ms_) / 1000;
    sample.per_second = static_cast<double>(sample.done) / seconds;
    if (sample.total > sample.done && sample.per_second > 0) {
      sample.eta_s = static_cast<double>(sample.total - sample.done) / sample.per_second;
    }
    line_.Update(sample, now_ms);
  }

  static constexpr int64_t kQuietMs = 500;

  const CommandContext& context_;
  const GatheredSources& gathered_;
  sources::SkipLog skipped_;
  sources::SourceReader reader_;
  ProgressLine line_;
  int64_t started_ms_;
  IngestWriter* writer_ = nullptr;
  std::optional<ClientError> error_;
};

ClientResult<v1::IngestReply> SendSources(const CommandContext& context, CorpusClient& client,
                                          const v1::IngestBegin& begin, Feeder& feeder) {
  const IngestFeeder feed = [&](IngestWriter& writer) { return feeder.Feed(writer); };
  auto reply =
      context.arguments.verb == "append" ? client.Append(begin, feed) : client.Ingest(begin, feed);
  NoteSkipped(context, feeder.skipped());
  if (feeder.converted() > 0) {
    const bool one = feeder.converted() == 1;
    Note(context, FormatCount(feeder.converted()) + (one ? " source was" : " sources were") +
                      " converted to UTF-8");
  }
  if (reply.ok()) return reply;
  ClientError error = feeder.error().value_or(reply.error());
  if (error.code_text == "interrupted" || feeder.error()) {
    error.message += "; nothing was ingested";
  }
  return error;
}

// object: of the job or the corpus.
void PrintObject(const CommandContext& context, Json object, const Feeder& feeder) {
  object["skipped"] = SkippedToJson(feeder.skipped());
  object["converted_sources"] = feeder.converted();
  PrintStructured(context.console.out, context.arguments.output, object);
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

// Sends what was gathered and waits for its prefill. RETURNS the exit code.
int SendAndFollow(const CommandContext& context, CorpusClient& client,
                  const GatheredSources& gathered, std::string preamble) {
  const Arguments& arguments = context.arguments;
  const bool structured = IsStructured(arguments.output);
  Feeder feeder(context, gathered);
  auto reply =
      SendSources(context, client, MakeBegin(arguments, gathered, std::move(preamble)), feeder);
  if (!reply.ok()) return Fail(context, reply.error());
  if (arguments.detach) {
    if (structured) {
      PrintObject(context, JobToJson(reply->job()), feeder);
    } else {
      context.console.out << reply->job().id() << '\n';
    }
    return kExitOk;
  }
  auto job = FollowJob(context, client, reply->job().id());
  if (!job.ok()) return Fail(context, job.error());
  auto ended = CheckJobEnd(*job);
  if (!ended.ok()) return Fail(context, ended.error());
  auto corpus = client.Show(arguments.name);
  if (!corpus.ok()) return Fail(context, corpus.error());
  if (structured) {
    PrintObject(context, CorpusToJson(*corpus), feeder);
  } else {
    PrintChanged(context, *corpus, Summary(*job, *corpus, arguments.verb == "update"));
  }
  WarnOfQuality(context, *corpus);
  return kExitOk;
}

}  // namespace

int RunIngest(const CommandContext& context) {
  const Arguments& arguments = context.arguments;
  // Everything that can be refused is refused before the daemon is asked.
  auto preamble = ReadPreamble(arguments.preamble_path);
  if (!preamble.ok()) return Fail(context, preamble.error());
  const bool remembered =
      arguments.verb == "update" && arguments.paths.empty() && !arguments.read_stdin;
  if (!remembered) {
    auto gathered = GatherSources(context, arguments.paths);
    if (!gathered.ok()) return Fail(context, gathered.error());
    auto client = ConnectToDaemon(context, CallLength::kLong);
    if (!client.ok()) return Fail(context, client.error());
    return SendAndFollow(context, **client, *gathered, *std::move(preamble));
  }
  auto client = ConnectToDaemon(context, CallLength::kLong);
  if (!client.ok()) return Fail(context, client.error());
  auto roots = RootsOf(**client, arguments.name);
  if (!roots.ok()) return Fail(context, roots.error());
  auto gathered = GatherSources(context, *roots);
  if (!gathered.ok()) return Fail(context, gathered.error());
  return SendAndFollow(context, **client, *gathered, "");
}

}  // namespace corpusd::ctl
