// engine/engine.h -- tokens in, tokens out: one model on one backend over one store. Composes
// kernels with the store; knows no socket, no job, no client. Thread-safe: prefills and questions
// may run on many threads at once; they take turns on the backend through a compute gate, questions
// first.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "engine/decode/prompt_report.h"
#include "engine/decode/sampling.h"
#include "engine/engine_observer.h"
#include "engine/ranks/rank_plan.h"
#include "engine/ranks/rank_status.h"
#include "engine/tokenizer/chat_message.h"
#include "store/base/result.h"
#include "store/block_store.h"
#include "store/corpus_shape.h"
#include "store/section_reader.h"

namespace corpusd {

class DeviceSource;  // engine/ranks/device_source.h

// Ranks that compute and keep together; without either, the engine is alone.
struct EngineRanks {
  // Of ranks in this process, the first included, such as {"cpu", "cpu"}, {"cuda:0", "cuda:1"}.
  std::vector<std::string> devices;
  uint64_t device_bytes = 0;  // of each but the first: of its device tier; 0: half of what is free
  std::shared_ptr<DeviceSource> source;  // of all devices; null: those of this host
  // Lines of a rank file: this is its first, the others are processes.
  std::vector<std::string> addresses;
  // Ranks that share the weights: of each so many that follow one another the first has a part of
  // the text, and the others nothing but weights. Divides the number of all. Devices that share
  // them are those of one process: with a rank file, of whose lines each is a part of the text
  // then, `devices` are so many.
  uint32_t tensor_ranks = 1;
  // Of the lines of the rank file, or of the ranks in this process: every so many a part of the
  // text.
  uint32_t stride() const { return addresses.empty() || devices.size() < 2 ? tensor_ranks : 1; }
  // Devices of this process that share its weights, if any do: from which on.
  std::vector<std::string> DevicesFrom(size_t first) const {
    const size_t end = std::min(devices.size(), first + tensor_ranks);
    if (tensor_ranks < 2 || first >= end) return {};
    return {devices.begin() + static_cast<ptrdiff_t>(first),
            devices.begin() + static_cast<ptrdiff_t>(end)};
  }
  std::string store_id;  // of the data folder: other ranks keep blocks for it alone
  std::chrono::milliseconds timeout{300'000};  // how long a rank is waited for before it is lost
  std::function<void(const std::string& what)> on_change;  // any thread; may be empty
};

struct EngineOptions {
  std::string model_path;  // a GGUF file, or a folder with config.json and safetensors
  // As what matrices are kept that are stored wider: "auto" (as they are), "bf16", "int8", "int4".
  std::string weights = "auto";
  std::function<void(uint32_t layers_done, uint32_t layers)> on_layer_loaded;  // may be empty
  std::string device = "cpu";      // "auto", "cpu", "cuda:0"
  std::string isa = "auto";        // lowers the CPU's instruction set: "avx2", "avx512", "amx"
  std::string kv_format = "auto";  // of new corpora; "auto": kDefaultKvFormat where heads allow it
  std::string tenant_salt;         // a secret: enters every chain root, with the tenant's name
  std::string cache_dir;           // where the weights digest is remembered; "": nowhere
  // A corpus whose coded sample is further from the exact one than this (mean KLD, nats) is worth a
  // warning.
  double quality_kld_max = 0.05;
  std::string calibration_dir;    // where calibrations of coded formats are kept; "": nowhere
  std::string calibration_cache;  // a second folder, shared with other data folders; "": none
  std::string calibration_text;   // a text file to calibrate on; "": the bundled one
  // While a calibration is made: windows done, of how many.
  std::function<void(size_t done, size_t windows)> on_calibration;
  // Query heads that find what answers a question, such as "18.6,18.7" (layer, head); "": what is
  // known of the model, else they are looked for at the first segmented corpus, and kept as
  // calibrations are.
  std::string retrieval_heads;
  // While they are looked for: passes done, of how many.
  std::function<void(size_t done, size_t passes)> on_head_search;
  // Told once that the device does not answer any more: what it was doing has failed, and so will
  // all that follows. On any thread; may be empty.
  std::function<void(const Status& why)> on_device_lost;
  unsigned threads = 0;  // 0: all cores; of several ranks in this process, of all together
  EngineRanks ranks;
  // Memory for what was computed of prompts without a corpus; 0: nothing is kept.
  uint64_t prompt_cache_bytes = 0;
  EngineObserver* observer = nullptr;  // told of answers and of what prefills compute; may be null
};

struct ModelSummary {
  std::string name;    // general.name of the file, or the folder's name
  std::string digest;  // hex SHA-256 of the weights
  std::string architecture;
  std::string backend;  // "cpu-avx2", "cuda:0 (NVIDIA H200)"
  uint64_t context_tokens = 0;
  uint64_t parameters = 0;
  uint32_t vocabulary = 0;
  double quality_kld_max = 0;         // of EngineOptions
  uint64_t segmented_tokens_max = 0;  // of a segmented corpus; exact ones: the context
};

// Turns streamed sources into the token ids of one corpus: [chat prefix][source 0][source 1]...
class CorpusTokenizer {
 public:
  virtual ~CorpusTokenizer() = default;
  virtual void BeginSource(std::string_view path) = 0;
  virtual void Append(std::string_view bytes) = 0;
  virtual void EndSource() = 0;
  virtual uint64_t tokens() const = 0;  // so far, the prefix included
  // Makes every source begin with a line that names it, as documents of a segmented corpus do. No
  // other source may follow.
  virtual void NameDocuments() = 0;
  // Moves the results out. No call may follow.
  virtual std::vector<TokenId> TakeTokens() = 0;
  virtual std::vector<CorpusSource> TakeSources() = 0;
};

struct CorpusRequest {
  std::string name;
  std::string mode = "auto";  // "auto": exact if it fits the model's context; "exact", "segmented"
  std::string kv_format;      // "": the engine's default
  std::string preamble;       // system text; "": the model's own
  std::optional<CorpusPin> pin;
  int64_t expires_at_ms = 0;
  RetentionPriority priority = RetentionPriority::kNormal;
  uint64_t skipped_files = 0;
  std::vector<std::string> roots;  // what the client was told to read: kept for its next update
  // A segmented corpus that stands, whose sources these now are: the new one is made beside it and
  // takes its place when it is ready. name is then that of the corpus that stands.
  bool update = false;
};

struct PrefillProgress {
  uint64_t done_tokens = 0;  // durable
  uint64_t total_tokens = 0;
  uint64_t reused_tokens = 0;  // found in the store instead of computed
  uint64_t written_bytes = 0;
  SectionReads history;  // of the part that the host tier does not hold
};

inline constexpr uint32_t kAnswerTokensDefault = 128;

struct QuestionRequest {
  std::string corpus;  // "": none, the model answers by itself
  std::string question;
  // The conversation that ends with the question; empty: the question is all of it.
  std::vector<ChatMessage> messages;
  bool raw = false;  // the question is a text to be gone on with, and no turn of a conversation
  uint32_t max_tokens = 0;  // of each answer; 0: the next, less if there is less room
  uint32_t max_tokens_if_room = kAnswerTokensDefault;
  AnswerOptions answers;
  bool no_cache = false;  // recompute the corpus or the prompt, read and write no block
  // Without a corpus: prompts of one tenant and one salt share what was computed of them.
  std::string tenant;
  std::string cache_salt;
  // Told when the prompt begins to be computed and as it goes on, before any answer. May be empty.
  std::function<void(const PromptProgress&)> on_prompt;
  // Of a segmented corpus; 0 and "": the engine's choice.
  uint32_t budget_tokens = 0;  // of the corpus that the question may attend to, preamble included
  std::string retrieval;       // "fused", "heads", "lexical"
};

// A stretch of the corpus that an answer rests on.
struct Citation {
  std::string source;
  uint64_t first_token = 0;  // of the corpus
  uint64_t tokens = 0;
  uint64_t first_line = 0, last_line = 0;  // of the source, from 1; 0: not text with lines
  double weight = 0;  // share of the attention that the corpus got from the retrieval heads
};

struct QuestionReport {
  std::vector<GeneratedAnswer> answers;  // as many as were asked for, at least one
  std::string answer;                    // the text of the first
  std::string finish_reason;             // of the first
  // completion_tokens: of all answers. recomputed_tokens: of the corpus, because blocks were
  // damaged, or (of a segmented corpus) because they are what the question is about.
  uint64_t prompt_tokens = 0, cached_tokens = 0, recomputed_tokens = 0, completion_tokens = 0;
  // load_ms: how long the question waited for blocks to arrive; reading goes on while it computes.
  double queue_ms = 0, load_ms = 0, first_token_ms = 0, total_ms = 0, decode_tokens_per_s = 0;
  uint64_t device_bytes = 0, host_bytes = 0, disk_bytes = 0;
  uint64_t attended_tokens = 0;
  // Of a segmented corpus; of several answers the citations are the first's.
  std::vector<Citation> citations;  // the heaviest first
  struct Selection {
    uint64_t candidate_blocks = 0;     // of the corpus
    std::vector<uint64_t> blocks;      // attended, in part or whole, the best first
    double select_ms = 0;              // scoring and choosing
    std::vector<uint64_t> top_blocks;  // the best 48 by score, attended or not
  };
  std::optional<Selection> selection;
};

class Engine {
 public:
  // Loads and repacks the weights. store may be null for offline use (no corpora then).
  static Result<std::unique_ptr<Engine>> Create(const EngineOptions& options, BlockStore* store);
  virtual ~Engine() = default;

