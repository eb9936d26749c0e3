// engine/retrieval/find_retrieval_heads.h -- finds the retrieval heads of a model: questions for
// hidden facts are computed alone, documents alone, as queries over a segmented corpus are; then
// every query head is judged by whether its products lead to the block of the fact. Some tens of
// seconds; one thread calls it, it uses all that the backend and its scanner have. Deterministic on
// one instruction set.
#pragma once

#include <functional>
#include <span>
#include <string_view>

#include "engine/prefill/prefill_runner.h"
#include "engine/retrieval/head_choice.h"
#include "engine/retrieval/index_scanner.h"
#include "engine/retrieval/needle_corpus.h"
#include "engine/tokenizer/chat_template.h"
#include "engine/tokenizer/tokenizer.h"

namespace corpusd {

struct HeadSearch {
  const ComputeContext& context;
  const Tokenizer& tokenizer;
  const ChatTemplate& chat;
  const IndexScanner& scanner;
  // Passes done, of how many; may be empty.
  std::function<void(size_t done, size_t passes)> progress;
};

// Scores of all heads over the documents of MakeNeedleCorpus(text, shape). Each pass takes a turn
// at the gate and offers it between layers.
Result<HeadScores> ScoreAllHeads(const HeadSearch& search, std::string_view text,
                                 const NeedleCorpusShape& shape);

// The chosen ones, over documents that fit the model's context. kInvalidArgument: it has no room
// for one.
Result<RetrievalHeads> FindRetrievalHeads(const HeadSearch& search, std::string_view text);

}  // namespace corpusd
