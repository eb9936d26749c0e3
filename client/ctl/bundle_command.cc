// export and import: a corpus as one file. The file is read and written on this side, so the daemon
// needs no right to it.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "client/ctl/commands.h"
#include "client/ctl/exit_code.h"
#include "client/ctl/json_objects.h"
#include "client/ctl/units.h"
#include "client/sources/file_reader.h"

namespace corpusd::ctl {
namespace {

constexpr std::string_view kStream = "-";

ClientError FileError(const std::string& what, const std::string& path) {
  return {0, "io_error", what + " " + Quoted(path) + ": " + std::strerror(errno)};
}

// Writes to PATH.partial, which becomes PATH when everything is there and on disk: what is called
// PATH is always a whole bundle.
class BundleFile {
 public:
  explicit BundleFile(std::string path) : path_(std::move(path)), partial_(path_ + ".partial") {}
  ~BundleFile() {
    if (file_ < 0) return;
    close(file_);
    unlink(partial_.c_str());
  }
  BundleFile(const BundleFile&) = delete;
  BundleFile& operator=(const BundleFile&) = delete;

  ClientResult<Done> Open(bool overwrite) {
    struct stat existing {};
    if (!overwrite && stat(path_.c_str(), &existing) == 0) {
      return UsageError(Quoted(path_) + " exists; say --force to replace it");
    }
    file_ = open(partial_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file_ < 0) return FileError("cannot write", partial_);
    return Done{};
  }
  bool Write(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t wrote = write(file_, bytes.data(), bytes.size());
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote < 0) return false;
      bytes.remove_prefix(static_cast<size_t>(wrote));
    }
    return true;
  }
  ClientResult<Done> Keep() {
    const bool good = fsync(file_) == 0 && std::rename(partial_.c_str(), path_.c_str()) == 0;
    if (!good) return FileError("cannot keep", path_);
    close(std::exchange(file_, -1));
    return Done{};
  }
  ClientError error() const {
    ClientError failed = FileError("cannot write", partial_);
    if (errno == ENOSPC || errno == EDQUOT) failed.code_text = "resource_exhausted";
    return failed;
  }

 private:
  const std::string path_;
  const std::string partial_;
  int file_ = -1;
};

void ShowBlocks(const CommandContext& context, ProgressLine& line, const std::string& state,
                uint64_t done, uint64_t total) {
  ProgressSample sample;
  sample.label = context.arguments.name.empty() ? context.arguments.file : context.arguments.name;
  sample.state = state;
  sample.unit = "blocks";
  sample.done = done;
  sample.total = total;
  line.Update(sample, context.console.now_ms());
}

int PrintExported(const CommandContext& context, const v1::ExportReply& reply) {
  const Arguments& arguments = context.arguments;
  // The bundle itself went to stdout.
  if (arguments.file == kStream) return kExitOk;
  if (IsStructured(arguments.output)) {
    PrintStructured(context.console.out, arguments.output,
                    {{"name", arguments.name},
                     {"file", arguments.file},
                     {"blocks", reply.blocks()},
                     {"bytes", reply.bytes()},
                     {"sha256", reply.sha256()}});
  } else if (arguments.output == OutputMode::kName) {
    context.console.out << arguments.file << '\n';
  } else {
    Say(context, "exported " + Quoted(arguments.name) + " to " + Quoted(arguments.file) + ": " +
                     FormatCount(reply.blocks()) + " blocks, " + FormatBytes(reply.bytes()) +
                     ", SHA-256 " + reply.sha256());
  }
  return kExitOk;
}

// Opens and reads FILE or stdin through the sender.
ClientResult<Done> FeedBundle(const CommandContext& context, const PieceSender& send) {
  const std::string& path = context.arguments.file;
  int file = context.console.in_file;
  if (path != kStream) {
    file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) {
      ClientError error = FileError("cannot read", path);
      if (errno == ENOENT) error.code_text = "not_found";
      return error;
    }
  }
  bool accepted = true;
  auto read =
      sources::ReadDescriptor(file, path, context.console.interrupted, [&](std::string_view piece) {
        accepted = send(piece);
        return accepted;
      });
  if (path != kStream) close(file);
  if (!read.ok()) return read.error();
  return Done{};
}

}  // namespace

int RunExport(const CommandContext& context) {
  const Arguments& arguments = context.arguments;
  const bool to_stream = arguments.file == kStream;
  if (to_stream && context.console.out_is_terminal) {
    return Fail(context, UsageError("a bundle is no text: name a file, or pipe it somewhere"));
  }
  auto client = ConnectToDaemon(context, CallLength::kLong);
  if (!client.ok()) return Fail(context, client.error());
  BundleFile file(arguments.file);
  if (!to_stream) {
    auto opened = file.Open(arguments.force);
    if (!opened.ok()) return Fail(context, opened.error());
  }
  std::optional<ClientError> failed;
  ProgressLine line(context.console.err, ProgressModeOf(context), context.console.width);
  auto reply = (*client)->Export(arguments.name, [&](const v1::ExportData& piece) {
    if (to_stream) {
      context.console.out.write(piece.content().data(),
                                static_cast<std::streamsize>(piece.content().size()));
      if (!context.console.out) failed = ClientError{0, "io_error", "stdout does not take bytes"};
    } else if (!file.Write(piece.content())) {
      failed = file.error();
    }
    ShowBlocks(context, line, "exporting", piece.done_blocks(), piece.total_blocks());
    return !failed.has_value();
  });
  line.Clear();
  if (failed) return Fail(context, *failed);
  if (!reply.ok()) return Fail(context, reply.error());
  if (to_stream) {
    context.console.out.flush();
  } else {
    auto kept = file.Keep();
    if (!kept.ok()) return Fail(context, kept.error());
  }
  return PrintExported(context, *reply);
}

int RunImport(const CommandContext& context) {
  auto client = ConnectToDaemon(context, CallLength::kLong);
  if (!client.ok()) return Fail(context, client.error());
  ProgressLine line(context.console.err, ProgressModeOf(context), context.console.width);
  auto reply = (*client)->Import(
      context.arguments.name, [&](const PieceSender& send) { return FeedBundle(context, send); },
      [&](uint64_t done, uint64_t total) { ShowBlocks(context, line, "importing", done, total); });
  line.Clear();
  if (!reply.ok()) return Fail(context, reply.error());
  const v1::Corpus& corpus = reply->corpus();
  std::string text = "imported " + Quoted(corpus.name()) + ": " + FormatCount(corpus.tokens()) +
                     " tokens, " + FormatCount(corpus.blocks()) + " blocks";
  if (reply->reused_blocks() > 0) {
    text += ", " + FormatCount(reply->reused_blocks()) + " of them were here already";
  }
  PrintChanged(context, corpus, text);
  return kExitOk;
}

}  // namespace corpusd::ctl
