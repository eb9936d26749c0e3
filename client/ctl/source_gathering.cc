#include "client/ctl/source_gathering.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "client/ctl/json_objects.h"
#include "client/sources/file_reader.h"
#include "client/sources/text_decoder.h"

namespace corpusd::ctl {
namespace {

namespace fs = std::filesystem;

// The same place whatever the working directory; no slash at the end.
std::string AbsolutePath(const std::string& path) {
  std::error_code error;
  const fs::path absolute = fs::absolute(path, error);
  std::string text = (error ? fs::path(path) : absolute).lexically_normal().native();
  while (text.size() > 1 && text.ends_with('/')) text.pop_back();
  return text;
}

ClientResult<Done> ReadStdinStart(const CommandContext& context, GatheredSources& gathered) {
  auto read = sources::ReadDescriptor(context.console.in_file, context.arguments.stdin_name,
                                      context.console.interrupted, [&](std::string_view piece) {
                                        gathered.stdin_start = piece;
                                        return false;
                                      });
  if (!read.ok()) return read.error();
  gathered.has_stdin = !gathered.stdin_start.empty();
  const std::string_view start = gathered.stdin_start;
  if (sources::LooksBinary(start.substr(0, sources::kSampleBytes))) {
    return UsageError("stdin is not text");
  }
  if (gathered.has_stdin) gathered.roots.emplace_back(kStdinRoot);
  return Done{};
}

}  // namespace

ClientResult<GatheredSources> GatherSources(const CommandContext& context,
                                            const std::vector<std::string>& paths) {
  GatheredSources gathered;
  for (const std::string& path : paths) gathered.roots.push_back(AbsolutePath(path));
  auto list = sources::ListSources(gathered.roots);
  if (!list.ok()) return list.error();
  gathered.list = *std::move(list);
  if (context.arguments.read_stdin) {
    auto start = ReadStdinStart(context, gathered);
    if (!start.ok()) return start.error();
  }
  for (const std::string& warning : gathered.list.warnings) Note(context, warning);
  if (!gathered.list.files.empty() || gathered.has_stdin) return gathered;
  const std::string skipped = gathered.list.skipped.Describe();
  return NothingToDo("there is no text to read" +
                     (skipped.empty() ? std::string() : ": " + skipped));
}

sources::ReadOptions ReadOptionsOf(const CommandContext& context) {
  sources::ReadOptions options;
  options.json_text_field = context.arguments.json_text_field;
  if (context.arguments.unpacked_bytes_max > 0) {
    options.unpacked_bytes_max = context.arguments.unpacked_bytes_max;
  }
  options.interrupted = context.console.interrupted;
  return options;
}

ClientResult<bool> ReadAll(const CommandContext& context, const GatheredSources& gathered,
                           sources::SourceReader& reader) {
  for (const sources::SourceFile& source : gathered.list.files) {
    auto read = reader.ReadFile(source);
    if (!read.ok() || !*read) return read;
  }
  if (!gathered.has_stdin) return true;
  return reader.ReadPipe(context.console.in_file, context.arguments.stdin_name,
                         gathered.stdin_start);
}

void NoteSkipped(const CommandContext& context, const sources::SkipLog& skipped) {
  const std::string summary = skipped.Describe();
  if (summary.empty()) return;
  for (const sources::Skipped& item : skipped.items()) {
    // Damage is worth a line even to those who did not ask for the list.
    if (!context.arguments.verbose && item.reason != sources::SkipReason::kBroken) continue;
    std::string line =
        "skipped " + item.what + ": " + std::string(sources::SkipReasonName(item.reason));
    if (!item.detail.empty()) line += " (" + item.detail + ")";
    Note(context, line);
  }
  Note(context, summary + (context.arguments.verbose ? "" : "; -v lists them"));
}

Json SkippedToJson(const sources::SkipLog& skipped) {
  Json counts = Json::object();
  for (size_t i = 0; i < sources::kSkipReasons; ++i) {
    const auto reason = static_cast<sources::SkipReason>(i);
    if (skipped.count(reason) == 0) continue;
    counts[std::string(sources::SkipReasonName(reason))] = skipped.count(reason);
  }
  Json items = Json::array();
  for (const sources::Skipped& item : skipped.items()) {
    items.push_back({{"what", item.what},
                     {"reason", sources::SkipReasonName(item.reason)},
                     {"detail", item.detail.empty() ? Json(nullptr) : Json(item.detail)}});
  }
  const uint64_t unlisted = skipped.total() - skipped.items().size();
  return {{"counts", std::move(counts)}, {"items", std::move(items)}, {"unlisted", unlisted}};
}

}  // namespace corpusd::ctl
