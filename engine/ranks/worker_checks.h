// engine/ranks/worker_checks.h -- what the messages of rank 0 must be before a RankWorker acts on
// them. Ranks trust each other, yet a message that is none ends the group in words and nothing
// else. Errors are kInternal. Pure; any thread.
#pragma once

#include <cstdint>
#include <span>

#include "engine/calibration/kv_calibration.h"
#include "engine/model/model_config.h"
#include "engine/ranks/rank_pages.h"

namespace corpusd {

// Of a text, its rows in one call, sequences that are open at once.
inline constexpr uint64_t kRankTextTokensMax = uint64_t{1} << 32;
inline constexpr uint64_t kRankRowsMax = uint64_t{1} << 20;
inline constexpr size_t kRankSequencesMax = size_t{1} << 16;

// So many blocks hold so many tokens.
Status CheckText(size_t blocks, uint64_t tokens);
// Coordinates for coded pages and no others, of the model's heads; first: exact first tokens.
Status CheckLayout(const KvLayout& layout, bool calibrated, std::span<const TokenId> first,
                   const ModelConfig& config);
Status CheckCalibration(const KvCalibration& calibration, const ModelConfig& config);
// rows: of each sequence, all `tokens` together; each: one of every sequence.
Status CheckRows(bool each, std::span<const uint64_t> ids, std::span<const uint64_t> rows,
                 size_t tokens, uint32_t few_rows);
// The pages of both can be attended to in one call.
Status CheckAlike(const KvLayout& one, const KvLayout& other);
// All blocks that the rank wants have come.
Status CheckAtHand(const RankPages& pages);

}  // namespace corpusd
