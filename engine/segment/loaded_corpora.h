// engine/segment/loaded_corpora.h -- the last few segmented corpora that were asked or prefilled,
// in memory: their tokens, which block holds which, and the index they are searched by. An index is
// read from the store's sidecar, or made again from the corpus's own blocks. Thread-safe; what it
// returns stays whole while it is held.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <stop_token>
#include <vector>

#include "engine/prefill/prefill_runner.h"
#include "engine/retrieval/corpus_index.h"
#include "engine/segment/segment_runner.h"
#include "engine/tokenizer/tokenizer.h"
#include "store/block_store.h"
#include "store/corpus_chain.h"

namespace corpusd {

struct LoadedCorpus {
  LoadedCorpus(const CorpusRecord& corpus, std::vector<TokenId> ids);
  LoadedCorpus(const LoadedCorpus&) = delete;
  LoadedCorpus& operator=(const LoadedCorpus&) = delete;

  SegmentedText text() const { return {tokens, &chain, digests}; }
  uint64_t bytes() const;  // of memory

  const CorpusRecord record;  // when it was loaded
  const std::vector<TokenId> tokens;
  const CorpusChain chain;
  const std::vector<Digest> digests;
  std::vector<uint32_t> block_tokens;  // of every block
  std::unique_ptr<CorpusIndex> index;
};

// Makes a corpus's index, blocks in order, on the threads of a scanner.
class IndexBuilder {
 public:
  // donors: indexes that may hold some of its blocks. All references must outlive it.
  IndexBuilder(const LoadedCorpus& corpus, const KvLayout& layout, const Tokenizer& tokenizer,
               const IndexLayout& index_layout, const IndexScanner& threads, BlockStore& store,
               std::vector<std::shared_ptr<const LoadedCorpus>> donors);

  // The next blocks: the payload of each, or nothing if it must be read.
  Status Add(std::span<const std::span<const std::byte>> payloads);
  // All blocks before `end`, from the store.
  Status AddStored(uint64_t end);
  uint64_t blocks() const { return index_->blocks(); }
  std::unique_ptr<CorpusIndex> Take() { return std::move(index_); }

 private:
  std::string TextAround(uint64_t block) const;
  // The index of a donor that holds the block, or null.
  const CorpusIndex* DonorOf(uint64_t block) const;
  Status AddSome(std::span<const std::span<const std::byte>> payloads);

  const LoadedCorpus& corpus_;
  const KvLayout& layout_;
  const Tokenizer& tokenizer_;
  const IndexLayout& index_layout_;
  const IndexScanner& threads_;
  BlockStore& store_;
  const std::vector<std::shared_ptr<const LoadedCorpus>> donors_;
  std::unique_ptr<CorpusIndex> index_;
};

class LoadedCorpora {
 public:
  // threads: those that make indexes.
  LoadedCorpora(BlockStore& store, const Tokenizer& tokenizer, const IndexLayout& index_layout,
                const IndexScanner& threads);

  // A ready corpus. layout: as it was written.
  Result<std::shared_ptr<const LoadedCorpus>> Get(const CorpusRecord& record,
                                                  const KvLayout& layout);
  // Loads a ready corpus whose index the store has before anybody asks for it, if it fits beside
  // those that are loaded, or is the first. RETURNS whether it is in memory now because of that;
  // stop: gives up.
  bool LoadAhead(const CorpusRecord& record, const std::stop_token& stop);
  // The one in memory, or whose index the store has; null if there is neither.
  std::shared_ptr<const LoadedCorpus> Find(const CorpusRecord& record);
  // Keeps a corpus whose index was made while it was prefilled, and writes the index down.
  void Keep(std::shared_ptr<const LoadedCorpus> corpus);

  const IndexLayout& index_layout() const { return index_layout_; }

 private:
  // Says that a corpus is being loaded, while it lives: whoever wants the same one waits for that,
  // and nobody else.
  class Claim;

  std::shared_ptr<const LoadedCorpus> FindInMemory(const CorpusRecord& record);
  std::shared_ptr<const LoadedCorpus> FindLocked(uint64_t id);
  Result<std::shared_ptr<const LoadedCorpus>> Read(const CorpusRecord& record,
                                                   const std::stop_token& stop = {});
  void Remember(std::shared_ptr<const LoadedCorpus> corpus);
  // Whether so many bytes more may be kept. REQUIRES: mutex_ is held.
  bool HasRoomFor(uint64_t bytes) const;
  void WriteIndex(const LoadedCorpus& corpus);

  BlockStore& store_;
  const Tokenizer& tokenizer_;
  const IndexLayout& index_layout_;
  const IndexScanner& threads_;
  std::mutex mutex_;
  std::condition_variable claim_ended_;
  std::list<std::shared_ptr<const LoadedCorpus>> loaded_;  // the last used first
  std::set<uint64_t> claimed_;                             // ids
  std::mutex making_;                                      // one index at a time
};

}  // namespace corpusd
