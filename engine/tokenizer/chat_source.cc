// Where model files keep their chat template and what goes with it.
#include <filesystem>

#include "engine/model/checkpoint_folder.h"
#include "engine/model/gguf.h"
#include "engine/model/json_text.h"
#include "engine/tokenizer/chat_layout.h"

namespace corpusd {
namespace {

constexpr uint64_t kSmallBytesMax = uint64_t{4} << 20;
constexpr size_t kEndTokensMax = 64;

bool Exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

std::string TextOf(const nlohmann::json* value) {
  return value != nullptr && value->is_string() ? value->get<std::string>() : "";
}

// A string, or an object with the string as its content.
std::string TokenText(const nlohmann::json* value) {
  if (value == nullptr) return "";
  return TextOf(value->is_object() ? FindMember(*value, "content") : value);
}

// One template, or a list of named ones, of which "default" or the first.
std::string TemplateText(const nlohmann::json* value) {
  if (value == nullptr || !value->is_array()) return TextOf(value);
  std::string text;
  for (const nlohmann::json& entry : *value) {
    const bool is_default = TextOf(FindMember(entry, "name")) == "default";
    if (text.empty() || is_default) text = TextOf(FindMember(entry, "template"));
    if (is_default) break;
  }
  return text;
}

// generation_config.json comes before config.json; one end token or several.
Status ReadTokenIds(const std::string& folder, bool wants_start, ChatSource* source) {
  for (const char* const name : {"/generation_config.json", "/config.json"}) {
    if (!Exists(folder + name)) continue;
    ASSIGN_OR_RETURN(const nlohmann::json config, ReadJsonFile(folder + name, kSmallBytesMax));
    const nlohmann::json* const start = FindMember(config, "bos_token_id");
    uint64_t start_id = 0;
    if (wants_start && !source->start_token && start != nullptr &&
        ReadWholeNumber(*start, &start_id)) {
      source->start_token = start_id;
    }
    if (!source->end_tokens.empty()) continue;
    const nlohmann::json* const end = FindMember(config, "eos_token_id");
    if (end == nullptr) continue;
    const nlohmann::json one = nlohmann::json::array({*end});
    for (const nlohmann::json& value : end->is_array() ? *end : one) {
      uint64_t id = 0;
      if (!ReadWholeNumber(value, &id) || source->end_tokens.size() >= kEndTokensMax) continue;
      source->end_tokens.push_back(id);
    }
  }
  return OkStatus();
}

}  // namespace

Result<ChatSource> ReadFolderChat(const std::string& folder) {
  ChatSource source;
  source.where = folder;
  bool wants_start = false;
  const std::string path = folder + "/tokenizer_config.json";
  if (Exists(path)) {
    ASSIGN_OR_RETURN(const nlohmann::json config, ReadJsonFile(path, kSmallBytesMax));
    source.text = TemplateText(FindMember(config, "chat_template"));
    source.bos_text = TokenText(FindMember(config, "bos_token"));
    source.eos_text = TokenText(FindMember(config, "eos_token"));
    const nlohmann::json* const flag = FindMember(config, "add_bos_token");
    wants_start = flag != nullptr && *flag == true;
  }
  if (Exists(folder + "/chat_template.jinja")) {
    ASSIGN_OR_RETURN(source.text, ReadSmallFile(folder + "/chat_template.jinja", kSmallBytesMax));
  }
  RETURN_IF_ERROR(ReadTokenIds(folder, wants_start, &source));
  return source;
}

Result<ChatSource> ReadGgufChat(const GgufFile& file) {
  ChatSource source;
  source.where = file.path();
  constexpr std::string_view kKey = "tokenizer.chat_template";
  if (file.Has(kKey)) {
    ASSIGN_OR_RETURN(source.text, file.GetString(kKey));
  }
  const auto texts = file.GetStringArray("tokenizer.ggml.tokens");
  const auto text_of = [&](std::string_view key, std::optional<uint64_t>* id) {
    const auto token = file.GetUint(key);
    if (!token.ok() || !texts.ok() || *token >= texts->size()) return std::string();
    *id = *token;
    return std::string((*texts)[*token]);
  };
  std::optional<uint64_t> bos, end;
  source.bos_text = text_of("tokenizer.ggml.bos_token_id", &bos);
  source.eos_text = text_of("tokenizer.ggml.eos_token_id", &end);
  if (end) source.end_tokens.push_back(*end);
  for (const char* const key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    end.reset();
    text_of(key, &end);
    if (end) source.end_tokens.push_back(*end);
  }
  const auto wanted = file.GetBool("tokenizer.ggml.add_bos_token");
  if (bos && wanted.ok() && *wanted) source.start_token = *bos;
  return source;
}

}  // namespace corpusd
