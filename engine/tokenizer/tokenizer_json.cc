// tokenizer.json, as Hugging Face's tokenizers library writes it: the parts that BPE needs, over
// bytes or over characters with byte fallback.
#include <algorithm>
#include <filesystem>

#include "engine/model/checkpoint_folder.h"
#include "engine/model/json_text.h"
#include "engine/tokenizer/chat_layout.h"
#include "engine/tokenizer/merge_table.h"
#include "engine/tokenizer/rank_file.h"
#include "engine/tokenizer/tokenizer_tables.h"
#include "engine/tokenizer/word_rules.h"

namespace corpusd {
namespace {

constexpr uint64_t kTokenizerBytesMax = uint64_t{128} << 20;
constexpr int64_t kKindOrdinary = 1;
constexpr int64_t kKindUnknown = 2;
constexpr int64_t kKindControl = 3;
constexpr int64_t kKindUserDefined = 4;
constexpr int64_t kKindByte = 6;
// What SentencePiece writes for a space.
constexpr std::string_view kSpaceMark = "\xe2\x96\x81";

std::string TextOf(const nlohmann::json* value) {
  return value != nullptr && value->is_string() ? value->get<std::string>() : "";
}

class TokenizerJson {
 public:
  TokenizerJson(const nlohmann::json& json, TokenizerTables* tables)
      : json_(json), tables_(*tables) {}

  Status Read() {
    const nlohmann::json* const model = FindMember(json_, "model");
    if (model == nullptr || TextOf(FindMember(*model, "type")) != "BPE") {
      return Unsupported("its model is not BPE, the only one supported");
    }
    if (IsTrue(FindMember(*model, "byte_fallback"))) {
      RETURN_IF_ERROR(ReadSentencePiece(*model));
    } else {
      if (IsTrue(FindMember(*model, "fuse_unk"))) {
        return Unsupported("'fuse_unk' without 'byte_fallback' is not supported");
      }
      RETURN_IF_ERROR(ReadNormalForm());
      tables_.whole_words = IsTrue(FindMember(*model, "ignore_merges"));
      RETURN_IF_ERROR(ReadPreTokenizer());
    }
    RETURN_IF_ERROR(ReadVocabulary(FindMember(*model, "vocab")));
    RETURN_IF_ERROR(ReadAddedTokens());
    if (std::find(tables_.kinds.begin(), tables_.kinds.end(), 0) != tables_.kinds.end()) {
      return Wrong("its ids have gaps");
    }
    return ReadMerges(FindMember(*model, "merges"));
  }

 private:
  Status Wrong(const std::string& what) const {
    return InvalidArgumentError(tables_.where + ": " + what);
  }
  Status Unsupported(const std::string& what) const {
    return UnimplementedError(tables_.where + ": " + what);
  }

  static bool IsTrue(const nlohmann::json* flag) { return flag != nullptr && *flag == true; }

  // The steps of a normalizer or pre-tokenizer: none, itself, or a sequence's.
  static std::vector<const nlohmann::json*> StepsOf(const nlohmann::json* step,
                                                    const char* members) {
    std::vector<const nlohmann::json*> steps;
    if (step == nullptr || step->is_null()) return steps;
    const nlohmann::json* const list = FindMember(*step, members);
    if (TextOf(FindMember(*step, "type")) != "Sequence" || list == nullptr || !list->is_array()) {
      return {step};
    }
    for (const nlohmann::json& one : *list) steps.push_back(&one);
    return steps;
  }

  Status ReadNormalForm() {
    for (const nlohmann::json* const step :
         StepsOf(FindMember(json_, "normalizer"), "normalizers")) {
      const std::string type = TextOf(FindMember(*step, "type"));
      if (type != "NFC") {
        return Unsupported("normalizer '" + type + "' is not supported: NFC is");
      }
      tables_.nfc = true;
    }
    return OkStatus();
  }

  static bool IsSpacePattern(const nlohmann::json& step) {
    const nlohmann::json* const pattern = FindMember(step, "pattern");
    return pattern != nullptr && TextOf(FindMember(*pattern, "String")) == " ";
  }

