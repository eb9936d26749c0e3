// engine/corpus_tokenizer.h -- the CorpusTokenizer of both kinds of corpora: chat prefix, then
// every source's text, as one running stream of token ids. One thread per object; the tokenizer
// must outlive it.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "engine/engine.h"
#include "engine/tokenizer/chat_template.h"
#include "engine/tokenizer/tokenizer.h"

namespace corpusd {

// What a document of a segmented corpus begins with; its lines come before the source's own.
std::string DocumentHeader(std::string_view path);

// prefix: token ids the corpus starts with. first_token: position of the first of them.
std::unique_ptr<CorpusTokenizer> MakeCorpusTokenizer(const Tokenizer& tokenizer,
                                                     std::vector<TokenId> prefix,
                                                     uint64_t first_token);

}  // namespace corpusd
