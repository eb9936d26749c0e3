// engine/corpus_tokenizer.h -- CorpusTokenizer of an exact corpus: chat prefix, then every source's
// text, as one running stream of token ids. One thread per object; the tokenizer must outlive it.
#pragma once

#include <memory>

#include "engine/engine.h"
#include "engine/tokenizer/chat_template.h"
#include "engine/tokenizer/tokenizer.h"

namespace corpusd {

// prefix: token ids the corpus starts with. first_token: position of the first of them.
std::unique_ptr<CorpusTokenizer> MakeExactTokenizer(const Tokenizer& tokenizer,
                                                    std::vector<TokenId> prefix,
                                                    uint64_t first_token);

}  // namespace corpusd