  virtual const ModelSummary& model() const = 0;
  // Tokens a question may use beside the corpus before the context is full.
  virtual uint64_t reserved_tokens() const = 0;
  // Ids of a text; parse_special: texts of special tokens become those tokens.
  virtual std::vector<TokenId> Tokenize(std::string_view text, bool parse_special) const = 0;
  // The bytes that ids stand for, not always whole UTF-8 characters. kInvalidArgument for an id
  // that the model has not.
  virtual Result<std::string> Detokenize(std::span<const TokenId> ids) const = 0;

  // preamble: as in CorpusRequest. appending: no chat prefix, token spans go on at first_token.
  virtual Result<std::unique_ptr<CorpusTokenizer>> NewCorpusTokenizer(std::string_view preamble,
                                                                      bool appending,
                                                                      uint64_t first_token) = 0;
  // Registers the corpus (state queued) with its tokens. kInvalidArgument if it is too long for the
  // model's context: the text gives count and limit. Nothing is computed yet. Of an update the
  // corpus registered is the one that will take the place of the one named.
  virtual Result<CorpusRecord> CreateCorpus(const CorpusRequest& request,
                                            std::unique_ptr<CorpusTokenizer> tokenizer) = 0;
  // Adds tokens to a ready or evicted corpus (state back to queued); the last partial run is
  // computed anew. kNotReady in any other state.
  virtual Result<CorpusRecord> AppendCorpus(std::string_view name,
                                            std::unique_ptr<CorpusTokenizer> tokenizer) = 0;
  // Computes and publishes what is missing, one run of blocks at a time, until ready. Resumable:
  // what is durable is never computed again. Progress is called after every run. kCancelled if
  // stopped; the durable part stays.
  virtual Status Prefill(std::string_view name,
                         const std::function<void(const PrefillProgress&)>& progress,
                         std::stop_token stop) = 0;
  // Answers a question over a ready corpus, or without one. sink gets pieces of the answers as
  // complete UTF-8; false cancels. Damaged blocks are recomputed from their tokens and repaired on
  // the way. kInvalidArgument: an option outside of its limits, or more tokens than the context has
  // room for; the text names the option and the limit.
  virtual Result<QuestionReport> Ask(const QuestionRequest& request, const AnswerSink& sink,
                                     std::stop_token stop) = 0;
  // Checks every block's checksums; with repair, recomputes damaged and missing ones. progress
  // returning false cancels. RETURNS the report and how many were repaired.
  struct VerifyOutcome {
    VerifyReport report;
    uint64_t repaired = 0;
  };
  virtual Result<VerifyOutcome> Verify(std::string_view name, bool repair,
                                       const std::function<bool(uint64_t, uint64_t)>& progress) = 0;
  // Computes the damaged and missing blocks of a corpus again. RETURNS how many.
  virtual Result<uint64_t> Repair(std::string_view name) = 0;
  // What a corpus of the tenant in this format ("": the default) must be to be served here.
  // kInvalidArgument: the format is unknown. rule: of a segmented corpus; {}: exact.
  virtual Result<CorpusShape> ShapeOf(std::string_view kv_format, const SegmentRule& rule,
                                      std::string_view tenant) const = 0;
  Result<CorpusShape> ShapeOf(std::string_view kv_format, const SegmentRule& rule = {}) const {
    return ShapeOf(kv_format, rule, "");
  }
  // As BlockStore::Evict from the host tier, of the memory of ranks that are other processes and
  // there.
  virtual EvictReport EvictFromRanks(const CorpusRecord& /*record*/, bool /*dry_run*/) {
    return {};
  }
  // Loads the corpus's blocks into the host tier; where ranks have parts of it, each its own.
  virtual Result<FetchStats> Warm(std::string_view name) = 0;
  // Loads them into the host tier and copies them to the device tier; kInvalidArgument if there is
  // none.
  struct DeviceWarming {
    FetchStats loaded;
    uint64_t device_bytes = 0;  // of the corpus, there now
  };
  virtual Result<DeviceWarming> WarmDevice(std::string_view name) = 0;
  // Reads tokens and indexes of segmented corpora into memory, of those asked last first and as far
  // as the memory for them goes, so that nobody waits for that later. A question that comes
  // meanwhile waits for its own corpus alone. RETURNS how many. kCancelled if stopped.
  virtual Result<uint64_t> LoadIndexes(const std::stop_token& /*stop*/) { return 0; }
  // What is kept of prompts without a corpus, and what that was good for.
  virtual PromptCacheUsage prompt_cache() const { return {}; }
  // How long so many devices should take to prefill an exact text of this model together, in the
  // default format, at the rates that were measured (rank_plan.h); link_bytes_s 0: as measured.
  virtual Result<RankTimes> PlanRanks(uint32_t /*ranks*/, uint64_t /*tokens*/,
                                      double /*link_bytes_s*/) const {
    return UnimplementedError("this engine plans for one device");
  }
  // Where the ranks stand.
  virtual RanksReport ranks() const { return {}; }
};

}  // namespace corpusd
