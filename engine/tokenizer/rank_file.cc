#include "engine/tokenizer/rank_file.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>

#include "engine/model/checkpoint_folder.h"
#include "engine/model/json_text.h"
#include "engine/tokenizer/byte_map.h"
#include "engine/tokenizer/merge_table.h"

namespace corpusd {
namespace {

constexpr uint64_t kRankFileBytesMax = uint64_t{64} << 20;
constexpr uint64_t kConfigBytesMax = uint64_t{64} << 20;  // Llama 4's names 1100 tokens
constexpr size_t kTokenBytesMax = 1024;
constexpr int64_t kKindOrdinary = 1;
constexpr int64_t kKindControl = 3;

std::string PathOf(const std::string& folder) { return folder + "/tokenizer.model"; }

// 0..63, or -1.
int Base64Digit(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

// RETURNS false unless text is whole groups of four, padded at the end alone.
bool DecodeBase64(std::string_view text, std::string* bytes) {
  if (text.empty() || text.size() % 4 != 0) return false;
  const size_t padding = text.ends_with("==") ? 2 : text.ends_with('=') ? 1 : 0;
  const std::string_view digits = text.substr(0, text.size() - padding);
  uint32_t group = 0;
  for (size_t i = 0; i < digits.size(); ++i) {
    const int digit = Base64Digit(digits[i]);
    if (digit < 0) return false;
    group = group << 6 | static_cast<uint32_t>(digit);
    // The digits give their 8 bits as soon as there are so many.
    const size_t bits = (i % 4 + 1) * 6;
    if (i % 4 != 0) bytes->push_back(static_cast<char>(group >> (bits % 8) & 0xff));
  }
  return true;
}

// "<|NAME_reserved_special_token_FIRST|>" and so on.
void AddReserved(const std::string& name, uint32_t first, uint32_t count,
                 std::vector<std::string>* tokens) {
  for (uint32_t i = first; i < first + count; ++i) {
    tokens->push_back("<|" + name + "reserved_special_token_" + std::to_string(i) + "|>");
  }
}

// Behind Llama 3's vocabulary (of 3.1; what 3.0 calls otherwise it reserves): 256.
std::vector<std::string> Llama3Tokens() {
  std::vector<std::string> tokens = {"<|begin_of_text|>", "<|end_of_text|>"};
  AddReserved("", 0, 2, &tokens);
  for (const char* const name : {"finetune_right_pad_id", "step_id", "start_header_id",
                                 "end_header_id", "eom_id", "eot_id", "python_tag", "image"}) {
    tokens.push_back("<|" + std::string(name) + "|>");
  }
  AddReserved("", 2, 244, &tokens);
  return tokens;
}

// Behind Llama 4's: 2048.
std::vector<std::string> Llama4Tokens() {
  std::vector<std::string> tokens;
  const auto add = [&](std::initializer_list<const char*> names) {
    for (const char* const name : names) tokens.push_back("<|" + std::string(name) + "|>");
  };
  add({"begin_of_text", "end_of_text", "fim_prefix", "fim_middle", "fim_suffix", "header_start",
       "header_end", "eom", "eot", "step"});
  AddReserved("text_post_train_", 0, 6, &tokens);
  add({"python_start", "python_end", "finetune_right_pad"});
  AddReserved("text_post_train_", 8, 61, &tokens);
  add({"image_start", "image_end"});
  AddReserved("vision_", 0, 2, &tokens);
  add({"tile_x_separator", "tile_y_separator"});
  AddReserved("vision_", 2, 4, &tokens);
  add({"image"});
  AddReserved("vision_", 6, 1, &tokens);
  add({"patch"});
  AddReserved("vision_", 7, 1041, &tokens);
  AddReserved("reasoning_", 0, 8, &tokens);
  add({"reasoning_thinking_start", "reasoning_thinking_end"});
  AddReserved("", 0, 2048 - static_cast<uint32_t>(tokens.size()), &tokens);
  return tokens;
}

class RankFile {
 public:
  RankFile(std::string folder, TokenizerTables* tables)
      : folder_(std::move(folder)), tables_(*tables) {}

  Status Read() {
    tables_.where = PathOf(folder_);
    tables_.merges_by_id = true;
    tables_.whole_words = true;
    ASSIGN_OR_RETURN(const bool llama4, IsLlama4());
    tables_.pre = llama4 ? "llama4" : "llama-bpe";
    ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(tables_.where, kRankFileBytesMax));
    RETURN_IF_ERROR(ReadLines(text));
    ASSIGN_OR_RETURN(const bool named, ReadNamedTokens());
    if (named) return OkStatus();
    for (std::string& token : llama4 ? Llama4Tokens() : Llama3Tokens()) {
      tables_.texts.push_back(std::move(token));
      tables_.kinds.push_back(kKindControl);
    }
    return OkStatus();
  }

 private:
  Status Wrong(const std::string& what) const {
    return InvalidArgumentError(tables_.where + ": " + what);
  }

  Result<bool> IsLlama4() const {
    ASSIGN_OR_RETURN(const nlohmann::json config,
                     ReadJsonFile(folder_ + "/config.json", kConfigBytesMax));
    const nlohmann::json* const type = FindMember(config, "model_type");
    const std::string family = type != nullptr && type->is_string() ? type->get<std::string>() : "";
    if (family == "llama") return false;
    if (family.starts_with("llama4")) return true;
    return UnimplementedError(tables_.where +
                              ": without tokenizer.json this file is read of Llama "
                              "3 and Llama 4, not of '" +
                              family + "'");
  }

  Status ReadLines(std::string_view text) {
    const ByteMap map;
    std::array<bool, 256> has_byte{};
    for (size_t line = 1; !text.empty(); ++line) {
      const size_t end = std::min(text.find('\n'), text.size());
      std::string_view rest = text.substr(0, end);
      text.remove_prefix(std::min(end + 1, text.size()));
      if (rest.ends_with('\r')) rest.remove_suffix(1);
      if (rest.empty()) continue;
      std::string bytes;
      RETURN_IF_ERROR(ReadLine(rest, line, &bytes));
      if (bytes.size() == 1) has_byte[static_cast<uint8_t>(bytes[0])] = true;
      std::string stand_ins;
      for (const char byte : bytes) stand_ins += map.Text(static_cast<uint8_t>(byte));
      tables_.texts.push_back(std::move(stand_ins));
      tables_.kinds.push_back(kKindOrdinary);
    }
    const auto missing = std::find(has_byte.begin(), has_byte.end(), false);
    if (missing == has_byte.end()) return OkStatus();
    return Wrong("has no token for the byte " + std::to_string(missing - has_byte.begin()));
  }

  // "aGVsbG8= 123"
  Status ReadLine(std::string_view text, size_t line, std::string* bytes) const {
    const std::string where = "line " + std::to_string(line);
    const size_t space = text.find(' ');
    const bool decoded =
        space != std::string_view::npos && DecodeBase64(text.substr(0, space), bytes);
    if (!decoded && tables_.texts.empty()) {
      return UnimplementedError(tables_.where + ": is not lines of base64 and a number, and of " +
                                "SentencePiece's files tokenizer.json is read");
    }
    if (!decoded) return Wrong(where + " is not base64, a space and a number");
    const std::string_view number = text.substr(space + 1);
    uint64_t rank = 0;
    const auto read = std::from_chars(number.data(), number.data() + number.size(), rank);
    if (read.ec != std::errc() || read.ptr != number.data() + number.size()) {
      return Wrong(where + " is not base64, a space and a number");
    }
    if (rank != tables_.texts.size()) {
      return Wrong(where + " has rank " + std::to_string(rank) + ", expected " +
                   std::to_string(tables_.texts.size()));
    }
    if (rank >= MergeTable::kVocabularyMax || bytes->size() > kTokenBytesMax) {
      return Wrong(where + " is beyond " + std::to_string(MergeTable::kVocabularyMax) +
                   " tokens of " + std::to_string(kTokenBytesMax) + " bytes");
    }
    return OkStatus();
  }

  // RETURNS false if tokenizer_config.json names no tokens behind the vocabulary.
  Result<bool> ReadNamedTokens() {
    const std::string path = folder_ + "/tokenizer_config.json";
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored)) return false;
    ASSIGN_OR_RETURN(const nlohmann::json config, ReadJsonFile(path, kConfigBytesMax));
    const nlohmann::json* const added = FindMember(config, "added_tokens_decoder");
    if (added == nullptr || !added->is_object() || added->empty()) return false;
    const size_t ranks = tables_.texts.size();
    tables_.texts.resize(ranks + added->size());
    tables_.kinds.resize(ranks + added->size());  // 0: not given yet
    for (const auto& [id_text, token] : added->items()) {
      const nlohmann::json* const content = FindMember(token, "content");
      uint64_t id = 0;
      const char* const end = id_text.data() + id_text.size();
      const auto read = std::from_chars(id_text.data(), end, id);
      const bool free = read.ec == std::errc() && read.ptr == end && id >= ranks &&
                        id < tables_.texts.size() && tables_.kinds[id] == 0;
      if (!free || content == nullptr || !content->is_string()) {
        return InvalidArgumentError(path + ": token '" + id_text + "' of 'added_tokens_decoder' " +
                                    "is not one of the " + std::to_string(added->size()) +
                                    " behind the " + std::to_string(ranks) + " of " +
                                    "tokenizer.model");
      }
      tables_.texts[id] = content->get<std::string>();
      tables_.kinds[id] = kKindControl;
    }
    return true;
  }

  const std::string folder_;
  TokenizerTables& tables_;
};

}  // namespace

bool HasRankFile(const std::string& folder) {
  std::error_code ignored;
  return std::filesystem::exists(PathOf(folder), ignored);
}

Status ReadRankFile(const std::string& folder, TokenizerTables* tables) {
  return RankFile(folder, tables).Read();
}

}  // namespace corpusd
