// The loader's part for SentencePiece's vocabularies: which merges there are, and what is a
// literal.
#include <algorithm>
#include <numeric>

#include "engine/tokenizer/tokenizer_loader.h"
#include "engine/tokenizer/utf8_repair.h"

namespace corpusd {
namespace {

constexpr int64_t kKindOrdinary = 1;
constexpr int64_t kKindUserDefined = 4;
constexpr int64_t kKindByte = 6;

bool IsOneCharacter(std::string_view text) {
  return !text.empty() && DecodeAt(text, 0).bytes == text.size();
}

// Whether the text is as RepairUtf8 leaves it, so that DecodeAt may read it.
bool IsWellFormed(const std::string& text) {
  std::string repaired;
  RepairUtf8(text, true, &repaired);
  return repaired == text;
}

}  // namespace

// A pair of tokens merges if its text is a token; the better that token's score, the earlier.
Status TokenizerLoader::AddScoredMerges(PieceTable::Parts* parts) const {
  const auto& texts = tables_.texts;
  if (tables_.scores.size() != texts.size()) {
    return Wrong("has " + std::to_string(texts.size()) + " tokens but " +
                 std::to_string(tables_.scores.size()) + " scores");
  }
  std::vector<TokenId> order;
  for (TokenId id = 0; id < texts.size(); ++id) {
    if (tables_.kinds[id] == kKindOrdinary && texts[id].size() > 1) order.push_back(id);
    if (tables_.scores[id] != tables_.scores[id]) return Wrong("has a score that is no number");
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](TokenId a, TokenId b) { return tables_.scores[a] > tables_.scores[b]; });
  uint32_t priority = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    const TokenId id = order[i];
    const std::string_view text = texts[id];
    if (i > 0 && tables_.scores[id] != tables_.scores[order[i - 1]]) ++priority;
    if (IsOneCharacter(text)) continue;
    parts->merged_texts.emplace_back(text);
    for (size_t at = DecodeAt(text, 0).bytes; at < text.size(); at += DecodeAt(text, at).bytes) {
      const auto left = ids_.find(text.substr(0, at));
      const auto right = ids_.find(text.substr(at));
      if (left == ids_.end() || right == ids_.end() ||
          tables_.kinds[left->second] != kKindOrdinary ||
          tables_.kinds[right->second] != kKindOrdinary) {
        continue;
      }
      if (parts->merges.size() >= MergeTable::kMergesMax) return Wrong("has too many merges");
      parts->merges.push_back({left->second, right->second, id, priority});
    }
  }
  return OkStatus();
}

Status TokenizerLoader::AddRankedMerges(PieceTable::Parts* parts) const {
  if (tables_.merges.size() > MergeTable::kMergesMax) {
    return Wrong("has " + std::to_string(tables_.merges.size()) + " merges, beyond " +
                 std::to_string(MergeTable::kMergesMax));
  }
  for (size_t rank = 0; rank < tables_.merges.size(); ++rank) {
    const std::string_view text = tables_.merges[rank];
    const size_t space = text.find(' ');
    const std::string merge = "merge " + std::to_string(rank);
    if (space == std::string_view::npos) return Wrong(merge + " is not two tokens and a space");
    const auto left = ids_.find(text.substr(0, space));
    const auto right = ids_.find(text.substr(space + 1));
    std::string joined = std::string(text.substr(0, space)).append(text.substr(space + 1));
    const auto merged = ids_.find(joined);
    if (left == ids_.end() || right == ids_.end() || merged == ids_.end()) {
      return Wrong(merge + " names a token that the vocabulary lacks");
    }
    parts->merges.push_back(
        {left->second, right->second, merged->second, static_cast<uint32_t>(rank)});
    parts->merged_texts.push_back(std::move(joined));
  }
  return OkStatus();
}

Status TokenizerLoader::ReadPieces() {
  PieceTable::Parts parts;
  parts.byte_ids.fill(PieceTable::kNoToken);
  parts.splits_at_spaces = tables_.splits_at_spaces;
  for (TokenId id = 0; id < tables_.texts.size(); ++id) {
    const std::string& text = tables_.texts[id];
    const int64_t kind = tables_.kinds[id];
    if (!IsWellFormed(text)) {
      return Wrong("token " + std::to_string(id) + " is not well-formed UTF-8");
    }
    if (kind == kKindByte) {
      parts.byte_ids[static_cast<uint8_t>(tokenizer_->pieces_[id][0])] = id;
    } else if (kind == kKindUserDefined && !text.empty()) {
      parts.literals.emplace_back(text, id);
    } else if (kind == kKindOrdinary && IsOneCharacter(text)) {
      parts.characters.emplace(text, id);
    }
  }
  if (tables_.unknown_token && *tables_.unknown_token < tables_.texts.size()) {
    parts.unknown = static_cast<TokenId>(*tables_.unknown_token);
  }
  RETURN_IF_ERROR(tables_.scores.empty() ? AddRankedMerges(&parts) : AddScoredMerges(&parts));
  auto table = std::make_unique<PieceTable>();
  table->Build(std::move(parts));
  tokenizer_->piece_table_ = std::move(table);
  return OkStatus();
}

}  // namespace corpusd
