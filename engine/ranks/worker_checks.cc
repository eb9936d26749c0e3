#include "engine/ranks/worker_checks.h"

#include <set>
#include <string>

namespace corpusd {
namespace {

Status NoMessage(const std::string& what) { return InternalError("rank 0 told of " + what); }

}  // namespace

Status CheckText(size_t blocks, uint64_t tokens) {
  if (tokens > kRankTextTokensMax || blocks != (tokens + kBlockTokens - 1) / kBlockTokens) {
    return NoMessage(std::to_string(tokens) + " tokens in " + std::to_string(blocks) + " blocks");
  }
  return OkStatus();
}

Status CheckCalibration(const KvCalibration& calibration, const ModelConfig& config) {
  const KvCalibrationShape& shape = calibration.shape();
  if (shape.layers == config.layers && shape.kv_heads == config.kv_heads &&
      shape.head_dim == config.head_dim) {
    return OkStatus();
  }
  return NoMessage("coordinates of another model");
}

Status CheckLayout(const KvLayout& layout, bool calibrated, std::span<const TokenId> first,
                   const ModelConfig& config) {
  if (IsCoded(layout.blocks) != calibrated) return NoMessage("coded pages without coordinates");
  if (first.size() > kBlockTokens) return NoMessage("so many first tokens");
  for (const TokenId id : first) {
    if (id >= config.vocabulary) return NoMessage("a token that the model has not");
  }
  return OkStatus();
}

Status CheckRows(bool each, std::span<const uint64_t> ids, std::span<const uint64_t> rows,
                 size_t tokens, uint32_t few_rows) {
  if (rows.size() != ids.size() || ids.empty() || tokens > kRankRowsMax) {
    return NoMessage("rows without a sequence");
  }
  if (std::set<uint64_t>(ids.begin(), ids.end()).size() != ids.size()) {
    return NoMessage("a sequence twice");
  }
  uint64_t all = 0;
  for (const uint64_t count : rows) {
    const bool whole = each ? count == 1 : count > 0 && (rows.size() == 1 || count > few_rows);
    if (!whole || count > kRankRowsMax) return NoMessage(std::to_string(count) + " rows");
    all += count;
  }
  if (all != tokens || (each && few_rows > 0 && tokens > few_rows)) {
    return NoMessage(std::to_string(tokens) + " tokens for " + std::to_string(all) + " rows");
  }
  return OkStatus();
}

Status CheckAlike(const KvLayout& one, const KvLayout& other) {
  const bool alike = one.blocks == other.blocks && one.calibration == other.calibration;
  return alike ? OkStatus() : NoMessage("sequences of several formats in one call");
}

Status CheckAtHand(const RankPages& pages) {
  for (size_t i = 0; i < pages.wanted().size(); ++i) {
    if (!pages.Has(i)) return NoMessage("a sequence of which it did not send all blocks");
  }
  return OkStatus();
}

}  // namespace corpusd
