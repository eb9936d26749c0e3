#include <algorithm>
#include <chrono>

#include "engine/llama_engine.h"

namespace corpusd {

Result<std::vector<TokenId>> LlamaEngine::QuestionTokens(const CorpusRecord& record,
                                                         const QuestionRequest& request,
                                                         uint32_t* max_tokens) const {
  std::vector<TokenId> tokens = SuffixOf(request);
  const uint64_t context = summary_.context_tokens;
  // Of a segmented corpus at least the preamble and one block are attended to.
  const uint64_t corpus =
      IsSegmented(record) ? record.sources.front().first_token + kBlockTokens : record.tokens;
  if (corpus + tokens.size() + 1 > context) {
    return InvalidArgumentError(
        "the question has " + std::to_string(tokens.size()) + " tokens; beside the corpus's " +
        std::to_string(corpus) + " the model's context of " + std::to_string(context) +
        " leaves room for " + std::to_string(context - std::min(context, corpus + 1)));
  }
  const uint64_t room = context - corpus - tokens.size();
  if (request.max_tokens > room) {
    return InvalidArgumentError("max_tokens must be at most " + std::to_string(room) + ", not " +
                                std::to_string(request.max_tokens) + ": the model's context of " +
                                std::to_string(context) + " tokens has " + std::to_string(corpus) +
                                " of the corpus and " + std::to_string(tokens.size()) +
                                " of the question");
  }
  *max_tokens = request.max_tokens == 0
                    ? static_cast<uint32_t>(std::min<uint64_t>(request.max_tokens_if_room, room))
                    : request.max_tokens;
  return tokens;
}

Result<std::unique_ptr<KvSequence>> LlamaEngine::Recompute(std::span<const TokenId> tokens,
                                                           const KvLayout& layout,
                                                           const std::stop_token& stop) {
  auto kv = std::make_unique<KvSequence>(layout.OfBlocks());
  ASSIGN_OR_RETURN(const auto scratch,
                   ForwardScratch::Create(*backend_, model_->config(),
                                          static_cast<uint32_t>(std::min<size_t>(
                                              kRunTokens, std::max<size_t>(tokens.size(), 1)))));
  for (size_t first = 0; first < tokens.size(); first += kRunTokens) {
    const auto run = tokens.subspan(first, std::min<size_t>(kRunTokens, tokens.size() - first));
    RETURN_IF_ERROR(ComputeRun(context(), run, *kv, *scratch, ComputePriority::kPrefill, stop));
  }
  return kv;
}

Result<GenerationReport> LlamaEngine::AnswerOver(const Question& question, KvSequence& kv,
                                                 QuestionReport* report) {
  const double before_ms = SecondsSince(question.start) * 1e3;
  auto generated = Generate(context(), *batcher_, *tokenizer_, *chat_, kv, question.generation,
                            question.sink, question.stop);
  if (generated.ok()) report->first_token_ms = before_ms + generated->first_token_ms;
  report->attended_tokens = kv.tokens();
  return generated;
}

Result<GenerationReport> LlamaEngine::AnswerFromScratch(const Question& question,
                                                        QuestionReport* report) {
  ASSIGN_OR_RETURN(const auto tokens, store_->CorpusTokens(question.record.name));
  ASSIGN_OR_RETURN(const auto recomputed, Recompute(tokens, question.layout, question.stop));
  report->recomputed_tokens = tokens.size();
  // A question's own tokens are bf16 pages behind the corpus's pages, whether those were read or
  // recomputed: the same page list, so the same bits.
  KvSequence kv(question.layout);
  std::vector<std::vector<KvSequence::OwnBlock>> parts;
  for (uint32_t p = 0; p < recomputed->parts(); ++p) parts.push_back(recomputed->OwnBlocks(p));
  std::vector<const std::byte*> others(parts.size() - 1);
  for (size_t i = 0; i < parts.front().size(); ++i) {
    for (size_t p = 1; p < parts.size(); ++p) others[p - 1] = parts[p][i].bytes.data();
    kv.AddShared({parts[0][i].bytes.data(), parts[0][i].tokens, 0, others});
  }
  return AnswerOver(question, kv, report);
}

Result<GenerationReport> LlamaEngine::AnswerOnDevice(const Question& question,
                                                     QuestionReport* report) {
  const CorpusRecord& record = question.record;
  report->cached_tokens = record.tokens;
  std::vector<DeviceRef> placed = store_->OnDevice(record.chain);
  const auto there = [](const DeviceRef& ref) { return ref.held != nullptr; };
  if (std::all_of(placed.begin(), placed.end(), there)) {
    LocalPages local;
    FetchStats stats;
    ASSIGN_OR_RETURN(const bool seen, local.Fetch(*store_, question.layout, record.chain,
                                                  record.durable_tokens, &stats));
    if (seen) {
      RETURN_IF_ERROR(local.Place(*backend_));
      for (const DeviceRef& ref : placed) report->device_bytes += ref.bytes;
      report->host_bytes = stats.host_bytes;
      report->disk_bytes = stats.disk_bytes;
      return AnswerOver(question, *SequenceOnDevice(placed, question.layout, local), report);
    }
  }
  ASSIGN_OR_RETURN(const auto tokens, store_->CorpusTokens(record.name));
  Result<LeasedCorpus> whole = LeaseWhole(context(), *store_, record, question.layout, tokens,
                                          ComputePriority::kQuestion, question.stop);
  if (!whole.ok() && store_->write_gate().state().read_only) {
    report->cached_tokens = 0;
    return AnswerFromScratch(question, report);
  }
  ASSIGN_OR_RETURN(LeasedCorpus leased, std::move(whole));
  PlaceOnDevice(context(), *store_, record.chain, leased.refs, question.stop, &leased.placed);
  report->recomputed_tokens = leased.recomputed_tokens;
  report->cached_tokens = record.tokens - std::min(record.tokens, leased.recomputed_tokens);
  report->load_ms = SecondsSince(question.start) * 1e3;
  report->host_bytes = leased.stats.host_bytes;
  report->disk_bytes = leased.stats.disk_bytes;
  RETURN_IF_ERROR(leased.local.Place(*backend_));
  const auto kv = SequenceOver(leased.refs, question.layout, leased.placed, &leased.local);
  return AnswerOver(question, *kv, report);
}

Result<GenerationReport> LlamaEngine::AnswerInTurn(const Question& question,
                                                   QuestionReport* report) {
  const CorpusRecord& record = question.record;
  const size_t leased_max =
      LeasedBlocksMax(*backend_, *store_, question.layout, record.chain.size());
  bool told = false;
  const AnswerSink sink = [&](const AnswerDelta& delta) {
    told = true;
    return question.sink(delta);
  };
  const Question observed = {record, question.layout, question.generation,
                             sink,   question.stop,   question.start};
  report->cached_tokens = record.tokens;
  for (int attempt = 0;; ++attempt) {
    HistoryInTurn history;
    history.leased_max = leased_max;
    Result<GenerationReport> generated = InternalError("not answered");
    auto kv = SequenceInTurn(*store_, record, question.layout, &history);
    report->load_ms = SecondsSince(question.start) * 1e3;
    if (kv.ok()) {
      generated = AnswerOver(observed, **kv, report);
    } else {
      generated = kv.status();
    }
    report->host_bytes += history.leased.stats.host_bytes;
    report->disk_bytes += history.leased.stats.disk_bytes;
    if (history.reader != nullptr) report->disk_bytes += history.reader->reads().bytes;
    // What has been told is not taken back.
    if (!IsDamage(generated.status()) || told || attempt == kMendsMax) return generated;
    ASSIGN_OR_RETURN(const uint64_t recomputed, Mend(record, question.layout, question.stop));
    report->recomputed_tokens += recomputed;
    report->cached_tokens = record.tokens - std::min(record.tokens, report->recomputed_tokens);
  }
}

Result<GenerationReport> LlamaEngine::AnswerFromStore(const Question& question,
                                                      QuestionReport* report) {
  const CorpusRecord& record = question.record;
  const size_t blocks = record.chain.size();
  if (const auto leader = this->leader(); leader != nullptr && leader->Spreads(blocks)) {
    auto answered = AnswerOverRanks(leader, question, report);
    if (answered) return *std::move(answered);
  }
  if (!backend_->host_addressable()) return AnswerOnDevice(question, report);
  if (blocks > LeasedBlocksMax(*backend_, *store_, question.layout, blocks)) {
    return AnswerInTurn(question, report);
  }
  FetchStats stats;
  report->cached_tokens = record.tokens;
  Result<GenerationReport> generated = CorruptionError("a block is damaged or missing");
  {
    PrefetchOptions options;
    options.stop = question.stop;
    ASSIGN_OR_RETURN(auto arriving, PrefetchCorpus(*store_, record, question.layout, options));
    if (arriving.Whole()) {
      const auto kv = SequenceOver(arriving, question.layout);
      generated = AnswerOver(question, *kv, report);
    }
    // All is there, or the answer failed or was cancelled: only the counts are of interest.
    (void)arriving.Finish(&stats);
  }
  if (IsDamage(generated.status())) {
    ASSIGN_OR_RETURN(const auto tokens, store_->CorpusTokens(record.name));
    Result<LeasedCorpus> mended = LeaseWhole(context(), *store_, record, question.layout, tokens,
                                             ComputePriority::kQuestion, question.stop);
    if (!mended.ok() && store_->write_gate().state().read_only) {
      // What is damaged cannot be written again now; an answer does not need it to be.
      report->cached_tokens = 0;
      return AnswerFromScratch(question, report);
    }
    ASSIGN_OR_RETURN(const LeasedCorpus leased, std::move(mended));
    stats.waited_seconds += leased.stats.waited_seconds;
    stats.device_bytes += leased.stats.device_bytes;
    stats.disk_bytes += leased.stats.disk_bytes;
    report->recomputed_tokens = leased.recomputed_tokens;
    report->cached_tokens = record.tokens - std::min(record.tokens, leased.recomputed_tokens);
    const auto kv = SequenceOver(leased.refs, question.layout, {}, &leased.local);
    generated = AnswerOver(question, *kv, report);
  }
  report->load_ms = stats.waited_seconds * 1e3;
  report->device_bytes = stats.device_bytes;
  report->host_bytes = stats.host_bytes;
  report->disk_bytes = stats.disk_bytes;
  return generated;
}

Result<QuestionReport> LlamaEngine::Ask(const QuestionRequest& request, const AnswerSink& sink,
                                        std::stop_token stop) {
  if (request.corpus.empty()) return AskPlain(request, sink, stop);
  const auto start = std::chrono::steady_clock::now();
  RETURN_IF_ERROR(CheckAnswerOptions(request.answers));
  ASSIGN_OR_RETURN(const CorpusRecord record, store_->GetCorpus(request.corpus));
  if (record.state != CorpusState::kReady) {
    return NotReadyError("corpus '" + record.name + "' is " +
                         std::string(CorpusStateText(record.state)) + " (" +
                         std::to_string(record.durable_tokens) + " of " +
                         std::to_string(record.tokens) + " tokens): corpusctl wait " + record.name);
  }
  ASSIGN_OR_RETURN(KvLayout layout, LayoutOfRecord(record));
  if (!record.chain.empty()) {
    RETURN_IF_ERROR(AddSinks(
        record.chain.front(), ComputePriority::kQuestion, stop,
        [&]() -> Result<std::vector<TokenId>> {
          ASSIGN_OR_RETURN(const auto tokens, store_->CorpusTokens(record.name));
          const auto first = FirstTokens(record, tokens);
          return std::vector<TokenId>(first.begin(), first.end());
        },
        &layout));
  }
  GenerationRequest generation;
  ASSIGN_OR_RETURN(const auto prompt, QuestionTokens(record, request, &generation.max_tokens));
  generation.prompt = prompt;
  generation.question = chat_->QuestionWords(prompt);
  generation.answers = request.answers;
  generation.on_prompt = request.on_prompt;

  QuestionReport report;
  report.prompt_tokens = record.tokens + prompt.size();
  Result<GenerationReport> answered = InternalError("not answered");
  if (IsSegmented(record)) {
    report.first_token_ms = SecondsSince(start) * 1e3;
    answered = segmented_->Answer({record, layout, request, generation, sink, stop}, &report);
  } else {
    const auto answer =
        request.no_cache ? &LlamaEngine::AnswerFromScratch : &LlamaEngine::AnswerFromStore;
    answered = (this->*answer)({record, layout, generation, sink, stop, start}, &report);
  }
  ASSIGN_OR_RETURN(GenerationReport generated, std::move(answered));
  // Use is noted at leisure: an answer is not refused for it.
  (void)store_->NoteUse(record.name);
  ReportGenerated(std::move(generated), start, &report);
  if (options_.observer != nullptr) options_.observer->OnAnswer(report);
  return report;
}

}  // namespace corpusd
