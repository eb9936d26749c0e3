#include "engine/tokenizer/tokenizer_loader.h"

#include <algorithm>
#include <array>

#include "engine/tokenizer/utf8_repair.h"
#include "store/base/sha256.h"

namespace corpusd {
namespace {

// tokenizer.ggml.token_type
constexpr int64_t kKindUnknown = 2;
constexpr int64_t kKindControl = 3;
constexpr int64_t kKindUserDefined = 4;

// GPT-2's printable stand-ins for bytes: printable Latin-1 characters stand for themselves, the
// others for the code points from U+0100 on, in order.
class ByteMap {
 public:
  ByteMap() {
    bytes_.fill(-1);
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
      code_points_[byte] = printable ? byte : next++;
      bytes_[code_points_[byte]] = static_cast<int>(byte);
    }
  }

  std::string Text(uint8_t byte) const {
    const uint32_t code_point = code_points_[byte];
    if (code_point < 0x80) return {static_cast<char>(code_point)};
    return {static_cast<char>(0xc0 | code_point >> 6),
            static_cast<char>(0x80 | (code_point & 0x3f))};
  }

  // RETURNS false if text holds another character than the stand-ins.
  bool Bytes(std::string_view text, std::string* bytes) const {
    std::string repaired;
    RepairUtf8(text, true, &repaired);
    for (size_t at = 0; at < repaired.size();) {
      const CodePoint point = DecodeAt(repaired, at);
      if (point.value >= bytes_.size() || bytes_[point.value] < 0) return false;
      bytes->push_back(static_cast<char>(bytes_[point.value]));
      at += point.bytes;
    }
    return true;
  }

