// engine/tokenizer/rank_file.h -- vocabularies as tiktoken keeps them, in a folder's
// tokenizer.model: a line of base64 and a number for each token, lowest first, and nothing else.
// Which expression cuts words, and what stands behind the last token, is what the family's own
// program says: Llama 3's and Llama 4's. Any thread.
#pragma once

#include <string>

#include "engine/tokenizer/tokenizer_tables.h"
#include "store/base/status.h"

namespace corpusd {

bool HasRankFile(const std::string& folder);

// Everything of tables but chat template and end token. Control tokens are those of
// tokenizer_config.json ("added_tokens_decoder"), or else the family's, by config.json's
// model_type. kInvalidArgument: malformed, with the line; kUnimplemented: another kind of file, or
// another family.
Status ReadRankFile(const std::string& folder, TokenizerTables* tables);

}  // namespace corpusd
