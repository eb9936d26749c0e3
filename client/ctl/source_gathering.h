// client/ctl/source_gathering.h -- what ingest, append, update and plan read, found before anything
// is sent, and how to say what was left out. One thread.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "client/client_error.h"
#include "client/ctl/commands.h"
#include "client/sources/source_reader.h"
#include "client/sources/source_walker.h"

namespace corpusd::ctl {

// Stands for stdin among the roots: it cannot be read again.
inline constexpr std::string_view kStdinRoot = "-";

struct GatheredSources {
  sources::SourceList list;
  bool has_stdin = false;
  std::string stdin_start;  // its first piece, read early to see whether there is text at all
  std::vector<std::string> roots;  // what they are read from, for a later update
};

// Documents are named by their absolute paths, so that an update from another folder finds them
// unchanged. RETURNS "nothing_to_do" if there is nothing to read, and the errors of ListSources.
ClientResult<GatheredSources> GatherSources(const CommandContext& context,
                                            const std::vector<std::string>& paths);

sources::ReadOptions ReadOptionsOf(const CommandContext& context);

// Reads them all through the reader. RETURNS false if its sink wants no more.
ClientResult<bool> ReadAll(const CommandContext& context, const GatheredSources& gathered,
                           sources::SourceReader& reader);

// Says on stderr what was skipped: in a line, with -v each thing.
void NoteSkipped(const CommandContext& context, const sources::SkipLog& skipped);
// {"counts": {"binary": 3}, "items": [{"what", "reason", "detail"}], "unlisted": 0}.
nlohmann::ordered_json SkippedToJson(const sources::SkipLog& skipped);

}  // namespace corpusd::ctl
