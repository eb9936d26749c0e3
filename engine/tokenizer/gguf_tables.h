// engine/tokenizer/gguf_tables.h -- a GGUF file's metadata as tokenizer tables; checks the
// metadata's own kinds only, the loader does the rest. Pure; any thread.
#pragma once

#include "engine/tokenizer/tokenizer_tables.h"
#include "store/base/result.h"

namespace corpusd {

class GgufFile;

// The tables as the file has them. kUnimplemented for a tokenizer or pre-tokenizer of another kind;
// errors of the metadata as GgufFile's.
Result<TokenizerTables> ReadGgufTables(const GgufFile& file);

}  // namespace corpusd
