// engine/llama_engine.h -- the Engine of llama-family models: its parts and what they share.
// engine.cc builds corpora, engine_query.cc answers questions. Internal to the engine: callers see
// engine.h.
#pragma once

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/backend/device_backend.h"
#include "engine/calibration/calibration_source.h"
#include "engine/corpus_tokenizer.h"
#include "engine/decode/prompt_cache.h"
#include "engine/decode/question_runner.h"
#include "engine/engine.h"
#include "engine/identity.h"
#include "engine/model/model_source.h"
#include "engine/prefill/block_repair.h"
#include "engine/prefill/exact_prefill.h"
#include "engine/prefill/history_in_turn.h"
#include "engine/prefill/prefill_runner.h"
#include "engine/prefill/quality_sample.h"
#include "engine/ranks/leader_prefill.h"
#include "engine/ranks/rank_group.h"
#include "engine/ranks/shared_weights.h"
#include "engine/ranks/tensor_devices.h"
#include "engine/retrieval/head_file.h"
#include "engine/segment/segmented_corpora.h"

namespace corpusd {

// Kept free beside an exact corpus for a question and its answer.
inline constexpr uint64_t kReservedTokens = 512;

// Of new corpora: the smallest that loses no recall (tests/eval/README.md).
inline constexpr std::string_view kDefaultKvFormat = "cq8";

// Of a segmented corpus: the tokens and the index of more would not fit the memory of a small host.
inline constexpr uint64_t kSegmentedTokensMax = uint64_t{16} << 20;

// How long a corpus is kept after an update took its place.
inline constexpr int64_t kPreviousKeptMs = int64_t{24} * 3600 * 1000;

// How often what a computation reads in turn is mended before it fails.
inline constexpr int kMendsMax = 2;
// A stored block is damaged, or has gone.
inline bool IsDamage(const Status& status) {
  return status.code() == StatusCode::kCorruption || status.code() == StatusCode::kNotFound;
}

inline bool IsSegmented(const CorpusRecord& record) { return record.segments.window_tokens != 0; }
// Those that all chains of the corpus begin with, as far as its first block.
std::span<const TokenId> FirstTokens(const CorpusRecord& record, std::span<const TokenId> tokens);

inline double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

class LlamaEngine final : public Engine {
 public:
  Status Open(const EngineOptions& options, BlockStore* store);

  const ModelSummary& model() const override { return summary_; }
  uint64_t reserved_tokens() const override {
    return std::min<uint64_t>(kReservedTokens, summary_.context_tokens / 4);
  }
  std::vector<TokenId> Tokenize(std::string_view text, bool parse_special) const override;
  Result<std::string> Detokenize(std::span<const TokenId> ids) const override;

  Result<std::unique_ptr<CorpusTokenizer>> NewCorpusTokenizer(std::string_view preamble,
                                                              bool appending,
                                                              uint64_t first_token) override {
    std::vector<TokenId> prefix;
    if (!appending) prefix = chat_->CorpusPrefix(preamble);
    return MakeCorpusTokenizer(*tokenizer_, std::move(prefix), first_token);
  }

  Result<CorpusRecord> CreateCorpus(const CorpusRequest& request,
                                    std::unique_ptr<CorpusTokenizer> tokenizer) override;
  Result<CorpusRecord> AppendCorpus(std::string_view name,
                                    std::unique_ptr<CorpusTokenizer> tokenizer) override;
  Status Prefill(std::string_view name, const std::function<void(const PrefillProgress&)>& progress,
                 std::stop_token stop) override;
  Result<QuestionReport> Ask(const QuestionRequest& request, const AnswerSink& sink,
                             std::stop_token stop) override;
  Result<VerifyOutcome> Verify(std::string_view name, bool repair,
                               const std::function<bool(uint64_t, uint64_t)>& progress) override;
  Result<uint64_t> Repair(std::string_view name) override;
  using Engine::ShapeOf;
  Result<CorpusShape> ShapeOf(std::string_view kv_format, const SegmentRule& rule,
                              std::string_view tenant) const override;
  Result<FetchStats> Warm(std::string_view name) override;
  Result<DeviceWarming> WarmDevice(std::string_view name) override;
  Result<uint64_t> LoadIndexes(const std::stop_token& stop) override {
    return segmented_ == nullptr ? Result<uint64_t>(0) : segmented_->LoadIndexes(stop);
  }
  PromptCacheUsage prompt_cache() const override { return prompts_->usage(); }
  Result<RankTimes> PlanRanks(uint32_t ranks, uint64_t tokens, double link_bytes_s) const override;
  RanksReport ranks() const override;
  EvictReport EvictFromRanks(const CorpusRecord& record, bool dry_run) override;