 private:
  std::array<uint32_t, 256> code_points_{};
  std::array<int, 0x144> bytes_{};
};

void UpdateSized(Sha256* hash, std::string_view text) {
  const uint64_t size = text.size();
  hash->Update(std::as_bytes(std::span(&size, 1)));
  hash->Update(text);
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::FromGguf(const GgufFile& file) {
  return TokenizerLoader(file).Load();
}

Status TokenizerLoader::Wrong(const std::string& what) const {
  return InvalidArgumentError(file_.path() + ": " + what);
}

Result<std::unique_ptr<Tokenizer>> TokenizerLoader::Load() {
  tokenizer_.reset(new Tokenizer());
  RETURN_IF_ERROR(CheckKind());
  RETURN_IF_ERROR(ReadVocabulary());
  RETURN_IF_ERROR(ReadMerges());
  RETURN_IF_ERROR(ReadEndToken());
  ComputeDigest();
  return std::move(tokenizer_);
}

Status TokenizerLoader::CheckKind() {
  const auto model = file_.GetString("tokenizer.ggml.model");
  RETURN_IF_ERROR(model.status());
  if (*model != "gpt2") {
    return UnimplementedError(file_.path() + ": tokenizer '" + *model +
                              "' is not supported: byte-level BPE ('gpt2') is");
  }
  ASSIGN_OR_RETURN(pre_, file_.GetString("tokenizer.ggml.pre"));
  // These three name one rule: numbers one by one, then GPT-2's expression.
  if (pre_ != "smollm" && pre_ != "starcoder" && pre_ != "refact") {
    return UnimplementedError(file_.path() + ": pre-tokenizer '" + pre_ +
                              "' is not supported: 'smollm', 'starcoder' and 'refact' are");
  }
  return OkStatus();
}

Status TokenizerLoader::ReadVocabulary() {
  ASSIGN_OR_RETURN(texts_, file_.GetStringArray("tokenizer.ggml.tokens"));
  if (texts_.empty() || texts_.size() > MergeTable::kVocabularyMax) {
    return Wrong("has a vocabulary of " + std::to_string(texts_.size()) +
                 " tokens, expected 1 to " + std::to_string(MergeTable::kVocabularyMax));
  }
  kinds_.assign(texts_.size(), 1);
  if (file_.Has("tokenizer.ggml.token_type")) {
    ASSIGN_OR_RETURN(kinds_, file_.GetIntArray("tokenizer.ggml.token_type"));
  }
  if (kinds_.size() != texts_.size()) {
    return Wrong("has " + std::to_string(texts_.size()) + " tokens but " +
                 std::to_string(kinds_.size()) + " token types");
  }
  const ByteMap map;
  Tokenizer& t = *tokenizer_;
  t.pieces_.resize(texts_.size());
  t.special_.resize(texts_.size());
  ids_.reserve(texts_.size());
  for (size_t i = 0; i < texts_.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    t.special_[i] =
        kinds_[i] == kKindControl || kinds_[i] == kKindUserDefined || kinds_[i] == kKindUnknown;
    if (!ids_.emplace(texts_[i], id).second) {
      return Wrong("has token " + std::to_string(i) + " in its vocabulary twice");
    }
    // Padding and byte tokens of other vocabularies may hold characters that stand for no byte.
    if (t.special_[i] || !map.Bytes(texts_[i], &t.pieces_[i])) t.pieces_[i] = texts_[i];
    if (!t.special_[i] || texts_[i].empty()) continue;
    t.special_ids_.emplace(t.pieces_[i], id);
    t.specials_by_length_.push_back(id);
    if (t.special_starts_.find(texts_[i][0]) == std::string::npos) {
      t.special_starts_.push_back(texts_[i][0]);
    }
  }
  std::stable_sort(t.specials_by_length_.begin(), t.specials_by_length_.end(),
                   [&](TokenId a, TokenId b) { return texts_[a].size() > texts_[b].size(); });
  return OkStatus();
}

Status TokenizerLoader::ReadMerges() {
  ASSIGN_OR_RETURN(merge_texts_, file_.GetStringArray("tokenizer.ggml.merges"));
  if (merge_texts_.size() > MergeTable::kMergesMax) {
    return Wrong("has " + std::to_string(merge_texts_.size()) + " merges, beyond " +
                 std::to_string(MergeTable::kMergesMax));
  }
  const ByteMap map;
  std::vector<MergeTable::Merge> merges;
  std::vector<std::string_view> pieces;
  merges.reserve(merge_texts_.size());
  pieces.reserve(merge_texts_.size());
  for (size_t rank = 0; rank < merge_texts_.size(); ++rank) {
    const std::string_view text = merge_texts_[rank];
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
  tokenizer_->merges_.Build(byte_ids, merges, pieces);
  return OkStatus();
}

Status TokenizerLoader::ReadEndToken() {
  constexpr std::string_view kKey = "tokenizer.ggml.eos_token_id";
  if (!file_.Has(kKey)) return OkStatus();
  ASSIGN_OR_RETURN(const uint64_t id, file_.GetUint(kKey));
  if (id >= texts_.size()) {
    return Wrong(std::string(kKey) + " " + std::to_string(id) + " is beyond the vocabulary of " +
                 std::to_string(texts_.size()));
  }
  tokenizer_->end_token_ = static_cast<TokenId>(id);
  return OkStatus();
}

void TokenizerLoader::ComputeDigest() {
  Sha256 hash;
  UpdateSized(&hash, "corpusd tokenizer 1");
  UpdateSized(&hash, pre_);
  UpdateSized(&hash, std::to_string(texts_.size()));
  for (size_t i = 0; i < texts_.size(); ++i) {
    UpdateSized(&hash, texts_[i]);
    UpdateSized(&hash, std::to_string(kinds_[i]));
  }
  UpdateSized(&hash, std::to_string(merge_texts_.size()));
  for (const std::string_view merge : merge_texts_) UpdateSized(&hash, merge);
  UpdateSized(&hash, tokenizer_->end_token_ ? std::to_string(*tokenizer_->end_token_) : "");
  const auto chat_template = file_.GetString("tokenizer.chat_template");
  UpdateSized(&hash, chat_template.ok() ? std::string_view(*chat_template) : std::string_view());
  tokenizer_->digest_hex_ = HexText(hash.Finish());
}

}  // namespace corpusd
