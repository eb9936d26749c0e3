// engine/segment/segmented_corpora.h -- segmented corpora of one engine: made, mended, asked. Keeps
// the tokens and the retrieval index of the last few in memory. Thread-safe; borrows all it is
// given.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "engine/decode/question_runner.h"
#include "engine/engine.h"
#include "engine/retrieval/index_scanner.h"
#include "engine/segment/loaded_corpora.h"
#include "engine/segment/segment_prefill.h"

namespace corpusd {

// A question of a segmented corpus.
struct SegmentRequest {
  const CorpusRecord& record;  // ready
  const KvLayout& layout;      // with the sinks of its preamble
  const QuestionRequest& question;
  const GenerationRequest& generation;
  const AnswerSink& sink;
  const std::stop_token& stop;
};

class SegmentedCorpora {
 public:
  using FindHeads = std::function<Result<RetrievalHeads>(const IndexScanner& scanner)>;
  // options: of threads and instruction set. find_heads: called once, when a corpus is first made
  // or asked, again only after an error.
  SegmentedCorpora(const ComputeContext& context, BlockStore& store, const Tokenizer& tokenizer,
                   const ChatTemplate& chat, DecodeBatcher& batcher, const EngineOptions& options,
                   FindHeads find_heads);

  // Computes and publishes what is missing. layout: with the sinks of the preamble. ranks: to which
  // the documents are dealt; null: there are none.
  Status Prefill(CorpusRecord* record, const KvLayout& layout, std::span<const TokenId> tokens,
                 const std::function<void(const PrefillProgress&)>& progress,
                 const std::stop_token& stop, std::shared_ptr<RankLeader> ranks = nullptr);
  // Fills the report but for what is common to all answers.
  Result<GenerationReport> Answer(const SegmentRequest& request, QuestionReport* report);
  // Computes damaged and missing blocks again. RETURNS how many.
  Result<uint64_t> Repair(const CorpusRecord& record, const KvLayout& layout,
                          std::span<const TokenId> tokens);
  // Reads the corpus's blocks into the host tier, in order, as far as they fit.
  Result<FetchStats> Warm(const CorpusRecord& record);
  // The same, and copies them to the device tier, as far as they fit there.
  Result<Engine::DeviceWarming> WarmDevice(const CorpusRecord& record);

  // As Engine::LoadIndexes. One thread.
  Result<uint64_t> LoadIndexes(const std::stop_token& stop);

 private:
  // Finds the retrieval heads first, if need be.
  Result<LoadedCorpora*> Loaded();
  Result<std::shared_ptr<const LoadedCorpus>> Load(const SegmentRequest& request);
  // Fetches all blocks, some at a time; each(digests, refs) of the fetched, whose error ends it.
  // What does not fit any more ends it, too, and is no error.
  Result<FetchStats> FetchAll(
      const CorpusRecord& record,
      const std::function<Status(std::span<const Digest>, std::span<const BlockRef>)>& each);

  const ComputeContext context_;
  BlockStore& store_;
  const Tokenizer& tokenizer_;
  const ChatTemplate& chat_;
  DecodeBatcher& batcher_;
  const IndexScanner scanner_;
  const FindHeads find_heads_;
  std::mutex finding_;
  std::unique_ptr<const IndexLayout> index_layout_;  // null: not known yet
  std::unique_ptr<LoadedCorpora> loaded_;
};

// As the identity of a corpus has it, such as "segmented-1024-128".
std::string ModeField(const SegmentRule& rule);

}  // namespace corpusd