  // Spaces become U+2581, by a normalizer or by the pre-tokenizer Metaspace; nothing else is cut.
  Status ReadSentencePiece(const nlohmann::json& model) {
    tables_.model = TokenizerModel::kSentencePiece;
    unknown_text_ = TextOf(FindMember(model, "unk_token"));
    bool replaces = false;
    for (const nlohmann::json* const step :
         StepsOf(FindMember(json_, "normalizer"), "normalizers")) {
      const std::string type = TextOf(FindMember(*step, "type"));
      if (type == "Prepend" && TextOf(FindMember(*step, "prepend")) == kSpaceMark && !replaces) {
        tables_.space_prefix = SpacePrefix::kEverySection;
      } else if (type == "Replace" && IsSpacePattern(*step) &&
                 TextOf(FindMember(*step, "content")) == kSpaceMark) {
        replaces = true;
      } else {
        return Unsupported("normalizer '" + type + "' is not supported beside byte fallback");
      }
    }
    for (const nlohmann::json* const step :
         StepsOf(FindMember(json_, "pre_tokenizer"), "pretokenizers")) {
      const std::string type = TextOf(FindMember(*step, "type"));
      // Of spaces that are none any more.
      if (type == "Split" && replaces && IsSpacePattern(*step)) continue;
      if (type != "Metaspace" || TextOf(FindMember(*step, "replacement")) != kSpaceMark) {
        return Unsupported("pre-tokenizer '" + type + "' is not supported beside byte fallback");
      }
      replaces = true;
      RETURN_IF_ERROR(ReadMetaspace(*step));
    }
    return replaces ? OkStatus() : Unsupported("byte fallback without U+2581 for spaces");
  }

  Status ReadMetaspace(const nlohmann::json& step) {
    std::string scheme = TextOf(FindMember(step, "prepend_scheme"));
    if (scheme.empty()) {
      const nlohmann::json* const prefix = FindMember(step, "add_prefix_space");
      scheme = prefix == nullptr || IsTrue(prefix) ? "always" : "never";
    }
    if (scheme == "always") tables_.space_prefix = SpacePrefix::kEverySection;
    if (scheme == "first") tables_.space_prefix = SpacePrefix::kFirst;
    tables_.prefix_unless_space = true;
    const nlohmann::json* const split = FindMember(step, "split");
    tables_.splits_at_spaces = split == nullptr || IsTrue(split);
    return OkStatus();
  }

  // Numbers one by one, then GPT-2's expression: what GGUF calls 'smollm'. Or one known expression.
  Status ReadPreTokenizer() {
    const nlohmann::json* const pre = FindMember(json_, "pre_tokenizer");
    const nlohmann::json* const steps =
        pre == nullptr ? nullptr : FindMember(*pre, "pretokenizers");
    if (steps != nullptr && steps->is_array() && steps->size() == 2 &&
        IsByteLevel((*steps)[1], false)) {
      if (const auto rule = SplitRule((*steps)[0])) {
        tables_.pre = std::string(WordRuleName(*rule));
        return OkStatus();
      }
    }
    if (steps != nullptr && steps->is_array() && steps->size() == 2 &&
        IsSingleDigits((*steps)[0]) && IsByteLevel((*steps)[1], true)) {
      tables_.pre = "smollm";
      return OkStatus();
    }
    return Unsupported(
        "its pre-tokenizer is not one that is supported: SmolLM2's, Llama 3's, "
        "Llama 4's and Qwen2's are");
  }

  static std::optional<WordRule> SplitRule(const nlohmann::json& step) {
    const nlohmann::json* const pattern = FindMember(step, "pattern");
    const nlohmann::json* const invert = FindMember(step, "invert");
    if (TextOf(FindMember(step, "type")) != "Split" || pattern == nullptr ||
        TextOf(FindMember(step, "behavior")) != "Isolated" ||
        (invert != nullptr && *invert != false)) {
      return std::nullopt;
    }
    return FindWordRuleByPattern(TextOf(FindMember(*pattern, "Regex")));
  }

  static bool IsSingleDigits(const nlohmann::json& step) {
    const nlohmann::json* const single = FindMember(step, "individual_digits");
    return TextOf(FindMember(step, "type")) == "Digits" && single != nullptr && *single == true;
  }
  static bool IsByteLevel(const nlohmann::json& step, bool wants_regex) {
    const nlohmann::json* const prefix = FindMember(step, "add_prefix_space");
    const nlohmann::json* const regex = FindMember(step, "use_regex");
    return TextOf(FindMember(step, "type")) == "ByteLevel" &&
           (prefix != nullptr && *prefix == false) &&
           (regex == nullptr || *regex == true) == wants_regex;
  }

