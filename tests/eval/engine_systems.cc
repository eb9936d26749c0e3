// The systems of long_system.h that ask an engine.
#include <algorithm>
#include <chrono>

#include "store/base/sha256.h"
#include "store/corpus_chain.h"
#include "tests/eval/long_system.h"

namespace corpusd {
namespace {

// Eight hex digits that hang on every document: a corpus made of other texts has another name.
std::string DigestOf(std::span<const LongDocument> documents) {
  Sha256 hash;
  for (const LongDocument& document : documents) {
    hash.Update(document.path + "\n" + std::to_string(document.text.size()) + "\n");
    hash.Update(document.text);
  }
  return HexText(hash.Finish()).substr(0, 8);
}

// One kept corpus of the store for each name; its questions.
class EngineSystem : public LongSystem {
 public:
  EngineSystem(EngineBench& bench, std::string mode, std::string kv_format)
      : bench_(bench), mode_(std::move(mode)), kv_format_(std::move(kv_format)) {}
  double prepare_seconds() const override { return seconds_; }

  Result<bool> Prepare(const LongCorpus& corpus) override {
    return Ingest(corpus, corpus.documents, "");
  }

  Status Release() override {
    return bench_.keep ? OkStatus() : bench_.store.RemoveCorpus(record_.name);
  }

  Result<LongAnswer> Ask(const LongCorpus& corpus, const LongQuestion& question) override {
    QuestionRequest request = Request();
    request.corpus = record_.name;
    request.question = question.text;
    request.max_tokens = bench_.answer_tokens;
    ASSIGN_OR_RETURN(const QuestionReport report,
                     bench_.engine.Ask(request, [](std::string_view) { return true; }, {}));
    LongAnswer answer;
    answer.text = report.answer;
    answer.first_token_ms = report.first_token_ms;
    answer.total_ms = report.total_ms;
    answer.attended_tokens = report.attended_tokens;
    answer.disk_bytes = report.disk_bytes;
    answer.read_bytes = report.disk_bytes + report.host_bytes + report.device_bytes;
    answer.computed_tokens =
        report.prompt_tokens - std::min(report.prompt_tokens, report.cached_tokens);
    answer.prefill_flop = bench_.flop.Prefill(
        answer.computed_tokens,
        report.attended_tokens - std::min(report.attended_tokens, answer.computed_tokens));
    RETURN_IF_ERROR(ReadSelection(corpus, question, report, &answer));
    return answer;
  }

 protected:
  virtual QuestionRequest Request() const { return {}; }
  virtual Status ReadSelection(const LongCorpus& /*corpus*/, const LongQuestion& /*question*/,
                               const QuestionReport& /*report*/, LongAnswer* /*answer*/) {
    return OkStatus();
  }

  // Makes the documents a ready corpus, unless it is one already. False: they do not fit.
  Result<bool> Ingest(const LongCorpus& corpus, std::span<const LongDocument> documents,
                      const std::string& suffix) {
    const auto start = std::chrono::steady_clock::now();
    seconds_ = 0;
    CorpusRequest request;
    request.mode = mode_;
    request.kv_format = kv_format_;
    request.name = corpus.Name() + "-" + std::to_string(corpus.length) + "-s" +
                   std::to_string(corpus.seed) + "-" + mode_ + "-" + kv_format_ + suffix + "-" +
                   DigestOf(documents);
    auto stored = bench_.store.GetCorpus(request.name);
    if (!stored.ok()) {
      stored = Create(request, documents);
      const bool too_long = stored.status().code() == StatusCode::kInvalidArgument;
      if (too_long && mode_ == "exact") return false;
      RETURN_IF_ERROR(stored.status());
    }
    if (stored->state != CorpusState::kReady) {
      RETURN_IF_ERROR(bench_.engine.Prefill(request.name,
                                            [&](const PrefillProgress& progress) {
                                              if (bench_.progress)
                                                bench_.progress(request.name, progress);
                                            },
                                            {}));
      seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
    ASSIGN_OR_RETURN(record_, bench_.store.GetCorpus(request.name));
    ASSIGN_OR_RETURN(tokens_, bench_.store.CorpusTokens(request.name));
    return true;
  }

  Result<CorpusRecord> Create(const CorpusRequest& request,
                              std::span<const LongDocument> documents) {
    ASSIGN_OR_RETURN(auto tokenizer, bench_.engine.NewCorpusTokenizer("", false, 0));
    for (const LongDocument& document : documents) {
      tokenizer->BeginSource(document.path);
      tokenizer->Append(document.text);
      tokenizer->EndSource();
    }
    return bench_.engine.CreateCorpus(request, std::move(tokenizer));
  }

  EngineBench& bench_;
  const std::string mode_, kv_format_;
  CorpusRecord record_;
  std::vector<TokenId> tokens_;
  double seconds_ = 0;
};

class SegmentedSystem final : public EngineSystem {
 public:
  SegmentedSystem(EngineBench& bench, SegmentedSettings settings)
      : EngineSystem(bench, "segmented", settings.kv_format), settings_(std::move(settings)) {}

