// tokenizer.json, as Hugging Face's tokenizers library writes it: the parts that byte-level BPE
// needs.
#include <algorithm>
#include <filesystem>

#include "engine/model/checkpoint_folder.h"
#include "engine/model/json_text.h"
#include "engine/tokenizer/merge_table.h"
#include "engine/tokenizer/tokenizer_tables.h"
#include "engine/tokenizer/word_rules.h"

namespace corpusd {
namespace {

constexpr uint64_t kTokenizerBytesMax = uint64_t{128} << 20;
constexpr uint64_t kSmallBytesMax = uint64_t{4} << 20;
constexpr int64_t kKindOrdinary = 1;
constexpr int64_t kKindControl = 3;
constexpr int64_t kKindUserDefined = 4;

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
    for (const char* const key : {"byte_fallback", "fuse_unk"}) {
      const nlohmann::json* const flag = FindMember(*model, key);
      if (flag != nullptr && *flag != false) {
        return Unsupported("'" + std::string(key) + "' is not supported: byte-level BPE is");
      }
    }
    if (const auto* const normalizer = FindMember(json_, "normalizer")) {
      return Unsupported("normalizer '" + TextOf(FindMember(*normalizer, "type")) +
                         "' is not supported");
    }
    const nlohmann::json* const whole_words = FindMember(*model, "ignore_merges");
    tables_.whole_words = whole_words != nullptr && *whole_words == true;
    RETURN_IF_ERROR(ReadPreTokenizer());
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

  Status ReadVocabulary(const nlohmann::json* vocabulary) {
    if (vocabulary == nullptr || !vocabulary->is_object()) return Wrong("has no vocabulary");
    for (const auto& [text, id] : vocabulary->items()) {
      RETURN_IF_ERROR(Place(text, &id, kKindOrdinary));
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
};

bool Exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

// generation_config.json comes before config.json; of several tokens the first.
Status ReadEndToken(const std::string& folder, TokenizerTables* tables) {
  for (const char* const name : {"/generation_config.json", "/config.json"}) {
    if (!Exists(folder + name)) continue;
    ASSIGN_OR_RETURN(const nlohmann::json config, ReadJsonFile(folder + name, kSmallBytesMax));
    const nlohmann::json* end = FindMember(config, "eos_token_id");
    if (end != nullptr && end->is_array() && !end->empty()) end = &end->front();
    uint64_t id = 0;
    if (end == nullptr || !ReadWholeNumber(*end, &id)) continue;
    tables->end_token = id;
    return OkStatus();
  }
  return OkStatus();
}

Status ReadChatTemplate(const std::string& folder, TokenizerTables* tables) {
  if (Exists(folder + "/chat_template.jinja")) {
    ASSIGN_OR_RETURN(tables->chat_template,
                     ReadSmallFile(folder + "/chat_template.jinja", kSmallBytesMax));
    return OkStatus();
  }
  const std::string path = folder + "/tokenizer_config.json";
  if (!Exists(path)) return OkStatus();
  ASSIGN_OR_RETURN(const nlohmann::json config, ReadJsonFile(path, kSmallBytesMax));
  tables->chat_template = TextOf(FindMember(config, "chat_template"));
  return OkStatus();
}

}  // namespace

Result<TokenizerTables> ReadTokenizerFolder(const std::string& folder) {
  TokenizerTables tables;
  tables.where = folder + "/tokenizer.json";
  ASSIGN_OR_RETURN(const nlohmann::json json, ReadJsonFile(tables.where, kTokenizerBytesMax));
  RETURN_IF_ERROR(TokenizerJson(json, &tables).Read());
  RETURN_IF_ERROR(ReadEndToken(folder, &tables));
  RETURN_IF_ERROR(ReadChatTemplate(folder, &tables));
  return tables;
}

}  // namespace corpusd
