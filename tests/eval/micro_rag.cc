#include "tests/eval/micro_rag.h"

#include <algorithm>

#include "store/base/check.h"

namespace corpusd {
namespace {

LongAnswer AnswerOf(const PromptAnswer& prompt, const FlopModel& flop) {
  LongAnswer answer;
  answer.text = prompt.text;
  answer.first_token_ms = prompt.first_token_ms;
  answer.total_ms = prompt.total_ms;
  answer.computed_tokens = prompt.prompt_tokens;
  answer.attended_tokens = prompt.prompt_tokens;
  answer.prefill_flop = flop.Prefill(prompt.prompt_tokens, 0);
  return answer;
}

class RagSystem final : public LongSystem {
 public:
  RagSystem(PromptAnswerer& answerer, ChunkedCorpus& chunks, const FlopModel& flop,
            RagSettings settings)
      : answerer_(answerer), chunks_(chunks), flop_(flop), settings_(settings) {}

  std::string name() const override {
    return "rag " + std::to_string(chunks_.chunk_tokens()) + "x" + std::to_string(settings_.chunks);
  }
  size_t questions_max() const override { return settings_.questions_max; }
  Result<bool> Prepare(const LongCorpus& corpus) override {
    chunks_.Load(corpus);
    return true;
  }

  Result<LongAnswer> Ask(const LongCorpus& corpus, const LongQuestion& question) override {
    const auto start = std::chrono::steady_clock::now();
    const std::vector<size_t> best = chunks_.Search(question.text);
    std::string text;
    for (size_t i = std::min<size_t>(best.size(), settings_.chunks); i-- > 0;) {
      text += chunks_.chunk(best[i]) + "\n\n";
    }
    const double select_ms =
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    ASSIGN_OR_RETURN(const PromptAnswer prompt,
                     answerer_.Answer(text, question.text, settings_.answer_tokens));
    LongAnswer answer = AnswerOf(prompt, flop_);
    answer.select_ms = select_ms;
    answer.first_token_ms += select_ms;
    answer.total_ms += select_ms;
    answer.ranked = true;
    const ChunkedCorpus::Holders holders = chunks_.FindHolders(corpus, question);
    const auto inside = [](const TokenSpan& span, size_t at) {
      return at >= span.first && at < span.end;
    };
    for (size_t rank = 0; rank < best.size(); ++rank) {
      if (!answer.rank && inside(holders.answer, best[rank])) answer.rank = rank;
      if (!answer.line_rank && inside(holders.line, best[rank])) answer.line_rank = rank;
    }
    return answer;
  }

 private:
  PromptAnswerer& answerer_;
  ChunkedCorpus& chunks_;
  const FlopModel flop_;
  const RagSettings settings_;
};

class BlockAloneSystem final : public LongSystem {
 public:
  BlockAloneSystem(PromptAnswerer& answerer, TokenCoder coder, const FlopModel& flop,
                   uint32_t answer_tokens)
      : answerer_(answerer), coder_(std::move(coder)), flop_(flop), answer_tokens_(answer_tokens) {}

  std::string name() const override { return "right block alone"; }
  Result<bool> Prepare(const LongCorpus& /*corpus*/) override { return true; }

  Result<LongAnswer> Ask(const LongCorpus& corpus, const LongQuestion& question) override {
    constexpr size_t kTokens = 128;
    const std::vector<TokenId> tokens = coder_.encode(corpus.documents[question.document].text);
    const auto place = FindLine(coder_, tokens, question.line, question.answer);
    CHECK(place.has_value()) << question.line;
    const size_t middle = (place->line.first + place->line.end) / 2;
    const size_t last_start = tokens.size() - std::min(tokens.size(), kTokens);
    const size_t first = std::min(middle - std::min(middle, kTokens / 2), last_start);
    const auto stretch = std::span(tokens).subspan(first, std::min(kTokens, tokens.size() - first));
    ASSIGN_OR_RETURN(const PromptAnswer prompt,
                     answerer_.Answer(coder_.Decode(stretch), question.text, answer_tokens_));
    return AnswerOf(prompt, flop_);
  }

 private:
  PromptAnswerer& answerer_;
  const TokenCoder coder_;
  const FlopModel flop_;
  const uint32_t answer_tokens_;
};

}  // namespace

void ChunkedCorpus::Load(const LongCorpus& corpus) {
  const std::string name = corpus.Name() + " " + std::to_string(corpus.length) + " " +
                           std::to_string(corpus.seed) + " " + std::to_string(corpus.tokens);
  if (loaded_ == &corpus && loaded_name_ == name) return;
  loaded_ = &corpus;
  loaded_name_ = name;
  chunks_.clear();
  first_chunk_.clear();
  for (const LongDocument& document : corpus.documents) {
    first_chunk_.push_back(chunks_.size());
    const std::vector<TokenId> tokens = coder_.encode(document.text);
    for (size_t first = 0; first < tokens.size(); first += chunk_tokens_) {
      chunks_.push_back(coder_.Decode(std::span(tokens).subspan(
          first, std::min<size_t>(chunk_tokens_, tokens.size() - first))));
    }
  }
  index_ = std::make_unique<Bm25Index>(chunks_);
}

ChunkedCorpus::Holders ChunkedCorpus::FindHolders(const LongCorpus& corpus,
                                                  const LongQuestion& question) const {
  CHECK(loaded_ == &corpus);
  const std::vector<TokenId> tokens = coder_.encode(corpus.documents[question.document].text);
  const auto place = FindLine(coder_, tokens, question.line, question.answer);
  CHECK(place.has_value()) << question.line;
  const auto chunks = [&](const TokenSpan& span) {
    const size_t first = first_chunk_[question.document];
    return TokenSpan{first + span.first / chunk_tokens_,
                     first + (span.end - 1) / chunk_tokens_ + 1};
  };
  return {chunks(place->line), chunks(place->answer)};
}

std::unique_ptr<LongSystem> MakeRagSystem(PromptAnswerer& answerer, ChunkedCorpus& chunks,
                                          const FlopModel& flop, RagSettings settings) {
  return std::make_unique<RagSystem>(answerer, chunks, flop, settings);
}

std::unique_ptr<LongSystem> MakeBlockAloneSystem(PromptAnswerer& answerer, TokenCoder coder,
                                                 const FlopModel& flop, uint32_t answer_tokens) {
  return std::make_unique<BlockAloneSystem>(answerer, std::move(coder), flop, answer_tokens);
}

}  // namespace corpusd
