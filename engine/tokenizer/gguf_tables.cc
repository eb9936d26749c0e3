#include "engine/tokenizer/gguf_tables.h"

#include "engine/model/gguf.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/word_rules.h"

namespace corpusd {
namespace {

Status ReadByteLevel(const GgufFile& file, TokenizerTables* tables) {
  ASSIGN_OR_RETURN(tables->pre, file.GetString("tokenizer.ggml.pre"));
  const auto rule = FindWordRule(tables->pre);
  if (!rule) {
    return UnimplementedError(file.path() + ": pre-tokenizer '" + tables->pre +
                              "' is not supported: 'smollm', 'starcoder', 'refact', 'llama-bpe', "
                              "'qwen2', 'llama4' and 'gpt-4o' are");
  }
  // What tokenizer.json says of the same vocabularies, and GGUF leaves to the reader.
  tables->whole_words = *rule == WordRule::kLlama3;
  tables->nfc = *rule == WordRule::kQwen2;
  ASSIGN_OR_RETURN(const auto merges, file.GetStringArray("tokenizer.ggml.merges"));
  tables->merges.assign(merges.begin(), merges.end());
  return OkStatus();
}

Status ReadSentencePiece(const GgufFile& file, TokenizerTables* tables) {
  tables->model = TokenizerModel::kSentencePiece;
  ASSIGN_OR_RETURN(tables->scores, file.GetFloatArray("tokenizer.ggml.scores"));
  const auto prefix = file.GetBool("tokenizer.ggml.add_space_prefix");
  const bool wanted = !prefix.ok() || *prefix;
  tables->space_prefix = wanted ? SpacePrefix::kEverySection : SpacePrefix::kNone;
  if (file.Has("tokenizer.ggml.unknown_token_id")) {
    ASSIGN_OR_RETURN(tables->unknown_token, file.GetUint("tokenizer.ggml.unknown_token_id"));
  }
  return OkStatus();
}

}  // namespace

Result<TokenizerTables> ReadGgufTables(const GgufFile& file) {
  TokenizerTables tables;
  tables.where = file.path();
  ASSIGN_OR_RETURN(const std::string model, file.GetString("tokenizer.ggml.model"));
  if (model != "gpt2" && model != "llama") {
    return UnimplementedError(file.path() + ": tokenizer '" + model +
                              "' is not supported: byte-level BPE ('gpt2') and SentencePiece's "
                              "('llama') are");
  }
  ASSIGN_OR_RETURN(const auto texts, file.GetStringArray("tokenizer.ggml.tokens"));
  tables.texts.assign(texts.begin(), texts.end());
  tables.kinds.assign(texts.size(), 1);
  if (file.Has("tokenizer.ggml.token_type")) {
    ASSIGN_OR_RETURN(tables.kinds, file.GetIntArray("tokenizer.ggml.token_type"));
  }
  RETURN_IF_ERROR(model == "gpt2" ? ReadByteLevel(file, &tables)
                                  : ReadSentencePiece(file, &tables));
  if (file.Has("tokenizer.ggml.eos_token_id")) {
    ASSIGN_OR_RETURN(tables.end_token, file.GetUint("tokenizer.ggml.eos_token_id"));
  }
  const auto chat_template = file.GetString("tokenizer.chat_template");
  if (chat_template.ok()) tables.chat_template = *chat_template;
  return tables;
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::FromGguf(const GgufFile& file) {
  ASSIGN_OR_RETURN(TokenizerTables tables, ReadGgufTables(file));
  return FromTables(std::move(tables));
}

}  // namespace corpusd
