// Texts and token ids for callers, conversations, and answers without a corpus.
#include <algorithm>
#include <utility>

#include "engine/llama_engine.h"

namespace corpusd {

std::vector<TokenId> LlamaEngine::Tokenize(std::string_view text, bool parse_special) const {
  std::vector<TokenId> ids;
  tokenizer_->Encode(text, parse_special, &ids);
  return ids;
}

Result<std::string> LlamaEngine::Detokenize(std::span<const TokenId> ids) const {
  for (const TokenId id : ids) {
    if (id >= tokenizer_->vocabulary()) {
      return InvalidArgumentError("token " + std::to_string(id) + " is not in the vocabulary of " +
                                  std::to_string(tokenizer_->vocabulary()) + " tokens");
    }
  }
  return tokenizer_->Decode(ids);
}

std::vector<TokenId> LlamaEngine::SuffixOf(const QuestionRequest& request) const {
  if (request.raw) return Tokenize(request.question, false);
  if (!request.messages.empty()) return chat_->ConversationSuffix(request.messages);
  return chat_->QuestionSuffix(request.question);
}

Result<QuestionReport> LlamaEngine::AskPlain(const QuestionRequest& request, const AnswerSink& sink,
                                             const std::stop_token& stop) {
  const auto start = std::chrono::steady_clock::now();
  RETURN_IF_ERROR(CheckAnswerOptions(request.answers));
  std::vector<ChatMessage> messages = request.messages;
  if (messages.empty()) messages.push_back({"user", request.question});
  const std::vector<TokenId> prompt =
      request.raw ? Tokenize(request.question, false) : chat_->Conversation(messages);
  const uint64_t context_tokens = summary_.context_tokens;
  if (prompt.empty()) return InvalidArgumentError("the prompt has no tokens");
  if (prompt.size() + 1 > context_tokens) {
    return InvalidArgumentError("the prompt has " + std::to_string(prompt.size()) +
                                " tokens, and the model's context is " +
                                std::to_string(context_tokens));
  }
  const uint64_t room = context_tokens - prompt.size();
  if (request.max_tokens > room) {
    return InvalidArgumentError("max_tokens must be at most " + std::to_string(room) + ", not " +
                                std::to_string(request.max_tokens) + ": the model's context of " +
                                std::to_string(context_tokens) + " tokens has " +
                                std::to_string(prompt.size()) + " of the prompt");
  }
  GenerationRequest generation;
  generation.question = prompt;
  generation.max_tokens =
      request.max_tokens == 0
          ? static_cast<uint32_t>(std::min<uint64_t>(request.max_tokens_if_room, room))
          : request.max_tokens;
  generation.answers = request.answers;
  ASSIGN_OR_RETURN(const KvFormat own, model_->Format("bf16"));
  KvSequence kv(own, own);
  QuestionReport report;
  report.prompt_tokens = prompt.size();
  std::vector<Digest> chain;
  if (!request.no_cache) {
    const std::string salt = SaltOf(options_.tenant_salt, request.tenant);
    chain = prompts_->ChainOf(PromptRoot(salt, request.cache_salt), prompt);
    report.cached_tokens = prompts_->Find(chain, prompt.size(), &kv);
    report.host_bytes = kv.bytes();
  }
  generation.prompt = std::span(prompt).subspan(report.cached_tokens);
  // Run by run: the like prompt that comes meanwhile finds them, too, and so does one that comes
  // after this was cancelled.
  generation.on_prompt = [&](const PromptProgress& progress) {
    prompts_->Keep(
        request.tenant,
        std::span(chain).first(std::min(chain.size(), progress.done_tokens / kRunTokens)), kv);
    if (request.on_prompt) request.on_prompt(progress);
  };
  const double before_ms = SecondsSince(start) * 1e3;
  ASSIGN_OR_RETURN(GenerationReport generated,
                   Generate(context(), *batcher_, *tokenizer_, *chat_, kv, generation, sink, stop));
  report.first_token_ms = before_ms + generated.first_token_ms;
  report.attended_tokens = kv.tokens();
  ReportGenerated(std::move(generated), start, &report);
  if (options_.observer != nullptr) options_.observer->OnAnswer(report);
  return report;
}

void LlamaEngine::ReportGenerated(GenerationReport generated,
                                  std::chrono::steady_clock::time_point start,
                                  QuestionReport* report) {
  for (const GeneratedAnswer& answer : generated.answers) {
    report->completion_tokens += answer.tokens;
  }
  report->queue_ms = generated.queue_ms;
  report->total_ms = SecondsSince(start) * 1e3;
  const uint64_t first_tokens = generated.answers.size();
  if (report->completion_tokens > first_tokens) {
    report->decode_tokens_per_s =
        static_cast<double>(report->completion_tokens - first_tokens) / generated.decode_seconds;
  }
  report->answer = generated.answers.front().text;
  report->finish_reason = generated.answers.front().finish_reason;
  report->answers = std::move(generated.answers);
}

}  // namespace corpusd
