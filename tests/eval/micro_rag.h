// tests/eval/micro_rag.h -- the systems of long_system.h that read text anew for each question:
// Micro-RAG, the best chunks by BM25 before the question; and the one stretch of text that holds
// the answer, which is the model's own ceiling. One thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tests/eval/bm25.h"
#include "tests/eval/long_system.h"
#include "tests/eval/prompt_answerer.h"

namespace corpusd {

// A corpus's documents cut into chunks of so many tokens, the last of a document shorter.
class ChunkedCorpus {
 public:
  ChunkedCorpus(TokenCoder coder, uint32_t chunk_tokens)
      : coder_(std::move(coder)), chunk_tokens_(chunk_tokens) {}

  // Does nothing for the corpus that it holds already.
  void Load(const LongCorpus& corpus);
  uint32_t chunk_tokens() const { return chunk_tokens_; }
  // The best 48 chunks for a question, or fewer.
  std::vector<size_t> Search(std::string_view question) const {
    return index_->Search(question, 48);
  }
  const std::string& chunk(size_t index) const { return chunks_[index]; }
  // Chunks with a part of the question's line, and of its answer. REQUIRES: the corpus is loaded.
  struct Holders {
    TokenSpan line, answer;  // chunk indices
  };
  Holders FindHolders(const LongCorpus& corpus, const LongQuestion& question) const;

 private:
  const TokenCoder coder_;
  const uint32_t chunk_tokens_;
  const LongCorpus* loaded_ = nullptr;
  std::string loaded_name_;
  std::vector<std::string> chunks_;
  std::vector<size_t> first_chunk_;  // of each document
  std::unique_ptr<Bm25Index> index_;
};

struct RagSettings {
  uint32_t chunks = 4;  // the best one right before the question
  uint32_t answer_tokens = 32;
  size_t questions_max = SIZE_MAX;
};
// Chunked corpora may be shared by several systems. All must outlive the system.
std::unique_ptr<LongSystem> MakeRagSystem(PromptAnswerer& answerer, ChunkedCorpus& chunks,
                                          const FlopModel& flop, RagSettings settings);
// 128 tokens around the fact's line.
std::unique_ptr<LongSystem> MakeBlockAloneSystem(PromptAnswerer& answerer, TokenCoder coder,
                                                 const FlopModel& flop, uint32_t answer_tokens);

}  // namespace corpusd
