// engine/retrieval/needle_corpus.h -- documents with facts hidden in them, and questions for the
// facts: what retrieval heads are found by. Facts stand in running text, among near-identical
// records and in source code. The same for the same text and tokenizer on every host. Pure; any
// thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "store/prefix_hash.h"

namespace corpusd {

using EncodeText = std::function<void(std::string_view text, std::vector<TokenId>* out)>;

struct NeedleQuestion {
  std::string text;
  uint32_t document = 0;
  uint32_t value_token = 0;  // of the document: where what is asked for begins
};

struct NeedleCorpus {
  std::vector<std::vector<TokenId>> documents;  // each of document_tokens
  std::vector<NeedleQuestion> questions;
};

struct NeedleCorpusShape {
  uint32_t documents = 15;
  uint32_t document_tokens = 896;
  uint32_t questions_each = 3;
};

// text: running text that facts are hidden in; read over again from its start if it is too short.
// REQUIRES: text is not empty.
NeedleCorpus MakeNeedleCorpus(std::string_view text, const NeedleCorpusShape& shape,
                              const EncodeText& encode);

}  // namespace corpusd
