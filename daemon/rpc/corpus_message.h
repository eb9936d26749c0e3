// daemon/rpc/corpus_message.h -- catalogue records as protocol messages, and what a name may be.
// Pure; any thread.
#pragma once

#include <optional>
#include <string_view>

#include "corpusd/v1/corpusd.pb.h"
#include "daemon/jobs/job_record.h"
#include "engine/engine.h"
#include "store/block_store.h"

namespace corpusd {

// Whether a user may give a corpus this name: 1 to 128 of A-Z a-z 0-9 . _ -, not beginning with .
// or -. Never with '~', which marks what an update makes; verbs on what is there already take any
// name.
Status CheckCorpusName(std::string_view name);

v1::Corpus ToMessage(const CorpusRecord& record, const CorpusUsage& usage,
                     const ModelSummary& model, const std::optional<JobRecord>& job,
                     int64_t now_ms);
v1::Job ToMessage(const JobRecord& job);

std::string_view TierText(TierKind tier);  // "device", "host", "disk"
// kInvalidArgument for an unknown tier, kUnimplemented for one that this daemon has not.
Result<TierKind> ParseTier(std::string_view text, TierKind if_empty);

}  // namespace corpusd
