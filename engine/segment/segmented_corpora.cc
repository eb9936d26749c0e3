#include "engine/segment/segmented_corpora.h"

#include <algorithm>
#include <chrono>

#include "engine/segment/companions.h"
#include "engine/segment/segment_answer.h"

namespace corpusd {
namespace {

// Blocks of one read when a whole corpus is read.
constexpr size_t kReadBlocks = 64;

}  // namespace

std::string ModeField(const SegmentRule& rule) {
  if (rule.window_tokens == 0) return "exact";
  return "segmented-" + std::to_string(rule.window_tokens) + "-" +
         std::to_string(rule.overlap_tokens);
}

SegmentedCorpora::SegmentedCorpora(const ComputeContext& context, BlockStore& store,
                                   const Tokenizer& tokenizer, const ChatTemplate& chat,
                                   DecodeBatcher& batcher, const EngineOptions& options,
                                   FindHeads find_heads)
    : context_(context),
      store_(store),
      tokenizer_(tokenizer),
      chat_(chat),
      batcher_(batcher),
      scanner_(options.threads, options.isa),
      find_heads_(std::move(find_heads)) {}

Result<LoadedCorpora*> SegmentedCorpora::Loaded() {
  const std::lock_guard<std::mutex> lock(finding_);
  if (loaded_ == nullptr) {
    ASSIGN_OR_RETURN(RetrievalHeads heads, find_heads_(scanner_));
    index_layout_ =
        std::make_unique<const IndexLayout>(std::move(heads), context_.model.config().rope);
    loaded_ = std::make_unique<LoadedCorpora>(store_, tokenizer_, *index_layout_, scanner_);
  }
  return loaded_.get();
}

Status SegmentedCorpora::Prefill(CorpusRecord* record, const KvLayout& layout,
                                 std::span<const TokenId> tokens,
                                 const std::function<void(const PrefillProgress&)>& progress,
                                 const std::stop_token& stop, std::shared_ptr<RankLeader> ranks) {
  RETURN_IF_ERROR(CheckSegmented(*record, kBlockTokens));
  ASSIGN_OR_RETURN(LoadedCorpora* const loaded, Loaded());
  const auto corpus =
      std::make_shared<LoadedCorpus>(*record, std::vector<TokenId>(tokens.begin(), tokens.end()));
  std::vector<std::shared_ptr<const LoadedCorpus>> donors;
  for (const std::string& name : {record->replaces, PreviousName(record->replaces)}) {
    if (record->replaces.empty()) break;
    if (const auto other = store_.GetCorpus(name); other.ok()) {
      donors.push_back(loaded->Find(*other));
    }
  }
  IndexBuilder builder(*corpus, layout, tokenizer_, loaded->index_layout(), scanner_, store_,
                       std::move(donors));
  // What an interrupted prefill had made durable.
  while (builder.blocks() < record->chain.size()) {
    if (stop.stop_requested()) return CancelledError("the prefill was stopped");
    RETURN_IF_ERROR(builder.AddStored(
        std::min<uint64_t>(builder.blocks() + kReadBlocks, record->chain.size())));
  }
  const auto add = [&](uint64_t first, std::span<const std::span<const std::byte>> payloads) {
    CHECK(first == builder.blocks()) << first;
    return builder.Add(payloads);
  };
  RETURN_IF_ERROR(PrefillSegments(
      {context_, store_, corpus->text(), layout, stop, std::move(ranks)}, record, progress, add));
  corpus->index = builder.Take();
  loaded->Keep(corpus);
  return OkStatus();
}

// The index may have to be made from blocks that are damaged.
Result<std::shared_ptr<const LoadedCorpus>> SegmentedCorpora::Load(const SegmentRequest& request) {
  ASSIGN_OR_RETURN(LoadedCorpora* const loaded, Loaded());
  auto corpus = loaded->Get(request.record, request.layout);
  const StatusCode code = corpus.status().code();
  if (code != StatusCode::kNotFound && code != StatusCode::kCorruption) return corpus;
  ASSIGN_OR_RETURN(const auto tokens, store_.CorpusTokens(request.record.name));
  RETURN_IF_ERROR(Repair(request.record, request.layout, tokens).status());
  return loaded->Get(request.record, request.layout);
}

Result<uint64_t> SegmentedCorpora::LoadIndexes(const std::stop_token& stop) {
  std::vector<CorpusRecord> records = store_.ListCorpora();
  std::erase_if(records, [](const CorpusRecord& record) {
    return record.state != CorpusState::kReady || record.segments.window_tokens == 0;
  });
  if (records.empty()) return 0;
  const auto last_used = [](const CorpusRecord& record) {
    return std::max(record.last_used_at_ms, record.created_at_ms);
  };
  std::stable_sort(records.begin(), records.end(), [&](const auto& one, const auto& other) {
    return last_used(one) > last_used(other);
  });
  ASSIGN_OR_RETURN(LoadedCorpora* const loaded, Loaded());
  uint64_t count = 0;
  for (const CorpusRecord& record : records) {
    if (stop.stop_requested()) return CancelledError("the indexes were not all loaded");
    if (loaded->LoadAhead(record, stop)) ++count;
  }
  return count;
}

Result<GenerationReport> SegmentedCorpora::Answer(const SegmentRequest& request,
                                                  QuestionReport* report) {
  const auto start = std::chrono::steady_clock::now();
  if (request.question.no_cache) {
    return InvalidArgumentError("corpus '" + request.record.name +
                                "' is segmented: its blocks cannot be computed for one question");
  }
  ASSIGN_OR_RETURN(const RetrievalPolicy policy, ParseRetrievalPolicy(request.question.retrieval));
  ASSIGN_OR_RETURN(const auto corpus, Load(request));
  const std::span<const TokenId> prompt = request.generation.prompt;
  const std::stop_token& stop = request.stop;
  // What the context leaves beside the question and its answer.
  const uint64_t room = context_.model.config().context_tokens - prompt.size() -
                        request.generation.max_tokens - corpus->text().preamble().size();
  const uint32_t asked = request.question.budget_tokens;
  SegmentQuestion question{context_,
                           store_,
                           *corpus,
                           scanner_,
                           request.layout,
                           request.question.question,
                           prompt,
                           chat_.QuestionWords(prompt),
                           policy,
                           static_cast<uint32_t>(room),
                           RetrievalRule().blocks_max,
                           stop};
  if (asked > 0) {
    const auto preamble = static_cast<uint32_t>(corpus->text().preamble().size());
    const RetrievalRule rule;
    question.budget_tokens = std::min(question.budget_tokens, asked - std::min(asked, preamble));
    question.blocks_max =
        std::max(1U, question.budget_tokens / (rule.tokens_before + rule.tokens_behind));
  }
  SegmentAnswer answer(question);
  ASSIGN_OR_RETURN(KvSequence* const kv, answer.Begin());
  GenerationRequest generation = request.generation;
  generation.watcher = &answer;
  generation.prompt = answer.prompt();
  const std::chrono::duration<double, std::milli> before = std::chrono::steady_clock::now() - start;
  auto generated =
      Generate(context_, batcher_, tokenizer_, chat_, *kv, generation, request.sink, request.stop);
  if (generated.ok()) report->first_token_ms += before.count() + generated->first_token_ms;
  answer.Report(tokenizer_, report);
  return generated;
}

Result<uint64_t> SegmentedCorpora::Repair(const CorpusRecord& record, const KvLayout& layout,
                                          std::span<const TokenId> tokens) {
  RETURN_IF_ERROR(CheckSegmented(record, kBlockTokens));
  const CorpusChain chain(record, kBlockTokens);
  const std::vector<Digest> digests = chain.Digests(record.root, tokens);
  const SegmentedText text{tokens, &chain, digests};
  const std::stop_token never;
  return RepairSegments({context_, store_, text, layout, never}, record);
}

Result<FetchStats> SegmentedCorpora::FetchAll(
    const CorpusRecord& record,
    const std::function<Status(std::span<const Digest>, std::span<const BlockRef>)>& each) {
  FetchStats all;
  const std::span<const Digest> chain(record.chain);
  for (size_t first = 0; first < chain.size(); first += kReadBlocks) {
    FetchStats stats;
    const auto digests = chain.subspan(first, std::min(kReadBlocks, chain.size() - first));
    const auto refs = store_.Fetch(digests, &stats);
    Status status = refs.status();
    if (status.ok()) AddFetch(stats, &all);
    if (status.ok()) status = each(digests, *refs);
    if (status.code() == StatusCode::kResourceExhausted) break;  // as far as they fit
    RETURN_IF_ERROR(status);
  }
  return all;
}

Result<FetchStats> SegmentedCorpora::Warm(const CorpusRecord& record) {
  return FetchAll(record, [](auto, auto) { return OkStatus(); });
}

Result<Engine::DeviceWarming> SegmentedCorpora::WarmDevice(const CorpusRecord& record) {
  Engine::DeviceWarming warmed;
  const auto promote = [&](std::span<const Digest> digests, std::span<const BlockRef> refs) {
    std::vector<Digest> whole;
    std::vector<BlockRef> blocks;
    for (size_t i = 0; i < refs.size(); ++i) {
      if (!refs[i].valid()) continue;
      whole.push_back(digests[i]);
      blocks.push_back(refs[i]);
    }
    auto bytes = store_.PromoteToDevice(whole, blocks, /*stop=*/{});
    if (bytes.ok()) warmed.device_bytes += *bytes;
    return bytes.status();
  };
  ASSIGN_OR_RETURN(warmed.loaded, FetchAll(record, promote));
  return warmed;
}

}  // namespace corpusd