  Status Place(const std::string& text, const nlohmann::json* id_value, int64_t kind) {
    uint64_t id = 0;
    if (id_value == nullptr || !ReadWholeNumber(*id_value, &id) ||
        id >= MergeTable::kVocabularyMax) {
      return Wrong("a token's id is not a whole number below " +
                   std::to_string(MergeTable::kVocabularyMax));
    }
    if (id >= tables_.texts.size()) {
      tables_.texts.resize(id + 1);
      tables_.kinds.resize(id + 1);  // 0: not given yet
    }
    // Added tokens may repeat ones of the vocabulary.
    if (tables_.kinds[id] != 0 && tables_.texts[id] != text) {
      return Wrong("id " + std::to_string(id) + " is given to two tokens");
    }
    tables_.texts[id] = text;
    tables_.kinds[id] = kind;
    return OkStatus();
  }

  int64_t OrdinaryKind(const std::string& text) const {
    if (tables_.model == TokenizerModel::kByteLevel) return kKindOrdinary;
    if (text == unknown_text_) return kKindUnknown;
    return ByteOfToken(text) ? kKindByte : kKindOrdinary;
  }

  Status ReadVocabulary(const nlohmann::json* vocabulary) {
    if (vocabulary == nullptr || !vocabulary->is_object()) return Wrong("has no vocabulary");
    for (const auto& [text, id] : vocabulary->items()) {
      RETURN_IF_ERROR(Place(text, &id, OrdinaryKind(text)));
      if (!unknown_text_.empty() && text == unknown_text_) {
        tables_.unknown_token = id.get<uint64_t>();
      }
    }
    return OkStatus();
  }

  Status ReadAddedTokens() {
    const nlohmann::json* const added = FindMember(json_, "added_tokens");
    if (added == nullptr) return OkStatus();
    if (!added->is_array()) return Wrong("'added_tokens' is not a list");
    for (const nlohmann::json& token : *added) {
      const nlohmann::json* const content = FindMember(token, "content");
      if (content == nullptr || !content->is_string()) return Wrong("an added token has no text");
      const nlohmann::json* const special = FindMember(token, "special");
      const bool control = special != nullptr && *special == true;
      RETURN_IF_ERROR(Place(content->get<std::string>(), FindMember(token, "id"),
                            control ? kKindControl : kKindUserDefined));
    }
    return OkStatus();
  }

  // "left right", or since 2024 ["left", "right"].
  Status ReadMerges(const nlohmann::json* merges) {
    if (merges == nullptr || !merges->is_array()) return Wrong("has no merges");
    for (const nlohmann::json& merge : *merges) {
      if (merge.is_string()) {
        tables_.merges.push_back(merge.get<std::string>());
        continue;
      }
      if (!merge.is_array() || merge.size() != 2 || !merge[0].is_string() ||
          !merge[1].is_string()) {
        return Wrong("a merge is not two tokens");
      }
      tables_.merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
    }
    return OkStatus();
  }

  const nlohmann::json& json_;
  TokenizerTables& tables_;
  std::string unknown_text_;
};

}  // namespace

Result<TokenizerTables> ReadTokenizerFolder(const std::string& folder) {
  TokenizerTables tables;
  tables.where = folder + "/tokenizer.json";
  std::error_code ignored;
  if (!std::filesystem::exists(tables.where, ignored) && HasRankFile(folder)) {
    RETURN_IF_ERROR(ReadRankFile(folder, &tables));
  } else {
    ASSIGN_OR_RETURN(const nlohmann::json json, ReadJsonFile(tables.where, kTokenizerBytesMax));
    RETURN_IF_ERROR(TokenizerJson(json, &tables).Read());
  }
  ASSIGN_OR_RETURN(const ChatSource chat, ReadFolderChat(folder));
  tables.chat_template = chat.text;
  if (!chat.end_tokens.empty()) tables.end_token = chat.end_tokens.front();
  return tables;
}

}  // namespace corpusd
