// Texts and token ids for callers, conversations, and answers without a corpus.
#include <algorithm>

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

Result<QuestionReport> LlamaEngine::AskPlain(const QuestionRequest& request,
                                             const std::function<bool(std::string_view)>& sink,
                                             const std::stop_token& stop) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<ChatMessage> messages = request.messages;
  if (messages.empty()) messages.push_back({"user", request.question});
  const std::vector<TokenId> prompt =
      request.raw ? Tokenize(request.question, false) : chat_->Conversation(messages);
  const uint64_t room = summary_.context_tokens;
  if (prompt.empty()) return InvalidArgumentError("the prompt has no tokens");
  if (prompt.size() + 1 > room) {
    return InvalidArgumentError("the prompt has " + std::to_string(prompt.size()) +
                                " tokens, and the model's context is " + std::to_string(room));
  }
  GenerationRequest generation;
  generation.prompt = prompt;
  generation.max_tokens =
      static_cast<uint32_t>(std::min<uint64_t>(request.max_tokens, room - prompt.size()));
  generation.sampler = {request.temperature, request.top_p, request.seed};
  ASSIGN_OR_RETURN(const KvFormat own, model_->Format("bf16"));
  KvSequence kv(own, own);
  ASSIGN_OR_RETURN(const GenerationReport generated,
                   Generate(context(), *batcher_, *tokenizer_, *chat_, kv, generation, sink, stop));
  QuestionReport report;
  report.prompt_tokens = prompt.size();
  report.first_token_ms = generated.first_token_ms;
  report.attended_tokens = kv.tokens();
  ReportGenerated(generated, start, &report);
  return report;
}

void LlamaEngine::ReportGenerated(const GenerationReport& generated,
                                  std::chrono::steady_clock::time_point start,
                                  QuestionReport* report) {
  report->answer = generated.text;
  report->finish_reason = generated.finish_reason;
  report->completion_tokens = generated.tokens;
  report->queue_ms = generated.queue_ms;
  report->total_ms = SecondsSince(start) * 1e3;
  report->decode_tokens_per_s =
      generated.tokens > 1 ? (generated.tokens - 1) / generated.decode_seconds : 0;
}

}  // namespace corpusd