 private:
  // The model and where it runs, and the other ranks, if there are to be any (engine_ranks.cc).
  Status OpenModel();
  Status OpenRanks();
  // The ranks that have parts of the weights (engine_weights.cc).
  Status OpenSharedWeights();
  Status OpenTensorDevices();
  void TellOfWeights(const Status& here, RanksReport* report) const;
  void TellOfDevices(RanksReport* report) const;
  Result<std::unique_ptr<Model>> LoadOverBackend();
  // Null: the engine computes alone, for now or always.
  std::shared_ptr<RankLeader> leader() const {
    return ranks_ == nullptr ? nullptr : ranks_->leader();
  }
  // What is left of an exact corpus, by this engine; what the store has of it was looked up.
  Status PrefillAlone(const ExactText& text, CorpusRecord* record, PrefillProgress* state,
                      const std::function<void(const PrefillProgress&)>& progress,
                      const std::stop_token& stop);
  // The same by all ranks.
  Status PrefillOverRanks(const std::shared_ptr<RankLeader>& leader, const ExactText& text,
                          CorpusRecord* record, PrefillProgress* state,
                          const std::function<void(const PrefillProgress&)>& progress,
                          const std::stop_token& stop);
  // Before a prefill goes on: waits a moment for ranks that have blocks of the corpus, and gives up
  // what still is away, to be computed again.
  // Each rank's blocks into its memory.
  Result<FetchStats> WarmOverRanks(RankLeader& leader, const CorpusRecord& record);
  Status AwaitShelves(const CorpusRecord& record, const std::stop_token& stop);
  // bytes: that each rank of the group is going to write.
  Status MakeRoomOnShelves(const RankLeader& leader, std::span<const uint64_t> bytes,
                           const CorpusRecord& record);
  Status AdoptKnown(const ExactText& text, CorpusRecord* record, PrefillProgress* state);
  // Cuts the corpus to a multiple of so many tokens.
  Status CutToUnit(uint32_t unit_tokens, CorpusRecord* record);
  Status PublishSegment(const ExactText& text, const LeaderPrefill::Segment& segment,
                        double seconds, CorpusRecord* record, PrefillProgress* state);
  ComputeContext context() const { return {*model_, *backend_, gate_}; }
  Status CheckFits(uint64_t tokens) const;
  // Fills what the record says of the corpus when it is whole.
  Status MeasureWhole(CorpusRecord* record) const;
  // How a corpus of so many tokens will be held.
  Result<SegmentRule> RuleOf(const CorpusRequest& request, uint64_t tokens) const;
  Status CheckSegmentsFit(const CorpusRecord& record) const;
  Status BeginUpdate(const CorpusRequest& request, CorpusRecord* record,
                     std::vector<TokenId>* tokens);
  Status TakePlace(const CorpusRecord& record);
  // "": of the options; "auto": kDefaultKvFormat, or bf16 if the model's heads do not allow it.
  Result<KvFormat> FormatOf(std::string_view kv_format) const;
  // What new corpora in a format are written in; calibrates if the format needs it and nothing is
  // kept. Without sinks.
  Result<KvLayout> LayoutOfFormat(std::string_view kv_format) const;
  // What the corpus was written in. kFailedPrecondition, naming the fields, if it was made by
  // another model, format, calibration or tenant. Without sinks.
  Result<KvLayout> LayoutOfRecord(const CorpusRecord& record) const;
  // The same with the sinks of its chain, whose tokens these are; at the priority of a prefill.
  Result<KvLayout> LayoutOfChain(const CorpusRecord& record, std::span<const TokenId> tokens);
  // Gives a coded layout the exact page of the chain that begins so. first_tokens is called if it
  // is not at hand.
  Status AddSinks(const Digest& first_block, ComputePriority priority, const std::stop_token& stop,
                  const std::function<Result<std::vector<TokenId>>()>& first_tokens,
                  KvLayout* layout);
  // AddSinks of a corpus whose tokens these are.
  Status AddSinksOf(const CorpusRecord& record, std::span<const TokenId> tokens,
                    ComputePriority priority, const std::stop_token& stop, KvLayout* layout);
  // Those that the options name, or that are known of the model, or kept; else they are looked for.
  Result<RetrievalHeads> HeadsOfModel(const IndexScanner& scanner) const;
  std::vector<IdentityField> IdentityOf(const KvLayout& layout, const SegmentRule& rule,
                                        std::string_view salt) const;
  Status PrefillExact(CorpusRecord* record, KvLayout* layout, std::span<const TokenId> tokens,
                      const std::function<void(const PrefillProgress&)>& progress,
                      const std::stop_token& stop);
  Status PrefillSegmented(CorpusRecord* record, KvLayout* layout, std::span<const TokenId> tokens,
                          const std::function<void(const PrefillProgress&)>& progress,
                          const std::stop_token& stop);
  // Of a layout with parts: cuts or lengthens the corpus to the last restore point that the store
  // has of its chain, of which so many blocks are stored.
  Status GoToRestorePoint(const KvLayout& layout, std::span<const TokenId> tokens,
                          std::span<const Digest> chain, size_t known_blocks, CorpusRecord* record,
                          PrefillProgress* progress);
  // All blocks are there: the corpus is ready, and takes the place of the one it replaces.
  Status FinishPrefill(CorpusRecord record);
  // Notes what the format costs on a sample of the corpus, once a corpus and only if it costs
  // anything.
  Status RecordQuality(const KvLayout& layout, std::span<const TokenId> tokens,
                       const std::stop_token& stop, CorpusRecord* record);
  Status FailPrefill(CorpusRecord record, const Status& status);
  // Its tokens, and how many each answer may have.
  Result<std::vector<TokenId>> QuestionTokens(const CorpusRecord& record,
                                              const QuestionRequest& request,
                                              uint32_t* max_tokens) const;
  // What comes behind the corpus.
  std::vector<TokenId> SuffixOf(const QuestionRequest& request) const;
  // Without a corpus.
  Result<QuestionReport> AskPlain(const QuestionRequest& request, const AnswerSink& sink,
                                  const std::stop_token& stop);
  // What all answers report; start: when Ask was called.
  static void ReportGenerated(GenerationReport generated,
                              std::chrono::steady_clock::time_point start, QuestionReport* report);
  // One question on its way to an answer.
  struct Question {
    const CorpusRecord& record;
    const KvLayout& layout;
    const GenerationRequest& generation;
    const AnswerSink& sink;
    const std::stop_token& stop;
    std::chrono::steady_clock::time_point start;
  };
  Result<GenerationReport> AnswerOver(const Question& question, KvSequence& kv,
                                      QuestionReport* report);
  Result<GenerationReport> AnswerFromScratch(const Question& question, QuestionReport* report);
  // Computes while the blocks arrive, layer by layer; repairs broken ones first.
  Result<GenerationReport> AnswerFromStore(const Question& question, QuestionReport* report);
  // The same by all ranks. None: the ranks could not begin, and nothing was said yet.
  std::optional<Result<GenerationReport>> AnswerOverRanks(const std::shared_ptr<RankLeader>& leader,
                                                          const Question& question,
                                                          QuestionReport* report);
  // The same for a backend that does not read host memory: from the device tier, else from leased
  // blocks that are copied there first.
  Result<GenerationReport> AnswerOnDevice(const Question& question, QuestionReport* report);
  // Over a corpus that does not fit the host tier: every token of the answer reads what is not
  // leased once.
  Result<GenerationReport> AnswerInTurn(const Question& question, QuestionReport* report);
  // All blocks of the corpus, repaired where need be.
  Result<LeasedCorpus> LeaseCorpus(const CorpusRecord& record);
  // Looks for what is broken of a corpus and computes it again. RETURNS the tokens that it took.
  Result<uint64_t> Mend(const CorpusRecord& record, const KvLayout& layout,
                        const std::stop_token& stop);
  Result<std::unique_ptr<KvSequence>> Recompute(std::span<const TokenId> tokens,
                                                const KvLayout& layout,
                                                const std::stop_token& stop);

