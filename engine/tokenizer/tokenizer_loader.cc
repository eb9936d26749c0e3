#include "engine/tokenizer/tokenizer_loader.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "engine/tokenizer/byte_map.h"
#include "store/base/sha256.h"

namespace corpusd {
namespace {

// tokenizer.ggml.token_type
constexpr int64_t kKindUnknown = 2;
constexpr int64_t kKindControl = 3;
constexpr int64_t kKindUserDefined = 4;
constexpr int64_t kKindOrdinary = 1;
constexpr int64_t kKindByte = 6;

// SentencePiece's space.
constexpr std::string_view kSpaceMark = "\xe2\x96\x81";

std::string WithSpaces(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const bool space = text.substr(at).starts_with(kSpaceMark);
    out += space ? ' ' : text[at];
    at += space ? kSpaceMark.size() : 1;
  }
  return out;
}

void UpdateSized(Sha256* hash, std::string_view text) {
  const uint64_t size = text.size();
  hash->Update(std::as_bytes(std::span(&size, 1)));
  hash->Update(text);
}

}  // namespace

std::optional<uint8_t> ByteOfToken(std::string_view text) {
  uint8_t byte = 0;
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return std::nullopt;
  const auto read = std::from_chars(text.data() + 3, text.data() + 5, byte, 16);
  if (read.ec != std::errc() || read.ptr != text.data() + 5) return std::nullopt;
  return byte;
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::FromTables(TokenizerTables tables) {
  return TokenizerLoader(std::move(tables)).Load();
}

Status TokenizerLoader::Wrong(const std::string& what) const {
  return InvalidArgumentError(tables_.where + ": " + what);
}

Result<std::unique_ptr<Tokenizer>> TokenizerLoader::Load() {
  tokenizer_.reset(new Tokenizer());
  RETURN_IF_ERROR(CheckKind());
  RETURN_IF_ERROR(ReadVocabulary());
  RETURN_IF_ERROR(tables_.model == TokenizerModel::kByteLevel ? ReadMerges() : ReadPieces());
  RETURN_IF_ERROR(ReadEndToken());
  ComputeDigest();
  return std::move(tokenizer_);
}

Status TokenizerLoader::CheckKind() {
  tokenizer_->nfc_ = tables_.nfc;
  tokenizer_->space_prefix_ = tables_.space_prefix;
  tokenizer_->prefix_unless_space_ = tables_.prefix_unless_space;
  if (tables_.model == TokenizerModel::kSentencePiece) return OkStatus();
  const auto rule = FindWordRule(tables_.pre);
  if (!rule) {
    return UnimplementedError(tables_.where + ": pre-tokenizer '" + tables_.pre +
                              "' is not supported");
  }
  tokenizer_->word_rule_ = *rule;
  return OkStatus();
}

Status TokenizerLoader::ReadVocabulary() {
  const auto& texts = tables_.texts;
  const auto& kinds = tables_.kinds;
  if (texts.empty() || texts.size() > MergeTable::kVocabularyMax) {
    return Wrong("has a vocabulary of " + std::to_string(texts.size()) + " tokens, expected 1 to " +
                 std::to_string(MergeTable::kVocabularyMax));
  }
  if (kinds.size() != texts.size()) {
    return Wrong("has " + std::to_string(texts.size()) + " tokens but " +
                 std::to_string(kinds.size()) + " token types");
  }
  Tokenizer& t = *tokenizer_;
  t.pieces_.resize(texts.size());
  t.special_.resize(texts.size());
  ids_.reserve(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    if (!ids_.emplace(texts[i], id).second) {
      return Wrong("has token " + std::to_string(i) + " in its vocabulary twice");
    }
    RETURN_IF_ERROR(ReadToken(id));
    if (!t.special_[i] || texts[i].empty()) continue;
    t.special_ids_.emplace(t.pieces_[i], id);
    t.specials_by_length_.push_back(id);
    if (t.special_starts_.find(texts[i][0]) == std::string::npos) {
      t.special_starts_.push_back(texts[i][0]);
    }
  }
  std::stable_sort(t.specials_by_length_.begin(), t.specials_by_length_.end(),
                   [&](TokenId a, TokenId b) { return texts[a].size() > texts[b].size(); });
  return OkStatus();
}

// A token's bytes, and whether it is one that no user's text gives.
Status TokenizerLoader::ReadToken(TokenId id) {
  static const ByteMap kMap;
  Tokenizer& t = *tokenizer_;
  const std::string& text = tables_.texts[id];
  const int64_t kind = tables_.kinds[id];
  t.special_[id] = kind == kKindControl || kind == kKindUnknown;
  if (tables_.model == TokenizerModel::kSentencePiece) {
    t.pieces_[id] = kind == kKindOrdinary ? WithSpaces(text) : text;
    if (kind != kKindByte) return OkStatus();
    const auto byte = ByteOfToken(text);
    if (!byte) return Wrong("byte token " + std::to_string(id) + " is not written '<0x41>'");
    t.pieces_[id].assign(1, static_cast<char>(*byte));
    return OkStatus();
  }
  t.special_[id] = t.special_[id] || kind == kKindUserDefined;
  // Padding and byte tokens of other vocabularies may hold characters that stand for no byte.
  if (t.special_[id] || !kMap.Bytes(text, &t.pieces_[id])) t.pieces_[id] = text;
  return OkStatus();
}

// Any two tokens that give a third, the third of the lowest id first, whichever two they are.
void TokenizerLoader::PairsOfTokens(std::vector<MergeTable::Merge>* merges,
                                    std::vector<std::string_view>* pieces) const {
  const Tokenizer& t = *tokenizer_;
  std::unordered_map<std::string_view, TokenId> by_bytes;
  by_bytes.reserve(t.pieces_.size());
  for (size_t id = 0; id < t.pieces_.size(); ++id) {
    if (!t.special_[id]) by_bytes.emplace(t.pieces_[id], static_cast<TokenId>(id));
  }
  for (size_t id = 0; id < t.pieces_.size(); ++id) {
    const std::string_view piece = t.pieces_[id];
    for (size_t cut = 1; !t.special_[id] && cut < piece.size(); ++cut) {
      const auto left = by_bytes.find(piece.substr(0, cut));
      const auto right = by_bytes.find(piece.substr(cut));
      if (left == by_bytes.end() || right == by_bytes.end()) continue;
      merges->push_back({left->second, right->second, static_cast<TokenId>(id)});
      pieces->push_back(piece);
    }
  }
}

Status TokenizerLoader::ReadMerges() {
  if (tables_.merges.size() > MergeTable::kMergesMax) {
    return Wrong("has " + std::to_string(tables_.merges.size()) + " merges, beyond " +
                 std::to_string(MergeTable::kMergesMax));
  }
  const ByteMap map;
  std::vector<MergeTable::Merge> merges;
  std::vector<std::string_view> pieces;
  if (tables_.merges_by_id) {
    PairsOfTokens(&merges, &pieces);
    if (merges.size() > MergeTable::kMergesMax) {
      return Wrong("has " + std::to_string(merges.size()) + " pairs of tokens that give a token");
    }
  }
  merges.reserve(tables_.merges.size());
  pieces.reserve(tables_.merges.size());
  for (size_t rank = 0; rank < tables_.merges.size(); ++rank) {
    const std::string_view text = tables_.merges[rank];
    const size_t space = text.find(' ');
    const std::string merge = "merge " + std::to_string(rank);
    if (space == std::string_view::npos) return Wrong(merge + " is not two tokens and a space");
    const auto left = ids_.find(text.substr(0, space));
    const auto right = ids_.find(text.substr(space + 1));
    const std::string joined = std::string(text.substr(0, space)).append(text.substr(space + 1));
    const auto merged = ids_.find(joined);
    if (left == ids_.end() || right == ids_.end() || merged == ids_.end()) {
      return Wrong(merge + " names a token that the vocabulary lacks");
    }
    std::string bytes;
    if (!map.Bytes(joined, &bytes) || bytes != tokenizer_->pieces_[merged->second]) {
      return Wrong(merge + " gives a token that is not byte-level text");
    }
    merges.push_back({left->second, right->second, merged->second});
    pieces.emplace_back(tokenizer_->pieces_[merged->second]);
  }
  std::array<TokenId, 256> byte_ids{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    // Real vocabularies lack bytes that their training text lacked; such bytes give no token.
    const auto found = ids_.find(map.Text(static_cast<uint8_t>(byte)));
    byte_ids[byte] = found == ids_.end() ? MergeTable::kNoToken : found->second;
  }
  tokenizer_->merges_.Build(byte_ids, merges, pieces, tables_.merges_by_id);
  if (!tables_.whole_words) return OkStatus();
  for (size_t id = 0; id < tokenizer_->pieces_.size(); ++id) {
    if (tokenizer_->special_[id]) continue;
    tokenizer_->whole_words_.emplace(tokenizer_->pieces_[id], static_cast<TokenId>(id));
  }
  return OkStatus();
}

Status TokenizerLoader::ReadEndToken() {
  if (!tables_.end_token) return OkStatus();
  if (*tables_.end_token >= tables_.texts.size()) {
    return Wrong("eos_token_id " + std::to_string(*tables_.end_token) +
                 " is beyond the vocabulary of " + std::to_string(tables_.texts.size()));
  }
  tokenizer_->end_token_ = static_cast<TokenId>(*tables_.end_token);
  return OkStatus();
}

void TokenizerLoader::ComputeDigest() {
  Sha256 hash;
  UpdateSized(&hash, "corpusd tokenizer 1");
  UpdateSized(&hash, tables_.pre);
  if (tables_.whole_words) UpdateSized(&hash, "whole words");
  UpdateSized(&hash, std::to_string(tables_.texts.size()));
  for (size_t i = 0; i < tables_.texts.size(); ++i) {
    UpdateSized(&hash, tables_.texts[i]);
    UpdateSized(&hash, std::to_string(tables_.kinds[i]));
  }
  UpdateSized(&hash, std::to_string(tables_.merges.size()));
  for (const std::string& merge : tables_.merges) UpdateSized(&hash, merge);
  UpdateSized(&hash, tokenizer_->end_token_ ? std::to_string(*tokenizer_->end_token_) : "");
  UpdateSized(&hash, tables_.chat_template);
  if (tables_.nfc) UpdateSized(&hash, "nfc");
  if (tables_.merges_by_id) UpdateSized(&hash, "merges by id");
  if (tables_.model == TokenizerModel::kSentencePiece) {
    UpdateSized(&hash, "sentencepiece");
    hash.Update(std::as_bytes(std::span(tables_.scores)));
    UpdateSized(&hash, std::to_string(static_cast<int>(tables_.space_prefix)) +
                           (tables_.prefix_unless_space ? "u" : "") +
                           (tables_.splits_at_spaces ? "s" : ""));
  }
  tokenizer_->digest_hex_ = HexText(hash.Finish());
}

}  // namespace corpusd