  std::string name() const override {
    return settings_.kv_format + " " +
           (settings_.retrieval.empty() ? "default" : settings_.retrieval) +
           (settings_.budget_tokens == 0 ? "" : " " + std::to_string(settings_.budget_tokens));
  }

 protected:
  QuestionRequest Request() const override {
    QuestionRequest request;
    request.retrieval = settings_.retrieval;
    request.budget_tokens = settings_.budget_tokens;
    return request;
  }

  Status ReadSelection(const LongCorpus& corpus, const LongQuestion& question,
                       const QuestionReport& report, LongAnswer* answer) override {
    if (!report.selection) {
      return FailedPreconditionError("the engine reports no selection over '" + record_.name + "'");
    }
    answer->select_ms = report.selection->select_ms;
    // The question's tokens go through the model twice: to choose, and to answer.
    answer->prefill_flop +=
        bench_.flop.Prefill(answer->computed_tokens, record_.sources[0].first_token);
    answer->cited = !report.citations.empty() &&
                    report.citations[0].source == corpus.documents[question.document].path;
    const CorpusSource& source = record_.sources[question.document];
    const auto place =
        FindLine(bench_.coder, std::span(tokens_).subspan(source.first_token, source.tokens),
                 question.line, question.answer);
    if (!place) return InternalError("'" + source.path + "' lacks '" + question.line + "'");
    const CorpusChain chain(record_, bench_.block_tokens);
    answer->ranked = true;
    const auto& top = report.selection->top_blocks;
    for (size_t rank = 0; rank < top.size(); ++rank) {
      if (top[rank] >= chain.blocks()) return InternalError("the engine chose an unknown block");
      const BlockSpan block = chain.block(top[rank]);
      const auto holds = [&](const TokenSpan& span) {
        const uint64_t first = source.first_token + span.first, end = source.first_token + span.end;
        return first < block.first_token + block.tokens && block.first_token < end;
      };
      if (!answer->rank && holds(place->answer)) answer->rank = rank;
      if (!answer->line_rank && holds(place->line)) answer->line_rank = rank;
    }
    return OkStatus();
  }

 private:
  const SegmentedSettings settings_;
};

class FullSystem final : public EngineSystem {
 public:
  FullSystem(EngineBench& bench, std::string kv_format)
      : EngineSystem(bench, "exact", std::move(kv_format)) {}
  std::string name() const override { return kv_format_ + " full attention"; }
};

class LastSystem final : public EngineSystem {
 public:
  LastSystem(EngineBench& bench, std::string kv_format, uint64_t tokens)
      : EngineSystem(bench, "exact", std::move(kv_format)), tokens_max_(tokens) {}
  std::string name() const override { return kv_format_ + " last " + std::to_string(tokens_max_); }

  Result<bool> Prepare(const LongCorpus& corpus) override {
    if (corpus.tokens <= tokens_max_) return false;
    std::vector<LongDocument> kept;
    uint64_t room = tokens_max_;
    for (size_t i = corpus.documents.size(); i-- > 0 && room > 0;) {
      LongDocument document = corpus.documents[i];
      const std::vector<TokenId> tokens = bench_.coder.encode(document.text);
      if (tokens.size() > room) {
        const std::string end = bench_.coder.Decode(std::span(tokens).last(room));
        const size_t line = end.find('\n');
        if (line == std::string::npos || line + 1 == end.size()) break;
        document.text = end.substr(line + 1);
        room = 0;
      } else {
        room -= tokens.size();
      }
      kept.insert(kept.begin(), std::move(document));
    }
    return Ingest(corpus, kept, "-last");
  }

 private:
  const uint64_t tokens_max_;
};

}  // namespace

double FlopModel::Prefill(uint64_t tokens, uint64_t past) const {
  const auto n = static_cast<double>(tokens), before = static_cast<double>(past);
  return n * token + attention * (n * before + n * (n + 1) / 2) + head;
}

std::unique_ptr<LongSystem> MakeSegmentedSystem(EngineBench& bench, SegmentedSettings settings) {
  return std::make_unique<SegmentedSystem>(bench, std::move(settings));
}

std::unique_ptr<LongSystem> MakeFullSystem(EngineBench& bench, std::string kv_format) {
  return std::make_unique<FullSystem>(bench, std::move(kv_format));
}

std::unique_ptr<LongSystem> MakeLastSystem(EngineBench& bench, std::string kv_format,
                                           uint64_t tokens) {
  return std::make_unique<LastSystem>(bench, std::move(kv_format), tokens);
}

}  // namespace corpusd