  EngineOptions options_;
  BlockStore* store_ = nullptr;
  ModelSummary summary_;
  mutable ComputeGate gate_;
  std::unique_ptr<ModelSource> source_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatTemplate> chat_;
  // The device; over it, where it shares the weights with others of this process, all of those;
  // over that, where several ranks have parts of a text, RankedBackend; over that, where ranks
  // share the weights, theirs. Models are loaded over the last of them.
  std::unique_ptr<Backend> local_backend_;
  std::unique_ptr<TensorDevices> tensor_devices_;
  std::unique_ptr<RankedBackend> ranked_backend_;
  std::unique_ptr<SharedWeights> shared_weights_;
  Backend* backend_ = nullptr;
  std::unique_ptr<Model> model_;
  const Model* local_model_ = nullptr;  // in model_
  std::unique_ptr<CalibrationSource> calibrations_;
  SinkPages sinks_;
  std::unique_ptr<DecodeBatcher> batcher_;
  std::unique_ptr<PromptCache> prompts_;
  std::unique_ptr<SegmentedCorpora> segmented_;  // null without a store
  std::unique_ptr<BlockHolder> holder_;          // of rank 0
  std::unique_ptr<RankShelves> shelves_;         // null: no rank has a disk of its own
  std::unique_ptr<RankGroup> ranks_;             // null: the engine is alone
};

}  // namespace corpusd
